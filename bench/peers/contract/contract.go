// Package contract plays the roles of a peer's program, as ../README.md describes them: setup, submit and work.
package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Args of a job, with the moment in which they were made.
type Args struct {
	N    int     `json:"n"`
	Sent float64 `json:"sent"`
	Pad  string  `json:"pad"`
}

// Kind is the name of the task.
func (Args) Kind() string { return "echo" }

// Submitter puts jobs into the queue. Many is called by Streams goroutines with Chunk jobs each.
type Submitter struct {
	Streams, Chunk int
	Many           func([]Args) error
	One            func(Args) error
}

// Peer is a job library.
type Peer struct {
	Setup  func(url string) error
	Submit func(url string) (*Submitter, error)
	// Work prepares a worker that calls completed for each job; the returned function starts it.
	Work func(url string, count int, completed func(Args)) (start func() error, err error)
}

// Now is the time in seconds since the epoch.
func Now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// Play plays the role that the command line names.
func (p Peer) Play() {
	if err := p.play(os.Args[1], os.Getenv("PEER_URL")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (p Peer) play(role, url string) error {
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(os.Args[2+i])
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	count, bytes, rate := numbers[0], numbers[1], numbers[2]
	input := bufio.NewReader(os.Stdin)
	ready := func() { fmt.Println("ready"); _, _ = input.ReadString('\n') }
	finish := func(result map[string]any) {
		text, _ := json.Marshal(result)
		fmt.Println(string(text))
		_, _ = io.Copy(io.Discard, input)
	}
	switch role {
	case "setup":
		if err := p.Setup(url); err != nil {
			return err
		}
		fmt.Println("ready")
	case "submit":
		submitter, err := p.Submit(url)
		if err != nil {
			return err
		}
		ready()
		begun := Now()
		if rate > 0 {
			err = submitter.steadily(count, bytes, rate)
		} else {
			err = submitter.all(count, bytes)
		}
		if err != nil {
			return err
		}
		finish(map[string]any{"begun": begun, "ended": Now()})
	case "work":
		var lock sync.Mutex
		latencies := make([]float64, 0, count)
		finished := make(chan struct{})
		start, err := p.Work(url, count, func(args Args) {
			took := (Now() - args.Sent) * 1e3
			lock.Lock()
			defer lock.Unlock()
			if latencies = append(latencies, took); len(latencies) == count {
				close(finished)
			}
		})
		if err != nil {
			return err
		}
		ready()
		begun := Now()
		if err := start(); err != nil {
			return err
		}
		fmt.Println("working")
		<-finished
		finish(map[string]any{"begun": begun, "ended": Now(), "latencies_ms": latencies})
	default:
		return fmt.Errorf("there is no role %q", role)
	}
	return nil
}

func maker(bytes int) func(n int) Args {
	empty, _ := json.Marshal(Args{N: 10_000, Sent: Now()})
	pad := strings.Repeat("x", max(0, bytes-len(empty)))
	return func(n int) Args { return Args{N: n, Sent: Now(), Pad: pad} }
}

func (s *Submitter) all(count, bytes int) error {
	args := maker(bytes)
	chunks := make(chan [2]int)
	errs := make(chan error, s.Streams)
	for range s.Streams {
		go func() {
			var failed error
			for chunk := range chunks {
				jobs := make([]Args, 0, chunk[1]-chunk[0])
				for n := chunk[0]; n < chunk[1]; n++ {
					jobs = append(jobs, args(n))
				}
				if err := s.Many(jobs); err != nil && failed == nil {
					failed = err
				}
			}
			errs <- failed
		}()
	}
	for first := 0; first < count; first += s.Chunk {
		chunks <- [2]int{first, min(count, first+s.Chunk)}
	}
	close(chunks)
	return firstOf(errs, s.Streams)
}

func (s *Submitter) steadily(count, bytes, rate int) error {
	args := maker(bytes)
	errs := make(chan error, count)
	begun := time.Now()
	for n := range count {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		go func() { errs <- s.One(args(n)) }()
	}
	return firstOf(errs, count)
}

func firstOf(errs <-chan error, count int) error {
	var first error
	for range count {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
