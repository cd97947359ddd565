// SPDX-License-Identifier: Apache-2.0

package inside

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"breadcrumb/bpf"
	"breadcrumb/test/e2e"

	"golang.org/x/sys/unix"
)

const (
	rounds   = 5
	calls    = 20_000
	messages = 5_000
)

// TestCost measures what each attachment adds to a system call that has nothing to do with sockets, and to a message of
// this process over TCP, which is a write and a read; as long as the process is not watched, and when it is. It prints
// a table of medians, in units of a bare getppid, and asserts no time: only a comparison within one machine means
// anything.
func TestCost(t *testing.T) {
	var attachments []*e2e.Attachment
	for _, a := range e2e.Attachments {
		if a.Here() {
			attachments = append(attachments, a)
		}
	}
	pair := connect(t)
	type cost struct{ call, unwatched, watched []float64 }
	none := cost{}
	costs := make([]cost, len(attachments))
	for range rounds {
		none.call = append(none.call, callTime())
		none.unwatched = append(none.unwatched, pair.messageTime(t))
		for i, a := range attachments {
			cfg := bpf.Default()
			cfg.Attach = a.Name
			cfg.RingBytes = 64 << 20 // nobody reads it
			core, err := bpf.Load(cfg)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			costs[i].call = append(costs[i].call, callTime())
			costs[i].unwatched = append(costs[i].unwatched, pair.messageTime(t))
			if err := core.Watch(uint32(os.Getpid()), bpf.Target{}); err != nil {
				t.Fatal(err)
			}
			costs[i].watched = append(costs[i].watched, pair.messageTime(t))
			stats, err := core.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if stats["events"] < 2*messages || stats["ring_full"] > 0 {
				t.Errorf("%s: %v", a.Name, stats)
			}
			if err := core.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	call, message := median(none.call), median(none.unwatched)
	var table strings.Builder
	fmt.Fprintf(&table, "a getppid takes %.0f ns, a message %.0f ns\n", call, message)
	fmt.Fprintln(&table, "| attachment | any other call | a send or receive, not watched | watched |")
	fmt.Fprintln(&table, "| --- | ---: | ---: | ---: |")
	for i, a := range attachments {
		c := costs[i]
		fmt.Fprintf(&table, "| %s | %+.2f | %+.2f | %+.2f |\n", a.Feature, (median(c.call)-call)/call,
			(median(c.unwatched)-message)/2/call, (median(c.watched)-message)/2/call)
	}
	t.Log("\n" + table.String())
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// callTime is that of a getppid, in ns.
func callTime() float64 {
	start := time.Now()
	for range calls {
		unix.Getppid()
	}
	return float64(time.Since(start).Nanoseconds()) / calls
}

// tcpPair is a connection of which this process has both ends.
type tcpPair struct{ client, server int }

func connect(t *testing.T) tcpPair {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listener, client := socket(), socket()
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(client, address); err != nil {
		t.Fatal(err)
	}
	server, _, err := unix.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(server) })
	for _, fd := range []int{client, server} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			t.Fatal(err)
		}
	}
	return tcpPair{client, server}
}

// messageTime is that of sending and receiving a request or an answer, in ns.
func (p tcpPair) messageTime(t *testing.T) float64 {
	t.Helper()
	request, answer := []byte("GET /item/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	buf := make([]byte, 256)
	move := func(from, to int, b []byte) {
		if n, err := unix.Write(from, b); err != nil || n != len(b) {
			t.Fatalf("%d bytes written: %v", n, err)
		}
		if n, err := unix.Read(to, buf); err != nil || n != len(b) {
			t.Fatalf("%d bytes read: %v", n, err)
		}
	}
	start := time.Now()
	for range messages / 2 {
		move(p.client, p.server, request)
		move(p.server, p.client, answer)
	}
	return float64(time.Since(start).Nanoseconds()) / messages
}
