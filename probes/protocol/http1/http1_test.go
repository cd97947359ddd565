// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// result is what a test compares of a span.
type result struct {
	Name       string
	ID         string // "" where it was minted
	Start, End int64
	Status     codes.Code
	Attrs      map[string]any
	Wire       span.Context
}

// sink takes what a decoder hands over and holds it to the contract.
type sink struct {
	t       testing.TB
	states  map[*span.Span]span.State
	opened  []*span.Span
	done    []*span.Span
	lost    []*span.Span
	aliases map[trace.SpanID]*span.Span
}

func newSink(t testing.TB) *sink {
	return &sink{t: t, states: map[*span.Span]span.State{}, aliases: map[trace.SpanID]*span.Span{}}
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
	}
	k.states[s] = s.State
	switch s.State {
	case span.Open:
		k.opened = append(k.opened, s)
	case span.Done:
		k.done = append(k.done, s)
		if s.End < s.Start || s.Name == "" {
			k.t.Errorf("bad span %+v", s)
		}
	case span.Lost:
		k.lost = append(k.lost, s)
	}
}

func (k *sink) Alias(id trace.SpanID, s *span.Span) {
	if k.states[s] != span.Open && k.states[s] != span.Answered {
		k.t.Errorf("alias %v of a span that is not open", id)
	}
	k.aliases[id] = s
}

func (k *sink) results() []result {
	out := make([]result, 0, len(k.done))
	for _, s := range k.done {
		r := result{Name: s.Name, Start: s.Start, End: s.End, Status: s.Status, Attrs: map[string]any{}, Wire: s.Wire}
		if isNamed(s.ID) {
			r.ID = s.ID.String()
		}
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

// named is the name that the tests' kernel side gives the n-th request.
func named(n int) trace.SpanID { return trace.SpanID{0xaa, 0xaa, 0, 0, 0, 0, byte(n >> 8), byte(n)} }

func isNamed(id trace.SpanID) bool { return id[0] == 0xaa && id[1] == 0xaa && id[2] == 0 }

// part is what one call moves, or another event of a connection.
type part struct {
	dir   probes.Direction
	data  string
	cut   bool  // only the edges are captured, as of a body
	skip  int   // bytes that pass unseen before
	lost  bool  // an event was lost before
	named int   // the kernel side names a request here
	at    int64 // when; else 1000 after the part before
	end   *probes.End
	prog  uint64 // Progress up to this position
	hole  int    // bytes that pass in a call without being captured
}

func in(data string) part   { return part{dir: probes.Ingress, data: data} }
func out(data string) part  { return part{dir: probes.Egress, data: data} }
func end(e probes.End) part { return part{end: &e} }

func (p part) name(n int) part                     { p.named = n; return p }
func (p part) edges() part                         { p.cut = true; return p }
func (p part) after(n int) part                    { p.skip = n; return p }
func (p part) afterLoss() part                     { p.lost = true; return p }
func (p part) when(t int64) part                   { p.at = t; return p }
func hole(d probes.Direction, n int) part          { return part{dir: d, hole: n} }
func progress(d probes.Direction, pos uint64) part { return part{dir: d, prog: pos} }

// testConn is a connection over which clients come to a server, or the other way round.
func testConn(acc *ledger.Account) *probes.Conn {
	return &probes.Conn{
		ID: 7, LocalAddr: "192.0.2.1", LocalPort: 8080, RemoteAddr: "192.0.2.7", RemotePort: 40000,
		Network: "tcp", Type: "ipv4", Target: &span.Target{Account: acc},
	}
}

// splitter cuts the bytes of the i-th part into what single calls move.
type splitter func(i int, data string) []string

func whole(_ int, data string) []string { return []string{data} }

// singly moves each byte by a call of its own.
func singly(_ int, data string) []string { return strings.Split(data, "") }

// splitAt cuts part i at offset n.
func splitAt(i, n int) splitter {
	return func(j int, data string) []string {
		if i != j {
			return []string{data}
		}
		return []string{data[:n], data[n:]}
	}
}

// chunk is a chunk or another event.
type chunk struct {
	probes.Chunk
	end  *probes.End
	prog bool
}

// chunks makes events of parts. A part's bytes pass from time 1000·n on, one by unit of time.
func chunks(parts []part, split splitter) []chunk {
	var list []chunk
	var pos [2]uint64
	now := int64(0)
	var id trace.SpanID
	for i, p := range parts {
		now += 1000
		if p.at != 0 {
			now = p.at
		}
		switch {
		case p.end != nil:
			list = append(list, chunk{end: p.end, Chunk: probes.Chunk{End: now}})
			continue
		case p.prog != 0:
			list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: p.dir, Pos: p.prog, End: now}})
			continue
		}
		pos[p.dir] += uint64(p.skip)
		if p.hole != 0 {
			list = append(list, chunk{Chunk: probes.Chunk{Dir: p.dir, Pos: pos[p.dir], Total: uint64(p.hole), Begin: now, End: now}})
			pos[p.dir] += uint64(p.hole)
			continue
		}
		pieces := []string{p.data}
		if !p.cut {
			pieces = split(i, p.data)
		}
		off := int64(0)
		for j, piece := range pieces {
			n := uint64(len(piece))
			c := chunk{Chunk: probes.Chunk{Dir: p.dir, Pos: pos[p.dir], Total: n, Head: []byte(piece), Begin: now + off, End: now + off + int64(n)}}
			c.Evidence = span.Evidence{PID: 42, Conn: 7, Seq: uint32(pos[p.dir]) - 5, HasSeq: true}
			if p.cut && n > 24 {
				c.Head = []byte(piece[:24])
				c.Tail = []byte(piece[max(24, len(piece)-8):])
			}
			if j == 0 && p.named != 0 {
				id = named(p.named)
				c.Named = true
			}
			if j == 0 && p.named == 0 && beginsMethod([]byte(p.data)) {
				id = named64(i + 1)
				c.Named = true
			}
			c.Lost = j == 0 && p.lost
			c.ID = id
			list = append(list, c)
			pos[p.dir] += n
			off += int64(n)
		}
	}
	return list
}

// standard are the labels of the default methods.
var standard = newLabels(Default())

// play feeds events to a new decoder. A decoder that gives up sees no more.
func play(t testing.TB, conn *probes.Conn, server bool, events []chunk) (*sink, error) {
	d := newDecoder(conn, server, standard)
	k := newSink(t)
	for i := range events {
		ev := &events[i]
		switch {
		case ev.end != nil:
			d.End(*ev.end, ev.Chunk.End, k)
		case ev.prog:
			d.Progress(ev.Dir, ev.Pos, ev.Chunk.End, k)
		default:
			if err := d.Decode(&ev.Chunk, k); err != nil {
				return k, err
			}
		}
	}
	return k, nil
}

type attrs map[string]any

// serverAttrs are those of "GET / HTTP/1.1", Host: example.com, answered 200 without a body size.
func serverAttrs(over attrs) map[string]any {
	return merge(attrs{
		"http.request.method": "GET", "url.scheme": "http", "url.path": "/",
		"server.address": "example.com", "server.port": int64(80),
		"client.address": "192.0.2.7", "network.peer.address": "192.0.2.7", "network.peer.port": int64(40000),
		"network.protocol.version": "1.1", "http.response.status_code": int64(200),
	}, over)
}

func clientAttrs(over attrs) map[string]any {
	return merge(attrs{
		"http.request.method": "GET", "url.full": "http://example.com/",
		"server.address": "example.com", "server.port": int64(80),
		"network.peer.address": "192.0.2.7", "network.peer.port": int64(40000),
		"network.protocol.version": "1.1", "http.response.status_code": int64(200),
	}, over)
}

// merge lays over on base; nil takes an attribute away.
func merge(base, over attrs) map[string]any {
	for k, v := range over {
		switch v := v.(type) {
		case nil:
			delete(base, k)
		case int:
			base[k] = int64(v)
		default:
			base[k] = v
		}
	}
	return base
}

const (
	get    = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
	ok0    = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	okBody = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)

type exchangeTest struct {
	name   string
	parts  []part
	client bool
	want   []result
	err    error
	lost   map[ledger.Entry]uint64
	times  bool // Start and End depend on how the bytes are split
	whole  bool // so does more
}

func size(n int) attrs { return attrs{"http.response.body.size": n} }

var exchangeTests = []exchangeTest{
	{
		name:  "keep-alive",
		parts: []part{in(get), out(okBody), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2043, Attrs: serverAttrs(size(5))},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:   "keep-alive, client",
		client: true,
		parts:  []part{out(get), in(okBody), out(get), in(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2043, Attrs: clientAttrs(size(5))},
			{Name: "GET", Start: 3000, End: 4038, Attrs: clientAttrs(size(0))},
		},
	},
	{
		name:  "named by the kernel side",
		parts: []part{in(get).name(1), out(ok0), in(get).name(2), out(ok0)},
		want: []result{
			{Name: "GET", ID: named(1).String(), Start: 1000, End: 2038, Attrs: serverAttrs(size(0))},
			{Name: "GET", ID: named(2).String(), Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "all attributes",
		parts: []part{
			in("POST /a/b%20c?x=1&Token=abc&sig=&user[password]=p HTTP/1.1\r\nhost: Shop.example:8443\r\nUSER-AGENT:  curl/8.5 \r\n" +
				"X-Forwarded-For: 203.0.113.9:1234, 10.0.0.1\r\nContent-Length:4\r\n\r\nbody"),
			out("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n"),
		},
		want: []result{{Name: "POST", Start: 1000, End: 2058, Status: codes.Error, Attrs: serverAttrs(attrs{
			"http.request.method": "POST", "url.path": "/a/b%20c", "url.query": "x=1&Token=REDACTED&sig=&user[password]=REDACTED",
			"server.address": "Shop.example", "server.port": 8443, "user_agent.original": "curl/8.5", "client.address": "203.0.113.9",
			"http.response.status_code": 503, "error.type": "503", "http.request.body.size": 4, "http.response.body.size": 3,
		})}},
	},
	{
		name:   "client errors",
		client: true,
		parts:  []part{out(get), in("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")},
		want: []result{{Name: "GET", Start: 1000, End: 2045, Status: codes.Error, Attrs: clientAttrs(attrs{
			"http.response.status_code": 404, "error.type": "404", "http.response.body.size": 0})}},
	},
	{
		name:  "not an error of the server",
		parts: []part{in(get), out("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")},
		want: []result{{Name: "GET", Start: 1000, End: 2045, Attrs: serverAttrs(attrs{
			"http.response.status_code": 404, "http.response.body.size": 0})}},
	},
	{
		name:  "pipelined in one call, answered in one call",
		parts: []part{in(get + strings.Replace(get, "/", "/2", 1)).name(1), out(okBody + "HTTP/1.1 204 No Content\r\n\r\n")},
		want: []result{
			{Name: "GET", ID: named(1).String(), Start: 1000, End: 2070, Attrs: serverAttrs(size(5))},
			{Name: "GET", Start: 1000, End: 2070, Attrs: serverAttrs(attrs{"url.path": "/2", "http.response.status_code": 204})},
		},
		times: true,
	},
	{
		name: "pipelined, then more",
		parts: []part{in(get), in("HEAD /h HTTP/1.1\r\nHost: example.com\r\n\r\n"), out(okBody), in(get),
			out("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), out(okBody)},
		want: []result{
			{Name: "GET", Start: 1000, End: 3043, Attrs: serverAttrs(size(5))},
			{Name: "HEAD", Start: 2000, End: 5040, Attrs: serverAttrs(attrs{"http.request.method": "HEAD", "url.path": "/h"})},
			{Name: "GET", Start: 4000, End: 6043, Attrs: serverAttrs(size(5))},
		},
	},
	{
		name: "chunked, with extensions and trailers",
		parts: []part{
			in("PUT /c HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nWiki\r\n0a\r\n0123456789\r\n0\r\n\r\n"),
			out("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nTrailer: X\r\n\r\n3 \r\nabc\r\n000\r\nX: y\r\nZ: GET / HTTP/1.1\r\n\r\n"),
			in(get), out(ok0),
		},
		want: []result{
			{Name: "PUT", Start: 1000, End: 2106, Attrs: serverAttrs(attrs{"http.request.method": "PUT", "url.path": "/c",
				"http.request.body.size": 14, "http.response.body.size": 3})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "no body after 204 and 304",
		parts: []part{in(get), out("HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n"),
			in(get), out("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2050, Attrs: serverAttrs(attrs{"http.response.status_code": 304})},
			{Name: "GET", Start: 3000, End: 4055, Attrs: serverAttrs(attrs{"http.response.status_code": 204})},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "interim responses",
		parts: []part{
			in("POST / HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
			out("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"),
			in("hello"), out("HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"), out(okBody),
		},
		want: []result{{Name: "POST", Start: 1000, End: 5043, Attrs: serverAttrs(attrs{"http.request.method": "POST",
			"http.request.body.size": 5, "http.response.body.size": 5})}},
	},
	{
		name: "refused, the body is not sent",
		parts: []part{
			in("POST / HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n"),
			out("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"), in(get), out(ok0),
		},
		want: []result{
			{Name: "POST", Start: 1000, End: 2054, Attrs: serverAttrs(attrs{"http.request.method": "POST",
				"http.response.status_code": 417, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
		whole: true,
	},
	{
		name: "upgrade",
		parts: []part{in("GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
			out("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")},
		want: []result{{Name: "GET", Start: 1000, End: 2063, Attrs: serverAttrs(attrs{"url.path": "/ws", "http.response.status_code": 101})}},
		err:  probes.ErrUpgraded, times: true,
	},
	{
		name:  "a refused upgrade",
		parts: []part{in("GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: h2c\r\n\r\n"), out(ok0), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"url.path": "/ws", "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:   "CONNECT",
		client: true,
		parts:  []part{out("CONNECT db.example:443 HTTP/1.1\r\nHost: db.example:443\r\n\r\n"), in("HTTP/1.1 200 Connection established\r\n\r\n"), out("\x16\x03\x01")},
		want: []result{{Name: "CONNECT", Start: 1000, End: 2039, Attrs: clientAttrs(attrs{"http.request.method": "CONNECT",
			"url.full": "db.example:443", "server.address": "db.example", "server.port": 443})}},
		err: probes.ErrUpgraded,
	},
	{
		name:  "CONNECT refused",
		parts: []part{in("CONNECT db.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"), out("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), in(get), out(ok0)},
		want: []result{
			{Name: "CONNECT", Start: 1000, End: 2047, Attrs: serverAttrs(attrs{"http.request.method": "CONNECT", "url.path": nil,
				"server.address": "db.example", "server.port": 443, "http.response.status_code": 403, "http.response.body.size": 2})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:   "through a proxy",
		client: true,
		parts: []part{out("GET http://bob:pw@far.example:81/p?q=1&code=2 HTTP/1.1\r\nHost: near\r\n\r\n"), in(ok0),
			out("GET HTTPS://far.example HTTP/1.1\r\nHost: near\r\n\r\n"), in(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: clientAttrs(attrs{"url.full": "http://REDACTED:REDACTED@far.example:81/p?q=1&code=REDACTED",
				"server.address": "far.example", "server.port": 81, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: clientAttrs(attrs{"url.full": "https://far.example",
				"server.address": "far.example", "server.port": 443, "http.response.body.size": 0})},
		},
	},
	{
		name: "as a proxy",
		parts: []part{in("GET http://far.example:81/p?q=1 HTTP/1.1\r\nHost: near\r\n\r\n"), out(ok0),
			in("GET https://far.example?q HTTP/1.1\r\nHost: near\r\n\r\n"), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"url.path": "/p", "url.query": "q=1",
				"server.address": "far.example", "server.port": 81, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(attrs{"url.path": "/", "url.query": "q", "url.scheme": "https",
				"server.address": "far.example", "server.port": 443, "http.response.body.size": 0})},
		},
	},
	{
		name: "behind a proxy",
		parts: []part{in("GET / HTTP/1.1\r\nHost: inner:8080\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Proto: https\r\n\r\n"), out(ok0),
			in("GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 203.0.113.1\r\nForwarded: for=\"[2001:db8::17]:4711\";host=\"shop.example:444\" ; proto=https, for=10.0.0.1\r\n\r\n"), out(ok0),
			in("GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: unknown\r\n\r\n"), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"url.scheme": "https",
				"server.address": "shop.example", "server.port": 443, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(attrs{"url.scheme": "https", "client.address": "2001:db8::17",
				"server.address": "shop.example", "server.port": 444, "http.response.body.size": 0})},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(attrs{"server.address": "inner", "http.response.body.size": 0})},
		},
	},
	{
		name: "HTTP/1.0, ended by close",
		parts: []part{in("GET /old HTTP/1.0\r\n\r\n"), out("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"), out("hello"), out("HTTP/1.1 200 OK\r\n\r\n"),
			end(probes.LocalClosed), end(probes.Closed)},
		want: []result{{Name: "GET", Start: 1000, End: 5000, Attrs: serverAttrs(attrs{"url.path": "/old", "network.protocol.version": "1.0",
			"server.address": "192.0.2.1", "server.port": 8080})}},
	},
	{
		name:   "ended by close, client",
		client: true,
		parts:  []part{out("GET /old HTTP/1.0\r\n\r\n"), in("HTTP/1.0 200 OK\r\n\r\nhello"), end(probes.PeerClosed), end(probes.Closed)},
		want: []result{{Name: "GET", Start: 1000, End: 3000, Attrs: clientAttrs(attrs{"url.full": "http://192.0.2.7:40000/old", "network.protocol.version": "1.0",
			"server.address": "192.0.2.7", "server.port": 40000})}},
	},
	{
		name:  "half-closed while the server works",
		parts: []part{in(get), end(probes.PeerClosed), out(okBody), end(probes.LocalClosed), end(probes.Closed)},
		want:  []result{{Name: "GET", Start: 1000, End: 3043, Attrs: serverAttrs(size(5))}},
	},
	{
		name:  "closed without an answer",
		parts: []part{in(get), in(get), end(probes.Closed)},
		want: []result{
			{Name: "GET", Start: 1000, End: 3000, Status: codes.Error, Attrs: serverAttrs(attrs{"http.response.status_code": nil, "error.type": "connection_closed"})},
			{Name: "GET", Start: 2000, End: 3000, Status: codes.Error, Attrs: serverAttrs(attrs{"http.response.status_code": nil, "error.type": "connection_closed"})},
		},
	},
	{
		name:   "the server closes without an answer",
		client: true,
		parts:  []part{out(get), end(probes.PeerClosed), end(probes.Closed)},
		want: []result{{Name: "GET", Start: 1000, End: 2000, Status: codes.Error,
			Attrs: clientAttrs(attrs{"http.response.status_code": nil, "error.type": "connection_closed"})}},
	},
	{
		name:  "reset in a response",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"), end(probes.Reset)},
		want:  []result{{Name: "GET", Start: 1000, End: 3000, Status: codes.Error, Attrs: serverAttrs(attrs{"error.type": "connection_reset"})}},
	},
	{
		name:  "reset in a response's head",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Le"), end(probes.Reset)},
		want: []result{{Name: "GET", Start: 1000, End: 3000, Status: codes.Error,
			Attrs: serverAttrs(attrs{"error.type": "connection_reset", "http.response.status_code": nil})}},
	},
	{
		name:  "closed in a request's head",
		parts: []part{in("GET / HTTP/1.1\r\nHost: example.com\r\nX: "), end(probes.PeerClosed), end(probes.Closed)},
		want: []result{{Name: "GET", Start: 1000, End: 3000, Status: codes.Error,
			Attrs: serverAttrs(attrs{"error.type": "connection_closed", "http.response.status_code": nil})}},
	},
	{
		name:  "closed in a request line",
		parts: []part{in("GET /aaa"), end(probes.Closed)},
		lost:  map[ledger.Entry]uint64{ledger.Unparsed: 1},
	},
	{
		name:  "the agent stops",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 9\r\n\r\nabc"), out("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"), end(probes.Stopped)},
		want:  []result{{Name: "POST", Start: 1000, End: 3000, Attrs: serverAttrs(attrs{"http.request.method": "POST", "breadcrumb.unfinished": true})}},
	},
	{
		name: "answered before the request is complete",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\nhel"), out("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
			in("lo worl"), in(get), out(ok0)},
		want: []result{
			{Name: "POST", Start: 1000, End: 2045, Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 10,
				"http.response.status_code": 413, "http.response.body.size": 0})},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "answered before the request's head is complete",
		parts: []part{in("GET /slow HTTP/1.1\r\nHost: example.com\r\n"), out("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"), in("X: y\r\n\r\n"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2051, Attrs: serverAttrs(attrs{"url.path": "/slow", "http.response.status_code": 408, "http.response.body.size": 0})},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "other methods",
		parts: []part{in("PROPFIND /dav HTTP/1.1\r\nHost: example.com\r\n\r\n"), out(ok0), in("get / HTTP/1.1\r\nHost: example.com\r\n\r\n"), out(ok0), in("QUERY * HTTP/1.1\r\nHost: example.com\r\n\r\n"), out(ok0)},
		want: []result{
			{Name: "HTTP", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"http.request.method": "_OTHER", "http.request.method_original": "PROPFIND", "url.path": "/dav", "http.response.body.size": 0})},
			{Name: "HTTP", Start: 3000, End: 4038, Attrs: serverAttrs(attrs{"http.request.method": "_OTHER", "http.request.method_original": "get", "http.response.body.size": 0})},
			{Name: "QUERY", Start: 5000, End: 6038, Attrs: serverAttrs(attrs{"http.request.method": "QUERY", "url.path": "*", "http.response.body.size": 0})},
		},
	},
	{
		name:  "lenient reading",
		parts: []part{in("\r\n\nGET /a b HTTP/1.1\nHost : example.com\nnonsense\n: empty\nX\x00Y: \x00\n folded\n\n"), out("HTTP/1.1 200\nContent-Length :3\n\nabc"), in("\r\n" + get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2035, Attrs: serverAttrs(attrs{"url.path": "/a b", "http.response.body.size": 3})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
		times: true,
	},
	{
		name: "Transfer-Encoding wins over Content-Length",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5e\r\n" + strings.Repeat("GET /evil HTTP/1.1\r\n\r\n", 4) + "123456\r\n0\r\n\r\n"),
			out(ok0), in(get), out(ok0)},
		want: []result{
			{Name: "POST", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 94, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "the same Content-Length twice",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nGET /"),
			out(ok0), in(get), out(ok0)},
		want: []result{
			{Name: "POST", Start: 1000, End: 2038, Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 5, "http.response.body.size": 0})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "different Content-Lengths",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), in("hello"),
			out("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), in(get), out(ok0)},
		want: []result{
			{Name: "POST", Start: 1000, End: 3047, Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.response.status_code": 400, "http.response.body.size": 0})},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
		times: true,
	},
	{
		name:  "a bad chunk size",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2057, Attrs: serverAttrs(nil)},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "without any length, and yet another request",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\n\r\nhello"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2024, Attrs: serverAttrs(nil)},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "a status out of the ordinary",
		parts: []part{in(get), out("HTTP/1.1 999 Request denied\r\nContent-Length: 0\r\n\r\n")},
		want: []result{{Name: "GET", Start: 1000, End: 2050, Status: codes.Error, Attrs: serverAttrs(attrs{
			"http.response.status_code": 999, "error.type": "999", "http.response.body.size": 0})}},
	},
	{
		name: "contexts",
		parts: []part{
			in("GET / HTTP/1.1\r\nHost: example.com\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1 , b=2,\r\nTRACESTATE: c=3\r\n\r\n"), out(ok0),
			in("GET / HTTP/1.1\r\nHost: example.com\r\nb3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d\r\n\r\n"), out(ok0),
			in("GET / HTTP/1.1\r\nHost: example.com\r\nX-B3-TraceId: 64fe8b2a57d3eff7\r\nX-B3-SpanId: e457b5a2e4d86bd1\r\nX-B3-Sampled: 0\r\n\r\n"), out(ok0),
		},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(size(0)), Wire: span.Context{TraceState: "a=1,b=2,c=3", Flags: 1,
				TraceID: traceID("0af7651916cd43dd8448eb211c80319c"), SpanID: spanID("b7ad6b7169203331")}},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0)), Wire: span.Context{Flags: 1,
				TraceID: traceID("80f198ee56343ba864fe8b2a57d3eff7"), SpanID: spanID("e457b5a2e4d86bd1")}},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0)), Wire: span.Context{
				TraceID: traceID("000000000000000064fe8b2a57d3eff7"), SpanID: spanID("e457b5a2e4d86bd1")}},
		},
	},
	{
		name:   "a response that is reported before its request",
		client: true,
		parts: []part{in(okBody).when(1500), out(get).when(1000), out(get).when(3000), in(ok0).when(4000),
			in("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").when(6000), out("HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n").when(5000), out(get).when(7000), in(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 1543, Attrs: clientAttrs(size(5))},
			{Name: "GET", Start: 3000, End: 4038, Attrs: clientAttrs(size(0))},
			{Name: "HEAD", Start: 5000, End: 6038, Attrs: clientAttrs(attrs{"http.request.method": "HEAD"})},
			{Name: "GET", Start: 7000, End: 8038, Attrs: clientAttrs(size(0))},
		},
	},
	{
		name:   "a response to a request from before",
		client: true,
		parts:  []part{in(okBody), out(get), in(ok0)},
		want:   []result{{Name: "GET", Start: 2000, End: 3038, Attrs: clientAttrs(size(0))}},
	},
	{
		name:  "a response without a request",
		parts: []part{out(okBody), in(get), out(ok0), out(okBody), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 2000, End: 3038, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "a body that is not announced",
		parts: []part{in(get), out("HTTP/1.1 204 No Content\r\n\r\nsurprise"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2035, Attrs: serverAttrs(attrs{"http.response.status_code": 204})},
			{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))},
		},
		times: true,
	},
	{
		name:  "begun in the middle of a body",
		parts: []part{in("dfghjkl lkjhgf\nGET / HTTP/1.1\r\n"), in(get), out(ok0)},
		want:  []result{{Name: "GET", Start: 2000, End: 3038, Attrs: serverAttrs(size(0))}},
		whole: true,
	},

	// What is not captured.
	{
		name: "a large download",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"), out(strings.Repeat("GET / HTTP/1.1\r\n\r\n", 250)).edges(),
			out(strings.Repeat("HTTP/1.1 200 OK\r\n\r\n", 10)).edges().after(5000), out(strings.Repeat("z", 310)), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 5310, Attrs: serverAttrs(size(10000))},
			{Name: "GET", Start: 6000, End: 7038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "a large download, its end known by asking",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"), out(strings.Repeat("z", 500)).edges(),
			progress(probes.Egress, 5000), progress(probes.Egress, 42+10000), in(get), out(ok0).after(9500)},
		want: []result{
			{Name: "GET", Start: 1000, End: 5000, Attrs: serverAttrs(size(10000))},
			{Name: "GET", Start: 6000, End: 7038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "asked ahead of the events",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), progress(probes.Egress, 90), out(strings.Repeat("z", 80)),
			progress(probes.Egress, 10000), out(strings.Repeat("z", 20)), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 6020, Attrs: serverAttrs(size(100))},
			{Name: "GET", Start: 7000, End: 8038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "a large download whose end is not seen",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"), out(strings.Repeat("z", 500)).edges(),
			in(get), out(ok0).after(9500)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4000, Attrs: serverAttrs(size(10000))},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "sendfile",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), hole(probes.Egress, 900), hole(probes.Egress, 100), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4000, Attrs: serverAttrs(size(1000))},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "a large upload",
		parts: []part{in("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000000\r\n\r\n").name(1), in(strings.Repeat("z", 500)).edges().name(2),
			out(ok0), in(get).after(999500), out(ok0)},
		want: []result{
			{Name: "POST", ID: named(1).String(), Start: 1000, End: 3038, Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 1000000, "http.response.body.size": 0})},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "chunks' sizes at the edges",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), out("400\r\n" + strings.Repeat("z", 1024) + "\r\n").edges(),
			out("40\r\n" + strings.Repeat("z", 64) + "\r\n0\r\n\r\n").edges(), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4075, Attrs: serverAttrs(size(1024 + 64))},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "chunks' sizes not captured",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), out("2\r\nzz\r\n400\r\n" + strings.Repeat("z", 1024) + "\r\n20\r\n" + strings.Repeat("y", 20)).edges(),
			out("yyyyyyyyyyyy\r\n0\r\n\r\n"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4019, Attrs: serverAttrs(nil)},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "chunks' sizes not captured, the end apart",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), out("2\r\nzz\r\n400\r\n" + strings.Repeat("z", 1024) + "\r\n20\r\n" + strings.Repeat("y", 20)).edges(),
			hole(probes.Egress, 500), out("0\r\n\r\n"), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 5005, Attrs: serverAttrs(nil)},
			{Name: "GET", Start: 6000, End: 7038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name: "chunks' sizes not captured, nor the end",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), out("2\r\nzz\r\n400\r\n" + strings.Repeat("z", 1024) + "\r\n20\r\n" + strings.Repeat("y", 20)).edges(),
			in(get), out(ok0).after(500)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4062, Attrs: serverAttrs(nil)},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "a request head that is not captured to its end",
		parts: []part{in("GET /long HTTP/1.1\r\nHost: example.com\r\nCookie: aaaaa"), hole(probes.Ingress, 9000), in("GET /in/the/head"), out(okBody), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4043, Attrs: serverAttrs(attrs{"url.path": "/long", "breadcrumb.truncated": true, "http.response.body.size": 5})},
			{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "a response head that is not captured to its end",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nSet-Cookie: aaaa"), hole(probes.Egress, 9000), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 3000, Attrs: serverAttrs(attrs{"breadcrumb.truncated": true})},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
	},
	{
		name:  "requests in bytes that are not captured",
		parts: []part{in(get), hole(probes.Ingress, 900), out(ok0 + ok0), in(get), out(ok0), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 3076, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 6000, End: 7038, Attrs: serverAttrs(size(0))},
		},
		lost:  map[ledger.Entry]uint64{ledger.Truncated: 1},
		times: true, whole: true,
	},
	{
		name:  "more requests while those are not answered",
		parts: []part{in(get), hole(probes.Ingress, 900), in(get), out(ok0), out(ok0), out(ok0), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 4038, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 7000, End: 8038, Attrs: serverAttrs(size(0))},
		},
		lost:  map[ledger.Entry]uint64{ledger.Truncated: 2},
		whole: true,
	},
	{
		name:  "responses in bytes that are not captured",
		parts: []part{in(get + get + get), out(ok0), hole(probes.Egress, 900), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
		lost:  map[ledger.Entry]uint64{ledger.Truncated: 2},
		times: true,
	},
	{
		name:  "responses of which none is captured",
		parts: []part{in(get), hole(probes.Egress, 90), in(get), hole(probes.Egress, 90), in(get), out(ok0), end(probes.Closed)},
		want:  []result{{Name: "GET", Start: 5000, End: 6038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.Truncated: 2},
		whole: true,
	},

	// Lost events.
	{
		name:  "a response is lost",
		parts: []part{in(get), in(get).afterLoss(), out(ok0).after(100)},
		want:  []result{{Name: "GET", Start: 2000, End: 3038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
	},
	{
		name:  "a request is lost",
		parts: []part{in(get), out(ok0), out(okBody).afterLoss(), in(get).after(100), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 2038, Attrs: serverAttrs(size(0))},
			{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))},
		},
		whole: true,
	},
	{
		name:  "part of a head is lost",
		parts: []part{in("GET / HTTP/1.1\r\n"), in("X: y\r\n\r\n").afterLoss().after(10), out(ok0), in(get), out(ok0)},
		want:  []result{{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
	},
	{
		name: "part of a body is lost",
		parts: []part{in(get), in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), out(strings.Repeat("z", 10)).after(500).afterLoss(),
			out(strings.Repeat("z", 490) + ok0), in(get), out(ok0)},
		want: []result{
			{Name: "GET", Start: 1000, End: 5528, Attrs: serverAttrs(size(1000))},
			{Name: "GET", Start: 6000, End: 7038, Attrs: serverAttrs(size(0))},
		},
		lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
		times: true,
	},
	{
		name:  "the end of a body is lost",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), in(get).afterLoss(), out(ok0).after(1000)},
		want:  []result{{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
	},
	{
		name:  "the end of a body and a request are lost",
		parts: []part{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), out(ok0).after(1000).afterLoss(), in(get).after(30), out(ok0)},
		want:  []result{{Name: "GET", Start: 4000, End: 5038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.RingFull: 1},
	},
	{
		name:  "not HTTP",
		parts: []part{in("\x16\x03\x01\x02\x00"), out("\x15\x03\x03"), in("hello\r\n"), end(probes.Closed)},
		whole: true,
	},
	{
		name:  "junk without end",
		parts: []part{in(get), in(strings.Repeat("\x01", maxJunk+1))},
		lost:  map[ledger.Entry]uint64{ledger.Unparsed: 1},
		err:   probes.ErrNotProtocol, whole: true,
	},
	{
		name:  "begun like a request",
		parts: []part{in("GET"), in("TING STARTED\r\n"), in(get), out(ok0)},
		want:  []result{{Name: "GET", Start: 3000, End: 4038, Attrs: serverAttrs(size(0))}},
		lost:  map[ledger.Entry]uint64{ledger.Unparsed: 1},
	},
}

func traceID(s string) trace.TraceID {
	id, err := trace.TraceIDFromHex(s)
	if err != nil {
		panic(err)
	}
	return id
}

func spanID(s string) trace.SpanID {
	id, err := trace.SpanIDFromHex(s)
	if err != nil {
		panic(err)
	}
	return id
}

func TestExchanges(t *testing.T) {
	for _, test := range exchangeTests {
		t.Run(test.name, func(t *testing.T) {
			check := func(what string, split splitter, times bool) {
				t.Helper()
				acc := new(ledger.Account)
				events := chunks(test.parts, split)
				k, err := play(t, testConn(acc), !test.client, events)
				if !errors.Is(err, test.err) {
					t.Errorf("%s: error %v", what, err)
				}
				got := k.results()
				if !times {
					for i := range got {
						got[i].Start, got[i].End = 0, 0
					}
				}
				want := slices.Clone(test.want)
				if !times {
					for i := range want {
						want[i].Start, want[i].End = 0, 0
					}
				}
				if len(got) == 0 {
					got = nil
				}
				if len(want) == 0 {
					want = nil
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: (-want +got)\n%s", what, diff)
				}
				counts := acc.Counts()
				var lost [ledger.Entries]uint64
				for e, n := range test.lost {
					lost[e] = n
				}
				for e := ledger.FirstLoss; e < ledger.Entries; e++ {
					if counts[e] != lost[e] {
						t.Errorf("%s: lost %v: %d, want %d", what, e, counts[e], lost[e])
					}
				}
				if counts[ledger.Seen] != uint64(len(want))+counts.Lost() {
					t.Errorf("%s: seen %d", what, counts[ledger.Seen])
				}
				// A recording holds the chunks as the decoder left them.
				again, err := play(t, testConn(new(ledger.Account)), !test.client, events)
				if !errors.Is(err, test.err) {
					t.Errorf("%s: again: error %v", what, err)
				}
				if diff := cmp.Diff(k.results(), again.results()); diff != "" {
					t.Errorf("%s: again: (-first +second)\n%s", what, diff)
				}
			}
			check("whole", whole, true)
			if test.whole || t.Failed() {
				return
			}
			check("byte by byte", singly, !test.times)
			for i, p := range test.parts {
				if len(p.data) > 3000 || p.cut {
					continue
				}
				for n := 1; n < len(p.data); n++ {
					check(fmt.Sprintf("part %d split at %d", i, n), splitAt(i, n), !test.times)
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

func TestBodiesAreZeroed(t *testing.T) {
	const secret = "SECRET"
	for _, test := range []struct {
		name  string
		parts []part
	}{
		{"length", []part{in("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n" + secret), out("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + secret), out(secret)}},
		{"chunked", []part{in("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n" + secret + "\r\n0\r\n\r\n"), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n06\r\n" + secret + "\r\n0\r\n\r\n")}},
		{"close", []part{in("GET / HTTP/1.0\r\n\r\n"), out("HTTP/1.1 200 OK\r\n\r\n" + secret), out(secret), end(probes.Closed)}},
		{"unknown", []part{in("POST / HTTP/1.1\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\n" + secret), in(secret), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz" + secret)}},
		{"no sizes", []part{in(get), out("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"), hole(probes.Egress, 20), out(secret), out("0\r\n\r\n" + secret)}},
		{"junk", []part{in("\x00" + secret), in(secret), out("\x00" + secret), out(secret)}},
		{"lost", []part{in("POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + secret), in(secret).afterLoss(), out("\x00" + secret)}},
		{"tail", []part{in("POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\n"), in(strings.Repeat(secret, 6)).edges()}},
	} {
		events := chunks(test.parts, whole)
		_, err := play(t, testConn(nil), true, events)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, ev := range events {
			if all := string(ev.Head) + string(ev.Tail); strings.Contains(all, secret[:3]) {
				t.Errorf("%s: %q is left", test.name, all)
			}
		}
	}
}

func TestRequestsInsideAChunkHaveStableNames(t *testing.T) {
	events := chunks([]part{in(get + get + get).name(1)}, whole)
	ids := map[trace.SpanID]bool{}
	var first []trace.SpanID
	for round := range 2 {
		k, _ := play(t, testConn(nil), true, events)
		for i, s := range k.opened {
			if round == 0 {
				ids[s.ID] = true
				first = append(first, s.ID)
			} else if first[i] != s.ID {
				t.Errorf("request %d: %v, then %v", i, first[i], s.ID)
			}
			if want := uint32(i*len(get)) - 5; s.Evidence.Seq != want {
				t.Errorf("request %d: sequence number %d, want %d", i, s.Evidence.Seq, want)
			}
		}
	}
	if len(ids) != 3 || !ids[named(1)] {
		t.Errorf("ids %v", ids)
	}
}

func TestNamesOfPartsAreAliases(t *testing.T) {
	post := "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\n"
	for _, test := range []struct {
		name  string
		parts []part
		id    trace.SpanID
		want  []trace.SpanID
	}{
		{"body after an interim response", []part{in(post).name(1), out("HTTP/1.1 100 Continue\r\n\r\n"), in("GET / HTTP/").name(2)}, named(1), []trace.SpanID{named(2)}},
		{"full-duplex body", []part{in(post).name(1), out("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), in("hel").name(2), out("a"), in("lo").name(3)}, named(1), []trace.SpanID{named(2), named(3)}},
		{"first byte apart", []part{in("G").name(1), in(get[1:]).name(2)}, named(1), []trace.SpanID{named(2)}},
		{"chunked body", []part{in("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").name(1), in("5\r\nGET /\r\n").name(2)}, named(1), []trace.SpanID{named(2)}},
		{"framing not known", []part{in("POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n").name(1), in("GET away").name(2)}, named(1), []trace.SpanID{named(2)}},
		{"a new request", []part{in(get).name(1), out(ok0), in(get).name(2)}, named(1), nil},
		{"pipelined behind a body", []part{in(post).name(1), in("0123456789" + get).name(2)}, named(1), []trace.SpanID{named(2)}},
	} {
		k, err := play(t, testConn(nil), true, chunks(test.parts, whole))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if k.opened[0].ID != test.id {
			t.Errorf("%s: id %v, want %v", test.name, k.opened[0].ID, test.id)
		}
		if len(k.aliases) != len(test.want) {
			t.Errorf("%s: aliases %v, want %v", test.name, k.aliases, test.want)
		}
		for _, id := range test.want {
			if k.aliases[id] != k.opened[0] {
				t.Errorf("%s: %v is no alias", test.name, id)
			}
		}
	}
}

func TestOpenComesWithTheFirstByte(t *testing.T) {
	events := chunks([]part{in("G"), in("ET / HTTP/1.1\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")}, whole)
	d := newDecoder(testConn(nil), true, standard)
	k := newSink(t)
	if err := d.Decode(&events[0].Chunk, k); err != nil || len(k.opened) != 1 {
		t.Fatalf("%v, %d spans", err, len(k.opened))
	}
	if err := d.Decode(&events[1].Chunk, k); err != nil || len(k.opened) != 1 {
		t.Fatalf("%v, %d spans", err, len(k.opened))
	}
	if s := k.opened[0]; !s.Wire.TraceID.IsValid() || s.Start != 1000 || s.Evidence.Seq != uint32(0xffffffff-4) {
		t.Errorf("%+v", s)
	}
}

func TestWaitsForTheEndOfABody(t *testing.T) {
	d := newDecoder(testConn(nil), true, standard)
	k := newSink(t)
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
	for _, ev := range chunks([]part{in(get), out(head), out("hello")}, whole) {
		if _, _, ok := d.Waiting(); ok != (ev.Pos > 0) {
			t.Errorf("before %d: waiting %v", ev.Begin, ok)
		}
		if err := d.Decode(&ev.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	dir, until, ok := d.Waiting()
	if want := uint64(len(head) + 1000); dir != probes.Egress || until != want || !ok {
		t.Errorf("waiting %v %d %v, want %d", dir, until, ok, want)
	}
	d.Progress(dir, until, 9000, k)
	if _, _, ok := d.Waiting(); ok || len(k.done) != 1 || k.done[0].End != 9000 {
		t.Errorf("still waiting %v, %d spans", ok, len(k.done))
	}
}

// TestUnansweredRequestsSaySo tells those whose server may still read them from those that it has read.
func TestUnansweredRequestsSaySo(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts []part
		want  []bool // of each span
	}{
		{"answered", []part{out(get), in(okBody), end(probes.Closed)}, []bool{false}},
		{"closed", []part{out(get), end(probes.Closed)}, []bool{true}},
		{"reset", []part{out(get), end(probes.Reset)}, []bool{true}},
		{"given up", []part{out(get), end(probes.Stopped)}, []bool{true}},
		{"in the middle of the answer", []part{out(get), in(okBody[:len(okBody)-2]), end(probes.Reset)}, []bool{false}},
		{"in the middle of the first answer", []part{out(get + get), in(okBody[:len(okBody)-2]), end(probes.Reset)}, []bool{false, true}},
	} {
		k, err := play(t, testConn(nil), false, chunks(test.parts, whole))
		if err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, s := range k.done {
			got = append(got, s.Unanswered)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestTooManyPipelinedRequests(t *testing.T) {
	acc := new(ledger.Account)
	k, err := play(t, testConn(acc), true, chunks([]part{in(strings.Repeat(get, maxPipelined)), in(get)}, whole))
	if err == nil {
		t.Error("no error")
	}
	k.balance(acc)
	if n := acc.Counts()[ledger.Unparsed]; n != maxPipelined+1 {
		t.Errorf("%d unparsed", n)
	}
}

func TestHeadOfManyChunks(t *testing.T) {
	for _, size := range []int{maxHead - 1, maxHead, maxHead + 1, 2 * maxHead} {
		head := "GET /big HTTP/1.1\r\nHost: example.com\r\nCookie: "
		head += strings.Repeat("c", size-len(head)-4) + "\r\n\r\n"
		for _, step := range []int{1000, 4096, size} {
			acc := new(ledger.Account)
			k, err := play(t, testConn(acc), true, chunks([]part{in(head), out(okBody), in(get), out(ok0)}, func(_ int, data string) []string {
				var list []string
				for len(data) > step {
					list = append(list, data[:step])
					data = data[step:]
				}
				return append(list, data)
			}))
			if err != nil || len(k.done) != 2 {
				t.Fatalf("%d in steps of %d: %v, %d spans", size, step, err, len(k.done))
			}
			k.balance(acc)
			r := k.results()[0]
			want := serverAttrs(attrs{"url.path": "/big", "http.response.body.size": 5})
			if size > maxHead {
				want["breadcrumb.truncated"] = true
			}
			if diff := cmp.Diff(want, r.Attrs); diff != "" {
				t.Errorf("%d in steps of %d: (-want +got)\n%s", size, step, diff)
			}
		}
	}
}

func TestUnixSocket(t *testing.T) {
	conn := &probes.Conn{ID: 1, LocalAddr: "/run/app.sock", Network: "unix", Target: new(span.Target)}
	k, err := play(t, conn, true, chunks([]part{in("GET / HTTP/1.0\r\n\r\n"), out(ok0)}, whole))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"http.request.method": "GET", "url.scheme": "http", "url.path": "/", "server.address": "/run/app.sock",
		"network.transport": "unix", "network.protocol.version": "1.0", "http.response.status_code": int64(200), "http.response.body.size": int64(0)}
	if diff := cmp.Diff(want, k.results()[0].Attrs); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMemoryOfSpansIsUsed(t *testing.T) {
	d := newDecoder(testConn(nil), true, standard)
	k := &reuse{span: span.Span{Attrs: make([]attribute.KeyValue, 0, 32)}}
	first := &k.span.Attrs[:1][0]
	for _, ev := range chunks([]part{in(get), out(ok0)}, whole) {
		if err := d.Decode(&ev.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	if k.span.State != span.Done || &k.span.Attrs[0] != first {
		t.Error("the attributes are in new memory")
	}
}

// reuse hands out the same span again and again.
type reuse struct{ span span.Span }

func (k *reuse) New() *span.Span {
	k.span = span.Span{Attrs: k.span.Attrs[:0]}
	return &k.span
}
func (k *reuse) Span(*span.Span)                {}
func (k *reuse) Alias(trace.SpanID, *span.Span) {}
