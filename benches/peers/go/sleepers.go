// Goroutines that sleep, as `tasks --sleepers` counts those of others: bytes of each, time to wake all, how late a ticker was.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func resident() float64 {
	text, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * 4096
}

func cpu() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

const before = 20 * time.Second

func main() {
	count, _ := strconv.Atoi(os.Args[1])
	longest := make(chan chan time.Duration)
	go func() {
		var most time.Duration
		last := time.Now()
		ticker := time.NewTicker(time.Millisecond)
		for {
			select {
			case now := <-ticker.C:
				if now = time.Now(); now.Sub(last) > most {
					most = now.Sub(last)
				}
				last = time.Now()
			case answer := <-longest:
				answer <- most
				most, last = 0, time.Now()
			}
		}
	}()
	ask := func() time.Duration {
		answer := make(chan time.Duration)
		longest <- answer
		return <-answer
	}
	memory, cpuBefore := resident(), cpu()
	deadline := time.Now().Add(before)
	var left sync.WaitGroup
	left.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			time.Sleep(time.Until(deadline))
			left.Done()
		}()
	}
	time.Sleep(time.Second)
	spawning, longestSpawning := cpu()-cpuBefore, ask()
	bytes := (resident() - memory) / float64(count)
	time.Sleep(time.Until(deadline) - 20*time.Millisecond)
	cpuBefore = cpu()
	left.Wait()
	woken, waking := time.Since(deadline), cpu()-cpuBefore
	millis := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	fmt.Printf("%.0f 0 %.1f %.2f %.1f %.1f %.2f\n", bytes, millis(spawning), millis(longestSpawning), millis(woken), millis(waking), millis(ask()))
}
