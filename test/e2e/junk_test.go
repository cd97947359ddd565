// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// oddities are what clients send that mean ill, or are broken. Each is a connection's worth.
var oddities = []string{
	"",
	"\r\n\r\n\r\n",
	"GET",
	"GET /item/half",
	"GET /item/half HTTP/1.1\r\nHost: x\r\nX-Half",
	"GET /item/half HTTP/1.1\r\nHost: x\r\n",
	"POST /upload/half HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
	"POST /upload/half HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
	// Smuggling: who reads these lengths differently sees another request behind.
	"POST /upload/cl-te HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /item/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /upload/two-cl HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 60\r\n\r\nhelloGET /item/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /upload/list-cl HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
	"POST /upload/te-te HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"POST /upload/te-x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	"POST /upload/te-space HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"POST /upload/neg HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
	"POST /upload/huge HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
	"POST /upload/chunk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
	"POST /upload/chunk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
	"POST /upload/chunk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("e", 70_000) + "\r\nhello\r\n0\r\n\r\n",
	"GET /item/bare-lf HTTP/1.1\nHost: x\n\n",
	"GET /item/obs-fold HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
	"GET /item/nul HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n",
	"GET /item/nul\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/no-host HTTP/1.1\r\n\r\n",
	"GET /item/version HTTP/9.9\r\nHost: x\r\n\r\n",
	"GET /item/version HTTP/1.1.1\r\nHost: x\r\n\r\n",
	"GET  /item/spaces  HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/cr\r HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/utf8-\xff\xfe HTTP/1.1\r\nHost: \xff\r\nUser-Agent: \xfe\xed\r\n\r\n",
	"GET /item/\"quote\\ HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/parent HTTP/1.1\r\nHost: x\r\ntraceparent: 00-zz-zz-01\r\n\r\n",
	"GET /item/parent HTTP/1.1\r\nHost: x\r\ntraceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n\r\n",
	"GET /item/parent HTTP/1.1\r\nHost: x\r\ntraceparent: " + strings.Repeat("0", 5000) + "\r\n\r\n",
	"GET /item/state HTTP/1.1\r\nHost: x\r\ntracestate: " + strings.Repeat("a=1,", 5000) + "\r\n\r\n",
	"GET /" + strings.Repeat("long", 4000) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/long HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("long", 20_000) + "\r\n\r\n",
	"GET /item/many HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Many: x\r\n", 5000) + "\r\n",
	strings.Repeat("M", 5000) + " /item/method HTTP/1.1\r\nHost: x\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xab", 500),
	"*1\r\n$4\r\nPING\r\n",
	"\x00\x00\x00\x08\x04\xd2\x16\x2f",
	"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01",
	"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET http://user:secret@host/item/userinfo HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET ?q HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /item/upgrade HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	strings.Repeat("GET /item/pipe HTTP/1.1\r\nHost: x\r\n\r\n", 2000),
}

// junk opens n connections and sends on each what no good client sends. The same seed sends the same.
func junk(t testing.TB, addr string, seed uint64, n int) {
	t.Helper()
	work := make(chan int)
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for i := range work {
				if err := junkConnection(addr, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	group.Wait()
}

func junkConnection(addr string, random *rand.Rand) error {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	conn := raw.(*net.TCPConn)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	text := []byte(oddities[random.IntN(len(oddities))])
	switch random.IntN(6) {
	case 0: // nothing that means anything
		text = make([]byte, random.IntN(3000))
		for i := range text {
			text[i] = byte(random.Uint32())
		}
	case 1: // almost right
		if len(text) > 0 {
			text[random.IntN(len(text))] ^= 1 << random.IntN(8)
		}
	case 2: // the beginning of something
		text = text[:random.IntN(len(text)+1)]
	}
	// The server may close at any time: what it makes of this is its own affair.
	for step := len(text); len(text) > 0; {
		if random.IntN(4) == 0 {
			step = 1 + random.IntN(len(text))
		}
		n := min(step, len(text))
		if _, err := conn.Write(text[:n]); err != nil {
			break
		}
		text = text[n:]
	}
	switch random.IntN(3) {
	case 0:
		conn.SetLinger(0)
	case 1:
		// Read what comes, to the end or until it is clear that the server waits for more.
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	}
	return nil
}

// TestGoodRequestsAfterJunk sends junk on 10 000 connections, and then asks for as much of good
// connections as ever.
func TestGoodRequestsAfterJunk(t *testing.T) {
	const (
		connections = 10_000
		// maxRSS is what the agent may take at 20 000 requests per second.
		maxRSS = 120 << 20
	)
	for _, name := range []string{"go", "node", "python"} {
		t.Run(name, func(t *testing.T) {
			kind := servers.Find(t, name)
			s := kind.Start(t, servers.Options{})
			agent := Trace(t, s)
			junk(t, s.Addr, 1, connections/2)
			half := agent.RSS()
			junk(t, s.Addr, 2, connections/2)
			full := agent.RSS()
			t.Logf("resident: %d MiB after %d connections, %d MiB after %d", half>>20, connections/2, full>>20, connections)
			if full > maxRSS {
				t.Errorf("the agent takes %d MiB, more than %d", full>>20, maxRSS>>20)
			}

			truth, err := drive.Plan{Addr: s.Addr, Requests: 1000, Connections: 16, Trace: true}.Run()
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]bool{}
			for _, x := range truth {
				left[x.Path] = true
			}
			good := agent.waitPaths(t, left)
			spans, summary := agent.Stop()
			if err := Compare(good, truth, Want{Service: kind.Service}); err != nil {
				t.Errorf("good requests after junk: %v", err)
			}
			t.Logf("the ledger says %v", summary.Total)
			if err := sane(spans); err != nil {
				t.Error(err)
			}
			if n := summary.Total["exported"]; n != int64(len(spans)) {
				t.Errorf("%d spans printed, %d exported", len(spans), n)
			}
		})
	}
}

// sane holds spans to what must be true of any.
func sane(spans []*Span) error {
	var m Mismatches
	ids := make(map[string]*Span, len(spans))
	for _, s := range spans {
		if !isHex(s.SpanID, 16) || !isHex(s.TraceID, 32) || s.ParentID != "" && !isHex(s.ParentID, 16) {
			m.add("bad id", "%s", s)
		}
		if first := ids[s.SpanID]; first != nil {
			m.add("span id twice", "%s\n\t\tand %s", first, s)
		}
		ids[s.SpanID] = s
		if s.End < s.Start || s.Start <= 0 {
			m.add("times", "%s", s)
		}
		if s.Name == "" || len(s.Name) > 100 {
			m.add("name", "%s", s)
		}
		if code := s.Number("http.response.status_code"); code != 0 && (code < 100 || code > 599) {
			m.add("status code", "%s", s)
		}
		if strings.Contains(fmt.Sprint(s.Attributes), "://user:secret@") {
			m.add("credentials", "%s", s)
		}
	}
	return m.Err()
}
