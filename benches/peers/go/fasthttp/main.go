// fasthttp with GOMAXPROCS workers: the three routes of the HTTP peers.
//
// Build and run: benches/peers/go/fasthttp/build http-fasthttp && ./http-fasthttp --port 8080 --workers 1
// It does not pin itself: start it with taskset(1) or inherit the affinity.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/valyala/fasthttp"
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

	server := &fasthttp.Server{
		Handler:            handle,
		Name:               "fasthttp",
		MaxRequestBodySize: bodyBytesMax,
	}
	err := server.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func handle(ctx *fasthttp.RequestCtx) {
	switch path := string(ctx.Path()); {
	case path == "/plaintext" && ctx.IsGet():
		ctx.SetContentType("text/plain")
		ctx.SetBodyString("Hello, World!")
	case path == "/json" && ctx.IsGet():
		body, err := json.Marshal(message{Message: "Hello, World!"})
		if err != nil {
			ctx.Error("", fasthttp.StatusInternalServerError)
			return
		}
		ctx.SetContentType("application/json")
		ctx.SetBody(body)
	case path == "/echo" && ctx.IsPost():
		ctx.SetContentType("application/octet-stream")
		ctx.SetBody(ctx.PostBody())
	case path == "/plaintext" || path == "/json" || path == "/echo":
		ctx.Error("", fasthttp.StatusMethodNotAllowed)
	default:
		ctx.Error("", fasthttp.StatusNotFound)
	}
}
