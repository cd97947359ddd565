// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

// kernel captures as the kernel side does: heads in full, bodies by their edges, and of a long run of
// body chunks only a few.
type kernel struct {
	requests probes.Direction
	pos      [2]uint64
	inHead   [2]bool
	tail     [2]string // last bytes of the head under way
	run      [2]int    // chunks of body in a row
	id       trace.SpanID
	names    int
	last     [2]int64
	rng      *rand.Rand
}

const (
	pieceSize    = 512 // what one event can hold
	edgeHead     = 24
	edgeTail     = 8
	silenceAfter = 8
)

func (k *kernel) starts(dir probes.Direction, data string) bool {
	if dir != k.requests {
		return strings.HasPrefix(data, "HTTP/1.")
	}
	if len(data) == 1 {
		return data[0] >= 'A' && data[0] <= 'Z' // the start of a read in the background, as Go does it
	}
	return beginsMethod([]byte(data)) && strings.IndexByte(data, ' ') > 0
}

// move makes events of what one call moved between begin and end.
func (k *kernel) move(dir probes.Direction, data string, begin, end int64) []chunk {
	var list []chunk
	k.last[dir] = end
	named := false
	if !k.inHead[dir] && k.starts(dir, data) {
		k.inHead[dir], k.tail[dir], k.run[dir] = true, "", 0
		if dir == k.requests {
			k.names++
			k.id, named = named64(k.names), true
		}
	}
	emit := func(head, tail string, total int) {
		c := probes.Chunk{Dir: dir, Pos: k.pos[dir], Total: uint64(total), Head: []byte(head), Tail: []byte(tail), Begin: begin, End: end, ID: k.id, Named: named}
		c.Evidence = span.Evidence{Conn: 7, Seq: uint32(c.Pos), HasSeq: true}
		named = false
		list = append(list, chunk{Chunk: c})
		k.pos[dir] += uint64(total)
	}
	for k.inHead[dir] && data != "" {
		piece := data[:min(pieceSize, len(data))]
		if i := strings.Index(k.tail[dir]+piece, "\r\n\r\n"); i >= 0 {
			k.inHead[dir] = false // what follows in the same event is captured as well
		}
		all := k.tail[dir] + piece
		k.tail[dir] = all[max(0, len(all)-3):]
		emit(piece, "", len(piece))
		data = data[len(piece):]
	}
	if data == "" {
		return list
	}
	if k.run[dir]++; k.run[dir] > silenceAfter && k.rng.IntN(8) > 0 {
		k.pos[dir] += uint64(len(data))
		return list
	}
	if len(data) <= edgeHead {
		emit(data, "", len(data))
	} else {
		emit(data[:edgeHead], data[max(edgeHead, len(data)-edgeTail):], len(data))
	}
	return list
}

func named64(n int) trace.SpanID {
	return trace.SpanID{0xbb, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// made is an exchange that a conversation holds.
type made struct {
	path       string
	method     string
	status     int
	request    int64 // body sizes; -1 where they need not be known
	response   int64
	start, end int64
	endKnown   bool
}

// talk is a conversation as the kernel side reports it.
type talk struct {
	events []chunk
	made   []made
}

type talker struct {
	rng    *rand.Rand
	k      *kernel
	talk   talk
	now    int64
	server bool
	evil   bool // bodies hold what looks like messages
}

// write moves data in calls of random size and returns the time of the last byte.
func (w *talker) write(dir probes.Direction, data string, atOnce bool) (begin, end int64) {
	first := int64(0)
	begins := !w.k.inHead[dir]
	for data != "" {
		n := len(data)
		if !atOnce {
			switch w.rng.IntN(4) {
			case 0:
				n = min(n, 1+w.rng.IntN(40))
			case 1:
				n = min(n, 1+w.rng.IntN(4000))
			case 2:
				n = 1
				atOnce = w.rng.IntN(2) == 0
			}
			// The kernel side knows the start of a message by its first bytes.
			if begins && (n > 1 || dir != w.k.requests) {
				n = min(len(data), max(n, 16))
			}
			begins = false
		}
		begin := w.now
		w.now += 1 + int64(w.rng.IntN(100))
		if first == 0 {
			first = begin
		}
		w.talk.events = append(w.talk.events, w.k.move(dir, data[:n], begin, w.now)...)
		data = data[n:]
		w.now += int64(w.rng.IntN(100))
		if w.rng.IntN(8) == 0 {
			w.progress()
		}
	}
	return first, w.k.last[dir]
}

// progress is what the caller of the decoder does now and then; the position counts if it is asked for.
func (w *talker) progress() {
	for dir := range probes.Direction(2) {
		w.talk.events = append(w.talk.events, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: w.k.pos[dir], End: w.k.last[dir]}})
	}
}

func (w *talker) filler(n int) string {
	const text = "GET /evil HTTP/1.1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
	if !w.evil || w.rng.IntN(2) == 0 {
		return strings.Repeat("x", n)
	}
	return strings.Repeat(text, n/len(text)+1)[:n]
}

// body makes a body and the field that says its length.
func (w *talker) body() (field, data string, size int64) {
	n := w.rng.IntN(60)
	if w.rng.IntN(4) == 0 {
		n = w.rng.IntN(30000)
	}
	if w.rng.IntN(2) == 0 {
		return "Content-Length: " + strconv.Itoa(n) + "\r\n", w.filler(n), int64(n)
	}
	var b strings.Builder
	for left := n; left > 0; {
		m := 1 + w.rng.IntN(left)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", m, w.filler(m))
		left -= m
	}
	b.WriteString("0\r\n")
	if w.rng.IntN(4) == 0 {
		b.WriteString("x-sum: 1\r\n")
	}
	b.WriteString("\r\n")
	return "Transfer-Encoding: chunked\r\n", b.String(), -1
}

func (w *talker) padding() string {
	switch w.rng.IntN(6) {
	case 0:
		return "Cookie: " + strings.Repeat("c", w.rng.IntN(3000)) + "\r\n"
	case 1:
		return ""
	}
	return "Accept: */*\r\n"
}

// exchange is one request and its response.
func (w *talker) exchange(n int) {
	req, res := probes.Ingress, probes.Egress
	if !w.server {
		req, res = res, req
	}
	m := made{path: "/" + strconv.Itoa(n), request: -1, response: -1}
	m.method = []string{"GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE"}[w.rng.IntN(7)]
	head := m.method + " " + m.path + " HTTP/1.1\r\nHost: example.com\r\n" + w.padding()
	body := ""
	expect := false
	if m.method == "POST" || m.method == "PUT" {
		var field string
		field, body, m.request = w.body()
		head += field
		if expect = body != "" && w.rng.IntN(4) == 0; expect {
			head += "Expect: 100-continue\r\n"
		}
	}
	head += "\r\n"
	if expect {
		m.start, _ = w.write(req, head, false)
		w.write(res, "HTTP/1.1 100 Continue\r\n\r\n", true)
		w.write(req, body, false)
	} else if w.rng.IntN(2) == 0 {
		m.start, _ = w.write(req, head+body, false)
	} else {
		m.start, _ = w.write(req, head, true)
		w.write(req, body, false)
	}
	w.now += 1000
	m.status = []int{200, 201, 204, 304, 404, 500}[w.rng.IntN(6)]
	answer := "HTTP/1.1 " + strconv.Itoa(m.status) + " Whatever\r\nServer: test\r\n" + w.padding()
	field, body, size := w.body()
	answer += field + "\r\n"
	if m.method == "HEAD" || m.status == 204 || m.status == 304 {
		body, size = "", -1
		m.endKnown = true
	} else {
		m.response = size
		m.endKnown = size >= 0
	}
	if w.rng.IntN(2) == 0 {
		_, m.end = w.write(res, answer+body, false)
	} else {
		_, m.end = w.write(res, answer, true)
		if body != "" {
			_, m.end = w.write(res, body, false)
		}
	}
	if w.rng.IntN(4) > 0 {
		w.progress()
	} else {
		m.endKnown = false
	}
	w.now += 1000
	w.talk.made = append(w.talk.made, m)
}

// converse makes up a conversation of n exchanges, one after the other.
func converse(rng *rand.Rand, server, evil bool, n int) talk {
	w := &talker{rng: rng, server: server, evil: evil, now: 1000, k: &kernel{rng: rng, requests: probes.Ingress}}
	if !server {
		w.k.requests = probes.Egress
	}
	for i := range n {
		w.exchange(i)
	}
	closed := probes.Closed
	w.talk.events = append(w.talk.events, chunk{end: &closed, Chunk: probes.Chunk{End: w.now}})
	return w.talk
}

// playAsking is play with a caller that asks how far the connection is only if the decoder waits.
func playAsking(t testing.TB, conn *probes.Conn, server bool, events []chunk) (*sink, error) {
	d := newDecoder(conn, server, standard)
	k := newSink(t)
	for i := range events {
		ev := &events[i]
		switch {
		case ev.end != nil:
			d.End(*ev.end, ev.Chunk.End, k)
		case ev.prog:
			if dir, _, ok := d.Waiting(); ok && dir == ev.Dir {
				d.Progress(ev.Dir, ev.Pos, ev.Chunk.End, k)
			}
		default:
			if err := d.Decode(&ev.Chunk, k); err != nil {
				return k, err
			}
		}
	}
	return k, nil
}

func pathOf(s *span.Span, server bool) (path string, status int64, request, response int64, cut bool) {
	status, request, response = -1, -1, -1
	for _, kv := range s.Attrs {
		switch kv.Key {
		case "url.path":
			path = kv.Value.AsString()
		case "url.full":
			path = strings.TrimPrefix(kv.Value.AsString(), "http://example.com")
		case "http.response.status_code":
			status = kv.Value.AsInt64()
		case "http.request.body.size":
			request = kv.Value.AsInt64()
		case "http.response.body.size":
			response = kv.Value.AsInt64()
		case "breadcrumb.truncated":
			cut = true
		}
	}
	return
}

func TestConversationsAsTheKernelReportsThem(t *testing.T) {
	for seed := range uint64(600) {
		server := seed%2 == 0
		talk := converse(rand.New(rand.NewPCG(seed, 1)), server, seed%3 == 0, 12)
		acc := new(ledger.Account)
		k, err := playAsking(t, testConn(acc), server, talk.events)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		k.balance(acc)
		if len(k.done) != len(talk.made) {
			for _, ev := range talk.events {
				t.Logf("%v named=%v lost=%v pos=%d total=%d %.60q", ev.Dir, ev.Named, ev.Lost, ev.Pos, ev.Total, ev.Head)
			}
			for _, s := range k.opened {
				t.Log(s.ID, s.Name, s.State, s.Start, s.Attrs)
			}
			t.Fatalf("seed %d: %d spans of %d, lost %v", seed, len(k.done), len(talk.made), acc.Counts())
		}
		for i, s := range k.done {
			m := talk.made[i]
			path, status, request, response, cut := pathOf(s, server)
			if path != m.path || status != int64(m.status) || s.Name != m.method || cut {
				t.Errorf("seed %d: span %d is %s %s %d (truncated: %v), want %+v", seed, i, s.Name, path, status, cut, m)
			}
			if m.request >= 0 && request != m.request || m.response >= 0 && response != m.response {
				t.Errorf("seed %d: span %d has sizes %d and %d, want %+v", seed, i, request, response, m)
			}
			if s.Start != m.start || m.endKnown && s.End != m.end {
				t.Errorf("seed %d: span %d lasts from %d to %d, want %+v", seed, i, s.Start, s.End, m)
			}
		}
		again, _ := playAsking(t, testConn(new(ledger.Account)), server, talk.events)
		if diff := cmp.Diff(k.results(), again.results()); diff != "" {
			t.Fatalf("seed %d: again: (-first +second)\n%s", seed, diff)
		}
		if t.Failed() {
			return
		}
	}
}

func TestEveryRequestIsCountedOnceWhenEventsAreLost(t *testing.T) {
	good, all := 0, 0
	for seed := range uint64(1500) {
		server := seed%2 == 0
		rng := rand.New(rand.NewPCG(seed, 2))
		evil := seed%3 == 0
		talk := converse(rng, server, evil, 12)
		rate := []int{50, 10, 3}[rng.IntN(3)]
		var kept []chunk
		lost := false
		unseen := uint64(0) // requests whose first event is lost are the caller's to count
		for _, ev := range talk.events {
			if ev.end == nil && !ev.prog {
				if rng.IntN(rate) == 0 {
					lost = true
					if ev.Named {
						unseen++
					}
					continue
				}
				ev.Lost, lost = lost, false
			} else if ev.end != nil && lost {
				// The end of a connection does not tell of a loss before it; an empty chunk does.
				kept = append(kept, chunk{Chunk: probes.Chunk{Lost: true, End: ev.Chunk.End}})
			}
			kept = append(kept, ev)
		}
		acc := new(ledger.Account)
		k, err := playAsking(t, testConn(acc), server, kept)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		k.balance(acc)
		// What a body holds may be named as well, and is then the caller's to sort out.
		if got := acc.Counts()[ledger.Seen] + unseen; got != uint64(len(talk.made)) && !evil {
			for _, ev := range kept {
				t.Logf("%v named=%v lost=%v pos=%d total=%d %.60q", ev.Dir, ev.Named, ev.Lost, ev.Pos, ev.Total, ev.Head)
			}
			for _, s := range k.opened {
				t.Log(s.ID, s.Name, s.State, s.Attrs)
			}
			t.Errorf("seed %d: %d requests seen, %d not, of %d", seed, acc.Counts()[ledger.Seen], unseen, len(talk.made))
		}
		if evil {
			continue // after a loss, a body that looks like messages is taken for them
		}
		seen := map[string]bool{}
		for _, s := range k.done {
			path, status, request, response, cut := pathOf(s, server)
			n, err := strconv.Atoi(strings.TrimPrefix(path, "/"))
			if err != nil || n >= len(talk.made) || seen[path] {
				t.Errorf("seed %d: a span for %q", seed, path)
				continue
			}
			seen[path] = true
			m := talk.made[n]
			if status != int64(m.status) || cut {
				t.Errorf("seed %d: %s has status %d, want %+v", seed, path, status, m)
			}
			if request >= 0 && m.request >= 0 && request != m.request || response >= 0 && m.response >= 0 && response != m.response {
				t.Errorf("seed %d: %s has sizes %d and %d, want %+v", seed, path, request, response, m)
			}
			good++
		}
		all += len(talk.made)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d spans of %d requests", good, all)
}

// beginsMethod says whether b begins with a known method and a space, or with the start of one.
func beginsMethod(b []byte) bool {
	for _, name := range methodNames[1:] {
		n := min(len(b), len(name))
		if string(b[:n]) == name[:n] && (n < len(name) || len(b) == n || b[n] == ' ') {
			return true
		}
	}
	return false
}
