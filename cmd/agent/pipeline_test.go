// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"breadcrumb/bpf"
	"breadcrumb/export/jsonl"
	"breadcrumb/internal/eventtest"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/recording"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
)

// secret is what bodies hold, and recordings must not.
const secret = "what-is-in-a-body-stays-there"

// node is a machine whose kernel side and processes the test plays, with the agent's pipeline behind.
type node struct {
	*pipeline
	t       testing.TB
	kernel  eventtest.Kernel
	targets map[uint32]*span.Target
	spans   *lines
	file    bytes.Buffer
	clock   int64
}

// lines is an exporter that keeps what it is given as lines of JSON.
type lines struct {
	t   testing.TB
	buf bytes.Buffer
	n   int
}

func (l *lines) emit(spans []*span.Span) {
	if err := jsonl.New(&l.buf).Export(context.Background(), spans); err != nil {
		l.t.Error(err)
	}
	l.n += len(spans)
	for _, s := range spans {
		s.Target.Account.Add(ledger.Exported, 1)
	}
	probes.Recycle(spans)
}

// builtIn are the protocols as they are without any configuration.
func builtIn() []probes.Protocol {
	cfg := defaultConfig()
	return protocols(&cfg)
}

func newNode(t testing.TB, seed uint64, services ...string) *node {
	t.Helper()
	n := &node{t: t, targets: map[uint32]*span.Target{}, spans: &lines{t: t}}
	for i, name := range services {
		n.targets[uint32(i+1)] = service(uint32(i+1), name)
	}
	n.pipeline = newPipeline(builtIn(), noKernel{}, func(pid uint32) *span.Target { return n.targets[pid] }, n.spans.emit, correlation(false, seed))
	var err error
	if n.rec, err = startRecording(&n.file, seed); err != nil {
		t.Fatal(err)
	}
	n.clock = 1767225600e9 // 2026
	n.setClock(n.clock)
	return n
}

func service(pid uint32, name string) *span.Target {
	return &span.Target{PID: pid, Account: new(ledger.Account), Resource: []attribute.KeyValue{
		attribute.String("service.name", name), attribute.Int("process.pid", int(pid)),
		attribute.StringSlice("process.command_args", []string{"/bin/" + name, "--text=<&\u2028>", "not \xff UTF-8"}),
		attribute.Bool("bool", true), attribute.Float64("float", 1.5), attribute.Int64Slice("numbers", []int64{1, 2}),
		attribute.BoolSlice("bools", []bool{true, false}), attribute.Float64Slice("floats", []float64{.5}), attribute.StringSlice("none", nil),
	}}
}

// now is Unix time, ns.
func (n *node) now() int64 { return n.clock + int64(n.kernel.Now) }

func (n *node) tell(records ...[]byte) {
	for _, r := range records {
		n.handle(r)
	}
}

// end ends the run and returns the recording.
func (n *node) end() []byte {
	n.t.Helper()
	n.stop(n.now())
	if err := n.rec.Close(); err != nil {
		n.t.Fatal(err)
	}
	for pid, t := range n.targets {
		if t.Account.Counts().Open() != 0 {
			n.t.Errorf("the account of process %d does not add up: %v", pid, t.Account.Counts())
		}
	}
	return n.file.Bytes()
}

// replayed feeds a recording through and returns the lines of its spans.
func replayed(t testing.TB, file []byte) (string, error) {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(file))
	if err != nil {
		return "", err
	}
	defer r.Close()
	out := &lines{t: t}
	err = replay(context.Background(), r, builtIn(), false, out.emit)
	return out.buf.String(), err
}

func TestReplayGivesTheSameSpans(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 20
	}
	spans := 0
	for seed := range seeds {
		n := newNode(t, seed, "gateway", "orders", "stock")
		n.live(rand.New(rand.NewPCG(seed, 3)), 20)
		file := n.end()
		spans += n.spans.n
		got, err := replayed(t, file)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if want := n.spans.buf.String(); got != want {
			t.Fatalf("seed %d: (-live +replayed)\n%s", seed, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
		}
		if strings.Contains(contents(t, file), secret) {
			t.Fatalf("seed %d: the recording holds a body", seed)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if spans < int(seeds)*20 {
		t.Errorf("%d spans in all: that shows little", spans)
	}
}

// contents is all records of a recording, one after the other.
func contents(t testing.TB, file []byte) string {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all strings.Builder
	for {
		_, data, err := r.Next()
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
}

// live plays so many connections with everything that may happen to them, all at once.
func (n *node) live(rng *rand.Rand, connections int) {
	var scripts [][]func()
	for i := range connections {
		from, to := uint32(1+rng.IntN(5)), uint32(1+rng.IntN(3)) // 4 and 5 are not known
		var c, s *eventtest.Socket
		if rng.IntN(4) == 0 {
			c, s = n.kernel.Unix(from, to, "/run/app.sock")
		} else {
			c, s = n.kernel.TCP(from, to, fmt.Sprint("127.0.0.1:", 4000+i), "127.0.0.1:80")
		}
		scripts = append(scripts, n.conversation(rng, c, s))
	}
	for left := len(scripts); left > 0; {
		i := rng.IntN(len(scripts))
		if len(scripts[i]) == 0 {
			continue
		}
		scripts[i][0]()
		if scripts[i] = scripts[i][1:]; len(scripts[i]) == 0 {
			left--
		}
		switch rng.IntN(60) {
		case 0, 1, 2, 3, 4, 5:
			n.batch(n.now())
		case 6:
			n.clock += int64(rng.IntN(1e9)) - 5e8
			n.setClock(n.clock)
		case 7: // more is known of a process now
			pid := uint32(1 + rng.IntN(3))
			if old := n.targets[pid]; old != nil {
				known := service(pid, "renamed")
				known.Account = old.Account
				n.targets[pid] = known
			}
		case 8:
			pid := uint32(1 + rng.IntN(5))
			n.tell(n.kernel.Exit(pid))
		case 9: // it is no longer watched, and known again later
			pid := uint32(1 + rng.IntN(3))
			old := n.targets[pid]
			if old != nil {
				n.drop(n.conns.Of(pid, old.Account), n.now())
			}
			if old != nil && rng.IntN(2) == 0 {
				delete(n.targets, pid)
				scripts[0] = append(scripts[0], func() { n.targets[pid] = old })
				if len(scripts[0]) == 1 {
					left++
				}
			}
		case 10:
			n.kernel.Now += uint64(rng.IntN(1e9))
		}
	}
	n.batch(n.now())
}

// conversation is what happens on one connection, as both ends tell it.
func (n *node) conversation(rng *rand.Rand, c, s *eventtest.Socket) (script []func()) {
	add := func(record func() []byte) {
		lost := rng.IntN(100) == 0
		script = append(script, func() {
			if r := record(); !lost {
				n.tell(r)
			}
		})
	}
	both := func(ask bool, text string, options ...eventtest.Option) {
		from, to := c, s
		if !ask {
			from, to = s, c
		}
		cut := len(text)
		if rng.IntN(3) == 0 {
			cut = rng.IntN(len(text))
		}
		send := func(k *eventtest.Socket, dir int) {
			for i, part := range []string{text[:cut], text[cut:]} {
				if part == "" {
					continue
				}
				add(func() []byte {
					options := options
					if ask && (i == 0 || cut == 0) {
						options = append(options, k.Named())
					}
					if rng.IntN(50) == 0 {
						options = append(options, eventtest.With(bpf.FlagLost))
					}
					return k.Piece(dir, part, "", len(part), options...)
				})
			}
		}
		if rng.IntN(4) == 0 { // the reader's hook may run first
			send(to, eventtest.Ingress)
			send(from, eventtest.Egress)
		} else {
			send(from, eventtest.Egress)
			send(to, eventtest.Ingress)
		}
	}
	add(c.Open)
	add(s.Open)
	if rng.IntN(10) == 0 {
		for range 6 {
			both(true, "\x00\x01"+secret)
			both(false, "\x02"+secret)
		}
	}
	if rng.IntN(5) == 0 {
		both(false, "{"+secret+"}") // it was open before
	}
	for i := range rng.IntN(6) {
		head := fmt.Sprintf("/item/%d HTTP/1.1\r\nHost: shop\r\n", i)
		if rng.IntN(3) == 0 {
			head += fmt.Sprintf("traceparent: 00-%032x-%016x-01\r\ntracestate: a=b\r\n", 1+rng.IntN(5), 1+rng.IntN(5))
		}
		switch rng.IntN(5) {
		case 0:
			both(true, "POST "+head+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(secret), secret))
		case 1:
			both(true, "POST "+head+fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(secret), secret))
		default:
			both(true, "GET "+head+"\r\n", eventtest.For(rng.Uint64N(3)))
		}
		switch rng.IntN(6) {
		case 0: // a body that goes quiet, and is asked for, or told of
			both(false, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
			for range 2 {
				script = append(script, func() { s.Unseen(eventtest.Egress, 50000); c.Unseen(eventtest.Ingress, 50000) }, n.ask)
			}
			if rng.IntN(2) == 0 {
				add(func() []byte { return s.Progress(eventtest.Egress) })
				add(func() []byte { return c.Progress(eventtest.Ingress) })
			}
		case 1:
			both(false, fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(secret), secret))
		case 2:
			both(false, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
		default:
			both(false, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(secret), secret))
		}
	}
	how := uint32(rng.IntN(4))
	add(func() []byte { return c.End(how) })
	add(func() []byte { return s.End(uint32(eventtest.Closed), uint32(rng.IntN(2))*bpf.FlagLost) })
	return script
}

// ask asks the kernel side how far quiet bodies are, as run does. What it answers is from after the question.
func (n *node) ask() {
	for _, q := range n.conns.Asking(n.now()) {
		n.progress(q.ID, q.Dir, uint64(n.kernel.Now)%200_000, int64(n.kernel.Now))
	}
}

func TestCutRecordingIsReplayedUpToTheCut(t *testing.T) {
	n := newNode(t, 1, "shop")
	_, k := n.kernel.TCP(9, 1, "10.0.0.9:4000", "10.0.0.1:80")
	n.tell(k.Open())
	get := func(i int) {
		n.tell(k.Receive(fmt.Sprintf("GET /item/%d HTTP/1.1\r\n\r\n", i), k.Named()))
		n.tell(k.Send("HTTP/1.1 204 No Content\r\n\r\n"))
		n.batch(n.now())
	}
	for i := range 5000 {
		get(i)
	}
	n.tell(k.Receive("GET /last HTTP/1.1\r\n\r\n", k.Named()))
	file := n.end()
	want := n.spans.buf.String()
	if strings.Count(want, "\n") != 5001 {
		t.Fatalf("%d spans", strings.Count(want, "\n"))
	}
	for _, cut := range []int{len(file) - 1, len(file) / 2, 100} {
		got, err := replayed(t, file[:cut])
		if !errors.Is(err, recording.ErrCut) {
			t.Errorf("cut at %d of %d: %v", cut, len(file), err)
		}
		if !strings.HasPrefix(want, got) {
			// What was under way at the cut is ended there.
			last := strings.LastIndexByte(strings.TrimSuffix(got, "\n"), '\n') + 1
			if !strings.HasPrefix(want, got[:last]) {
				t.Errorf("cut at %d of %d: the spans are not those of the run", cut, len(file))
			}
		}
	}
}

func TestDamagedRecordingIsRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(w *recording.Writer)
		want  string
	}{
		{"empty", func(*recording.Writer) {}, "the recording is cut short"},
		{"no beginning", func(w *recording.Writer) { w.WriteTime(recording.Clock, 1) }, "not a recording of this version: it does not begin with what it is about, and only there"},
		{"two beginnings", func(w *recording.Writer) {
			w.Write(recording.Meta, []byte("{}"))
			w.Write(recording.Meta, []byte("{}"))
		}, "not a recording of this version: it does not begin with what it is about, and only there"},
		{"bad beginning", func(w *recording.Writer) { w.Write(recording.Meta, []byte("x")) }, "not a recording of this version: invalid character 'x' looking for beginning of value"},
		{"bad process", func(w *recording.Writer) {
			w.Write(recording.Meta, []byte("{}"))
			w.Write(recording.Target, []byte("[]"))
		}, "not a recording of this version: json: cannot unmarshal array into Go value of type main.recordedTarget"},
		{"bad end of a process", func(w *recording.Writer) { w.Write(recording.Meta, []byte("{}")); w.Write(recording.Gone, []byte("x")) }, "not a recording of this version: a process id of 1 bytes"},
		{"bad time", func(w *recording.Writer) {
			w.Write(recording.Meta, []byte("{}"))
			w.Write(recording.Batch, []byte("x"))
		}, "not a recording of this version: a time of 1 bytes"},
		{"bad progress", func(w *recording.Writer) {
			w.Write(recording.Meta, []byte("{}"))
			w.Write(recording.Progress, []byte("x"))
		}, "not a recording of this version: a progress record of 1 bytes"},
		{"bad drop", func(w *recording.Writer) {
			w.Write(recording.Meta, []byte("{}"))
			w.Write(recording.Drop, []byte("12345678x"))
		}, "not a recording of this version: a drop record of 9 bytes"},
		{"a kind of a later version", func(w *recording.Writer) { w.Write(recording.Meta, []byte("{}")); w.Write(99, nil) }, "not a recording of this version: a record of kind 99"},
	} {
		var file bytes.Buffer
		w, err := recording.NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		test.write(w)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := replayed(t, file.Bytes()); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

// TestSpansAreHandedOverBeforeABatchIsOver: under load a batch may not end for long.
func TestSpansAreHandedOverBeforeABatchIsOver(t *testing.T) {
	n := newNode(t, 1, "shop")
	_, k := n.kernel.TCP(9, 1, "10.0.0.9:4000", "10.0.0.1:80")
	n.tell(k.Open())
	for range 3 * handOver {
		n.tell(k.Receive("GET / HTTP/1.1\r\n\r\n", k.Named()), k.Send("HTTP/1.1 204 No Content\r\n\r\n"))
	}
	if n.spans.n != 3*handOver {
		t.Errorf("%d spans were handed over", n.spans.n)
	}
	n.end()
}

// TestExitForgetsTheGoroutinesOfAProcess: ids begin anew in the next one, in a run and in its replay.
func TestExitForgetsTheGoroutinesOfAProcess(t *testing.T) {
	n := newNode(t, 1, "shop")
	call := func(task uint64) {
		_, s := n.kernel.TCP(9, 1, "10.0.0.9:4000", "10.0.0.1:80")
		c, _ := n.kernel.TCP(1, 9, "10.0.0.1:4001", "10.0.0.9:80")
		goroutine := func(id uint64) eventtest.Option { return func(e *bpf.DataEvent) { e.Task = id } }
		n.tell(s.Open(), c.Open(), s.Receive("GET / HTTP/1.1\r\n\r\n", s.Named(), goroutine(task)))
		n.tell(c.Send("GET /called HTTP/1.1\r\n\r\n", c.Named(), goroutine(task+1), eventtest.For(s.Request), eventtest.With(bpf.FlagCauseGoroutine|bpf.FlagCauseInherited)))
		n.tell(c.Receive("HTTP/1.1 204 No Content\r\n\r\n"), s.Send("HTTP/1.1 204 No Content\r\n\r\n"), s.End(eventtest.Closed), c.End(eventtest.Closed))
	}
	call(1_000_000)
	n.tell(n.kernel.Exit(1))
	call(20)
	file := n.end()
	want := n.spans.buf.String()
	if got := strings.Count(want, `"breadcrumb.parent.source":"goroutine"`); got != 2 {
		t.Errorf("%d of 2 calls have their parent:\n%s", got, want)
	}
	if got, err := replayed(t, file); err != nil || got != want {
		t.Errorf("replayed: %v\n%s", err, got)
	}
}

// TestRecording makes testdata/shop.recording, which the scripts replay, and sees that what is committed is
// what would be made now.
func TestRecording(t *testing.T) {
	n := newNode(t, 42, "gateway", "orders")
	for pid, name := range []string{"gateway", "orders"} {
		n.targets[uint32(pid+1)].Resource = []attribute.KeyValue{attribute.String("service.name", name)}
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	_, in := n.kernel.TCP(9, 1, "10.0.0.9:50000", "10.0.0.1:8080")
	out, orders := n.kernel.TCP(1, 2, "127.0.0.1:4000", "127.0.0.1:9000")
	n.tell(in.Open(), in.Receive("GET /order/7?token=abc HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.0\r\n\r\n", in.Named()))
	n.tell(out.Open(), out.Send("POST /price HTTP/1.1\r\nHost: orders:9000\r\nContent-Length: 13\r\n\r\n{\"item\": 7}\r\n", out.Named(), eventtest.For(in.Request)))
	n.tell(orders.Open(), orders.Receive("POST /price HTTP/1.1\r\nHost: orders:9000\r\nContent-Length: 13\r\n\r\n{\"item\": 7}\r\n", orders.Named()))
	n.tell(orders.Send(ok), out.Receive(ok), in.Send(ok))
	n.batch(n.now())
	n.tell(in.Receive("GET /missing HTTP/1.1\r\nHost: shop.example\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n", in.Named()))
	n.tell(in.Send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), in.End(eventtest.Closed), out.End(eventtest.Closed), orders.End(eventtest.Closed))
	n.batch(n.now())
	file := n.end()

	path := filepath.Join("testdata", "shop.recording")
	if *update {
		if err := os.WriteFile(path, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := replayed(t, committed)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.spans.buf.String(); got != want {
		t.Errorf("(-committed +now)\n%s", cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
	}
}

// FuzzReplay takes any recording that is whole: kind, length in two bytes, and so on.
func FuzzReplay(f *testing.F) {
	n := newNode(f, 1, "gateway", "orders", "stock")
	n.live(rand.New(rand.NewPCG(2, 3)), 3)
	r, err := recording.NewReader(bytes.NewReader(n.end()))
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	var seed []byte
	for {
		kind, data, err := r.Next()
		if err != nil {
			break
		}
		seed = append(append(seed, byte(kind), byte(len(data)), byte(len(data)>>8)), data...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var file bytes.Buffer
		w, err := recording.NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		for len(data) > 3 {
			n := min(int(data[1])|int(data[2])<<8, len(data)-3)
			w.Write(recording.Kind(data[0]), data[3:3+n])
			data = data[3+n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		first, err := replayed(t, file.Bytes())
		again, errAgain := replayed(t, file.Bytes())
		if first != again || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Errorf("replayed again:\n%s%v\nwant\n%s%v", again, errAgain, first, err)
		}
	})
}
