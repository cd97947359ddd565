// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStallIsChargedToAllThatWait lets a server stall once. A generator that waits for each answer
// before it counts the next request would see one slow request in it.
func TestStallIsChargedToAllThatWait(t *testing.T) {
	const stall = 60 * time.Millisecond
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // the caller blocks with its P
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for i := 0; ; i++ {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if i == 20 {
				time.Sleep(stall)
			}
			if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
				return
			}
		}
	}()

	p := plan{addr: l.Addr().String(), path: "/", conns: 1, rate: 1000, duration: 200 * time.Millisecond}
	c, err := newCaller(p)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.fd)
	c.due = slots(p.rate, p.duration)
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		t.Fatal(err)
	}
	c.run(p, time.Now(), time.Duration(monotonic.Nano()))
	if c.err != nil {
		t.Fatal(c.err)
	}
	if len(c.latency) != len(c.due) {
		t.Fatalf("%d of %d requests", len(c.latency), len(c.due))
	}
	slow := 0
	for _, d := range c.latency {
		if d > stall/3 {
			slow++
		}
	}
	// Those that were due in the first two thirds of the stall: 40, but for the one that was due with it.
	if slow < 35 {
		t.Errorf("%d requests are charged with the stall", slow)
	}
}
