// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"breadcrumb/bpf"
	"breadcrumb/internal/bpftest"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

func load(t *testing.T) *logicObjects {
	t.Helper()
	bpftest.Require(t, "5.14", "BPF programs that a test can run")
	var objs logicObjects
	if err := loadLogicObjects(&objs, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = objs.Close() })
	return &objs
}

func run[T any](t *testing.T, p *ebpf.Program, in *T) {
	t.Helper()
	out := make([]byte, unsafe.Sizeof(*in))
	copy(out, unsafe.Slice((*byte)(unsafe.Pointer(in)), len(out)))
	// The kernel copies the context back.
	if _, err := p.Run(&ebpf.RunOptions{Context: out, ContextOut: out}); err != nil {
		t.Fatal(err)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(in)), len(out)), out)
}

// runMap is run for a program whose input and output is the only element of a map.
func runMap[T any](t *testing.T, p *ebpf.Program, m *ebpf.Map, in *T) {
	t.Helper()
	b := unsafe.Slice((*byte)(unsafe.Pointer(in)), unsafe.Sizeof(*in))
	if err := m.Put(uint32(0), b); err != nil {
		t.Fatal(err)
	}
	if ret, err := p.Run(&ebpf.RunOptions{Context: make([]byte, 8)}); err != nil || ret != 0 {
		t.Fatalf("returned %d: %v", ret, err)
	}
	out, err := m.LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	copy(b, out)
}

func TestMessageStartIsRecognisedByItsFirstBytes(t *testing.T) {
	objs := load(t)
	for text, want := range map[string]struct{ request, response uint32 }{
		"GET / HTTP/1.1": {1, 0}, "GET ": {1, 0}, "POST /": {1, 0}, "PUT /": {1, 0}, "HEAD /": {1, 0},
		"DELETE /": {1, 0}, "PATCH /x": {1, 0}, "OPTIONS *": {1, 0}, "CONNECT a:1": {1, 0}, "TRACE /": {1, 0},
		"HTTP/1.1 200": {0, 1}, "HTTP/1.": {0, 1},
		"": {}, "G": {}, "GET": {}, "GETS /": {}, "get /": {}, "HTTP/2.0": {}, "PRI * HTTP": {}, "\x16\x03\x01": {},
		"PROPFIND /": {}, // found in user space
	} {
		var word [8]byte
		copy(word[:], text)
		in := struct {
			word              uint64
			request, response uint32
		}{word: binary.LittleEndian.Uint64(word[:])}
		run(t, objs.MessageStart, &in)
		if in.request != want.request || in.response != want.response {
			t.Errorf("%q: request %d, response %d, want %+v", text, in.request, in.response, want)
		}
	}
}

func TestEndOfHeadIsFoundAtEveryPlace(t *testing.T) {
	objs := load(t)
	type headEnd struct {
		n, ends uint32
		text    [3992]byte
	}
	check := func(text []byte) {
		t.Helper()
		in := headEnd{n: uint32(len(text))}
		copy(in.text[:], text)
		for i := len(text); i < len(in.text); i++ {
			in.text[i] = "\r\n"[i%2] // what follows in memory must not count
		}
		runMap(t, objs.HeadEnd, objs.HeadEnds, &in)
		want := uint32(0)
		if bytes.Contains(text, []byte("\r\n\r\n")) {
			want |= 1
		}
		if bytes.HasSuffix(text, []byte("\r\n\r\n")) {
			want |= 2
		}
		if in.ends != want {
			t.Fatalf("%d bytes, blank line at %d: found %b, want %b", len(text), bytes.Index(text, []byte("\r\n\r\n")), in.ends, want)
		}
	}
	for at := range 400 { // across the edges of the stretches that are searched
		text := bytes.Repeat([]byte("x"), at)
		check(append(text, "\r\n\r\n"...))
		check(append(text, "\r\n\r\nbody"...))
		check(append(text, "\r\n\r"...))
		check(append(text, "\r\n\n\r\n\rx"...))
	}
	check(bytes.Repeat([]byte("h"), 3992))
	check(append(bytes.Repeat([]byte("h"), 3988), "\r\n\r\n"...))
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		text := make([]byte, rnd.IntN(600))
		for i := range text {
			text[i] = "\r\n\r\nx"[rnd.IntN(5)]
		}
		check(text)
	}
}

func TestSegmentsAreGatheredAsOneRunOfBytes(t *testing.T) {
	objs := load(t)
	type gatherIn struct {
		base                                 uint64
		segments, total, from, limit, got, _ uint32
		text                                 [1024]byte
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var iov [70][2]uint64
		var all []byte
		var keep [][]byte
		n := 1 + rnd.IntN(len(iov)-1)
		for i := range n {
			seg := []byte(strings.Repeat(string(rune('a'+i%26)), rnd.IntN(40)))
			keep = append(keep, seg)
			if i < 64 { // as many as are read
				all = append(all, seg...)
			}
			iov[i] = [2]uint64{uint64(uintptr(unsafe.Pointer(unsafe.SliceData(seg)))), uint64(len(seg))}
		}
		if len(all) == 0 {
			continue
		}
		total := 1 + rnd.IntN(len(all)) // fewer than were offered: a partial write
		from := rnd.IntN(total)
		limit := 1 + rnd.IntN(512)
		in := gatherIn{base: uint64(uintptr(unsafe.Pointer(&iov))), segments: uint32(n), total: uint32(total),
			from: uint32(from), limit: uint32(limit)}
		runMap(t, objs.GatherBytes, objs.Gathers, &in)
		want := all[from:min(total, from+limit)]
		if got := in.text[:in.got]; !bytes.Equal(got, want) {
			t.Fatalf("%d segments, %d bytes from %d, limit %d: got %q, want %q", n, total, from, limit, got, want)
		}
		runtime.KeepAlive(keep)
	}
}

func TestVerdictBelongsToOneConnectionOnly(t *testing.T) {
	objs := load(t)
	const conn = 0x0123_4567_89ab
	slot := uint32(conn & 0xffff)
	if err := objs.Verdicts.Put(slot, uint64(conn>>16)<<8|2); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uint64]uint64{conn: 2, conn + 1: 0, conn + 0x10000: 0, conn & 0xffff: 0, conn | 1<<50: 0} {
		in := [2]uint64{id}
		run(t, objs.Verdict, &in)
		if in[1] != want {
			t.Errorf("connection %#x: verdict %d, want %d", id, in[1], want)
		}
	}
}

func TestGoroutineInheritsOnceAndOnlyFromWhoServes(t *testing.T) {
	objs := load(t)
	type lineage struct {
		goid, parent, request, conn uint64
		tgid, op, flags, _          uint32
	}
	servesOn := func(goid, request, conn uint64) {
		run(t, objs.Lineage, &lineage{tgid: 7, op: 1, goid: goid, request: request, conn: conn})
	}
	serves := func(goid, request uint64) { servesOn(goid, request, goid) }
	ends := func(conn uint64) { run(t, objs.Lineage, &lineage{op: 3, conn: conn}) }
	dials := func(goid uint64) { run(t, objs.Lineage, &lineage{tgid: 7, op: 2, goid: goid}) }
	expect := func(goid, parent, request uint64, inherited bool) {
		t.Helper()
		in := lineage{tgid: 7, goid: goid, parent: parent}
		run(t, objs.Lineage, &in)
		if in.request != request || in.flags&32 != 0 != inherited || in.flags&16 == 0 {
			t.Errorf("goroutine %d: request %d, flags %#x; want request %d, inherited %v", goid, in.request, in.flags, request, inherited)
		}
	}
	expect(1, 0, 0, false) // unknown
	serves(10, 100)
	expect(10, 1, 100, false) // its own
	expect(11, 10, 100, true) // its child's
	expect(12, 11, 100, true) // its grandchild's
	serves(10, 101)           // the next request on the connection
	expect(11, 10, 100, true) // the child stays with the first
	expect(13, 10, 101, true) // a new child
	serves(11, 200)           // a child that serves itself
	expect(11, 10, 200, false)
	dials(14)
	expect(15, 14, 0, true) // who dials for a pool passes nothing on
	dials(10)               // a handler that dials for itself still serves
	expect(16, 10, 101, true)
	one := func(goid, request uint64) {
		run(t, objs.Lineage, &lineage{tgid: 7, op: 4, goid: goid, request: request})
	}
	one(50, 500) // a stream of a shared connection
	expect(50, 1, 500, false)
	expect(51, 50, 500, true) // its child's
	expect(52, 51, 500, true)
	one(50, 501) // a worker's next one
	expect(50, 1, 501, false)
	expect(51, 50, 500, true)
	one(50+1<<16, 502) // takes its place
	expect(50+1<<16, 1, 502, false)
	expect(50, 0, 0, false)
	other := lineage{tgid: 8, goid: 50 + 1<<16}
	run(t, objs.Lineage, &other)
	if other.request != 0 {
		t.Errorf("another process's goroutine has request %d", other.request)
	}
	ends(10) // the client went away, the handler goes on
	expect(10, 1, 101, false)
	ends(11)
	servesOn(20, 300, 20) // one goroutine takes turns at two connections
	servesOn(20, 301, 21)
	expect(20, 1, 301, false)
	servesOn(20, 302, 20)
	expect(20, 1, 302, false)
	ends(21) // not the one that it serves now
	expect(20, 1, 302, false)
	servesOn(22, 303, 20) // and a connection is handed on
	expect(22, 1, 303, false)
}

// TestTaskWorksForWhatItWasMadeFor follows asyncio's contexts through what servers do with them.
func TestTaskWorksForWhatItWasMadeFor(t *testing.T) {
	const (
		asks = iota
		copied
		accepted
		reads
		answers
		closes
	)
	type step struct {
		id, from, request uint64
		tgid, op          uint32
	}
	type world struct {
		do   func(op uint32, id, from, request uint64)
		want func(id, request uint64)
	}
	for name, play := range map[string]func(w world){
		"a task for each connection": func(w world) {
			w.do(accepted, 10, 1, 0)
			w.do(copied, 11, 10, 0) // it reads
			w.do(copied, 12, 10, 0) // it serves
			w.do(reads, 11, 1, 100)
			w.want(12, 100)
			w.do(copied, 13, 12, 0) // gathered
			w.want(13, 100)
			w.do(answers, 12, 1, 0)
			w.do(reads, 11, 1, 101)
			w.want(12, 101)
			w.want(13, 100) // and so user space finds that what it works for has ended
		},
		"a task for each request": func(w world) {
			w.do(accepted, 10, 1, 0)
			w.do(copied, 11, 10, 0)
			w.do(reads, 11, 1, 100)
			w.do(copied, 12, 11, 0)
			w.want(12, 100)
			w.do(answers, 12, 1, 0)
			w.do(reads, 11, 1, 101)
			w.do(copied, 13, 11, 0)
			w.want(13, 101)
			w.want(12, 100) // what it does after its response is not for the next one
		},
		"connections that were open before": func(w world) {
			w.do(reads, 0, 1, 100)
			w.do(reads, 0, 2, 200)
			w.want(12, 0)
			w.do(answers, 12, 1, 0)
			w.do(answers, 22, 2, 0)
			w.do(reads, 0, 1, 101)
			w.do(reads, 0, 2, 201)
			w.want(12, 101)
			w.want(22, 201)
		},
		"connections that were open before, and a task for each request": func(w world) {
			for i := range uint64(3) {
				w.do(reads, 0, 1, 100+i)
				w.do(reads, 0, 2, 200+i)
				w.do(copied, 13+i, 12, 0)
				w.do(copied, 23+i, 22, 0)
				w.want(13+i, 0)
				w.do(answers, 23+i, 2, 0)
				w.do(answers, 13+i, 1, 0)
			}
			w.do(reads, 0, 1, 103)
			w.do(reads, 0, 2, 203)
			w.do(copied, 16, 12, 0)
			w.do(copied, 26, 22, 0)
			w.want(16, 103)
			w.want(26, 203)
		},
		"one task that makes those of many connections": func(w world) {
			for i := range uint64(10) {
				w.do(reads, 0, 1+i%2, 100+i)
				w.do(copied, 13+i, 12, 0)
				w.do(answers, 13+i, 1+i%2, 0)
			}
			w.do(reads, 0, 1, 200)
			w.do(copied, 30, 12, 0)
			w.want(30, 0)
		},
		"one task that makes those of one connection, and then of others": func(w world) {
			for i := range uint64(5) {
				w.do(reads, 0, 1, 100+i)
				w.do(copied, 13+i, 12, 0)
				w.do(answers, 13+i, 1, 0)
			}
			w.do(reads, 0, 2, 200)
			w.do(copied, 20, 12, 0)
			w.do(answers, 20, 2, 0)
			w.do(reads, 0, 1, 105)
			w.do(copied, 21, 12, 0)
			w.want(21, 0)
		},
		"workers that were made before": func(w world) {
			w.do(copied, 20, 12, 0)
			for i := range uint64(5) {
				w.do(reads, 0, 1, 100+i)
				w.do(answers, 20, 1, 0)
			}
			w.do(reads, 0, 1, 105)
			w.do(copied, 21, 12, 0)
			w.want(21, 0)
		},
		"a task that was seen to be made, of no connection": func(w world) {
			w.do(copied, 12, 0, 0)
			for i := range uint64(5) {
				w.do(reads, 0, 1, 100+i)
				w.do(copied, 13+i, 12, 0)
				w.do(answers, 13+i, 1, 0)
			}
			w.do(reads, 0, 1, 105)
			w.do(copied, 21, 12, 0)
			w.want(21, 0)
		},
		"one task that answers for many": func(w world) {
			w.do(reads, 0, 1, 100)
			w.do(reads, 0, 2, 200)
			w.do(answers, 30, 1, 0)
			w.do(answers, 30, 2, 0)
			w.do(reads, 0, 1, 101)
			w.want(30, 0)
		},
		"one task for connections one after the other": func(w world) {
			w.do(reads, 0, 1, 100)
			w.do(answers, 30, 1, 0)
			w.do(closes, 0, 1, 0)
			w.do(reads, 0, 2, 200)
			w.do(answers, 30, 2, 0)
			w.do(reads, 0, 2, 201)
			w.want(30, 201)
		},
		"the address of a connection is used again": func(w world) {
			w.do(accepted, 10, 1, 0)
			w.do(reads, 0, 1, 100)
			w.want(10, 100)
			w.do(closes, 0, 1, 0)
			w.do(reads, 0, 1, 200)
			w.want(10, 0)
		},
		"the address of a context is used again": func(w world) {
			w.do(accepted, 10, 1, 0)
			w.do(reads, 10, 1, 100)
			w.do(copied, 11, 10, 0)
			w.want(11, 100)
			w.do(copied, 11, 0, 0)
			w.want(11, 0)
		},
		"between two requests": func(w world) {
			w.do(accepted, 10, 1, 0)
			w.do(reads, 10, 1, 100)
			w.do(answers, 10, 1, 0)
			w.do(copied, 11, 10, 0) // it may be for the next one
			w.do(reads, 10, 1, 101)
			w.want(11, 101)
		},
		"a thread that has accepted and makes something else": func(w world) {
			w.do(copied, 11, 12, 0)
			w.want(11, 0)
		},
		"tasks of which nothing is known": func(w world) {
			w.do(reads, ^uint64(0), 1, 100)
			w.want(^uint64(0), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			objs := load(t)
			play(world{
				do: func(op uint32, id, from, request uint64) {
					run(t, objs.Task, &step{tgid: 7, op: op, id: id, from: from, request: request})
				},
				want: func(id, request uint64) {
					t.Helper()
					s := step{tgid: 7, op: asks, id: id}
					run(t, objs.Task, &s)
					if s.request != request {
						t.Errorf("task %d works for %d, want %d", id, s.request, request)
					}
				},
			})
		})
	}
}

// uvLoop plays a thread that runs uvloop. Every method names what it does.
type uvLoop struct {
	t        *testing.T
	objs     *logicObjects
	contexts []uint64 // into which it has gone, one from within the other
	last     loopStep
}

type loopStep struct {
	id, copy, key, request, task                                             uint64
	op, own                                                                  uint32
	switches, readSwitches, current, accepted, acceptedKey, acceptedSwitches uint64
}

const (
	loopReads = iota
	loopCopies
	loopAccepts
	loopWrites
	loopCalls
	loopAnswers
)

func (l *uvLoop) do(op uint32, s loopStep) loopStep {
	l.t.Helper()
	last := l.last
	s.op, s.switches, s.readSwitches, s.current = op, last.switches, last.readSwitches, last.current
	s.accepted, s.acceptedKey, s.acceptedSwitches = last.accepted, last.acceptedKey, last.acceptedSwitches
	if n := len(l.contexts); n > 0 {
		s.id = l.contexts[n-1]
		if n > 1 {
			s.own = 1
		}
	}
	run(l.t, l.objs.Loop, &s)
	l.last = s
	return s
}

// in runs something in a context.
func (l *uvLoop) in(context uint64, do func()) {
	l.contexts = append(l.contexts, context)
	l.last.switches++
	do()
	l.contexts = l.contexts[:len(l.contexts)-1]
	l.last.switches++
}

// idle runs something in a task's context, from within the loop's, as it does with what is ready.
func (l *uvLoop) idle(context uint64, do func()) { l.in(1, func() { l.in(context, do) }) }

func (l *uvLoop) reads(key, request uint64) { l.do(loopReads, loopStep{key: key, request: request}) }
func (l *uvLoop) copies(to uint64)          { l.do(loopCopies, loopStep{copy: to}) }
func (l *uvLoop) accepts(key uint64)        { l.do(loopAccepts, loopStep{key: key}) }
func (l *uvLoop) writes(key uint64)         { l.do(loopWrites, loopStep{key: key}) }
func (l *uvLoop) answers(key uint64)        { l.do(loopAnswers, loopStep{key: key}) }

func (l *uvLoop) calls(key, task, request uint64) {
	l.t.Helper()
	if s := l.do(loopCalls, loopStep{key: key}); s.task != task || s.request != request {
		l.t.Errorf("the call is task %d's, for %d; want %d's, for %d", s.task, s.request, task, request)
	}
}

// TestLoopThatReadsOutsideOfContexts follows uvloop through what servers do on it.
func TestLoopThatReadsOutsideOfContexts(t *testing.T) {
	const server = 2 // the context of all transports of a server
	for name, play := range map[string]func(l *uvLoop){
		"a task for each request": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() { l.copies(10) })
			l.reads(102, 2000)
			l.in(server, func() { l.copies(20) })
			l.idle(20, func() { l.calls(200, 20, 2000) })
			l.idle(10, func() { l.copies(11); l.calls(201, 10, 1000) })
			l.idle(11, func() { l.calls(202, 11, 1000) })
		},
		"what the loop runs next is not called back for what was read": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() {})
			l.in(server, func() { l.copies(10) }) // as when a connection is lost
			l.idle(10, func() { l.calls(200, 10, 0) })
		},
		"a protocol that calls and answers by itself": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() { l.calls(200, server, 1000); l.answers(101) })
			l.reads(102, 2000)
			l.in(server, func() {})
			l.in(server, func() { l.calls(200, server, 0) })
		},
		"a task for each connection": func(l *uvLoop) {
			l.reads(102, 2000)
			l.in(server, func() {})
			l.idle(server, func() { l.accepts(101); l.copies(90); l.copies(10) })
			l.reads(101, 1000)
			l.in(server, func() {})
			l.idle(10, func() { l.calls(200, 10, 1000); l.copies(11) })
			l.idle(11, func() { l.calls(201, 11, 1000) })
			l.idle(server, func() { l.copies(30) }) // in another callback
			l.idle(30, func() { l.calls(202, 30, 0) })
		},
		"what is written is sent later": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() { l.copies(10) })
			l.reads(102, 2000)
			l.in(server, func() { l.copies(20) })
			l.in(1, func() {
				l.in(10, func() { l.writes(200) })
				l.in(20, func() { l.writes(201) })
				l.calls(200, 10, 1000)
				l.calls(201, 20, 2000)
				l.calls(200, 1, 0) // what was not seen to be written
			})
		},
		"the loop answers for everybody, and works for nobody": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() {})
			l.in(1, func() { l.in(10, func() {}); l.answers(101) })
			l.reads(101, 1001)
			l.in(server, func() {})
			l.in(1, func() { l.in(10, func() {}); l.calls(200, 1, 0) })
		},
		"connections that were open before": func(l *uvLoop) {
			l.reads(101, 1000)
			l.in(server, func() {})
			l.in(1, func() { l.in(10, func() { l.writes(101) }); l.answers(101) })
			l.reads(101, 1001)
			l.in(server, func() {})
			l.idle(10, func() { l.calls(200, 10, 1001) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &uvLoop{t: t, objs: load(t)}
			l.last.switches = 100
			play(l)
		})
	}
}

// nodeLoop plays Node's event loop. Every method names what the loop does; its ids are in memory as Node has them.
type nodeLoop struct {
	t    *testing.T
	objs *logicObjects
	ids  *[3]float64 // what runs, what made it, and the counter
}

func newNodeLoop(t *testing.T) *nodeLoop {
	l := &nodeLoop{t, load(t), &[3]float64{0, 0, 50}}
	if err := l.objs.NodeLoops.Put(uint32(7), &bpf.NodeLoop{Events: 1}); err != nil {
		t.Fatal(err)
	}
	return l
}

type nodeStep struct {
	ids, request, id uint64
	op, doubted      uint32
}

func (l *nodeLoop) do(op uint32, request, id uint64) nodeStep {
	l.t.Helper()
	s := nodeStep{ids: uint64(uintptr(unsafe.Pointer(l.ids))), request: request, id: id, op: op}
	run(l.t, l.objs.Node, &s)
	return s
}

func (l *nodeLoop) makes() uint64           { l.ids[2]++; return uint64(l.ids[2]) }
func (l *nodeLoop) turns()                  { l.do(3, 0, 0) }
func (l *nodeLoop) reads(request uint64)    { l.turns(); l.do(1, request, 0) }
func (l *nodeLoop) callsBack(id uint64)     { l.do(2, 0, id) }
func (l *nodeLoop) resolves()               { l.do(4, 0, 0) }
func (l *nodeLoop) drained()                { l.do(5, 0, 0) }
func (l *nodeLoop) runs(id, trigger uint64) { l.ids[0], l.ids[1] = float64(id), float64(trigger) }

func (l *nodeLoop) wants(request uint64, doubted bool) {
	l.t.Helper()
	if s := l.do(0, 0, 0); s.request != request || (s.doubted != 0) != doubted {
		l.t.Errorf("the call is for %d, doubted: %t; want %d, %t", s.request, s.doubted != 0, request, doubted)
	}
}

// TestNodeKnowsForWhomItRuns follows the loop through what programs do.
func TestNodeKnowsForWhomItRuns(t *testing.T) {
	for name, play := range map[string]func(l *nodeLoop){
		"in the request's own callback": func(l *nodeLoop) {
			parser := l.makes()
			l.reads(100)
			l.callsBack(parser)
			l.runs(parser, 0)
			l.wants(100, false)
		},
		"after await, when another request's answer was read": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			l.reads(200)
			l.callsBack(20)
			l.runs(0, 0)
			l.wants(200, false)
		},
		"a timer's callback": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			timer := l.makes()
			l.reads(200)
			l.callsBack(20)
			l.makes()
			l.callsBack(0) // timers
			l.wants(0, false)
			l.runs(timer, 10)
			l.wants(100, false)
		},
		"await of a timer": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			timer := l.makes()
			l.reads(200)
			l.callsBack(20)
			l.callsBack(0)
			l.runs(timer, 10)
			l.resolves()
			l.runs(0, 0)
			l.wants(100, false)
			l.drained()
			l.wants(0, false)
		},
		"a call that waited for another one's connection": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			queued := l.makes()
			l.reads(200)
			l.callsBack(20)
			l.runs(l.makes(), queued)
			l.wants(100, false)
		},
		"something that was made by nobody that is known": func(l *nodeLoop) {
			timer := l.makes()
			l.reads(100)
			l.callsBack(10)
			l.callsBack(0)
			l.runs(timer, 0)
			l.wants(0, false)
		},
		"a new connection": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			l.turns()
			l.callsBack(5)
			l.runs(0, 0)
			l.wants(0, false)
		},
		"a parser that was made in a tick": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10) // the socket
			l.callsBack(40) // its parser
			l.runs(40, 0)
			l.wants(100, false)
		},
		"who gives back a permit lets another one go on": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			l.runs(0, 0)
			l.resolves()
			l.wants(100, true)
			tick := l.makes()
			l.reads(200)
			l.callsBack(20)
			l.runs(tick, 0)
			l.wants(100, true)
			l.runs(0, 0)
			l.wants(200, false)
		},
		"what is older than all that is remembered": func(l *nodeLoop) {
			l.reads(100)
			l.callsBack(10)
			old := l.makes()
			for n := range 5000 {
				l.reads(uint64(1000 + n))
				l.callsBack(20)
				l.makes()
			}
			l.callsBack(0)
			l.runs(old, 0)
			l.wants(0, false)
			l.runs(uint64(l.ids[2])-3000, 0)
			l.wants(1000+5000-1-3000, false)
		},
	} {
		t.Run(name, func(t *testing.T) { play(newNodeLoop(t)) })
	}
}

// streamStep is struct stream_step.
type streamStep struct {
	id, word                  uint64
	conn, stream, told, block uint32
}

func TestTokioTaskWorksForWhoAsks(t *testing.T) {
	const (
		calls = iota
		reads
		responds
		spawned
		asked
		answered
	)
	type step struct {
		id, from, request uint64
		op, notified      uint32
	}
	const x, y, conn = 10, 30, 20 // two tasks that serve, and that of a client's connection
	type world struct {
		do   func(op uint32, id, from, request uint64)
		more func(id, from uint64) // it is asked while it has not run since it was asked before
		want func(id, call, request uint64)
		told func(call, request uint64)
	}
	for name, play := range map[string]func(w world){
		"what it has read": func(w world) {
			w.want(x, 1, 100)
			w.want(y, 2, 300)
			w.do(responds, 0, 1, 0)
			w.do(reads, x, 1, 101)
			w.want(x, 3, 101)
		},
		"who has spawned it": func(w world) {
			w.do(spawned, 11, x, 0)
			w.do(spawned, 12, 11, 0)
			w.want(11, 1, 100)
			w.want(12, 2, 100)
			w.do(reads, x, 1, 101)
			w.want(12, 3, 100) // and so user space finds that what it works for has ended
			w.do(spawned, 13, 12, 0)
			w.want(13, 4, 0)
			w.do(spawned, 14, 0, 0)
			w.want(14, 5, 0)
		},
		"who has asked, one after the other": func(w world) {
			w.do(asked, conn, x, 0)
			w.want(conn, 1, 100)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, y, 0)
			w.want(conn, 2, 300)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, y, 0)
			w.want(conn, 3, 300)
		},
		"whose task has asked": func(w world) {
			w.do(spawned, 11, x, 0)
			w.do(asked, conn, 11, 0)
			w.want(conn, 1, 100)
		},
		"two have asked at once": func(w world) {
			w.do(asked, conn, x, 0)
			w.more(conn, y)
			w.want(conn, 1, 0)
			w.do(asked, conn, x, 0)
			w.more(conn, x)
			w.want(conn, 2, 100)
		},
		"one has given up": func(w world) {
			w.do(asked, conn, x, 0)
			w.do(asked, conn, y, 0)
			w.want(conn, 1, 300)
		},
		"nobody known has asked": func(w world) {
			w.do(asked, conn, 40, 0)
			w.want(conn, 1, 0)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, x, 0)
			w.more(conn, 40)
			w.want(conn, 2, 0)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, x, 0)
			w.do(asked, conn, 0, 0)
			w.want(conn, 3, 0)
		},
		"made in one request, it is asked in another": func(w world) {
			w.do(spawned, conn, x, 0)
			w.want(conn, 1, 100)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, y, 0)
			w.want(conn, 2, 300)
			w.do(answered, conn, 0, 0)
			w.want(conn, 3, 0)
			w.do(answered, conn, 0, 0)
			w.do(spawned, 50, conn, 0)
			w.want(50, 4, 0)
		},
		"what it has read comes before who asks": func(w world) {
			w.do(asked, x, y, 0)
			w.want(x, 1, 100)
		},
		"it serves two at once": func(w world) {
			w.do(reads, x, 3, 400)
			w.want(x, 1, 0)
		},
		"it has served another": func(w world) {
			w.do(responds, 0, 1, 0)
			w.do(reads, x, 3, 400)
			w.want(x, 1, 400)
		},
		"it has called before it was seen to be asked": func(w world) {
			w.want(conn, 1, 0)
			w.do(asked, conn, x, 0)
			w.told(1, 100)
			w.do(answered, conn, 0, 0)
			w.want(conn, 2, 0)
			w.do(answered, conn, 0, 0)
			w.do(asked, conn, y, 0) // for the next one
			w.want(conn, 3, 300)
		},
		"so, and was made in another request": func(w world) {
			w.do(spawned, conn, x, 0)
			w.want(conn, 1, 100)
			w.do(asked, conn, x, 0) // as it seemed
			w.do(answered, conn, 0, 0)
			w.want(conn, 2, 100)
			w.do(asked, conn, y, 0)
			w.told(2, 300)
		},
	} {
		t.Run(name, func(t *testing.T) {
			objs := load(t)
			events, err := ringbuf.NewReader(objs.Events)
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			var told []bpf.CallerEvent
			do := func(s step) uint64 {
				run(t, objs.Tokio, &s)
				return s.request
			}
			w := world{
				do:   func(op uint32, id, from, request uint64) { do(step{id, from, request, op, 0}) },
				more: func(id, from uint64) { do(step{id, from, 0, asked, 1}) },
				want: func(id, call, request uint64) {
					t.Helper()
					if got := do(step{id, 0, call, calls, 0}); got != request {
						t.Errorf("task %d makes call %d for %d, want %d", id, call, got, request)
					}
				},
				told: func(call, request uint64) { told = append(told, bpf.CallerEvent{Call: call, Cause: request}) },
			}
			w.do(reads, x, 1, 100)
			w.do(reads, y, 2, 300)
			play(w)
			events.SetDeadline(time.Now()) // all is there
			for _, want := range told {
				record, err := events.Read()
				if err != nil {
					t.Fatal(err)
				}
				if e := bpf.View[bpf.CallerEvent](record.RawSample); e.Call != want.Call || e.Cause != want.Cause || e.Flags != bpf.FlagCauseTask {
					t.Errorf("told %+v, want call %d for %d", e, want.Call, want.Cause)
				}
			}
			if record, err := events.Read(); err == nil {
				t.Errorf("told %+v besides", bpf.View[bpf.CallerEvent](record.RawSample))
			}
		})
	}
}

func TestStreamsAreToldOnce(t *testing.T) {
	objs := load(t)
	ids := map[uint64]bool{}
	for i, test := range []struct {
		stream uint32
		told   bool
	}{
		{1, false}, {1, true}, {5, false}, {3, false}, {3, true}, {5, true}, {1, true},
		{63, false}, {61, false}, {1, true}, {7, false},
		{65, false},
		{401, false}, {339, false}, {339, true},
		{337, false}, {337, false}, // long past: it is told again
		{1<<31 - 1, false},
	} {
		in := streamStep{conn: 1, stream: test.stream}
		run(t, objs.Stream, &in)
		if in.told != 0 != test.told {
			t.Errorf("step %d, stream %d: told %v, want %v", i, test.stream, in.told != 0, test.told)
		}
		ids[in.id] = true
		other := streamStep{conn: 2, stream: test.stream}
		run(t, objs.Stream, &other)
		if other.id == in.id {
			t.Errorf("stream %d has the same id on two connections", test.stream)
		}
	}
	if len(ids) != 11 {
		t.Errorf("%d ids of 11 streams", len(ids))
	}
}

func TestWholeHeaderBlocksAreRecognised(t *testing.T) {
	objs := load(t)
	for _, test := range []struct {
		frame string
		block uint32
	}{
		{"\x00\x00\x05\x01\x04\x00\x00\x00", 9},
		{"\x00\x00\x05\x01\x05\x00\x00\x00", 9},
		{"\x00\x00\x25\x01\x25\x00\x00\x01", 14},
		{"\x00\x00\x25\x01\x2d\x00\x00\x01", 15},
		{"\x00\x00\x05\x01\x01\x00\x00\x00", 0}, // a CONTINUATION follows
		{"\x00\x00\x05\x00\x04\x00\x00\x00", 0}, // DATA
		{"\x00\x00\x05\x01\x44\x00\x00\x00", 0}, // no such flag
		{"\x00\x00\x05\x01\x04\x80\x00\x00", 0},
		{"\x10\x00\x05\x01\x04\x00\x00\x00", 0}, // longer than any
		{"GET / HT", 0},
		{"\x16\x03\x01\x02\x00\x01\x00\x01", 0}, // TLS
	} {
		in := streamStep{word: binary.LittleEndian.Uint64([]byte(test.frame)), conn: 3, stream: 1}
		run(t, objs.Stream, &in)
		if in.block != test.block {
			t.Errorf("%q: a block at %d, want %d", test.frame, in.block, test.block)
		}
	}
}

// bytesIn is struct bytes_in.
type bytesIn struct {
	word                                uint64
	n, block, preface, usual, stream, _ uint32
}

func http2Bytes(t *testing.T, objs *logicObjects, text string, stream uint32) bytesIn {
	var word [8]byte
	copy(word[:], text)
	in := bytesIn{word: binary.LittleEndian.Uint64(word[:]), n: uint32(len(text)), stream: stream}
	run(t, objs.Http2Bytes, &in)
	return in
}

// TestBeginningOfHeaderBlock holds it to RFC 7541, section 6 and appendix A.
func TestBeginningOfHeaderBlock(t *testing.T) {
	objs := load(t)
	const unknown, request, response = 0, 1, 2
	for text, want := range map[string]uint32{
		"\x82": request, "\x87": request, "\x88": response, "\x8e": response, "\x8f": unknown, "\x81\x82": request,
		"\x41\x01a": request, "\x01\x01a": request, "\x14\x01/": request, "\x48\x03201": response, "\x4f\x01a": unknown,
		"\xc9\x44\x0b/call/1": request, "\xbe\x88": response, "\xfe\x83": request,
		"\xff\x10\x83": request, "\xff\x80\x01\x83": unknown, "\xff": unknown,
		"\xbe\xbf\xc0\xc1\xc2\xc3\x82": unknown, // too far
		"\xbe\xbf":                     unknown, "": unknown,
		"\x40\x05:path": request, "\x00\x07:status": response, "\x40\x04path": unknown,
		"\x3f\xe1\x1f\x82": unknown, "\x7e\x01a\x82": unknown,
	} {
		if in := http2Bytes(t, objs, text, 1); in.block != want {
			t.Errorf("%q: %d, want %d", text, in.block, want)
		}
	}
}

func TestPrefaceIsKnownByItsFirstByte(t *testing.T) {
	objs := load(t)
	for text, want := range map[string]uint32{"P": 1, "PRI": 1, "PRI * HT": 1, "PRI * HTTP": 1, "PX": 0, "\x81": 0, "PRI * HX": 0} {
		if in := http2Bytes(t, objs, text, 1); in.preface != want {
			t.Errorf("%q: %d, want %d", text, in.preface, want)
		}
	}
}

// TestUsualFrames holds them to RFC 9113, section 6.
func TestUsualFrames(t *testing.T) {
	objs := load(t)
	for _, test := range []struct {
		frame  string
		stream uint32
		usual  uint32
	}{
		{"\x00\x40\x00\x00\x00", 1, 1}, {"\x00\x00\x05\x00\x09", 2, 1}, {"\x00\x00\x05\x00\x04", 1, 0},
		{"\x00\x40\x01\x00\x00", 1, 0}, // longer than every endpoint allows
		{"\x00\x00\x20\x01\x2d", 3, 1}, {"\x00\x00\x20\x01\x04", 4, 0}, {"\x00\x00\x20\x01\x44", 3, 0},
		{"\x00\x00\x00\x04\x01", 0, 1}, {"\x00\x00\x08\x06\x01", 0, 1}, {"\x00\x00\x08\x06\x02", 0, 0},
		{"\x00\x00\x04\x08\x00", 0, 1}, {"\x00\x00\x04\x08\x01", 0, 0}, {"\x00\x00\x04\x03\x00", 5, 1},
		{"\x00\x00\x10\x09\x04", 5, 1}, {"\x00\x00\x10\x05\x04", 5, 0},
	} {
		if in := http2Bytes(t, objs, test.frame, test.stream); in.usual != test.usual {
			t.Errorf("%q, stream %d: %d, want %d", test.frame, test.stream, in.usual, test.usual)
		}
	}
}
