// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	nethttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// protocol is HTTP/2 as the agent has it.
var protocol = New(http1.New(http1.Default()))

// result is what a test compares of a span.
type result struct {
	Name       string
	Kind       trace.SpanKind
	Start, End int64
	Status     codes.Code
	Message    string
	Attrs      map[string]any
	Wire       span.Context
	Unanswered bool
	ID         trace.SpanID
	Seq        uint32
}

// sink takes what a decoder hands over and holds it to the contract.
type sink struct {
	t      testing.TB
	states map[*span.Span]span.State
	ids    map[trace.SpanID]bool
	opened []*span.Span
	wires  []span.Context // when they were opened
	done   []*span.Span
	lost   []*span.Span
	whole  bool // a connection may be a span's for itself
}

func newSink(t testing.TB) *sink {
	return &sink{t: t, states: map[*span.Span]span.State{}, ids: map[trace.SpanID]bool{}}
}

func (k *sink) New() *span.Span { return new(span.Span) }

func (k *sink) Span(s *span.Span) {
	old, known := k.states[s]
	switch {
	case s.State == span.Open && known, s.State != span.Open && !known:
		k.t.Errorf("span %v handed over as %d, known %v", s.ID, s.State, known)
	case known && old != span.Open && old != span.Answered, old == span.Answered && s.State == span.Answered:
		k.t.Errorf("span %v handed over as %d after %d", s.ID, s.State, old)
	case !s.ID.IsValid():
		k.t.Errorf("span without an id")
	case !s.Evidence.Multiplexed && !k.whole:
		k.t.Errorf("span %v is said to have its connection for itself", s.ID)
	}
	k.states[s] = s.State
	switch s.State {
	case span.Open:
		if k.ids[s.ID] {
			k.t.Errorf("a second span with the id %v", s.ID)
		}
		k.ids[s.ID] = true
		k.opened = append(k.opened, s)
		k.wires = append(k.wires, s.Wire)
	case span.Answered:
	case span.Done:
		k.done = append(k.done, s)
		if s.End < s.Start || s.Name == "" {
			k.t.Errorf("bad span %+v", s)
		}
		for i, o := range k.opened {
			if o == s && k.wires[i] != s.Wire {
				k.t.Errorf("span %v carries %v, but %v when it was opened", s.ID, s.Wire, k.wires[i])
			}
		}
	case span.Lost:
		k.lost = append(k.lost, s)
	}
}

func (k *sink) Alias(id trace.SpanID, s *span.Span) { k.t.Errorf("alias %v of %v", id, s.ID) }

func (k *sink) results() []result {
	out := make([]result, 0, len(k.done))
	for _, s := range k.done {
		r := result{Name: s.Name, Kind: s.Kind, Start: s.Start, End: s.End, Status: s.Status, Message: s.Message, Attrs: map[string]any{},
			Wire: s.Wire, Unanswered: s.Unanswered, ID: s.ID, Seq: s.Evidence.Seq}
		for _, kv := range s.Attrs {
			if _, twice := r.Attrs[string(kv.Key)]; twice {
				k.t.Errorf("attribute %s is set twice", kv.Key)
			}
			r.Attrs[string(kv.Key)] = kv.Value.AsInterface()
		}
		out = append(out, r)
	}
	return out
}

// balance checks that the account is what was handed over; all must be over.
func (k *sink) balance(acc *ledger.Account) {
	k.t.Helper()
	c := acc.Counts()
	if got, want := c[ledger.Seen]-c.Lost(), uint64(len(k.done)); got != want {
		k.t.Errorf("seen %d, lost %d, but %d spans", c[ledger.Seen], c.Lost(), want)
	}
	if len(k.opened) != len(k.done)+len(k.lost) {
		k.t.Errorf("%d spans opened, %d done, %d lost", len(k.opened), len(k.done), len(k.lost))
	}
}

// part is what one call moves, or another event of a connection.
type part struct {
	answer bool // the server sends it
	data   []byte
	at     int64 // when; else 1000 after the part before
	unseen bool  // it passes before the agent looks
	gap    bool  // the kernel side leaves it out
	lost   bool  // the event is lost
	hidden int   // bytes at the end of it that are not captured
	late   bool  // it is told after the part that follows
	end    *probes.End
}

// peer is one end of a connection.
type peer struct {
	buf    bytes.Buffer
	fields bytes.Buffer
	enc    *hpack.Encoder
	frames *nethttp2.Framer
}

func newPeer() *peer {
	p := new(peer)
	p.enc = hpack.NewEncoder(&p.fields)
	p.frames = nethttp2.NewFramer(&p.buf, nil)
	p.frames.AllowIllegalWrites = true
	return p
}

// block encodes names and values, in turn.
func (p *peer) block(list []string) []byte {
	p.fields.Reset()
	for i := 0; i < len(list); i += 2 {
		if err := p.enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]}); err != nil {
			panic(err)
		}
	}
	return p.fields.Bytes()
}

// talk is a conversation.
type talk struct {
	peers [2]*peer // client, server
	parts []part
}

func newTalk() *talk { return &talk{peers: [2]*peer{newPeer(), newPeer()}} }

// frame is something that an end sends.
type sent func(*peer)

func (x *talk) send(answer int, frames []sent) *part {
	p := x.peers[answer]
	p.buf.Reset()
	for _, f := range frames {
		f(p)
	}
	x.parts = append(x.parts, part{answer: answer == 1, data: bytes.Clone(p.buf.Bytes())})
	return &x.parts[len(x.parts)-1]
}

func (x *talk) client(frames ...sent) *part { return x.send(0, frames) }
func (x *talk) server(frames ...sent) *part { return x.send(1, frames) }

// asked is how many bytes the client has sent.
func (x *talk) asked() (n int) {
	for _, p := range x.parts {
		if !p.answer {
			n += len(p.data)
		}
	}
	return n
}

func (x *talk) end(e probes.End) { x.parts = append(x.parts, part{end: &e}) }

// hello is what both begin with.
func (x *talk) hello() {
	x.client(raw(preface), set)
	x.server(set, ack)
	x.client(ack)
}

func raw(b []byte) sent { return func(p *peer) { p.buf.Write(b) } }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// head begins a request or a response, or is its trailers.
func head(id uint32, list ...string) sent {
	return func(p *peer) {
		must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(list), EndHeaders: true}))
	}
}

// last is a head, or trailers, with which the stream ends.
func last(id uint32, list ...string) sent {
	return func(p *peer) {
		must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(list), EndHeaders: true, EndStream: true}))
	}
}

// secret is what bodies are made of.
const secret = "SECRET"

func bytesOf(n int) []byte { return bytes.Repeat([]byte(secret), n/len(secret)+1)[:n] }

func body(id uint32, n int) sent {
	return func(p *peer) { must(p.frames.WriteData(id, false, bytesOf(n))) }
}

func lastBody(id uint32, n int) sent {
	return func(p *peer) { must(p.frames.WriteData(id, true, bytesOf(n))) }
}

func rst(id uint32, code nethttp2.ErrCode) sent {
	return func(p *peer) { must(p.frames.WriteRSTStream(id, code)) }
}

func away(id uint32) sent {
	return func(p *peer) { must(p.frames.WriteGoAway(id, nethttp2.ErrCodeNo, []byte("enough"))) }
}

func window(id uint32) sent { return func(p *peer) { must(p.frames.WriteWindowUpdate(id, 1000)) } }

func prio(id uint32) sent {
	return func(p *peer) { must(p.frames.WritePriority(id, nethttp2.PriorityParam{Weight: 9})) }
}

var (
	set sent = func(p *peer) {
		must(p.frames.WriteSettings(nethttp2.Setting{ID: nethttp2.SettingMaxConcurrentStreams, Val: 100}))
	}
	ack  sent = func(p *peer) { must(p.frames.WriteSettingsAck()) }
	pong sent = func(p *peer) { must(p.frames.WritePing(false, [8]byte{1, 2, 3})) }
	// other is of a type that this project does not know: ALTSVC.
	other sent = func(p *peer) { must(p.frames.WriteRawFrame(0xa, 0, 0, []byte("\x00\x00h2=\":443\""))) }
)

// ask is a request, its fields but for those that are given; an empty value takes one away.
func ask(list ...string) []string {
	return with([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "example.com"}, list)
}

// call is a gRPC request.
func call(list ...string) []string {
	return with([]string{":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Add", ":authority", "cart.example:50051", "te", "trailers",
		"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0"}, list)
}

func with(common, list []string) []string {
	list = slices.Clone(list)
	var all []string
	for i := 0; i < len(common); i += 2 {
		if j := slices.Index(list, common[i]); j >= 0 && j%2 == 0 {
			if list[j+1] != "" {
				all = append(all, common[i], list[j+1])
			}
			list = slices.Delete(list, j, j+2)
		} else {
			all = append(all, common[i], common[i+1])
		}
	}
	return append(all, list...)
}

// accepted is a gRPC response's head.
func accepted(list ...string) []string {
	return append([]string{":status", "200", "content-type", "application/grpc"}, list...)
}

// conclude is a gRPC response's trailers.
func conclude(id uint32, code string, list ...string) sent {
	return last(id, append([]string{"grpc-status", code}, list...)...)
}

// answered is a gRPC response of one message.
func answered(id uint32) []sent {
	return []sent{head(id, accepted()...), body(id, 12), conclude(id, "0")}
}

func testConn(acc *ledger.Account) *probes.Conn {
	return &probes.Conn{
		ID: 7, LocalAddr: "192.0.2.1", LocalPort: 8080, RemoteAddr: "192.0.2.7", RemotePort: 40000,
		Network: "tcp", Type: "ipv4", Target: &span.Target{Account: acc},
	}
}

// chunk is a chunk or another event.
type chunk struct {
	probes.Chunk
	end *probes.End
}

// splitter cuts the bytes of the i-th part into what single calls move.
type splitter func(i int, data []byte) [][]byte

func whole(_ int, data []byte) [][]byte { return [][]byte{data} }

// pieces moves n bytes at once.
func pieces(n int) splitter {
	return func(_ int, data []byte) [][]byte { return slices.Collect(slices.Chunk(data, n)) }
}

// splitAt cuts part i at offset n.
func splitAt(i, n int) splitter {
	return func(j int, data []byte) [][]byte {
		if i != j {
			return [][]byte{data}
		}
		return [][]byte{data[:n], data[n:]}
	}
}

// chunks makes events of parts, as the process that is, or is not, the server sees them.
func chunks(parts []part, server bool, split splitter) []chunk {
	var list []chunk
	var pos [2]uint64
	var delayed []chunk
	now := int64(0)
	lost := false
	for i, p := range parts {
		if now += 1000; p.at != 0 {
			now = p.at
		}
		if p.end != nil {
			e := *p.end
			if !server && e < probes.Closed {
				e = probes.PeerClosed + probes.LocalClosed - e
			}
			list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			continue
		}
		dir := probes.Ingress
		if p.answer == server {
			dir = probes.Egress
		}
		if p.unseen {
			continue
		}
		if p.gap || p.lost {
			lost = lost || p.lost
			pos[dir] += uint64(len(p.data))
			continue
		}
		var made []chunk
		for j, piece := range split(i, p.data) {
			n := uint64(len(piece))
			c := probes.Chunk{Dir: dir, Pos: pos[dir], Total: n, Head: bytes.Clone(piece), Begin: now, End: now, Lost: j == 0 && lost}
			lost = lost && j > 0
			c.Evidence = span.Evidence{PID: 42, Conn: 7, Seq: uint32(pos[dir]) - 5, HasSeq: true}
			pos[dir] += n
			made = append(made, chunk{Chunk: c})
		}
		if p.hidden > 0 {
			c := &made[len(made)-1].Chunk
			c.Head = c.Head[:len(c.Head)-p.hidden]
		}
		if p.late {
			delayed = made
			continue
		}
		list = append(append(list, made...), delayed...)
		delayed = nil
	}
	return list
}

// play feeds events to a new decoder. A decoder that gives up sees no more.
func play(t testing.TB, conn *probes.Conn, server bool, events []chunk) (*sink, *decoder, error) {
	d := protocol.New(conn, server).(*decoder)
	k := newSink(t)
	for i := range events {
		ev := &events[i]
		if ev.end != nil {
			d.End(*ev.end, ev.Chunk.End, k)
		} else if err := d.Decode(&ev.Chunk, k); err != nil {
			return k, d, err
		}
	}
	return k, d, nil
}

type attrs map[string]any

// want is a span that a test expects. What depends on the side is worked out.
type want struct {
	name       string
	rpc        bool
	start, end int64
	error      string // "", "client" or "both": whose spans are errors
	message    string
	unanswered bool
	wire       span.Context
	attrs      attrs // that all have but for these; nil takes one away
	server     attrs // these on the server's side
	client     attrs
}

func (w want) result(server bool) result {
	r := result{Name: w.name, Start: w.start, End: w.end, Wire: w.wire, Unanswered: w.unanswered, Attrs: map[string]any{
		"network.peer.address": "192.0.2.7", "network.peer.port": int64(40000), "network.protocol.version": "2",
	}}
	a := attrs(r.Attrs)
	switch {
	case w.rpc:
		a["rpc.system.name"], a["rpc.method"], a["rpc.response.status_code"] = "grpc", w.name, "OK"
		a["server.address"], a["server.port"] = "cart.example", int64(50051)
	default:
		a["http.request.method"], a["http.response.status_code"] = "GET", int64(200)
		a["server.address"], a["server.port"] = "example.com", int64(80)
		if server {
			a["url.scheme"], a["url.path"] = "http", "/"
		} else {
			a["url.full"] = "http://example.com/"
		}
	}
	side := w.client
	r.Kind = trace.SpanKindClient
	if server {
		side = w.server
		r.Kind = trace.SpanKindServer
		a["client.address"] = "192.0.2.7"
	}
	for _, over := range []attrs{w.attrs, side} {
		for k, v := range over {
			switch v := v.(type) {
			case nil:
				delete(a, k)
			case int:
				a[k] = int64(v)
			default:
				a[k] = v
			}
		}
	}
	if w.error == "both" || w.error == "client" && !server {
		r.Status, r.Message = codes.Error, w.message
	} else {
		delete(a, "error.type")
	}
	return r
}

type exchangeTest struct {
	name  string
	talk  func(x *talk)
	want  []want
	lost  map[ledger.Entry]uint64
	only  string // "server" or "client": the side that sees it
	mid   bool   // attached in the middle of the connection
	raw   bool   // the talk has the beginning too
	gappy bool   // it shows where calls begin: they must not be split
	pads  bool   // DATA frames are padded: the size of the last one is known only if its header is not the last of a chunk
}

var (
	parent  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	carries = span.Context{
		TraceID: trace.TraceID{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c},
		SpanID:  trace.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}, Flags: trace.FlagsSampled,
	}
)

func carriesState(state string) span.Context {
	c := carries
	c.TraceState = state
	return c
}

func bin(version byte, options ...byte) string {
	b := append([]byte{version, 0}, carries.TraceID[:]...)
	b = append(append(b, 1), carries.SpanID[:]...)
	return base64.RawStdEncoding.EncodeToString(append(b, options...))
}

// The talks of all tests but the raw ones begin with three parts, so that the first of the test's own is at 4000.
var exchangeTests = []exchangeTest{
	{
		name: "GET",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.server(head(1, ":status", "200"), lastBody(1, 300))
		},
		want: []want{{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 300}}},
	},
	{
		name: "requests one after the other",
		talk: func(x *talk) {
			for id := uint32(1); id < 8; id += 2 {
				x.client(last(id, ask(":path", fmt.Sprintf("/%d", id))...))
				x.server(head(id, ":status", "200"), lastBody(id, int(id)))
			}
		},
		want: []want{
			{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 1}, server: attrs{"url.path": "/1"}, client: attrs{"url.full": "http://example.com/1"}},
			{name: "GET", start: 6000, end: 7000, attrs: attrs{"http.response.body.size": 3}, server: attrs{"url.path": "/3"}, client: attrs{"url.full": "http://example.com/3"}},
			{name: "GET", start: 8000, end: 9000, attrs: attrs{"http.response.body.size": 5}, server: attrs{"url.path": "/5"}, client: attrs{"url.full": "http://example.com/5"}},
			{name: "GET", start: 10000, end: 11000, attrs: attrs{"http.response.body.size": 7}, server: attrs{"url.path": "/7"}, client: attrs{"url.full": "http://example.com/7"}},
		},
	},
	{
		name: "POST, all attributes",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST", ":scheme", "https", ":path", "/a/b%20c?x=1&token=abc", ":authority", "Shop.example:8443",
				"user-agent", "curl/8.5", "x-forwarded-for", "203.0.113.9:1234, 10.0.0.1", "cookie", "a=b")...), body(1, 40), lastBody(1, 2))
			x.server(head(1, ":status", "500", "content-length", "3"), body(1, 3), lastBody(1, 0))
		},
		want: []want{{name: "POST", start: 4000, end: 5000, error: "both", attrs: attrs{
			"http.request.method": "POST", "http.response.status_code": 500, "error.type": "500", "http.request.body.size": 42, "http.response.body.size": 3,
			"server.address": "Shop.example", "server.port": 8443,
		}, server: attrs{
			"url.scheme": "https", "url.path": "/a/b%20c", "url.query": "x=1&token=REDACTED", "user_agent.original": "curl/8.5", "client.address": "203.0.113.9",
		}, client: attrs{"url.full": "https://Shop.example:8443/a/b%20c?x=1&token=REDACTED"}}},
	},
	{
		name: "404 is the client's error",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.server(last(1, ":status", "404"))
		},
		want: []want{{name: "GET", start: 4000, end: 5000, error: "client", attrs: attrs{"http.response.status_code": 404, "error.type": "404", "http.response.body.size": 0}}},
	},
	{
		name: "no body",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "PUT")...), lastBody(1, 9))
			x.server(last(1, ":status", "204"))
			x.client(last(3, ask()...))
			x.server(last(3, ":status", "304", "content-length", "900"))
			x.client(last(5, ask(":method", "HEAD")...))
			x.server(last(5, ":status", "200", "content-length", "900"))
		},
		want: []want{
			{name: "PUT", start: 4000, end: 5000, attrs: attrs{"http.request.method": "PUT", "http.response.status_code": 204, "http.request.body.size": 9}},
			{name: "GET", start: 6000, end: 7000, attrs: attrs{"http.response.status_code": 304}},
			{name: "HEAD", start: 8000, end: 9000, attrs: attrs{"http.request.method": "HEAD"}},
		},
	},
	{
		name: "interim responses",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST", "expect", "100-continue")...))
			x.server(head(1, ":status", "103", "link", "</s.css>"), head(1, ":status", "100"))
			x.client(lastBody(1, 10))
			x.server(head(1, ":status", "200"))
			x.server(lastBody(1, 2))
		},
		want: []want{{name: "POST", start: 4000, end: 8000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 10, "http.response.body.size": 2}}},
	},
	{
		name: "trailers of both sides",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST", "trailer", "x-sum")...), body(1, 10), last(1, "x-sum", "1"))
			x.server(head(1, ":status", "200"), body(1, 20))
			x.server(last(1, "x-sum", "2"))
		},
		want: []want{{name: "POST", start: 4000, end: 6000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 10, "http.response.body.size": 20}}},
	},
	{
		name: "trailers of a request that is answered",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST")...), body(1, 10))
			x.server(last(1, ":status", "413"))
			x.client(body(1, 10), last(1, "x-sum", "1"))
			x.server(rst(1, nethttp2.ErrCodeNo))
		},
		want: []want{{name: "POST", start: 4000, end: 5000, error: "client", attrs: attrs{"http.request.method": "POST", "http.response.status_code": 413,
			"error.type": "413", "http.response.body.size": 0}}},
	},
	{
		name: "the rest of the request is not wanted",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST")...), body(1, 10))
			x.server(head(1, ":status", "200"), body(1, 4))
			x.server(rst(1, nethttp2.ErrCodeNo))
		},
		want: []want{{name: "POST", start: 4000, end: 6000, attrs: attrs{"http.request.method": "POST", "http.response.body.size": 4}}},
	},
	{
		name: "CONTINUATION",
		talk: func(x *talk) {
			x.client(fragments(1, true, 3, ask(":path", "/split", "x-a", strings.Repeat("a", 100))...))
			x.server(fragments(1, false, 100, ":status", "201", "x-b", strings.Repeat("b", 300)), lastBody(1, 1))
			x.client(last(3, ask(":path", "/split")...)) // by the table
			x.server(last(3, ":status", "201"))
		},
		want: []want{
			{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.status_code": 201, "http.response.body.size": 1}, server: attrs{"url.path": "/split"}, client: attrs{"url.full": "http://example.com/split"}},
			{name: "GET", start: 6000, end: 7000, attrs: attrs{"http.response.status_code": 201, "http.response.body.size": 0}, server: attrs{"url.path": "/split"}, client: attrs{"url.full": "http://example.com/split"}},
		},
	},
	{
		name: "padding and priority",
		talk: func(x *talk) {
			x.client(prio(1), func(p *peer) {
				must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(ask(":method", "POST")), EndHeaders: true, PadLength: 7,
					Priority: nethttp2.PriorityParam{StreamDep: 3, Exclusive: true, Weight: 200}}))
				must(p.frames.WriteDataPadded(1, false, bytesOf(10), make([]byte, 255)))
				must(p.frames.WriteDataPadded(1, true, nil, []byte{}))
			})
			x.server(func(p *peer) {
				must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block([]string{":status", "200"}), EndHeaders: true, PadLength: 200}))
				must(p.frames.WriteDataPadded(1, true, bytesOf(20), make([]byte, 3)))
			})
		},
		want: []want{{name: "POST", start: 4000, end: 5000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 10, "http.response.body.size": 20}}},
		pads: true,
	},
	{
		name: "PUSH_PROMISE",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.server(func(p *peer) {
				must(p.frames.WritePushPromise(nethttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.block(ask(":path", "/pushed", "x-new", "entry")), EndHeaders: true, PadLength: 3}))
			}, head(1, ":status", "200", "x-new", "entry"), lastBody(1, 5), head(2, ":status", "200"), lastBody(2, 50))
			x.client(last(3, ask()...))
			x.server(last(3, ":status", "418", "x-new", "entry"))
			x.client(last(5, ask()...))
			x.server(last(5, ":status", "418", "x-new", "entry"))
		},
		want: []want{
			{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 5}},
			{name: "GET", start: 6000, end: 7000, error: "client", attrs: attrs{"http.response.status_code": 418, "error.type": "418", "http.response.body.size": 0}},
			{name: "GET", start: 8000, end: 9000, error: "client", attrs: attrs{"http.response.status_code": 418, "error.type": "418", "http.response.body.size": 0}},
		},
	},
	{
		name: "what is about the connection",
		talk: func(x *talk) {
			x.client(pong, window(0), last(1, ask()...), window(1), prio(1), set)
			x.server(ack, other, pong)
			x.server(head(1, ":status", "200"), window(0), pong, body(1, 5), set, other)
			x.client(pong)
			x.server(pong, lastBody(1, 5), pong)
		},
		want: []want{{name: "GET", start: 4000, end: 8000, attrs: attrs{"http.response.body.size": 10}}},
	},
	{
		name: "interleaved",
		talk: func(x *talk) {
			x.client(last(1, ask()...), head(3, ask(":method", "POST")...), head(5, call()...))
			x.client(body(5, 10), body(3, 10), last(7, ask(":path", "/7")...), lastBody(5, 10))
			x.server(head(7, ":status", "200"), head(5, accepted()...), body(7, 1), body(5, 30), lastBody(7, 1))
			x.client(lastBody(3, 5))
			x.server(conclude(5, "0"), head(3, ":status", "200"), head(1, ":status", "200"))
			x.server(lastBody(1, 100))
			x.server(lastBody(3, 101))
		},
		want: []want{
			{name: "GET", start: 5000, end: 6000, attrs: attrs{"http.response.body.size": 2}, server: attrs{"url.path": "/7"}, client: attrs{"url.full": "http://example.com/7"}},
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 8000},
			{name: "GET", start: 4000, end: 9000, attrs: attrs{"http.response.body.size": 100}},
			{name: "POST", start: 4000, end: 10000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 15, "http.response.body.size": 101}},
		},
	},
	{
		name: "GOAWAY",
		talk: func(x *talk) {
			x.client(last(1, ask()...), last(3, ask()...))
			x.server(away(1), head(1, ":status", "200"), lastBody(1, 5))
			x.end(probes.LocalClosed)
		},
		want: []want{
			{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 5}},
			{name: "GET", start: 4000, end: 6000, error: "both", unanswered: true, attrs: attrs{"http.response.status_code": nil, "error.type": "connection_closed"}},
		},
	},
	{
		name: "CONNECT",
		talk: func(x *talk) {
			x.client(head(1, ":method", "CONNECT", ":authority", "db.example:5432"))
			x.server(head(1, ":status", "200"))
			x.client(body(1, 100))
			x.server(body(1, 100), lastBody(1, 0))
		},
		want: []want{{name: "CONNECT", start: 4000, end: 5000, attrs: attrs{"http.request.method": "CONNECT", "server.address": "db.example", "server.port": 5432},
			server: attrs{"url.path": nil}, client: attrs{"url.full": "db.example:5432"}}},
	},
	{
		name: "Host instead of :authority",
		talk: func(x *talk) {
			x.client(last(1, ask(":authority", "", "host", "other.example:81")...))
			x.server(last(1, ":status", "200"))
		},
		want: []want{{name: "GET", start: 4000, end: 5000, attrs: attrs{"server.address": "other.example", "server.port": 81, "http.response.body.size": 0},
			client: attrs{"url.full": "http://other.example:81/"}}},
	},
	{
		name: "values that would be more than one line",
		talk: func(x *talk) {
			x.client(last(1, ask(":path", "/a b\r\nx: y", "user-agent", "a\r\nb")...))
			x.server(last(1, ":status", "200"))
		},
		want: []want{{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 0}, server: attrs{"url.path": "/a_b__x:_y"}, client: attrs{"url.full": "http://example.com/a_b__x:_y"}}},
	},
	{
		name: "HTTP reset by the client",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.server(head(1, ":status", "200"), body(1, 100))
			x.client(rst(1, nethttp2.ErrCodeCancel))
			x.server(body(1, 100))
		},
		want: []want{{name: "GET", start: 4000, end: 6000, error: "both", attrs: attrs{"error.type": "connection_reset"}}},
	},
	{
		name: "HTTP reset by the server",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.server(rst(1, nethttp2.ErrCodeInternal))
		},
		want: []want{{name: "GET", start: 4000, end: 5000, error: "both", unanswered: true, attrs: attrs{"http.response.status_code": nil, "error.type": "connection_reset"}}},
	},

	{
		name: "unary call",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.server(answered(1)...)
			x.client(head(3, call()...), lastBody(3, 10))
			x.server(answered(3)...)
		},
		want: []want{{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000}, {name: "shop.Cart/Add", rpc: true, start: 6000, end: 7000}},
	},
	{
		name: "stream of both sides",
		talk: func(x *talk) {
			x.client(head(1, call(":path", "/shop.Cart/Watch", "content-type", "application/grpc+proto")...))
			x.server(head(1, accepted()...))
			for range 5 {
				x.client(body(1, 10))
				x.server(body(1, 20))
			}
			x.client(lastBody(1, 0))
			x.server(body(1, 20))
			x.server(conclude(1, "0", "x-cost", "1"))
		},
		want: []want{{name: "shop.Cart/Watch", rpc: true, start: 4000, end: 18000}},
	},
	{
		name: "no response but trailers",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.server(last(1, accepted("grpc-status", "5", "grpc-message", "no cart %27a%27: 100%25 %E2%82%AC")...))
		},
		want: []want{{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "client", message: "no cart 'a': 100% €",
			attrs: attrs{"rpc.response.status_code": "NOT_FOUND", "error.type": "NOT_FOUND"}}},
	},
	{
		name: "errors",
		talk: func(x *talk) {
			for i, code := range []string{"2", "13", "16", "42", "x\xff"} {
				id := uint32(2*i + 1)
				x.client(head(id, call()...), lastBody(id, 10))
				x.server(head(id, accepted()...), conclude(id, code, "grpc-message", "100% %zz\xff"))
			}
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "both", message: "100% %zz\uFFFD", attrs: attrs{"rpc.response.status_code": "UNKNOWN", "error.type": "UNKNOWN"}},
			{name: "shop.Cart/Add", rpc: true, start: 6000, end: 7000, error: "both", message: "100% %zz\uFFFD", attrs: attrs{"rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL"}},
			{name: "shop.Cart/Add", rpc: true, start: 8000, end: 9000, error: "client", message: "100% %zz\uFFFD", attrs: attrs{"rpc.response.status_code": "UNAUTHENTICATED", "error.type": "UNAUTHENTICATED"}},
			{name: "shop.Cart/Add", rpc: true, start: 10000, end: 11000, error: "client", message: "100% %zz\uFFFD", attrs: attrs{"rpc.response.status_code": "42", "error.type": "42"}},
			{name: "shop.Cart/Add", rpc: true, start: 12000, end: 13000, error: "client", message: "100% %zz\uFFFD", attrs: attrs{"rpc.response.status_code": "x\uFFFD", "error.type": "x\uFFFD"}},
		},
	},
	{
		name: "no grpc-status",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.server(head(1, ":status", "503", "content-type", "text/html"), lastBody(1, 100))
			x.client(head(3, call()...), lastBody(3, 10))
			x.server(head(3, accepted()...), lastBody(3, 10))
			x.client(head(5, call()...), lastBody(5, 10))
			x.server(last(5, ":status", "404"))
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "both", attrs: attrs{"rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE"}},
			{name: "shop.Cart/Add", rpc: true, start: 6000, end: 7000, error: "both", attrs: attrs{"rpc.response.status_code": "UNKNOWN", "error.type": "UNKNOWN"}},
			{name: "shop.Cart/Add", rpc: true, start: 8000, end: 9000, error: "both", attrs: attrs{"rpc.response.status_code": "UNIMPLEMENTED", "error.type": "UNIMPLEMENTED"}},
		},
	},
	{
		name: "cancelled by the client",
		talk: func(x *talk) {
			x.client(head(1, call("grpc-timeout", "10u")...), lastBody(1, 10))
			x.client(rst(1, nethttp2.ErrCodeCancel))
			x.client(head(3, call("grpc-timeout", "99999999H")...), lastBody(3, 10))
			x.server(head(3, accepted()...), body(3, 10))
			x.client(rst(3, nethttp2.ErrCodeCancel))
			x.server(body(3, 10), conclude(3, "0"))
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "CANCELLED", "error.type": "CANCELLED"}},
			{name: "shop.Cart/Add", rpc: true, start: 6000, end: 8000, error: "both", attrs: attrs{"rpc.response.status_code": "CANCELLED", "error.type": "CANCELLED"}},
		},
	},
	{
		name: "the deadline is over",
		talk: func(x *talk) {
			x.client(head(1, call("grpc-timeout", "10u")...), lastBody(1, 10)).at = 4000
			x.client(rst(1, nethttp2.ErrCodeCancel)).at = 14000
			x.client(head(3, call("grpc-timeout", "1m")...), lastBody(3, 10)).at = 15000
			x.server(rst(3, nethttp2.ErrCodeCancel)).at = 15000 + 1000000
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 14000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "DEADLINE_EXCEEDED", "error.type": "DEADLINE_EXCEEDED"}},
			{name: "shop.Cart/Add", rpc: true, start: 15000, end: 1015000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "DEADLINE_EXCEEDED", "error.type": "DEADLINE_EXCEEDED"}},
		},
	},
	{
		name: "reset by the server",
		talk: func(x *talk) {
			for i, code := range []nethttp2.ErrCode{nethttp2.ErrCodeRefusedStream, nethttp2.ErrCodeEnhanceYourCalm, nethttp2.ErrCodeInadequateSecurity, nethttp2.ErrCodeProtocol} {
				id := uint32(2*i + 1)
				x.client(head(id, call()...), lastBody(id, 10))
				x.server(rst(id, code))
			}
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE"}},
			{name: "shop.Cart/Add", rpc: true, start: 6000, end: 7000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "RESOURCE_EXHAUSTED", "error.type": "RESOURCE_EXHAUSTED"}},
			{name: "shop.Cart/Add", rpc: true, start: 8000, end: 9000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "PERMISSION_DENIED", "error.type": "PERMISSION_DENIED"}},
			{name: "shop.Cart/Add", rpc: true, start: 10000, end: 11000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL"}},
		},
	},
	{
		name: "gRPC-Web is HTTP",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST", "content-type", "application/grpc-web+proto")...), lastBody(1, 10))
			x.server(head(1, ":status", "200", "content-type", "application/grpc-web+proto"), lastBody(1, 30))
		},
		want: []want{{name: "POST", start: 4000, end: 5000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 10, "http.response.body.size": 30}}},
	},
	{
		name: "a call is known by its response",
		talk: func(x *talk) {
			x.client(head(1, call("content-type", "")...), lastBody(1, 10))
			x.server(answered(1)...)
		},
		want: []want{{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000}},
	},

	{
		name: "contexts",
		talk: func(x *talk) {
			for i, list := range [][]string{
				{"traceparent", parent},
				{"tracestate", "a=1", "traceparent", parent, "tracestate", "b=2"},
				{"traceparent", parent, "traceparent", parent},
				{"traceparent", parent[:50], "b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"},
				{"x-b3-traceid", "0af7651916cd43dd8448eb211c80319c", "x-b3-spanid", "b7ad6b7169203331", "x-b3-sampled", "0", "x-b3-flags", "1"},
				{"grpc-trace-bin", bin(0, 2, 1)},
				{"grpc-trace-bin", bin(1, 2, 1)},
				{"grpc-trace-bin", bin(0, 2, 1), "traceparent", parent, "tracestate", "c=3"},
			} {
				id := uint32(4*i + 1)
				x.client(head(id, call(list...)...), lastBody(id, 10), last(id+2, ask(list...)...))
				x.server(append(answered(id), last(id+2, ":status", "200"))...)
			}
		},
		want: func() []want {
			var list []want
			for i, c := range []span.Context{carries, carriesState("a=1,b=2"), {}, carries, carries, carries, {}, carriesState("c=3")} {
				at := int64(4000 + 2000*i)
				list = append(list, want{name: "shop.Cart/Add", rpc: true, start: at, end: at + 1000, wire: c},
					want{name: "GET", start: at, end: at + 1000, wire: c, attrs: attrs{"http.response.body.size": 0}})
			}
			return list
		}(),
	},

	{
		name: "the connection is closed",
		talk: func(x *talk) { x.open(); x.end(probes.Closed) },
		want: openWants("connection_closed"),
	},
	{
		name: "the connection is reset",
		talk: func(x *talk) { x.open(); x.end(probes.Reset) },
		want: openWants("connection_reset"),
	},
	{
		name: "the agent stops",
		talk: func(x *talk) { x.open(); x.end(probes.Stopped) },
		want: openWants(""),
	},
	{
		name: "the client stops sending",
		talk: func(x *talk) {
			x.client(last(1, ask()...))
			x.end(probes.PeerClosed)
			x.server(last(1, ":status", "200"))
			x.end(probes.Closed)
		},
		want: []want{{name: "GET", start: 4000, end: 6000, attrs: attrs{"http.response.body.size": 0}}},
	},
	{
		name: "the server stops sending",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.end(probes.LocalClosed)
			x.end(probes.Closed)
		},
		want: []want{{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": nil, "error.type": "connection_closed"}}},
	},

	{
		name: "events were lost",
		talk: func(x *talk) {
			x.client(head(1, call("x-a", "1")...), lastBody(1, 10))
			x.server(answered(1)...)
			x.client(head(3, call()...), lastBody(3, 10), last(5, ask()...), last(7, ask(":method", "HEAD")...))
			x.server(last(7, ":status", "200"), head(5, ":status", "200"))
			x.client(head(9, call("x-a", "2")...), lastBody(9, 10)).lost = true
			x.server(body(5, 10), conclude(3, "0"), lastBody(5, 10))
			// Nothing of the server's is missing: its table is known.
			x.client(head(11, call("x-a", "3", ":path", "/shop.Cart/Get")...), lastBody(11, 10))
			x.server(answered(11)...)
			x.client(head(13, call(":path", "/shop.Cart/Get")...), lastBody(13, 10))
			x.server(answered(13)...)
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000},
			{name: "HEAD", start: 6000, end: 7000, attrs: attrs{"http.request.method": "HEAD"}},
			{name: "shop.Cart/Get", rpc: true, start: 10000, end: 11000, attrs: attrs{"breadcrumb.unknown_fields": true},
				server: attrs{"server.address": "192.0.2.1", "server.port": 8080}, client: attrs{"server.address": "192.0.2.7", "server.port": 40000}},
			{name: "shop.Cart/Get", rpc: true, start: 12000, end: 13000, attrs: attrs{"breadcrumb.unknown_fields": true},
				server: attrs{"server.address": "192.0.2.1", "server.port": 8080}, client: attrs{"server.address": "192.0.2.7", "server.port": 40000}},
		},
		lost: map[ledger.Entry]uint64{ledger.RingFull: 3}, // with 9, by its number
	},
	{
		name: "events were lost in the middle of frames",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.server(head(1, accepted()...))
			x.server(lastBody(1, 3000)).lost = true
			// What follows in that direction begins in the middle of something; in the other one in the middle of a frame, which goes on.
			x.client(raw([]byte{0, 0}))
			x.client(func(p *peer) {
				var q peer
				q.frames = nethttp2.NewFramer(&q.buf, nil)
				window(0)(&q)
				p.buf.Write(q.buf.Bytes()[2:])
			}, head(3, call()...), lastBody(3, 10))
			x.server(raw(bytesOf(100)))
			x.server(head(3, accepted()...), lastBody(3, 10))
			x.client(head(5, call()...), lastBody(5, 10))
			x.server(answered(5)...)
		},
		want: []want{{name: "shop.Cart/Add", rpc: true, start: 11000, end: 12000, attrs: attrs{"breadcrumb.unknown_fields": nil}}},
		lost: map[ledger.Entry]uint64{ledger.RingFull: 1, ledger.Truncated: 1}, gappy: true,
	},
	{
		name: "a block of which the beginning was lost",
		talk: func(x *talk) {
			x.client(head(1, call()...), lastBody(1, 10))
			x.server(answered(1)...)
			var rest []byte
			x.client(fragments(3, true, 5, call("x-a", "1")...), func(p *peer) {
				n := headerSize + 5
				rest = bytes.Clone(p.buf.Bytes()[n:])
				p.buf.Truncate(n)
			}).lost = true
			x.client(raw(rest))
			x.client(head(5, call(":path", "/shop.Cart/Get")...), lastBody(5, 10))
			x.server(answered(5)...)
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000},
			{name: "shop.Cart/Get", rpc: true, start: 8000, end: 9000, attrs: attrs{"breadcrumb.unknown_fields": true},
				server: attrs{"server.address": "192.0.2.1", "server.port": 8080}, client: attrs{"server.address": "192.0.2.7", "server.port": 40000}},
		},
		gappy: true,
	},
	{
		name: "the kernel side leaves out what is of no use",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST")...), cut(1, false, 1000))
			x.client(skipped(1000 - 5)).gap = true
			x.client(pong, window(0), prio(3)).gap = true
			x.client(cut(1, true, 6))
			x.client(skipped(1)).gap = true
			x.client(window(0)).gap = true
			x.server(head(1, ":status", "200"), cut(1, false, 500))
			x.server(skipped(500-5), pong).gap = true
			x.client(head(3, call()...), cut(3, true, 300))
			x.client(skipped(300 - 5)).gap = true
			x.server(lastBody(1, 4), head(3, accepted()...), cut(3, false, 70))
			x.server(skipped(70 - 5)).gap = true
			x.server(window(3)).gap = true
			x.server(conclude(3, "0"))
		},
		want: []want{
			{name: "POST", start: 4000, end: 14000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 1006, "http.response.body.size": 504}},
			{name: "shop.Cart/Add", rpc: true, start: 12000, end: 17000},
		},
	},
	{
		name: "the kernel side leaves out whole DATA frames",
		talk: func(x *talk) {
			x.client(head(1, ask(":method", "POST")...))
			x.client(body(1, 16384), body(1, 16384)).gap = true
			x.client(lastBody(1, 10))
			x.server(head(1, ":status", "200"), body(1, 10))
			x.server(body(1, 2049)).gap = true
			x.server(lastBody(1, 0))
			x.client(head(3, ask(":method", "POST")...), lastBody(3, 10))
			x.server(head(3, ":status", "200"), lastBody(3, 10))
		},
		want: []want{
			{name: "POST", start: 4000, end: 9000, attrs: attrs{"http.request.method": "POST"}},
			{name: "POST", start: 10000, end: 11000, attrs: attrs{"http.request.method": "POST", "http.request.body.size": 10, "http.response.body.size": 10}},
		},
	},
	{
		name: "the kernel side does not walk the frames yet", mid: true, raw: true,
		talk: func(x *talk) {
			x.client(last(1, ask(":path", "/1")...), last(3, ask(":path", "/3")...)).hidden = 10
			x.client(last(5, ask(":path", "/5", "x-a", "a")...)).gap = true
			x.client(last(7, ask(":path", "/7")...))
			x.server(last(7, ":status", "200"))
			x.client(last(9, ask(":path", "/5")...))
			x.server(last(9, ":status", "200"))
		},
		want: []want{
			{name: "GET", start: 3000, end: 4000, attrs: attrs{"http.response.body.size": 0, "breadcrumb.unknown_fields": true},
				server: attrs{"url.path": "/7", "server.address": "192.0.2.1", "server.port": 8080}, client: attrs{"url.full": "http://192.0.2.7:40000/7", "server.address": "192.0.2.7", "server.port": 40000}},
			{name: "GET", start: 5000, end: 6000, attrs: attrs{"http.response.body.size": 0, "breadcrumb.unknown_fields": true},
				server: attrs{"url.path": nil, "server.address": "192.0.2.1", "server.port": 8080}, client: attrs{"url.full": nil, "server.address": "192.0.2.7", "server.port": 40000}},
		},
		lost: map[ledger.Entry]uint64{ledger.Truncated: 1}, gappy: true,
	},

	{
		name: "attached in the middle", mid: true, raw: true,
		talk: func(x *talk) {
			x.client(last(1, ask(":path", "/old", "user-agent", "curl/8.5")...)).unseen = true
			x.server(last(1, ":status", "418")).unseen = true
			x.client(last(3, ask(":path", "/old")...))
			x.server(last(3, ":status", "418"))
			x.client(last(5, ask(":path", "/new", "user-agent", "curl/8.5")...))
			x.server(last(5, ":status", "404"))
			x.client(last(7, ask(":path", "/new", ":authority", "new.example")...))
			x.server(last(7, ":status", "200"))
		},
		want: []want{
			{name: "GET", start: 3000, end: 4000, attrs: attrs{"http.response.status_code": nil, "http.response.body.size": 0, "breadcrumb.unknown_fields": true},
				server: attrs{"url.path": nil, "server.address": "192.0.2.1", "server.port": 8080},
				client: attrs{"url.full": nil, "server.address": "192.0.2.7", "server.port": 40000}},
			{name: "GET", start: 5000, end: 6000, error: "client", attrs: attrs{"http.response.status_code": 404, "error.type": "404", "http.response.body.size": 0, "breadcrumb.unknown_fields": true},
				server: attrs{"url.path": "/new", "server.address": "192.0.2.1", "server.port": 8080},
				client: attrs{"url.full": "http://192.0.2.7:40000/new", "server.address": "192.0.2.7", "server.port": 40000}},
			{name: "GET", start: 7000, end: 8000, attrs: attrs{"http.response.body.size": 0, "server.address": "new.example"},
				server: attrs{"url.path": "/new"}, client: attrs{"url.full": "http://new.example/new"}},
		},
	},
	{
		name: "attached in the middle, the method is not known", mid: true, raw: true,
		talk: func(x *talk) {
			x.client(last(1, ask(":method", "PATCH", ":path", "/old")...)).unseen = true
			x.server(last(1, ":status", "200")).unseen = true
			x.client(last(3, ask(":method", "PATCH", ":path", "/old")...))
			x.server(last(3, ":status", "200"))
		},
		want: []want{{name: "HTTP", start: 3000, end: 4000, attrs: attrs{"http.request.method": "_OTHER", "http.response.body.size": 0, "breadcrumb.unknown_fields": true},
			server: attrs{"url.path": nil, "server.address": "192.0.2.1", "server.port": 8080},
			client: attrs{"url.full": nil, "server.address": "192.0.2.7", "server.port": 40000}}},
	},
	{
		name: "attached in the middle, then trailers of a request that is answered", mid: true, raw: true,
		talk: func(x *talk) {
			x.client(head(5, ask(":method", "POST")...), body(5, 10))
			x.server(last(5, ":status", "413"))
			x.client(last(5, "x-sum", "1"))
			x.client(last(7, ask()...))
			x.server(last(7, ":status", "200"))
		},
		want: []want{
			{name: "POST", start: 1000, end: 2000, error: "client", attrs: attrs{"http.request.method": "POST", "http.response.status_code": 413,
				"error.type": "413", "http.response.body.size": 0}},
			{name: "GET", start: 4000, end: 5000, attrs: attrs{"http.response.body.size": 0}},
		},
	},
	{
		name: "attached in the middle of calls", mid: true, raw: true,
		talk: func(x *talk) {
			x.client(head(1, call(":path", "/a.A/Old")...), lastBody(1, 10)).unseen = true
			x.server(head(1, accepted()...)).unseen = true
			x.client(head(3, call(":path", "/a.A/New", "content-type", "application/grpc+proto")...), lastBody(3, 10))
			x.server(answered(3)...)
			x.client(head(5, call(":path", "/a.A/Old")...), lastBody(5, 10))
			x.server(head(5, accepted()...), body(5, 10), conclude(5, "7"))
			x.client(head(7, call(":path", "/a.A/New", ":authority", "new.example:1")...), lastBody(7, 10))
			x.server(head(7, accepted()...), body(7, 10), conclude(7, "7"))
		},
		want: func() []want {
			server, client := attrs{"server.address": "192.0.2.1", "server.port": 8080}, attrs{"server.address": "192.0.2.7", "server.port": 40000}
			return []want{
				{name: "a.A/New", rpc: true, start: 3000, end: 4000, server: server, client: client, attrs: attrs{"breadcrumb.unknown_fields": true}},
				{name: "grpc", rpc: true, start: 5000, end: 6000, server: server, client: client, error: "client",
					attrs: attrs{"rpc.method": nil, "rpc.response.status_code": "PERMISSION_DENIED", "error.type": "PERMISSION_DENIED", "breadcrumb.unknown_fields": true}},
				{name: "a.A/New", rpc: true, start: 7000, end: 8000, error: "client",
					attrs: attrs{"rpc.response.status_code": "PERMISSION_DENIED", "error.type": "PERMISSION_DENIED", "server.address": "new.example", "server.port": 1, "breadcrumb.unknown_fields": true}},
			}
		}(),
	},
	{
		name: "attached in the middle of a frame", mid: true, raw: true,
		talk: func(x *talk) {
			x.server(raw(bytesOf(100)))
			x.client(last(1, ask()...))
			x.server(raw(bytesOf(100)))
			x.server(head(1, ":status", "200"), lastBody(1, 10))
			x.client(last(3, ask()...))
			x.server(head(3, ":status", "200"), lastBody(3, 10))
		},
		want: []want{{name: "GET", start: 5000, end: 6000, attrs: attrs{"http.response.body.size": 10}}},
		lost: map[ledger.Entry]uint64{ledger.Truncated: 1}, gappy: true,
	},

	{
		name: "a response is told before its request", only: "client",
		talk: func(x *talk) {
			x.client(head(1, call("traceparent", parent)...), lastBody(1, 10)).late = true
			x.server(answered(1)...)
			x.client(last(3, ask()...)).late = true
			x.server(head(3, ":status", "404"), lastBody(3, 7))
			x.client(head(5, call()...), lastBody(5, 10)).late = true
			x.server(rst(5, nethttp2.ErrCodeRefusedStream))
			x.client(last(7, ask()...)).late = true
			x.server(head(7, ":status", "200"), body(7, 7))
			x.server(lastBody(7, 8))
		},
		want: []want{
			{name: "shop.Cart/Add", rpc: true, start: 4000, end: 5000, wire: carries},
			{name: "GET", start: 6000, end: 7000, error: "client", attrs: attrs{"http.response.status_code": 404, "error.type": "404", "http.response.body.size": 7}},
			{name: "GET", start: 10000, end: 12000, attrs: attrs{"http.response.body.size": 15}},
			{name: "shop.Cart/Add", rpc: true, start: 8000, end: 13000, error: "both", unanswered: true, attrs: attrs{"rpc.response.status_code": nil, "error.type": "connection_closed"}},
		},
	},
}

// open leaves streams open.
func (x *talk) open() {
	x.client(last(1, ask()...), last(3, ask()...), head(5, call()...), head(7, call()...))
	x.server(head(3, ":status", "200"), body(3, 10), head(7, accepted()...), body(7, 10))
}

// openWants are what becomes of them.
func openWants(failure string) []want {
	over := func(more attrs) attrs {
		if more["error.type"] = failure; failure == "" {
			delete(more, "error.type")
			more["breadcrumb.unfinished"] = true
		}
		return more
	}
	list := []want{
		{name: "GET", start: 4000, end: 6000, unanswered: true, attrs: over(attrs{"http.response.status_code": nil})},
		{name: "GET", start: 4000, end: 6000, attrs: over(attrs{})},
		{name: "shop.Cart/Add", rpc: true, start: 4000, end: 6000, unanswered: true, attrs: over(attrs{"rpc.response.status_code": nil})},
		{name: "shop.Cart/Add", rpc: true, start: 4000, end: 6000, attrs: over(attrs{"rpc.response.status_code": nil})},
	}
	for i := range list {
		if failure != "" {
			list[i].error = "both"
		}
	}
	return list
}

// fragments is a head in frames of n bytes.
func fragments(id uint32, end bool, n int, list ...string) sent {
	return func(p *peer) {
		block := p.block(list)
		must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: end}))
		for block = block[n:]; len(block) > n; block = block[n:] {
			must(p.frames.WriteContinuation(id, false, block[:n]))
		}
		must(p.frames.WriteContinuation(id, true, block))
	}
}

// cut is a DATA frame of n bytes of which five are told; the others are to be skipped.
func cut(id uint32, end bool, n int) sent {
	return func(p *peer) {
		must(p.frames.WriteData(id, end, bytesOf(n)))
		p.buf.Truncate(p.buf.Len() - (n - 5))
	}
}

func skipped(n int) sent { return raw(bytesOf(n)) }

// parts are the test's, with the beginning of the connection.
func (test *exchangeTest) parts() []part {
	x := newTalk()
	if !test.raw {
		x.hello()
	}
	test.talk(x)
	if n := len(x.parts); x.parts[n-1].end == nil {
		x.end(probes.Closed)
	}
	return x.parts
}

func (test *exchangeTest) conn(acc *ledger.Account) *probes.Conn {
	c := testConn(acc)
	c.Established = test.mid
	return c
}

// alike compares what a test gave with what it gave when it was split.
func (test *exchangeTest) alike(whole, split []result) bool {
	if test.pads && len(whole) == len(split) {
		whole = slices.Clone(whole)
		for i, r := range split {
			whole[i].Attrs = maps.Clone(whole[i].Attrs)
			for _, key := range []string{"http.request.body.size", "http.response.body.size"} {
				if _, ok := r.Attrs[key]; !ok {
					delete(whole[i].Attrs, key)
				}
			}
		}
	}
	return reflect.DeepEqual(whole, split)
}

// sides runs a test as the server sees the connection, and as the client does.
func (test *exchangeTest) sides(t *testing.T, run func(t *testing.T, server bool)) {
	for _, side := range []string{"server", "client"} {
		if test.only == "" || test.only == side {
			t.Run(test.name+", "+side, func(t *testing.T) { run(t, side == "server") })
		}
	}
}

func TestExchanges(t *testing.T) {
	for i := range exchangeTests {
		test := &exchangeTests[i]
		test.sides(t, func(t *testing.T, server bool) {
			parts := test.parts()
			var first []result
			check := func(what string, split splitter) {
				t.Helper()
				acc := new(ledger.Account)
				events := chunks(parts, server, split)
				k, d, err := play(t, test.conn(acc), server, events)
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				k.balance(acc)
				counts := acc.Counts()
				for e := ledger.FirstLoss; e < ledger.Entries; e++ {
					if counts[e] != test.lost[e] {
						t.Errorf("%s: lost %v: %d, want %d", what, e, counts[e], test.lost[e])
					}
				}
				if len(d.streams) > 0 || d.early != 0 {
					t.Errorf("%s: %d streams are open, %d early", what, len(d.streams), d.early)
				}
				got := k.results()
				if first == nil {
					first = k.results()
					var want []result
					for i, w := range test.want {
						r := w.result(server)
						if i < len(got) {
							r.ID, r.Seq = got[i].ID, got[i].Seq
						}
						want = append(want, r)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s: (-want +got)\n%s", what, diff)
					}
				} else if !test.alike(first, got) {
					t.Errorf("%s: (-whole +got)\n%s", what, cmp.Diff(first, got))
				}
				// A recording holds the chunks as the decoder left them.
				again, _, err := play(t, test.conn(new(ledger.Account)), server, events)
				if second := again.results(); err != nil || !reflect.DeepEqual(got, second) {
					t.Errorf("%s: again: %v, (-first +second)\n%s", what, err, cmp.Diff(got, second))
				}
			}
			check("whole", whole)
			if test.gappy {
				return
			}
			longest := 0
			for _, p := range parts {
				longest = max(longest, len(p.data))
			}
			for n := 1; n < longest && !t.Failed(); n += 1 + n/64 {
				check(fmt.Sprintf("%d bytes at once", n), pieces(n))
			}
			for i, p := range parts {
				for n := 1; n < min(len(p.data), 300) && !t.Failed(); n++ {
					check(fmt.Sprintf("part %d split at %d", i, n), splitAt(i, n))
				}
			}
		})
	}
}

// TestSpansSayWhereTheyBegan checks the sequence numbers, by which both ends of a connection find each other's spans.
func TestSpansSayWhereTheyBegan(t *testing.T) {
	x := newTalk()
	x.hello()
	begin := x.asked()
	var want []uint32
	p := x.client(pong, last(1, ask()...), window(0), head(3, call()...), lastBody(3, 10))
	for at := 0; at < len(p.data); {
		f, _ := parseFrame(p.data[at:])
		if f.kind == headers {
			want = append(want, uint32(begin+at)-5)
		}
		at += headerSize + f.length
	}
	x.server(append(answered(3), last(1, ":status", "200"))...)
	for _, split := range []splitter{whole, pieces(1), pieces(10), pieces(16), pieces(33)} {
		for _, server := range []bool{true, false} {
			k, _, err := play(t, testConn(nil), server, chunks(x.parts, server, split))
			if err != nil || len(k.opened) != 2 {
				t.Fatalf("%v, %d spans", err, len(k.opened))
			}
			for i, s := range k.opened {
				if ev := s.Evidence; ev.Seq != want[i] || !ev.HasSeq || ev.PID != 42 || ev.Conn != 7 {
					t.Errorf("span %d: %+v, want sequence number %d", i, ev, want[i])
				}
			}
		}
	}
}

func TestBodiesAreZeroed(t *testing.T) {
	for i := range exchangeTests {
		test := &exchangeTests[i]
		if test.gappy {
			continue // of some bytes it cannot be known what they are
		}
		test.sides(t, func(t *testing.T, server bool) {
			for _, split := range []splitter{whole, pieces(1), pieces(5), pieces(14)} {
				events := chunks(test.parts(), server, split)
				if _, _, err := play(t, test.conn(nil), server, events); err != nil {
					t.Error(err)
				}
				var left [2][]byte
				for _, ev := range events {
					left[ev.Dir] = append(append(left[ev.Dir], ev.Head...), ev.Tail...)
				}
				for _, b := range left {
					if i := bytes.Index(b, []byte(secret[:2])); i >= 0 {
						t.Fatalf("%q is left", b[i:min(len(b), i+20)])
					}
				}
			}
		})
	}
}

// TestNothingIsLeftOfJunk zeroes what comes where a frame should.
func TestNothingIsLeftOfJunk(t *testing.T) {
	for _, mid := range []bool{false, true} {
		conn := testConn(nil)
		conn.Established = mid
		events := chunks([]part{{data: []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff" + secret + secret)}}, true, whole)
		c := &events[0].Chunk
		c.Tail, c.Total = []byte(secret), c.Total+10+uint64(len(secret))
		_, _, err := play(t, conn, true, events)
		if all := string(c.Head) + string(c.Tail); strings.Contains(all, secret) || (err == nil) != mid {
			t.Errorf("in the middle %v: %q is left, %v", mid, all, err)
		}
	}
}

// walker is the kernel side's walk over frames: see walk_frames in bpf/flow.h.
type walker struct {
	frames [2]walked
	pieces int // events of one call
	small  int // bytes of an event
	large  int
	leaves bool // it leaves out whole DATA frames
	lost   bool
}

type walked struct {
	left, have  int
	header      [headerSize]byte
	shown, lost bool
}

// walk is what was found in a piece.
type walk struct {
	captured, next, p, body int
	frame                   frame
	valid                   bool
	worth                   bool
}

func isLarge(b []byte) bool {
	f, ok := parseFrame(b)
	return ok && f.kind == data && f.length > largeData
}

// call makes chunks of what a call moves, from pos on.
func (w *walker) call(c probes.Chunk, bytesOfCall []byte) []chunk {
	f := &w.frames[c.Dir]
	var list []chunk
	if f.lost {
		*f = walked{}
		w.lost = true
	}
	if c.Pos == 0 && bytesOfCall[0] == preface[0] { // and seven more are compared
		f.left, f.shown = len(preface), true
	}
	off, total := 0, len(bytesOfCall)
	if f.left > 0 && !f.shown {
		off = min(f.left, total)
		f.left -= off
	}
	for range w.pieces {
		for w.leaves && f.left == 0 && f.have == 0 && total-off >= headerSize {
			b := bytesOfCall[off:]
			if h, _ := parseFrame(b); !isLarge(b) || h.flags&endStream != 0 {
				break
			} else if next := headerSize + h.length; next >= len(b) {
				f.left = next - len(b)
				off = total
			} else {
				off += next
			}
		}
		if off >= total {
			return list
		}
		text := bytesOfCall[off:]
		size := w.large
		if len(text) <= w.small || f.left == 0 && f.have == 0 && len(text) >= headerSize && isLarge(text) {
			size = w.small
		}
		n := min(size, len(text))
		found := f.walk(text[:n], n == len(text))
		f.shown = f.shown && found.worth // else the next call would tell the rest of a frame of which the beginning was left out
		if found.worth && found.captured > 0 {
			e := c
			e.Pos += uint64(off)
			e.Evidence.Seq += uint32(off)
			e.Head, e.Total = bytes.Clone(text[:found.captured]), uint64(found.captured)
			e.Lost, w.lost = w.lost, false
			list = append(list, chunk{Chunk: e})
		}
		if off += found.next; off > total {
			f.left = off - total
			off = total
		}
		if f.lost {
			return list
		}
	}
	f.lost = off < total
	return list
}

func (f *walked) walk(text []byte, all bool) walk {
	w := walk{worth: f.left > 0 || f.have > 0, p: f.left}
	n := len(text)
	f.left, f.shown = 0, false
	if w.p > n {
		w.captured, w.next = n, n
		f.left, f.shown = w.p-n, true
		return w
	}
	if f.have > 0 {
		missing := copy(f.header[f.have:], text)
		if f.have+missing < headerSize {
			f.have += missing
			w.captured, w.next = n, n
			return w
		}
		f.have = 0
		w.frame, w.valid = parseFrame(f.header[:])
		w.body = missing
		if !f.pass(&w, n, all) {
			return w
		}
	}
	for range 40 {
		if w.p+headerSize > n {
			break
		}
		w.frame, w.valid = parseFrame(text[w.p:])
		w.body = w.p + headerSize
		if !f.pass(&w, n, all) {
			return w
		}
	}
	w.captured, w.next = w.p, w.p
	if rest := n - w.p; all && rest > 0 && rest < headerSize {
		f.have = copy(f.header[:], text[w.p:])
		w.captured, w.next, w.worth = n, n, true
	}
	return w
}

func (f *walked) pass(w *walk, n int, all bool) bool {
	next := w.body + w.frame.length
	if !w.valid {
		f.lost = true
		w.captured, w.next = w.p, w.p
		return false
	}
	if k := w.frame.kind; k != priority && k != ping && k != windowUpdate {
		w.worth = true
	}
	if w.frame.kind == data && next > n {
		w.captured, w.next = min(w.body+5, n), next
		return false
	}
	if next > n && !all && w.p > 0 {
		w.captured, w.next = w.p, w.p
		return false
	}
	w.p = next
	if next <= n {
		return true
	}
	w.captured, w.next = n, n
	f.left, f.shown = next-n, true
	return false
}

// TestWhatTheKernelSideTells feeds what it tells of the tests' calls, and of others that move the same bytes.
func TestWhatTheKernelSideTells(t *testing.T) {
	for i := range exchangeTests {
		test := &exchangeTests[i]
		parts := test.parts()
		if slices.ContainsFunc(parts, func(p part) bool { return p.gap || p.lost || p.hidden > 0 }) || test.gappy {
			continue
		}
		test.sides(t, func(t *testing.T, server bool) {
			whole, _, err := play(t, test.conn(nil), server, chunks(parts, server, whole))
			if err != nil {
				t.Fatal(err)
			}
			for n := 1; n < 500 && !t.Failed(); n += 1 + n/64 {
				w := &walker{pieces: 128, small: 512, large: 4096, leaves: n%2 == 0}
				if n%3 == 0 {
					w.small, w.large, w.pieces = 16, 40, 1000
				}
				left := 0
				var events []chunk
				for _, ev := range chunks(parts, server, pieces(n)) {
					if ev.end != nil {
						events = append(events, ev)
						continue
					}
					made := w.call(ev.Chunk, ev.Head)
					left += len(ev.Head)
					for _, c := range made {
						left -= len(c.Head)
					}
					events = append(events, made...)
				}
				if w.lost {
					t.Fatalf("%d bytes at once: the walk is lost", n)
				}
				acc := new(ledger.Account)
				k, _, err := play(t, test.conn(acc), server, events)
				if err != nil {
					t.Fatalf("%d bytes at once: %v", n, err)
				}
				k.balance(acc)
				if all, told := whole.results(), k.results(); !test.alike(all, told) {
					t.Errorf("%d bytes at once, %d left out: (-all +told)\n%s", n, left, cmp.Diff(all, told))
				}
			}
		})
	}
}

// TestLongBodies leaves out most of them, and knows their size where it has the frames' headers.
func TestLongBodies(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		for _, server := range []bool{true, false} {
			for _, n := range []int{100, 1000, 4096, 8192, 16393, 1 << 20} {
				x := newTalk()
				x.hello()
				x.client(head(1, ask(":method", "POST")...), body(1, 16384), body(1, 16384), body(1, 1000), head(3, call()...), lastBody(1, 2000), body(3, 1<<22), lastBody(3, 0))
				x.server(head(1, ":status", "200"), body(1, 3000), head(3, accepted()...), body(1, 1<<20), body(3, 16384), lastBody(1, 1), window(0), conclude(3, "0"))
				w := &walker{pieces: 128, small: 512, large: 4096, leaves: leaves}
				var events []chunk
				told := 0
				for _, ev := range chunks(x.parts, server, pieces(n)) {
					for _, c := range w.call(ev.Chunk, ev.Head) {
						told += len(c.Head)
						events = append(events, c)
					}
				}
				acc := new(ledger.Account)
				k, _, err := play(t, testConn(acc), server, events)
				if err != nil || len(k.done) != 2 || told > 20000 {
					t.Fatalf("%d at once: %v, %d spans, told are %d bytes", n, err, len(k.done), told)
				}
				k.balance(acc)
				size := k.results()[0].Attrs["http.response.body.size"]
				switch {
				case !leaves && size != int64(3000+1<<20+1), leaves && n >= 4096 && size != nil, size != nil && size != int64(3000+1<<20+1):
					t.Errorf("%d at once, whole frames are left out %v: %v bytes", n, leaves, size)
				}
			}
		}
	}
}

// TestWhatLooksLikeAFrameAfterALoss is the middle of a body, say.
func TestWhatLooksLikeAFrameAfterALoss(t *testing.T) {
	for _, test := range []struct {
		name  string
		look  sent
		spans int
	}{
		{"a block that is none", raw([]byte("\x00\x00\x03\x01\x04\x00\x00\x00\x63\x40\xff\xff")), 1},
		{"a block of a stream that is far away", raw([]byte("\x00\x00\x01\x01\x04\x7f\xff\xff\xff\x82")), 2},
		{"a long block", raw([]byte("\x00\xff\x01\x01\x04\x00\x00\x00\x63\x82")), 1},
		{"a long body", raw([]byte("\x7f\xff\xff\x00\x00\x00\x00\x00\x63" + secret)), 1},
		{"flags that HEADERS do not have", raw([]byte("\x00\x00\x01\x01\x46\x00\x00\x00\x63\x82")), 1},
	} {
		for _, server := range []bool{true, false} {
			x := newTalk()
			x.hello()
			x.client(pong).lost = true
			x.client(test.look)
			x.client(last(7, ask()...))
			x.client(last(9, ask()...))
			x.server(last(7, ":status", "200"), last(9, ":status", "200"))
			x.end(probes.Closed)
			acc := new(ledger.Account)
			k, _, err := play(t, testConn(acc), server, chunks(x.parts, server, whole))
			if err != nil || len(k.done) != test.spans+1 {
				t.Errorf("%s: %v, %d spans, want %d", test.name, err, len(k.done), test.spans+1)
			}
			k.balance(acc)
		}
	}
}

// TestNothingIsWrongAfterLosses loses events at random: what is known of a call must be that call's.
func TestNothingIsWrongAfterLosses(t *testing.T) {
	const calls = 400
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		method := func(id uint32) string { return fmt.Sprintf("a.A/M%d", id%7) }
		status := func(id uint32) string { return statusNames[id%13] }
		x := newTalk()
		x.hello()
		stream := map[uint32]uint32{} // by sequence number
		for n := range uint32(calls) {
			id := 2*n + 1
			stream[uint32(x.asked())-5] = id
			x.client(head(id, call(":path", "/"+method(id), "x-request-id", fmt.Sprint(n%50))...), lastBody(id, rng.IntN(300)))
			x.client(window(0))
			x.server(head(id, accepted()...), body(id, rng.IntN(5000)), conclude(id, fmt.Sprint(id%13), "x-cost", fmt.Sprint(n%30)))
		}
		x.end(probes.Closed)
		for _, server := range []bool{true, false} {
			step := []int{1 << 20, 1000, 100}[rng.IntN(3)]
			w := &walker{pieces: 128, small: 512, large: 4096, leaves: rng.IntN(2) == 0}
			var events []chunk
			losses := 0
			for _, ev := range chunks(x.parts, server, pieces(step)) {
				if ev.end != nil {
					events = append(events, ev)
					continue
				}
				made := w.call(ev.Chunk, ev.Head)
				if len(made) > 0 && ev.Begin < calls*1500 && rng.IntN(50) == 0 { // in the second half, none
					// There was no room for one of them: the rest of the call is not told.
					n := rng.IntN(len(made))
					w.lost = w.lost || slices.ContainsFunc(made[n:], func(c chunk) bool { return c.Lost })
					made = made[:n]
					w.frames[ev.Dir].lost = true
					losses++
				}
				events = append(events, made...)
			}
			acc := new(ledger.Account)
			k, _, err := play(t, testConn(acc), server, events)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			k.balance(acc)
			for _, r := range k.results() {
				id, ok := stream[r.Seq]
				if !ok {
					if r.Attrs["breadcrumb.unknown_fields"] == nil {
						t.Errorf("seed %d: a span of no call: %v", seed, r)
					}
					continue
				}
				m, c := r.Attrs["rpc.method"], r.Attrs["rpc.response.status_code"]
				if m != nil && m != method(id) || c != nil && c != status(id) {
					t.Errorf("seed %d: stream %d: %v %v, want %s %s", seed, id, m, c, method(id), status(id))
				}
			}
			// A call that begins in the middle of a frame may look like a frame, the rest of which is passed over.
			if step > 1000 && len(k.done) < calls-5*losses {
				t.Errorf("seed %d: after %d losses, %d of %d calls", seed, losses, len(k.done), calls)
			}
		}
	}
}

func TestJunk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	junk := func() sent {
		b := make([]byte, 50+rng.IntN(100))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[3] |= 0x80 // the type of no frame
		return raw(b)
	}
	for _, test := range []struct {
		name   string
		mid    bool
		talk   func(x *talk)
		spans  int
		at     int // how many parts are taken at least
		atMost int
	}{
		{"at the beginning", false, func(x *talk) {}, 0, 0, 0},
		{"behind the preface", false, func(x *talk) { x.client(raw(preface)) }, 0, 1, 1},
		{"from a server", false, func(x *talk) { x.client(raw(preface), set) }, 0, 1, 1},
		{"with streams open", false, func(x *talk) { x.hello(); x.open() }, 4, 5, 5 + 2*maxStrays + 1},
		{"attached in the middle", true, func(x *talk) { x.open() }, 4, 2, 2 + 2*maxStrays + 1},
		{"nothing else in the middle", true, func(x *talk) {}, 0, 1, 2*maxStrays + 1},
	} {
		for _, server := range []bool{true, false} {
			x := newTalk()
			test.talk(x)
			for i := range 2*maxStrays + 100 {
				if i%2 == 0 {
					x.server(junk())
				} else {
					x.client(junk())
				}
			}
			acc := new(ledger.Account)
			conn := testConn(acc)
			conn.Established = test.mid
			d := protocol.New(conn, server)
			k := newSink(t)
			var err error
			n := 0
			for _, ev := range chunks(x.parts, server, whole) {
				if err = d.Decode(&ev.Chunk, k); err != nil {
					break
				}
				n++
			}
			if !errors.Is(err, probes.ErrNotProtocol) || n < test.at || n > test.atMost+1 {
				t.Errorf("%s: %v after %d parts", test.name, err, n)
			}
			if len(k.opened) != test.spans {
				t.Errorf("%s: %d spans", test.name, len(k.opened))
			}
			k.balance(acc)
			if err := d.Decode(&probes.Chunk{}, k); !errors.Is(err, probes.ErrNotProtocol) {
				t.Errorf("%s: then %v", test.name, err)
			}
		}
	}
}

func TestTooManyStreams(t *testing.T) {
	x := newTalk()
	x.hello()
	const n = maxStreams + 10
	for i := range uint32(n) {
		x.client(last(2*i+1, ask()...))
	}
	x.server(last(2*n-1, ":status", "200"), last(1, ":status", "200"))
	x.client(last(2*n+1, ask()...))
	x.server(last(2*n+1, ":status", "200"))
	x.end(probes.Closed)
	for _, server := range []bool{true, false} {
		acc := new(ledger.Account)
		k, _, err := play(t, testConn(acc), server, chunks(x.parts, server, whole))
		if err != nil || len(k.done) != maxStreams+1 || acc.Counts()[ledger.Unparsed] != 10 {
			t.Errorf("%v, %d spans, %d were too many", err, len(k.done), acc.Counts()[ledger.Unparsed])
		}
		if c := acc.Counts(); c[ledger.Seen] != maxStreams+11 {
			t.Errorf("%d seen", c[ledger.Seen])
		}
	}
}

// TestResponsesToWhatWasNotSeen leaves nothing behind.
func TestResponsesToWhatWasNotSeen(t *testing.T) {
	x := newTalk()
	for i := range uint32(3 * maxEarly) {
		x.server(last(2*i+1, ":status", "200"))
	}
	x.client(last(6*maxEarly+1, ask()...))
	x.server(last(6*maxEarly+1, ":status", "200"))
	for _, server := range []bool{true, false} {
		conn := testConn(nil)
		conn.Established = true
		d := protocol.New(conn, server).(*decoder)
		k := newSink(t)
		for _, ev := range chunks(x.parts, server, whole) {
			if err := d.Decode(&ev.Chunk, k); err != nil {
				t.Fatal(err)
			}
			if len(d.streams) > maxEarly+1 || d.early > maxEarly {
				t.Fatalf("%d streams, %d early", len(d.streams), d.early)
			}
		}
		if len(d.streams) > 0 || d.early > 0 || len(k.done) != 1 {
			t.Errorf("%d streams, %d early, %d spans", len(d.streams), d.early, len(k.done))
		}
	}
}

// TestMemoryIsBounded sends what would take much of it.
func TestMemoryIsBounded(t *testing.T) {
	long := strings.Repeat("v", 4000)
	for name, talk := range map[string]func(x *talk){
		"endless CONTINUATION": func(x *talk) {
			x.client(func(p *peer) {
				must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
				for range 1000 {
					must(p.frames.WriteContinuation(1, false, make([]byte, 1000)))
				}
			})
		},
		"endless empty CONTINUATION": func(x *talk) {
			x.client(func(p *peer) {
				must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
				for range 10000 {
					must(p.frames.WriteContinuation(1, false, nil))
				}
			})
		},
		"empty frames": func(x *talk) {
			x.client(last(1, ask()...), func(p *peer) {
				for i := range uint32(10000) {
					must(p.frames.WriteData(1, false, nil))
					must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 2*i + 3, EndHeaders: true}))
				}
			})
		},
		"many references": func(x *talk) {
			for _, name := range []string{"user-agent", "tracestate", "b3", "x-forwarded-for"} {
				x.client(func(p *peer) {
					block := bytes.Clone(p.block([]string{name, long[:4000-len(name)]}))
					block = append(block, bytes.Repeat([]byte{0xbe}, 16000)...)
					must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: uint32(len(x.parts)) * 2, BlockFragment: block, EndHeaders: true}))
					must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: uint32(len(x.parts))*2 + 1, BlockFragment: block, EndHeaders: true}))
				})
			}
		},
		"a large table": func(x *talk) {
			x.peers[0].enc.SetMaxDynamicTableSizeLimit(1 << 30)
			x.peers[0].enc.SetMaxDynamicTableSize(1 << 30)
			for i := range uint32(1000) {
				x.client(last(2*i+1, ask("x-a", fmt.Sprint(i, long))...))
			}
		},
	} {
		x := newTalk()
		x.hello()
		talk(x)
		x.end(probes.Closed)
		for _, split := range []splitter{whole, pieces(1000)} {
			acc := new(ledger.Account)
			d := protocol.New(testConn(acc), true).(*decoder)
			k := newSink(t)
			for _, ev := range chunks(x.parts, true, split) {
				if ev.end != nil {
					d.End(*ev.end, ev.Chunk.End, k)
				} else if err := d.Decode(&ev.Chunk, k); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				bounded(t, d)
			}
			k.balance(acc)
			for _, s := range k.done {
				n := len(s.Wire.TraceState)
				for _, kv := range s.Attrs {
					n += len(kv.Value.String())
				}
				if n > 2*maxKept {
					t.Errorf("%s: a span of %d bytes", name, n)
				}
			}
		}
	}
}

// bounded checks what the decoder holds.
func bounded(t testing.TB, d *decoder) {
	t.Helper()
	if len(d.streams) > maxStreams || len(d.free) > maxFree || d.early > maxEarly {
		t.Fatalf("%d streams, %d early, %d free", len(d.streams), d.early, len(d.free))
	}
	early := 0
	for id, st := range d.streams {
		if st.id != id || id%2 == 0 {
			t.Fatalf("stream %d is known as %d", st.id, id)
		}
		if st.early {
			early++
		}
		if st.begin.Head != nil || st.begin.Tail != nil || st.answer.Head != nil || st.answer.Tail != nil {
			t.Fatal("a stream keeps a chunk's bytes")
		}
		if st.early == (st.span != nil || st.inner != nil) {
			t.Fatalf("stream %d: early %v, but has a span %v, or a decoder %v", id, st.early, st.span != nil, st.inner != nil)
		}
	}
	if early != d.early {
		t.Fatalf("%d streams are early, counted %d", early, d.early)
	}
	for i := range d.sides {
		s := &d.sides[i]
		if cap(s.buf) > 2*maxBlock || s.table.size > maxTable || len(s.table.entries) > maxTable/entryOverhead {
			t.Fatalf("%d bytes of a block, %d of the table, %d entries", cap(s.buf), s.table.size, len(s.table.entries))
		}
		if s.start.chunk.Head != nil || s.start.chunk.Tail != nil || s.origin.chunk.Head != nil || s.origin.chunk.Tail != nil {
			t.Fatal("a side keeps a chunk's bytes")
		}
		if s.have < 0 || s.left < 0 || s.have >= max(headerSize, len(preface)) {
			t.Fatalf("%d bytes of a header, %d to come", s.have, s.left)
		}
	}
	if m := &d.section; cap(m.text) > 2*maxKept || m.size > maxKept || d.head.Cap() > maxSpare {
		t.Fatalf("%d bytes of a section's text, %d of its fields, %d of a head", cap(m.text), m.size, d.head.Cap())
	}
}

func TestDetect(t *testing.T) {
	framesOf := func(frames ...sent) []byte {
		x := newTalk()
		return x.client(frames...).data
	}
	block := func(b ...byte) []byte {
		return append([]byte{0, 0, byte(len(b)), byte(headers), endHeaders, 0, 0, 0, 9}, b...)
	}
	hello := framesOf(raw(preface), set)
	for _, test := range []struct {
		name     string
		head     []byte
		want     probes.Verdict
		requests bool
	}{
		{"nothing", nil, probes.Maybe, true},
		{"beginning of the preface", preface[:5], probes.Maybe, true},
		{"preface", preface, probes.Yes, true},
		{"preface and more", hello, probes.Yes, true},
		{"something like the preface", []byte("PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"), probes.No, false},
		{"request", framesOf(last(9, ask()...)), probes.Yes, true},
		{"call", framesOf(head(9, call()...), lastBody(9, 10)), probes.Yes, true},
		{"response", framesOf(head(9, ":status", "200")), probes.Yes, false},
		{"response with a status that is not in the table", framesOf(head(9, ":status", "201")), probes.Yes, false},
		{"behind other frames", framesOf(window(0), pong, set, body(3, 20), last(9, ask()...)), probes.Yes, true},
		{"of which not all is captured", framesOf(last(9, ask()...))[:headerSize+1], probes.Yes, true},
		{"only its header is", framesOf(last(9, ask()...))[:headerSize], probes.No, false},
		{"behind a change of the table", framesOf(func(p *peer) { p.enc.SetMaxDynamicTableSize(100) }, last(9, ask()...)), probes.Yes, true},
		{"padded", framesOf(func(p *peer) {
			must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 9, BlockFragment: p.block(ask()), EndHeaders: true, PadLength: 200}))
		})[:30], probes.Yes, true},
		{"with priority", framesOf(func(p *peer) {
			must(p.frames.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 9, BlockFragment: p.block(ask()), EndHeaders: true, Priority: nethttp2.PriorityParam{Weight: 200}}))
		}), probes.Yes, true},
		{"of which the first field is in the table", block(0xc9, 0x44, 1, '/', 0x83), probes.Yes, true},
		{"of which the first fields are, behind many", block(0xff, 0x10, 0xbe, 0x83), probes.Yes, true},
		{"a response of which the first field is", block(0xbe, 0x88), probes.Yes, false},
		{"a request with names as text", block(append([]byte{0x40, 5}, ":path\x01/"...)...), probes.Yes, true},
		{"a response with names as text", block(append([]byte{0, 7}, ":status\x03202"...)...), probes.Yes, false},
		{"with another name as text", block(append([]byte{0x40, 4}, "path\x01/"...)...), probes.No, false},
		{"all of it is in the table", block(0xbe, 0xbf, 0xc0), probes.Maybe, false},
		{"a value is new, the name in the table", block(0x7e, 1, 'a', 0x82), probes.Yes, true},
		{"an index that does not end", block(0xff, 0x80), probes.No, false},
		{"trailers", framesOf(conclude(9, "0")), probes.No, false},
		{"of an even stream", framesOf(last(8, ask()...)), probes.No, false},
		{"not all of a block", framesOf(fragments(9, true, 5, ask()...)), probes.No, false},
		{"only DATA", framesOf(body(9, 10)), probes.No, false},
		{"HTTP/1 request", []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), probes.No, false},
		{"HTTP/1 response", []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), probes.No, false},
		{"Redis", []byte("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"), probes.No, false},
		{"PostgreSQL", []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"), probes.No, false},
		{"PostgreSQL, startup", []byte("\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"), probes.No, false},
		{"MySQL", []byte("\x0f\x00\x00\x00\x03select version()"), probes.No, false},
		{"Kafka", []byte("\x00\x00\x00\x1a\x00\x12\x00\x03\x00\x00\x00\x01\x00\x08consumer\x00\x01a\x01b\x00"), probes.No, false},
		{"AMQP", []byte("AMQP\x00\x00\x09\x01"), probes.No, false},
	} {
		for _, dir := range []probes.Direction{probes.Ingress, probes.Egress} {
			if v, requests := detect(dir, test.head); v != test.want || requests != test.requests {
				t.Errorf("%s: %d %v, want %d %v", test.name, v, requests, test.want, test.requests)
			}
		}
	}
	for n := range hello {
		if v, _ := detect(probes.Ingress, hello[:n]); v != probes.Maybe && n < len(preface) || v != probes.Yes && n >= len(preface) {
			t.Errorf("%d bytes of the beginning: %d", n, v)
		}
	}
}

// TestTLSIsNotDetected tries handshakes and data of all lengths.
func TestTLSIsNotDetected(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 5; n < 2000; n++ {
		hello := []byte{22, 3, 1, byte((n + 4) >> 8), byte(n + 4), 1, 0, byte(n >> 8), byte(n), 3, 3}
		application := []byte{23, 3, 3, byte(n >> 8), byte(n)}
		for range n - 2 {
			hello = append(hello, byte(rng.Uint32()))
		}
		for range n {
			application = append(application, byte(rng.Uint32()))
		}
		for _, b := range [][]byte{hello, application, append(slices.Clone(application), application...)} {
			if v, _ := detect(probes.Ingress, b); v != probes.No {
				t.Errorf("%d bytes of TLS: %d, % x", n, v, b[:20])
			}
		}
	}
}

func TestRandomBytesAreNotDetected(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	found := 0
	const tries = 300000
	for range tries {
		b := make([]byte, rng.IntN(200))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if len(b) > 0 && bytes.HasPrefix(preface, b) {
			continue
		}
		if v, _ := detect(probes.Ingress, b); v != probes.No && len(b) > 0 {
			found++
		}
	}
	if found > tries/100000 {
		t.Errorf("%d of %d", found, tries)
	}
}

func TestTimeouts(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "1": 0, "S": 0, "1S": time.Second, "12m": 12 * time.Millisecond, "3u": 3 * time.Microsecond, "99999999n": 99999999,
		"2M": 2 * time.Minute, "5H": 5 * time.Hour, "99999999H": 1<<63 - 1, "123456789S": 0, "-1S": 0, "1x": 0,
	} {
		if got := timeout(in); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	conn := &probes.Conn{ID: 1, LocalAddr: "/run/app.sock", Network: "unix", Target: new(span.Target)}
	x := newTalk()
	x.hello()
	x.client(head(1, call(":authority", "localhost")...), lastBody(1, 10))
	x.server(answered(1)...)
	x.client(head(3, call(":authority", "")...), lastBody(3, 10))
	x.server(answered(3)...)
	k, _, err := play(t, conn, true, chunks(x.parts, true, whole))
	if err != nil {
		t.Fatal(err)
	}
	for i, address := range []string{"localhost", "/run/app.sock"} {
		want := map[string]any{"rpc.system.name": "grpc", "rpc.method": "shop.Cart/Add", "rpc.response.status_code": "OK", "server.address": address,
			"network.transport": "unix", "network.protocol.version": "2"}
		if diff := cmp.Diff(want, k.results()[i].Attrs); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// TestSpansAreOfTheProcessThatHasTheConnection follows a connection that changes hands.
func TestSpansAreOfTheProcessThatHasTheConnection(t *testing.T) {
	accounts := []*ledger.Account{new(ledger.Account), new(ledger.Account)}
	conn := testConn(accounts[0])
	x := newTalk()
	x.hello()
	x.client(head(1, call()...), lastBody(1, 10), last(3, ask()...))
	x.client(head(5, call()...), lastBody(5, 10), last(7, ask()...))
	x.end(probes.Closed)
	d := protocol.New(conn, true)
	k := newSink(t)
	for i, ev := range chunks(x.parts, true, whole) {
		if i == 4 {
			conn.Target = &span.Target{Account: accounts[1]}
		}
		if ev.end != nil {
			d.End(*ev.end, ev.Chunk.End, k)
		} else if err := d.Decode(&ev.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range k.opened {
		if s.Target.Account != accounts[i/2] {
			t.Errorf("span %d is of the other process", i)
		}
	}
	for i, a := range accounts {
		if n := a.Counts()[ledger.Seen]; n != 2 {
			t.Errorf("process %d has seen %d", i, n)
		}
	}
}

// TestMethodsThatTheProcessKnows has the method of a stream told whose header block refers to what is not known.
func TestMethodsThatTheProcessKnows(t *testing.T) {
	x := newTalk()
	x.hello()
	x.client(head(1, call()...), lastBody(1, 10))
	x.server(answered(1)...)
	from := len(x.parts)
	x.client(head(3, call()...), lastBody(3, 10)) // everything is in the table by now
	x.server(answered(3)...)
	for _, server := range []bool{true, false} {
		for _, early := range []bool{true, false} {
			events := chunks(x.parts, server, whole)
			conn := testConn(nil)
			conn.Established = true
			d := protocol.New(conn, server).(*decoder)
			k := newSink(t)
			d.grpc = true // another stream has shown that
			if early {
				d.Method(3, "/known.Service/Method", k)
			}
			for i := range events[from:] {
				c := &events[from+i].Chunk
				if err := d.Decode(c, k); err != nil {
					t.Fatal(err)
				}
				if !early {
					d.Method(3, "/known.Service/Method", k)
				}
			}
			got := k.results()
			if len(got) != 1 || got[0].Name != "known.Service/Method" || got[0].Attrs["rpc.method"] != "known.Service/Method" ||
				got[0].Attrs["breadcrumb.unknown_fields"] != true {
				t.Errorf("server %v, early %v: %+v", server, early, got)
			}
		}
	}
	d := protocol.New(testConn(nil), true).(*decoder)
	for i := range uint32(10 * maxMethods) {
		d.Method(2*i+1, "/known.Service/Method", newSink(t))
	}
	if len(d.methods) > maxMethods {
		t.Errorf("%d methods are kept of streams that were not opened", len(d.methods))
	}
}

// TestCallsOnOpenConnectionsAreKnown has all that a call's header blocks say be in the table before they are seen.
func TestCallsOnOpenConnectionsAreKnown(t *testing.T) {
	message := append([]byte{0, 0, 0, 0, 20}, bytesOf(20)...)
	send := func(b []byte) sent { return func(p *peer) { must(p.frames.WriteData(3, true, b)) } }
	status := []string{"grpc-status", "0"}
	for _, test := range []struct {
		name            string
		asks, concludes []string // fields that are new
		body            sent
		want            string
		error           any // rpc.response.status_code
	}{
		{"by the prefix of its message", nil, nil, send(message), "grpc", nil},
		{"compressed", nil, nil, send(append([]byte{1}, message[1:]...)), "grpc", nil},
		{"by its timeout", []string{"grpc-timeout", "1S"}, nil, send(nil), "grpc", nil},
		{"by its message", nil, []string{"grpc-status", "5", "grpc-message", "gone"}, send(nil), "grpc", nil}, // the status' name is in the table
		{"with its path", []string{":path", "/shop.Cart/New"}, nil, send(message), "shop.Cart/New", nil},
		{"a body", nil, nil, send(bytesOf(25)), "POST", nil},
		{"a longer body", nil, nil, send(append(message, 0)), "POST", nil},
		{"no body", nil, nil, send(nil), "POST", nil},
	} {
		x := newTalk()
		x.hello()
		x.client(head(1, call()...), lastBody(1, 10))
		x.server(head(1, accepted()...), body(1, 12), last(1, status...))
		from := len(x.parts)
		x.client(head(3, call(test.asks...)...), test.body)
		concludes := test.concludes
		if concludes == nil {
			concludes = status
		}
		x.server(head(3, accepted()...), body(3, 12), last(3, concludes...))
		for _, server := range []bool{true, false} {
			conn := testConn(nil)
			conn.Established = true
			d := protocol.New(conn, server).(*decoder)
			k := newSink(t)
			events := chunks(x.parts, server, whole)
			for i := range events[from:] {
				if err := d.Decode(&events[from+i].Chunk, k); err != nil {
					t.Fatal(err)
				}
			}
			got := k.results()
			if len(got) != 1 || got[0].Name != test.want || got[0].Attrs["rpc.response.status_code"] != test.error || got[0].Attrs["breadcrumb.unknown_fields"] != true {
				t.Errorf("%s, server %v: %+v", test.name, server, got)
			}
			if call := len(got) == 1 && got[0].Attrs["rpc.system.name"] == "grpc"; call != (test.want != "POST") {
				t.Errorf("%s, server %v: a call: %v", test.name, server, call)
			}
		}
	}
}

// TestUpgrade has a connection begin with HTTP/1 (RFC 7540, section 3.2), and cuts what the server says at every byte.
func TestUpgrade(t *testing.T) {
	const (
		asks     = "GET /first HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
		switches = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
	)
	x := newTalk()
	answer := x.server(set, head(1, ":status", "404"), lastBody(1, 10)).data
	request := x.client(raw(preface), set, last(3, ask(":path", "/second")...)).data
	second := x.server(head(3, ":status", "200"), lastBody(3, 10)).data
	for _, server := range []bool{true, false} {
		for cut := range len(answer) + 1 {
			first := http1.New(http1.Default()).New(testConn(nil), server)
			k := newSink(t)
			k.whole = true
			in, out := probes.Ingress, probes.Egress
			if !server {
				in, out = out, in
			}
			now, pos := int64(0), [2]uint64{}
			chunk := func(dir probes.Direction, text []byte) *probes.Chunk {
				now += 1000
				c := &probes.Chunk{Dir: dir, Pos: pos[dir], Total: uint64(len(text)), Head: bytes.Clone(text), Begin: now, End: now + 1}
				if dir == in {
					c.ID, c.Named = trace.SpanID{byte(now / 1000)}, pos[dir] == 0
				}
				pos[dir] += c.Total
				return c
			}
			if err := first.Decode(chunk(in, []byte(asks)), k); err != nil {
				t.Fatal(err)
			}
			c := chunk(out, append([]byte(switches), answer[:cut]...))
			u, ok := errors.AsType[*probes.Upgrade](first.Decode(c, k))
			if !ok || u.Protocol != "http2" || u.Pos != map[bool][2]uint64{true: {uint64(len(asks)), uint64(len(switches))}, false: {uint64(len(switches)), uint64(len(asks))}}[server] {
				t.Fatalf("upgraded: %v", u)
			}
			d := protocol.New(testConn(nil), server)
			d.(probes.Adopter).Adopt(first, u.Pos)
			rest := *c
			rest.Pos, rest.Total, rest.Head = u.Pos[out], uint64(cut), c.Head[len(switches):]
			for _, c := range []*probes.Chunk{&rest, chunk(out, answer[cut:]), chunk(in, request), chunk(out, second)} {
				if c.Total == 0 {
					continue
				}
				if err := d.Decode(c, k); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, r := range k.results() {
				got = append(got, fmt.Sprintf("%v %v %v %v", r.Attrs["http.request.method"], r.Attrs["http.response.status_code"], r.Attrs["network.protocol.version"], r.Attrs["http.response.body.size"]))
			}
			if want := []string{"GET 404 2 10", "GET 200 2 10"}; !slices.Equal(got, want) {
				t.Fatalf("server %v, cut at %d: %q, want %q", server, cut, got, want)
			}
			d.End(probes.Closed, now, k)
			if len(k.lost) > 0 || len(k.done) != 2 {
				t.Fatalf("server %v, cut at %d: %d spans, %d lost", server, cut, len(k.done), len(k.lost))
			}
		}
	}
}

// TestStreamsThatWereLostAreCounted leaves out what opens some streams.
func TestStreamsThatWereLostAreCounted(t *testing.T) {
	for _, server := range []bool{true, false} {
		x := newTalk()
		x.hello()
		x.client(last(1, ask()...))
		x.server(answered(1)...)
		from := len(x.parts)
		for id := uint32(3); id <= 9; id += 2 {
			x.client(last(id, ask()...))
			x.server(answered(id)...)
		}
		to := len(x.parts)
		x.client(last(11, ask()...))
		x.server(answered(11)...)
		x.client(last(13, ask()...))
		x.server(answered(13)...)
		acc := new(ledger.Account)
		d := protocol.New(testConn(acc), server).(*decoder)
		k := newSink(t)
		for i, ev := range chunks(x.parts, server, whole) {
			if i >= from && i < to {
				continue
			}
			ev.Lost = i == to
			if err := d.Decode(&ev.Chunk, k); err != nil {
				t.Fatal(err)
			}
		}
		k.balance(acc)
		if n := acc.Counts(); n[ledger.Seen] != 7 || n[ledger.RingFull] != 4 {
			t.Errorf("server %v: %v, want 7 seen, of which 4 lost", server, n)
		}
	}
}
