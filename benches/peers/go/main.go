// Go's net/http with GOMAXPROCS workers: the three routes of the HTTP peers.
//
// Build and run: go build -o http-go ./benches/peers/go && ./http-go --port 8080 --workers 1
// It does not pin itself: start it with taskset(1) or inherit the affinity. net/http sets TCP_NODELAY on every
// connection, raises the limit of open files to the hard one, and listens with a backlog of net.core.somaxconn.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
)

const bodyBytesMax = 16 << 20

type message struct {
	Message string `json:"message"`
}

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	workers := flag.Int("workers", 1, "GOMAXPROCS")
	flag.Parse() // ends with status 2 for what it does not know
	if *port < 1 || *port > 65535 || *workers < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: --port P [--workers N]")
		os.Exit(2)
	}
	runtime.GOMAXPROCS(*workers)

	http.HandleFunc("/plaintext", only(http.MethodGet, plaintext))
	http.HandleFunc("/json", only(http.MethodGet, hello))
	http.HandleFunc("/echo", only(http.MethodPost, echo))
	err := http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func only(method string, handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			http.Error(w, "", http.StatusMethodNotAllowed)
			return
		}
		handler(w, r)
	}
}

func plaintext(w http.ResponseWriter, _ *http.Request) {
	answer(w, "text/plain", []byte("Hello, World!"))
}

func hello(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(message{Message: "Hello, World!"})
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	answer(w, "application/json", body)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	answer(w, "application/octet-stream", body)
}

func answer(w http.ResponseWriter, kind string, body []byte) {
	header := w.Header()
	header.Set("Server", "go")
	header.Set("Content-Type", kind)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	// A client that hangs up in the middle is no news here.
	_, _ = w.Write(body)
}
