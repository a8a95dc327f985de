// Go's channels in the shapes of `channels`: CPU and wall time of each value, between two goroutines on one or two threads.
//
//	go build -o channels-go go/channels.go && ./channels-go
package main

import (
	"fmt"
	"runtime"
	"sort"
	"syscall"
	"time"
)

const (
	burst  = 64
	flood  = 1024
	rounds = 9
)

func cpu() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Bursts of values, each answered by one value.
func bursts(count, values, capacity int) {
	there, back := make(chan uint64, capacity), make(chan uint64, capacity)
	go func() {
		for b := 0; b < count; b++ {
			var sum uint64
			for v := 0; v < values; v++ {
				sum += <-there
			}
			back <- sum
		}
	}()
	for b := 0; b < count; b++ {
		for v := 0; v < values; v++ {
			there <- uint64(b + v)
		}
		<-back
	}
}

// All one way, as fast as it goes.
func floods(values int) {
	there, done := make(chan uint64, flood), make(chan struct{})
	go func() {
		for v := 0; v < values; v++ {
			<-there
		}
		close(done)
	}()
	for v := 0; v < values; v++ {
		there <- uint64(v)
	}
	<-done
}

type shape struct {
	name    string
	threads int
	values  int
	run     func()
}

func main() {
	shapes := []shape{
		{"one thread, ping-pong: Go", 1, 200_000, func() { bursts(100_000, 1, 1) }},
		{"one thread, bursts of 64: Go", 1, 650_000, func() { bursts(10_000, burst, burst) }},
		{"two threads, ping-pong: Go", 2, 20_000, func() { bursts(10_000, 1, 1) }},
		{"two threads, bursts of 64: Go", 2, 650_000, func() { bursts(10_000, burst, burst) }},
		{"two threads, flood: Go", 2, 1_000_000, func() { floods(1_000_000) }},
	}
	fmt.Printf("%-42s%10s%10s\n", "per value", "cpu ns", "wall ns")
	for _, s := range shapes {
		runtime.GOMAXPROCS(s.threads)
		var used, took []float64
		for r := 0; r < rounds; r++ {
			before, began := cpu(), time.Now()
			s.run()
			took = append(took, float64(time.Since(began).Nanoseconds())/float64(s.values))
			used = append(used, float64((cpu()-before).Nanoseconds())/float64(s.values))
		}
		sort.Float64s(used)
		sort.Float64s(took)
		fmt.Printf("%-42s%10.1f%10.1f\n", s.name, used[rounds/2], took[rounds/2])
	}
}
