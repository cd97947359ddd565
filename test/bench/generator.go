// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// plan is what the load generator is asked to do.
type plan struct {
	addr, path string
	conns      int
	rate       int // requests a second over all connections; 0: as many as it can
	duration   time.Duration
}

// spinTime is how long before a request is due its connection stops to sleep, so that it leaves in time
// whatever waking up costs. At 1 000 requests/s that is a tenth of one CPU, the same with and without the
// agent; above spinRate it would be too much, and the wake-up is part of the latency.
const (
	spinTime = 100 * time.Microsecond
	spinRate = 2000
)

// answerTime bounds the wait for one answer.
const answerTime = 10 * time.Second

// slots are the moments at which requests are due: one in each interval of 1/rate, at a random place in
// it, the same for each run. That is an open loop: no request waits for an answer, so that a server that
// stalls is charged with all that would have come in the meantime.
func slots(rate int, duration time.Duration) []time.Duration {
	random := rand.New(rand.NewPCG(1, 2))
	n := int(int64(rate) * int64(duration) / int64(time.Second))
	due := make([]time.Duration, n)
	for i := range due {
		due[i] = time.Duration((float64(i) + random.Float64()) / float64(rate) * float64(time.Second))
	}
	return due
}

// loadMain is the load generator. Each connection has a thread that blocks in system calls, without the
// Go scheduler or its timers between the server and the clock: those wake up up to a millisecond late.
func loadMain(args []string) error {
	var p plan
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&p.addr, "addr", "", "")
	flags.StringVar(&p.path, "path", "/", "")
	flags.IntVar(&p.conns, "conns", 1, "")
	flags.IntVar(&p.rate, "rate", 0, "")
	flags.DurationVar(&p.duration, "duration", time.Second, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// Threads keep their P in a system call, and nothing stops the world: there is one for each, and no
	// garbage is collected.
	runtime.GOMAXPROCS(p.conns + 2)
	debug.SetGCPercent(-1)

	var due []time.Duration
	if p.rate > 0 {
		due = slots(p.rate, p.duration)
	}
	callers := make([]*caller, p.conns)
	for i := range callers {
		c, err := newCaller(p)
		if err != nil {
			return err
		}
		for j := i; j < len(due); j += p.conns {
			c.due = append(c.due, due[j])
		}
		c.latency = make([]time.Duration, 0, max(len(c.due), 1<<16))
		callers[i] = c
	}
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return err
	}
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() { c.run(p, start, time.Duration(monotonic.Nano())) })
	}
	wg.Wait()
	elapsed := time.Since(start)

	var all []time.Duration
	res := loadResult{Tool: "breadcrumb's own"}
	for _, c := range callers {
		all = append(all, c.latency...)
		res.Late += c.late
		if c.err != nil {
			res.Errors++
			res.Error = c.err.Error()
		}
	}
	slices.Sort(all)
	res.Requests = int64(len(all))
	res.Seconds = elapsed.Seconds()
	res.PerSecond = float64(len(all)) / elapsed.Seconds()
	res.P50, res.P90, res.P99, res.Max = percentile(all, 50), percentile(all, 90), percentile(all, 99), percentile(all, 100)
	return json.NewEncoder(os.Stdout).Encode(res)
}

// caller is one connection.
type caller struct {
	fd      int
	due     []time.Duration
	latency []time.Duration
	late    int64 // requests that left late because the one before was not answered yet
	err     error
}

func newCaller(p plan) (*caller, error) {
	addr, err := net.ResolveTCPAddr("tcp4", p.addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(answerTime))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", p.addr, err)
	}
	return &caller{fd: fd}, nil
}

// run makes the requests of one connection. A latency is counted from the moment at which the request
// was due, not from when it could be sent.
func (c *caller) run(p plan, start time.Time, monotonic time.Duration) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	request := []byte("GET " + p.path + " HTTP/1.1\r\nHost: " + p.addr + "\r\n\r\n")
	buf := make([]byte, 16<<10)
	spin := spinTime
	if p.rate > spinRate {
		spin = 0
	}
	for i := 0; p.rate == 0 || i < len(c.due); i++ {
		due := time.Since(start)
		if p.rate == 0 {
			if due > p.duration {
				return
			}
		} else {
			if due > c.due[i] && i > 0 {
				c.late++
			}
			due = c.due[i]
			sleepUntil(monotonic + due - spin)
			for time.Since(start) < due {
			}
		}
		if c.err = c.exchange(request, buf); c.err != nil {
			return
		}
		c.latency = append(c.latency, time.Since(start)-due)
	}
}

// sleepUntil sleeps until a moment of CLOCK_MONOTONIC.
func sleepUntil(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}

// exchange sends a request and reads its answer.
func (c *caller) exchange(request, buf []byte) error {
	if n, err := rawWrite(c.fd, request); err != nil || n != len(request) {
		return fmt.Errorf("send request: %d bytes: %w", n, err)
	}
	have, want := 0, -1
	for want < 0 || have < want {
		if have == len(buf) {
			return errors.New("the answer is too long")
		}
		n, err := rawRead(c.fd, buf[have:])
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if n == 0 {
			return errors.New("the server has closed the connection")
		}
		have += n
		if want < 0 {
			if want, err = answerLength(buf[:have]); err != nil {
				return err
			}
		}
	}
	if have > want {
		return errors.New("more than one answer")
	}
	return nil
}

var (
	endOfHead     = []byte("\r\n\r\n")
	statusOK      = []byte("HTTP/1.1 200 ")
	contentLength = []byte("\r\nContent-Length: ")
)

// answerLength is the length of an answer with its head; -1 while its head is not complete.
func answerLength(b []byte) (int, error) {
	head := bytes.Index(b, endOfHead)
	if head < 0 {
		return -1, nil
	}
	if !bytes.HasPrefix(b, statusOK) {
		return 0, fmt.Errorf("the answer is %.40q", b)
	}
	at := bytes.Index(b[:head], contentLength)
	if at < 0 {
		return 0, errors.New("an answer without Content-Length")
	}
	text, _, _ := bytes.Cut(b[at+len(contentLength):head+2], []byte("\r\n"))
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("read Content-Length: %w", err)
	}
	return head + len(endOfHead) + n, nil
}
