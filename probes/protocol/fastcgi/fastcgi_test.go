// SPDX-License-Identifier: Apache-2.0

package fastcgi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// protocol is FastCGI as the agent has it.
var protocol = New(http1.New(http1.Default()))

// rec is a record.
func rec(k kind, id uint16, content string) string { return padded(k, id, content, 0) }

// padded is a record with n bytes of padding, which are not zero as they need not be.
func padded(k kind, id uint16, content string, n int) string {
	b := []byte{version, byte(k)}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	b = append(b, byte(n), 0)
	return string(b) + content + strings.Repeat("P", n)
}

// nv are names and values, in turn.
func nv(list ...string) string {
	var b []byte
	for i := 0; i < len(list); i += 2 {
		for _, s := range list[i : i+2] {
			if len(s) < 0x80 {
				b = append(b, byte(len(s)))
			} else {
				b = binary.BigEndian.AppendUint32(b, uint32(len(s))|0x80000000)
			}
		}
		b = append(b, list[i]...)
		b = append(b, list[i+1]...)
	}
	return string(b)
}

// beginID begins a request; the connection is to be kept.
func beginID(id uint16) string { return rec(beginRequest, id, "\x00\x01\x01\x00\x00\x00\x00\x00") }

func endID(id uint16) string { return rec(endRequest, id, "\x00\x00\x00\x00\x00\x00\x00\x00") }

// common are the parameters that all requests of the tests have but for those that are given.
func common(list []string) []string {
	all := slices.Clone(list)
	for _, p := range [][2]string{{"REQUEST_METHOD", "GET"}, {"REQUEST_URI", "/"}, {"HTTP_HOST", "example.com"}, {"REMOTE_ADDR", "198.51.100.9"},
		{"SERVER_PROTOCOL", "HTTP/1.1"}, {"SCRIPT_FILENAME", "/srv/index.php"}} {
		if !slices.Contains(list, p[0]) {
			all = append(all, p[0], p[1])
		}
	}
	return all
}

// ask is a request without a body; an empty value of a common parameter takes it away.
func ask(list ...string) string { return post("", list...) }

// post is a request with a body.
func post(body string, list ...string) string {
	all := nv(common(list)...)
	s := beginID(1) + padded(params, 1, all, len(all)%8) + rec(params, 1, "")
	if body != "" {
		s += rec(stdin, 1, body)
	}
	return s + rec(stdin, 1, "")
}

// say is a response.
func say(text string) string { return padded(stdout, 1, text, len(text)%8) + endID(1) }

const ok = "X-Powered-By: PHP/8.3\r\nContent-type: text/html\r\n\r\nhello"

// result is what a test compares of a span.
type result struct {
	Name       string
	ID         string // "" where the test does not name it
	Start, End int64
	Status     codes.Code
	Attrs      map[string]any
	Wire       span.Context
}

// sink takes what a decoder hands over and holds it to the contract.
type sink struct {
	t       testing.TB
	states  map[*span.Span]span.State
	ids     map[trace.SpanID]bool
	opened  []*span.Span
	done    []*span.Span
	lost    []*span.Span
	aliases map[trace.SpanID]*span.Span
}

func newSink(t testing.TB) *sink {
	return &sink{t: t, states: map[*span.Span]span.State{}, ids: map[trace.SpanID]bool{}, aliases: map[trace.SpanID]*span.Span{}}
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
		if k.ids[s.ID] {
			k.t.Errorf("a second span with the id %v", s.ID)
		}
		k.ids[s.ID] = true
		k.opened = append(k.opened, s)
	case span.Answered:
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

// byItself is a name of which the test says nothing.
func byItself(n int) trace.SpanID {
	id := named(n)
	id[0] = 0xbb
	return id
}

// part is what one call moves, or another event of a connection.
type part struct {
	answer     bool // it is from the side that is asked
	data       string
	head       int // bytes of it that are captured at the start, and
	tail       int // at the end; cut says that it is so
	cut        bool
	skip       int  // bytes that pass unseen before
	lost       bool // an event was lost before
	named      int  // the kernel side names a request here
	unnamed    bool // it does not, though one begins
	unreadable bool
	end        *probes.End
	prog       int // Progress to this many bytes after those seen
}

func req(data string) part      { return part{data: data} }
func rsp(data string) part      { return part{answer: true, data: data} }
func end(e probes.End) part     { return part{end: &e} }
func progress(n int) part       { return part{answer: true, prog: n} }
func (p part) name(n int) part  { p.named = n; return p }
func (p part) noName() part     { p.unnamed = true; return p }
func (p part) after(n int) part { p.skip = n; return p }
func (p part) afterLoss() part  { p.lost = true; return p }
func (p part) unread() part     { p.cut, p.unreadable = true, true; return p }

// captured says how many of the bytes are, at the start and at the end.
func (p part) captured(head, tail int) part { p.cut, p.head, p.tail = true, head, tail; return p }

// testConn is a connection over which a web server comes to an application, or the other way round.
func testConn(acc *ledger.Account) *probes.Conn {
	return &probes.Conn{
		ID: 7, LocalAddr: "192.0.2.1", LocalPort: 9000, RemoteAddr: "192.0.2.7", RemotePort: 40000,
		Network: "tcp", Type: "ipv4", Target: &span.Target{Account: acc},
	}
}

// splitter cuts the bytes of the i-th part into what single calls move.
type splitter func(i int, data string) []string

func whole(_ int, data string) []string { return []string{data} }

// steps cuts all parts into pieces of n bytes.
func steps(n int) splitter {
	return func(_ int, data string) (list []string) {
		for len(data) > n {
			list, data = append(list, data[:n]), data[n:]
		}
		return append(list, data)
	}
}

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
func chunks(parts []part, server bool, split splitter) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	for i, p := range parts {
		now := int64(i+1) * 1000
		dir := probes.Ingress
		if p.answer == server {
			dir = probes.Egress
		}
		switch {
		case p.end != nil:
			e := *p.end
			if !server && e <= probes.LocalClosed { // the tests name them as the server sees them
				e ^= 1
			}
			list = append(list, chunk{end: &e, Chunk: probes.Chunk{End: now}})
			continue
		case p.prog != 0:
			list = append(list, chunk{prog: true, Chunk: probes.Chunk{Dir: dir, Pos: pos[dir] + uint64(p.prog), End: now}})
			continue
		}
		pos[dir] += uint64(p.skip)
		pieces := []string{p.data}
		if !p.cut {
			pieces = split(i, p.data)
		}
		off := int64(0)
		for j, piece := range pieces {
			n := uint64(len(piece))
			c := chunk{Chunk: probes.Chunk{Dir: dir, Pos: pos[dir], Total: n, Head: []byte(piece), Begin: now + off, End: now + off + int64(n)}}
			c.Evidence = span.Evidence{PID: 42, Conn: 7, Seq: uint32(pos[dir]) - 5, HasSeq: true}
			if p.cut {
				c.Head, c.Tail = []byte(piece[:p.head]), []byte(piece[len(piece)-p.tail:])
			}
			switch {
			case j > 0:
			case p.named != 0:
				id, c.Named = named(p.named), true
			case !p.unnamed && !p.answer && begins([]byte(p.data)) == probes.Yes:
				id, c.Named = byItself(i+1), true
			}
			c.Lost = j == 0 && p.lost
			c.Unreadable = p.unreadable
			c.ID = id
			list = append(list, c)
			pos[dir] += n
			off += int64(n)
		}
	}
	return list
}

// play feeds events to a new decoder. A decoder that gives up sees no more.
func play(t testing.TB, conn *probes.Conn, server bool, events []chunk) (*sink, error) {
	d := protocol.New(conn, server)
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

// serverAttrs are those of a request with the common parameters, answered 200.
func serverAttrs(over attrs) map[string]any {
	return merge(attrs{
		"http.request.method": "GET", "url.scheme": "http", "url.path": "/",
		"server.address": "example.com", "server.port": int64(80),
		"client.address": "198.51.100.9", "network.peer.address": "192.0.2.7", "network.peer.port": int64(40000),
		"network.protocol.name": "fastcgi", "http.response.status_code": int64(200),
	}, over)
}

func clientAttrs(over attrs) map[string]any {
	return merge(attrs{
		"http.request.method": "GET", "url.full": "http://example.com/",
		"server.address": "example.com", "server.port": int64(80),
		"network.peer.address": "192.0.2.7", "network.peer.port": int64(40000),
		"network.protocol.name": "fastcgi", "http.response.status_code": int64(200),
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

// exchangeTest is run for each side of which spans are wanted; for both, if none are.
type exchangeTest struct {
	name           string
	parts          []part
	server, client []result
	established    bool
	err            error
	lost           map[ledger.Entry]uint64
	times          bool // Start and End depend on how the bytes are split
	whole          bool // so does more
}

// served and called are one span each, of the first two parts.
func served(parts []part, over attrs) []result {
	return []result{{Name: "GET", Start: 1000, End: int64(2000 + len(parts[1].data)), Attrs: serverAttrs(over)}}
}

func called(parts []part, over attrs) []result {
	return []result{{Name: "GET", Start: 1000, End: int64(2000 + len(parts[1].data)), Attrs: clientAttrs(over)}}
}

func failed(list []result) []result {
	for i := range list {
		list[i].Status = codes.Error
	}
	return list
}

// simple is a test of one exchange.
func simple(name, request, response string, server, client attrs) exchangeTest {
	parts := []part{req(request), rsp(response)}
	return exchangeTest{name: name, parts: parts, server: served(parts, server), client: called(parts, client)}
}

// as gives the spans a name.
func (t exchangeTest) as(name string) exchangeTest {
	t.server[0].Name, t.client[0].Name = name, name
	return t
}

// in gives the spans a context.
func (t exchangeTest) in(c span.Context) exchangeTest {
	t.server[0].Wire, t.client[0].Wire = c, c
	return t
}

func (t exchangeTest) anError() exchangeTest {
	t.server = failed(t.server)
	return t.anErrorOfTheClient()
}

func (t exchangeTest) anErrorOfTheClient() exchangeTest {
	t.client = failed(t.client)
	return t
}

// inOnePiece is for records that are known by their place in a call.
func (t exchangeTest) inOnePiece() exchangeTest {
	t.whole = true
	return t
}

// timesVary is for a response that ends with its head, and a request that does not begin with its call.
func (t exchangeTest) timesVary() exchangeTest {
	t.times = true
	return t
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var wire = span.Context{Flags: 1, TraceState: "a=1",
	TraceID: trace.TraceID{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c},
	SpanID:  trace.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}}

// long is a response's body that is not captured to its end.
var long = strings.Repeat("z", 3000)

// head is the first record of a response of several; its body is n bytes.
func head(n int) string {
	return padded(stdout, 1, "Status: 201 Created\r\nContent-type: text/plain\r\n\r\n"+strings.Repeat("z", n), 4)
}

var piece = padded(stdout, 1, long, 7)

var created = attrs{"http.response.status_code": 201}

var postParams = []string{"REQUEST_METHOD", "POST", "CONTENT_LENGTH", "11"}

// Exchanges whose calls are captured as a whole.
func simpleTests() []exchangeTest {
	return []exchangeTest{
		simple("GET", ask(), say(ok), nil, nil),
		simple("path and query", ask("REQUEST_URI", "/a/b%20c?x=1&Token=abc", "SCRIPT_NAME", "/index.php", "QUERY_STRING", "y=1"), say(ok),
			attrs{"url.path": "/a/b%20c", "url.query": "x=1&Token=REDACTED"}, attrs{"url.full": "http://example.com/a/b%20c?x=1&Token=REDACTED"}),
		simple("path of the script", ask("REQUEST_URI", "", "SCRIPT_NAME", "/app.php", "PATH_INFO", "/a b", "QUERY_STRING", "q=1"), say(ok),
			attrs{"url.path": "/app.php/a%20b", "url.query": "q=1"}, attrs{"url.full": "http://example.com/app.php/a%20b?q=1"}),
		simple("no path", ask("REQUEST_URI", ""), say(ok), nil, nil),
		simple("host and port", ask("HTTP_HOST", "shop.example:8443", "SERVER_NAME", "inner", "SERVER_PORT", "81"), say(ok),
			attrs{"server.address": "shop.example", "server.port": 8443},
			attrs{"server.address": "shop.example", "server.port": 8443, "url.full": "http://shop.example:8443/"}),
		simple("name and port of the server", ask("HTTP_HOST", "", "SERVER_NAME", "inner", "SERVER_PORT", "81"), say(ok),
			attrs{"server.address": "inner", "server.port": 81},
			attrs{"server.address": "inner", "server.port": 81, "url.full": "http://inner:81/"}),
		simple("neither", ask("HTTP_HOST", ""), say(ok),
			attrs{"server.address": "192.0.2.1", "server.port": 9000},
			attrs{"server.address": "192.0.2.7", "server.port": 40000, "url.full": "http://192.0.2.7:40000/"}),
		simple("HTTPS", ask("HTTPS", "on", "REQUEST_URI", "/s?q"), say(ok),
			attrs{"url.scheme": "https", "server.port": 443, "url.path": "/s", "url.query": "q"},
			attrs{"server.port": 443, "url.full": "https://example.com/s?q"}),
		simple("REQUEST_SCHEME", ask("REQUEST_SCHEME", "https"), say(ok),
			attrs{"url.scheme": "https", "server.port": 443}, attrs{"server.port": 443, "url.full": "https://example.com/"}),
		simple("not HTTPS", ask("HTTPS", "off", "REQUEST_SCHEME", "http"), say(ok), nil, nil),
		simple("not HTTPS either", ask("HTTPS", ""), say(ok), nil, nil),
		simple("the client's address", ask("REMOTE_ADDR", "2001:db8::17", "REMOTE_PORT", "4711"), say(ok), attrs{"client.address": "2001:db8::17"}, nil),
		simple("a proxy's word for it", ask("HTTP_X_FORWARDED_FOR", "203.0.113.9, 10.0.0.1"), say(ok), attrs{"client.address": "203.0.113.9"}, nil),
		simple("a proxy's word for more", ask("HTTP_FORWARDED", "for=203.0.113.9;host=shop.example;proto=https"), say(ok),
			attrs{"client.address": "203.0.113.9", "server.address": "shop.example", "server.port": 443, "url.scheme": "https"}, nil),
		simple("no client's address", ask("REMOTE_ADDR", ""), say(ok), attrs{"client.address": "192.0.2.7"}, nil),
		simple("user agent", ask("HTTP_USER_AGENT", "curl/8.5", "HTTP_COOKIE", strings.Repeat("c", 300)), say(ok),
			attrs{"user_agent.original": "curl/8.5"}, nil),
		simple("no Status", ask(), say("Content-type: text/html\r\n\r\n"), nil, nil),
		simple("lines end with line feeds", ask(), say("Content-type: text/html\nStatus:  202 Accepted\n\nStatus: 500"),
			attrs{"http.response.status_code": 202}, attrs{"http.response.status_code": 202}),
		simple("lines end one way and another", ask(), say("status: 203\n\r\nStatus: 500\r\n\r\n"),
			attrs{"http.response.status_code": 203}, attrs{"http.response.status_code": 203}),
		simple("no fields", ask(), say("\r\nStatus: 500\r\n\r\n"), nil, nil),
		simple("no blank line", ask(), say("Status: 202 Accepted"), attrs{"http.response.status_code": 202}, attrs{"http.response.status_code": 202}),
		simple("elsewhere", ask(), say("Location: https://example.org/there\r\n\r\n"),
			attrs{"http.response.status_code": 302}, attrs{"http.response.status_code": 302}),
		simple("elsewhere on this server", ask(), say("Location: /there?from=http://example.org\r\n\r\n"), nil, nil),
		simple("elsewhere with a status", ask(), say("Location: https://example.org/there\r\nStatus: 307\r\n\r\n"),
			attrs{"http.response.status_code": 307}, attrs{"http.response.status_code": 307}),
		simple("a place but no other status", ask(), say("Status: 200 OK\r\nLocation: https://example.org/there\r\n\r\n"), nil, nil),
		simple("errors before and within", ask(), rec(stderr, 1, "PHP Warning:  x")+padded(stderr, 1, "Status: 500\r\n\r\n", 1)+rec(stdout, 1, "Sta")+
			rec(stderr, 1, "PHP Notice:  y")+rec(stdout, 1, "tus: 202\r\n\r")+rec(stderr, 1, "z")+rec(stdout, 1, "\nhello")+rec(stderr, 1, "")+
			rec(stdout, 1, "")+endID(1), attrs{"http.response.status_code": 202}, attrs{"http.response.status_code": 202}),
		simple("parameters in many records", beginID(1)+func() (s string) {
			for _, b := range nv(common(nil)...) {
				s += padded(params, 1, string(b), 2)
			}
			return s + padded(params, 1, "", 3) + rec(stdin, 1, "")
		}(), say(ok), nil, nil),
		simple("other records", rec(getValues, 0, nv("FCGI_MAX_CONNS", ""))+ask()+rec(data, 1, "data")+rec(params, 1, nv("REQUEST_METHOD", "PUT")),
			rec(getValuesResult, 0, nv("FCGI_MAX_CONNS", "1"))+rec(unknownType, 0, "\x0c2345678")+say(ok), nil, nil).timesVary(),
		simple("records of another request", ask(), rec(stdout, 2, "Status: 500\r\n\r\n")+rec(stderr, 2, "x")+endID(2)+rec(stdout, 1, ok)+
			rec(stdout, 2, "Status: 500\r\n\r\n")+endID(2)+endID(1), nil, nil),
		simple("parameters that would break a head", ask("HTTP_X\r\n\r\nGET /evil HTTP/1.1", "a", "HTTP_A", "b\r\n\r\n", "HTTP_ B", "c", "HTTP_TRANSFER-ENCODING", "chunked",
			"HTTP_TRANSFER_ENCODING", "chunked", "HTTP_CONTENT-LENGTH", "7", "HTTP_CONTENT_LENGTH", "8", "HTTP_", "x", "CONTENT_LENGTH", "x"), say(ok), nil, nil),
		simple("a method of its own", ask("REQUEST_METHOD", "PROPFIND"), say(ok),
			attrs{"http.request.method": "_OTHER", "http.request.method_original": "PROPFIND"},
			attrs{"http.request.method": "_OTHER", "http.request.method_original": "PROPFIND"}).as("HTTP"),
		simple("contexts", ask("HTTP_TRACEPARENT", traceparent, "HTTP_TRACESTATE", "a=1"), say(ok), nil, nil).in(wire),
		simple("404", ask(), say("Status: 404 Not Found\r\n\r\n"), attrs{"http.response.status_code": 404},
			attrs{"http.response.status_code": 404, "error.type": "404"}).anErrorOfTheClient(),
		simple("500", ask(), say("Status: 500 Internal Server Error\r\n\r\n"), attrs{"http.response.status_code": 500, "error.type": "500"},
			attrs{"http.response.status_code": 500, "error.type": "500"}).anError(),
		simple("POST", post("hello world", postParams...), say(ok),
			attrs{"http.request.method": "POST", "http.request.body.size": 11}, attrs{"http.request.method": "POST", "http.request.body.size": 11}).as("POST"),
		simple("nothing to POST", post("", "REQUEST_METHOD", "POST", "CONTENT_LENGTH", "0"), say(ok),
			attrs{"http.request.method": "POST", "http.request.body.size": 0}, attrs{"http.request.method": "POST", "http.request.body.size": 0}).as("POST"),
		simple("more than was announced", post("hello world", "REQUEST_METHOD", "POST", "CONTENT_LENGTH", "5"), say(ok),
			attrs{"http.request.method": "POST", "http.request.body.size": 5}, attrs{"http.request.method": "POST", "http.request.body.size": 5}).as("POST"),
		simple("of a length that is not known", post("hello world", "REQUEST_METHOD", "POST", "CONTENT_LENGTH", ""), say(ok),
			attrs{"http.request.method": "POST"}, attrs{"http.request.method": "POST"}).as("POST"),
		simple("HEAD", ask("REQUEST_METHOD", "HEAD"), say(ok), attrs{"http.request.method": "HEAD"}, attrs{"http.request.method": "HEAD"}).as("HEAD").timesVary(),
		simple("204", ask(), say("Status: 204 No Content\r\n\r\n"), attrs{"http.response.status_code": 204}, attrs{"http.response.status_code": 204}).timesVary(),
	}
}

// at is the time at which the last byte of part i passed.
func at(parts []part, i int) int64 { return int64(i+1)*1000 + int64(len(parts[i].data)) }

func both(name string, parts []part, end int64, over attrs) exchangeTest {
	return exchangeTest{name: name, parts: parts,
		server: []result{{Name: "GET", Start: 1000, End: end, Attrs: serverAttrs(over)}},
		client: []result{{Name: "GET", Start: 1000, End: end, Attrs: clientAttrs(over)}}}
}

// unanswered is a test of a request that has no answer for a reason.
func unanswered(name, reason string, parts ...part) exchangeTest {
	return both(name, parts, int64(len(parts))*1000, attrs{"http.response.status_code": nil, "error.type": reason}).anError()
}

func losing(name string, e ledger.Entry, parts ...part) exchangeTest {
	return exchangeTest{name: name, parts: parts, lost: map[ledger.Entry]uint64{e: 1}, whole: true}
}

func cutBefore(s, mark string) int { return strings.Index(s, mark) }

// Exchanges of other events.
func partTests() []exchangeTest {
	big, two := head(3000)+endID(1), head(60)+piece+endID(1)
	late := beginID(1) + rec(params, 1, nv("REQUEST_METHOD", "GET", "REQUEST_URI", "/p", "HTTP_HOST", "example.com", "REMOTE_ADDR", "198.51.100.9",
		"HTTP_X_LONG", strings.Repeat("x", 400), "HTTP_USER_AGENT", "late")) + rec(params, 1, "") + rec(stdin, 1, "")
	early := beginID(1) + rec(params, 1, nv("HTTP_X_LONG", strings.Repeat("x", 400))+nv(common(nil)...)) + rec(params, 1, "") + rec(stdin, 1, "")
	cutPath, truncated := attrs{"url.path": "/p", "breadcrumb.truncated": true}, attrs{"url.full": "http://example.com/p", "breadcrumb.truncated": true}
	cutTest := func(name string, parts ...part) exchangeTest {
		return exchangeTest{name: name, parts: parts, server: served(parts, cutPath), client: called(parts, truncated), whole: true}
	}

	kept := []part{req(ask()).name(1), rsp(say(ok)), req(ask("REQUEST_URI", "/2")).name(2), rsp(say("Status: 404\r\n\r\n"))}
	several := []part{req(ask()), rsp(head(10)), rsp(piece), rsp(rec(stderr, 1, "x") + rec(stdout, 1, "bye")), rsp(endID(1))}
	edges := []part{req(ask()), rsp(head(0)), rsp(piece+endID(1)).captured(24, 8)}
	quiet := []part{req(ask()), rsp(head(10)), rsp(piece).after(3 * len(piece)), rsp(piece+endID(1)).after(len(piece)).captured(24, 8)}
	closes := []part{req(ask()), rsp(head(10)), rsp(piece+piece).after(100).captured(0, 0), end(probes.LocalClosed), end(probes.Closed)}
	hidden := []part{req(ask()), rsp(head(10)+piece).captured(100, 0), end(probes.LocalClosed), end(probes.Closed)}
	told := []part{req(ask()), rsp(head(10)), progress(9000), end(probes.Closed)}
	again := []part{req(ask()), rsp(head(10)), progress(9000), req(ask()), rsp(say(ok)).after(9000)}
	full := post("hello world", postParams...)
	early413 := []part{req(full[:strings.Index(full, "hello")+5]), rsp(say("Status: 413\r\n\r\n")), req(full[strings.Index(full, "hello")+5:]), req(ask()), rsp(say(ok))}
	other := strings.NewReplacer("\x01\x01\x00\x01\x00\x08", "\x01\x01\x00\x02\x00\x08", "\x01\x04\x00\x01", "\x01\x04\x00\x02", "\x01\x05\x00\x01", "\x01\x05\x00\x02").Replace(ask())
	otherAnswer := rec(stdout, 2, ok) + endID(2)
	middle := []part{rsp("zzz\r\n\r\nStatus: 500\r\n\r\n"), req("zzz"), rsp(piece + endID(1)), req(ask()).name(1), rsp(say(ok))}
	endless := []part{req(ask()), rsp(rec(stdout, 1, "Status: 201\r\nX: "+strings.Repeat("x", maxHead)) + rec(stdout, 1, "\r\n\r\nhello") + endID(1))}
	pause := []part{req(ask()), rsp(head(10)), rsp(piece).after(len(piece)).unread(), rsp(endID(1)).after(100)}

	return []exchangeTest{
		{
			name: "two requests on one connection", parts: kept,
			server: []result{
				{Name: "GET", ID: named(1).String(), Start: 1000, End: at(kept, 1), Attrs: serverAttrs(nil)},
				{Name: "GET", ID: named(2).String(), Start: 3000, End: at(kept, 3), Attrs: serverAttrs(attrs{"url.path": "/2", "http.response.status_code": 404})},
			},
			client: []result{
				{Name: "GET", ID: named(1).String(), Start: 1000, End: at(kept, 1), Attrs: clientAttrs(nil)},
				{Name: "GET", ID: named(2).String(), Start: 3000, End: at(kept, 3), Status: codes.Error,
					Attrs: clientAttrs(attrs{"url.full": "http://example.com/2", "http.response.status_code": 404, "error.type": "404"})},
			},
		},
		both("a response of several calls", several, at(several, 4), created),

		// What is not captured.
		both("the end is in what is not captured", []part{req(ask()), rsp(big).captured(100, 0)}, 2000+int64(len(big)), created),
		both("but for the response's end", []part{req(ask()), rsp(big).captured(100, 16)}, 2000+int64(len(big)), created),
		both("but for a part of the end", edges, at(edges, 2), created),
		both("the end is behind a record that was not seen", []part{req(ask()), rsp(two).captured(100, 16), end(probes.Closed)}, 2000+int64(len(two)), created),
		both("the end's body is not captured", []part{req(ask()), rsp(say(ok)).captured(len(say(ok))-8, 0)}, 2000+int64(len(say(ok))), nil),
		both("an end that was not seen, with the next request", append(slices.Clone(hidden[:2]), rsp(endID(1)).after(10).captured(3, 0), req(beginID(1))), 3016, created),
		both("closed after what was not captured", hidden, at(hidden, 1), created),
		both("closed after a piece that was not captured", closes, at(closes, 2), created),
		both("some pieces were left out", quiet, at(quiet, 3), created),
		both("a piece could not be read", pause, at(pause, 3), created).inOnePiece(),
		both("the connection's end says how far it has come", told, 3000, created),
		{
			name: "the next request says it", whole: true, parts: again,
			server: []result{{Name: "GET", Start: 1000, End: 3000, Attrs: serverAttrs(created)}, {Name: "GET", Start: 4000, End: at(again, 4), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 1000, End: 3000, Attrs: clientAttrs(created)}, {Name: "GET", Start: 4000, End: at(again, 4), Attrs: clientAttrs(nil)}},
		},
		both("a response's head is cut off", []part{req(ask()), rsp(say("Status: 201\r\nX: "+long+"\r\n\r\nhello")).captured(50, 8)},
			2000+int64(len(say("Status: 201\r\nX: "+long+"\r\n\r\nhello"))), attrs{"http.response.status_code": 201, "breadcrumb.truncated": true}),
		both("so is its first record", []part{req(ask()), rsp(say("X: y\r\nX: "+long+"\r\n\r\nhello")).captured(50, 8), rsp(say(ok)), end(probes.Closed)},
			2000+int64(len(say("X: y\r\nX: "+long+"\r\n\r\nhello"))), attrs{"breadcrumb.truncated": true}),
		both("a head without end", endless, at(endless, 1), attrs{"http.response.status_code": 201, "breadcrumb.truncated": true}),
		losing("nothing is known of a response's head", ledger.Truncated, req(ask()), rsp(say("Status: 404 Not Found\r\n\r\n")).captured(8+len("Status: 4"), 0), rsp(piece)),
		losing("nothing of a response is captured", ledger.Truncated, req(ask()), rsp(say(ok)).captured(0, 0), rsp(say("Status: 500\r\n\r\n")), end(probes.Closed)),
		losing("nothing of a response can be read", ledger.Unreadable, req(ask()), rsp(say(ok)).unread(), rsp(say("Status: 500\r\n\r\n")), end(probes.Reset)),
		losing("the head passed unseen after errors", ledger.Truncated, req(ask()), rsp(rec(stderr, 1, "x")), rsp(rec(stdout, 1, "Status: 500\r\n\r\n")+endID(1)).after(100), end(probes.Closed)),
		losing("the status is none", ledger.Unparsed, req(ask()), rsp(say("Status: OK\r\n\r\n")), end(probes.Closed)),
		losing("nor is an interim one", ledger.Unparsed, req(ask()), rsp(say("Status: 100 Continue\r\n\r\nStatus: 200\r\n\r\n"))),
		cutTest("parameters are cut off", req(late).captured(cutBefore(late, "xxx")+100, 0), rsp(say(ok))),
		cutTest("parameters are cut off, the request's end is not", req(late).captured(cutBefore(late, "xxx")+100, 8), rsp(say(ok))),
		cutTest("parameters are cut off within what is captured", req(late).captured(cutBefore(late, "xxx")+100, 100), rsp(say(ok))),
		losing("the method is cut off", ledger.Truncated, req(early).captured(100, 0), rsp(say(ok)), end(probes.Closed)),
		losing("the method is cut off, and there is no response", ledger.Truncated, req(early).captured(100, 0), end(probes.Reset)),
		losing("closed before the method", ledger.Unparsed, req(early[:100]), end(probes.Closed)),
		losing("there is no method", ledger.Unparsed, req(ask("REQUEST_METHOD", "")), rsp(say(ok)), end(probes.Closed)),
		losing("the method is none", ledger.Unparsed, req(ask("REQUEST_METHOD", "G(T")), rsp(say(ok)), end(probes.Closed)),

		// Ends.
		unanswered("closed before the response", "connection_closed", req(ask()), end(probes.LocalClosed)),
		unanswered("closed both ways before the response", "connection_closed", req(ask()), end(probes.PeerClosed), end(probes.Closed)),
		unanswered("closed after errors alone", "connection_closed", req(ask()), rsp(rec(stderr, 1, "PHP Fatal error")), end(probes.Closed)),
		unanswered("closed within the response's head", "connection_closed", req(ask()), rsp(rec(stdout, 1, "Status: 20")), end(probes.Closed)),
		unanswered("closed within the parameters", "connection_closed", req(ask()[:len(ask())-20]), end(probes.Closed)),
		unanswered("reset before the response", "connection_reset", req(ask()), end(probes.Reset)),
		unanswered("reset within the response's head", "connection_reset", req(ask()), rsp(rec(stdout, 1, "Status: 20")), end(probes.Reset)),
		both("reset within the response", []part{req(ask()), rsp(head(100)), end(probes.Reset)}, 3000,
			attrs{"http.response.status_code": 201, "error.type": "connection_reset"}).anError(),
		both("half-closed while the server works", []part{req(ask()), end(probes.PeerClosed), rsp(say(ok)), end(probes.LocalClosed), end(probes.Closed)}, 3000+int64(len(say(ok))), nil),
		both("the agent stops", []part{req(ask()), end(probes.Stopped)}, 2000, attrs{"http.response.status_code": nil, "breadcrumb.unfinished": true}),
		both("the agent stops within the response", []part{req(ask()), rsp(head(10)), end(probes.Stopped)}, 3000, attrs{"http.response.status_code": 201, "breadcrumb.unfinished": true}),
		{
			name: "answered before the request is complete", parts: early413,
			server: []result{
				{Name: "POST", Start: 1000, End: at(early413, 1), Attrs: serverAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 11, "http.response.status_code": 413})},
				{Name: "GET", Start: 4000, End: at(early413, 4), Attrs: serverAttrs(nil)},
			},
			client: []result{
				{Name: "POST", Start: 1000, End: at(early413, 1), Status: codes.Error, Attrs: clientAttrs(attrs{"http.request.method": "POST", "http.request.body.size": 11,
					"http.response.status_code": 413, "error.type": "413"})},
				{Name: "GET", Start: 4000, End: at(early413, 4), Attrs: clientAttrs(nil)},
			},
		},
		{
			name: "ended before the parameters are", parts: []part{req(late[:cutBefore(late, "xxx")+100]), rsp(endID(1)), req(late[cutBefore(late, "xxx")+100:])},
			server: failed([]result{{Name: "GET", Start: 1000, End: 2016, Attrs: serverAttrs(attrs{"url.path": "/p", "breadcrumb.truncated": true,
				"error.type": "connection_closed", "http.response.status_code": nil})}}),
		},

		// Lost events.
		{
			name: "a response is lost", parts: []part{req(ask()), req(ask()).afterLoss(), rsp(say(ok)).after(100)},
			server: []result{{Name: "GET", Start: 2000, End: 3000 + int64(len(say(ok))), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 2000, End: 3000 + int64(len(say(ok))), Attrs: clientAttrs(nil)}},
			lost:   map[ledger.Entry]uint64{ledger.RingFull: 1}, whole: true,
		},
		{
			name: "a request is lost", parts: []part{rsp(say("Status: 500\r\n\r\n")).afterLoss(), req(ask()).after(300), rsp(say(ok))},
			server: []result{{Name: "GET", Start: 2000, End: 3000 + int64(len(say(ok))), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 2000, End: 3000 + int64(len(say(ok))), Attrs: clientAttrs(nil)}},
			whole:  true,
		},
		losing("a part of a response is lost", ledger.RingFull, req(ask()), rsp(head(10)), rsp(piece+endID(1)).after(len(piece)).afterLoss(), end(probes.Closed)),
		losing("a part of the parameters is lost", ledger.RingFull, req(late[:cutBefore(late, "xxx")+100]), req(late[len(late)-8:]).after(400).afterLoss(), rsp(say(ok)), end(probes.Closed)),

		// In the middle.
		{
			name: "attached in the middle", parts: middle, established: true, whole: true,
			server: []result{{Name: "GET", ID: named(1).String(), Start: 4000, End: at(middle, 4), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", ID: named(1).String(), Start: 4000, End: at(middle, 4), Attrs: clientAttrs(nil)}},
		},
		{
			name: "attached between two requests", established: true, whole: true, parts: []part{req(ask()).after(99), rsp(say(ok)).after(9999)},
			server: []result{{Name: "GET", Start: 1000, End: 2000 + int64(len(say(ok))), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 1000, End: 2000 + int64(len(say(ok))), Attrs: clientAttrs(nil)}},
		},
		{
			name: "not seen from its first byte", whole: true, parts: []part{rsp(piece).after(1), req("zzz").after(1), req(ask()), rsp(say(ok))},
			server: []result{{Name: "GET", Start: 3000, End: 4000 + int64(len(say(ok))), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 3000, End: 4000 + int64(len(say(ok))), Attrs: clientAttrs(nil)}},
		},
		{name: "nothing but the middle", established: true, whole: true, parts: []part{rsp("zzz"), req("zzz"), rsp(piece + endID(1)), end(probes.Closed)}},
		{name: "a response without its request", parts: []part{rsp(say(ok)), end(probes.Closed)}},

		// What it is not.
		{name: "not FastCGI", parts: []part{req("GET / HTTP/1.1\r\n\r\n")}, err: probes.ErrNotProtocol},
		{name: "a beginning of another length", parts: []part{req(rec(beginRequest, 1, "\x00\x01\x00\x00"))}, err: probes.ErrNotProtocol},
		{
			name: "two requests at once, in the middle", established: true, whole: true, err: probes.ErrNotProtocol,
			parts: []part{req(ask()).after(9), rsp(say(ok)[:9]).after(9), req("zzz").after(9), req(other)},
			lost:  map[ledger.Entry]uint64{ledger.Unparsed: 1},
		},
		{name: "a kind that there is not", parts: []part{req(beginID(1) + rec(12, 1, "x"))}, err: probes.ErrNotProtocol, lost: map[ledger.Entry]uint64{ledger.Truncated: 1}},
		{name: "not FastCGI after a request", parts: []part{req(ask()), rsp("HTTP/1.1 200 OK\r\n\r\n")}, err: probes.ErrNotProtocol, lost: map[ledger.Entry]uint64{ledger.Unparsed: 1}},
		{name: "not FastCGI within a response", parts: []part{req(ask()), rsp(head(10) + "junk junk junk")}, err: probes.ErrNotProtocol, lost: map[ledger.Entry]uint64{ledger.Unparsed: 1}},
		{
			name: "not FastCGI where the end is captured", parts: []part{req(ask()), rsp(head(60)+"junk junk").captured(100, 9)}, whole: true,
			err: probes.ErrNotProtocol, lost: map[ledger.Entry]uint64{ledger.Unparsed: 1},
		},
		{name: "two requests at once", parts: []part{req(ask()), req(other)}, err: probes.ErrNotProtocol, lost: map[ledger.Entry]uint64{ledger.Unparsed: 1}},
		{
			name: "one request after another, by other ids", parts: []part{req(ask()), rsp(say(ok)), req(other), rsp(otherAnswer)},
			server: []result{{Name: "GET", Start: 1000, End: 2000 + int64(len(say(ok))), Attrs: serverAttrs(nil)},
				{Name: "GET", Start: 3000, End: 4000 + int64(len(otherAnswer)), Attrs: serverAttrs(nil)}},
			client: []result{{Name: "GET", Start: 1000, End: 2000 + int64(len(say(ok))), Attrs: clientAttrs(nil)},
				{Name: "GET", Start: 3000, End: 4000 + int64(len(otherAnswer)), Attrs: clientAttrs(nil)}},
		},
		{
			name: "the same after an end that was not seen", whole: true, parts: []part{req(ask()), rsp(head(60)+piece+piece+endID(1)).captured(100, 0), req(other), rsp(otherAnswer)},
			server: []result{{Name: "GET", Start: 1000, End: 2000 + int64(len(head(60)+piece+piece)+16), Attrs: serverAttrs(created)},
				{Name: "GET", Start: 3000, End: 4000 + int64(len(otherAnswer)), Attrs: serverAttrs(nil)}},
		},
		{
			name: "a request in the place of another", whole: true, parts: []part{req(ask()), req(ask("REQUEST_URI", "/2")), rsp(say(ok))},
			server: []result{{Name: "GET", Start: 2000, End: 3000 + int64(len(say(ok))), Attrs: serverAttrs(attrs{"url.path": "/2"})}},
			lost:   map[ledger.Entry]uint64{ledger.Truncated: 1},
		},
	}
}

func exchangeTests() []exchangeTest { return append(simpleTests(), partTests()...) }

func TestExchanges(t *testing.T) {
	for _, test := range exchangeTests() {
		for _, server := range []bool{true, false} {
			want, other := test.server, test.client
			if !server {
				want, other = other, want
			}
			if want == nil && other != nil {
				continue
			}
			t.Run(fmt.Sprintf("%s, server %v", test.name, server), func(t *testing.T) { test.run(t, server, want) })
		}
	}
}

func (test *exchangeTest) run(t *testing.T, server bool, want []result) {
	longest := 1
	for _, p := range test.parts {
		longest = max(longest, len(p.data))
	}
	check := func(what string, split splitter) {
		t.Helper()
		acc := new(ledger.Account)
		conn := testConn(acc)
		conn.Established = test.established
		events := chunks(test.parts, server, split)
		k, err := play(t, conn, server, events)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v", what, err)
		}
		got, want := k.results(), slices.Clone(want)
		if test.times && what != "whole" {
			for i := range got {
				got[i].Start, got[i].End = 0, 0
			}
			for i := range want {
				want[i].Start, want[i].End = 0, 0
			}
		}
		if len(got) == 0 {
			got = nil
		}
		if diff := difference(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", what, diff)
		}
		k.balance(acc)
		counts := acc.Counts()
		for e := ledger.FirstLoss; e < ledger.Entries; e++ {
			if counts[e] != test.lost[e] {
				t.Errorf("%s: lost %v: %d, want %d", what, e, counts[e], test.lost[e])
			}
		}
		// A recording holds the chunks as the decoder left them.
		again, err := play(t, conn, server, events)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: again: error %v", what, err)
		}
		if diff := difference(k.results(), again.results()); diff != "" {
			t.Errorf("%s: again: (-first +second)\n%s", what, diff)
		}
	}
	check("whole", whole)
	if test.whole {
		return
	}
	for n := 1; n < longest && !t.Failed(); n += 1 + n/300 {
		check(fmt.Sprintf("in steps of %d", n), steps(n))
	}
	for i, p := range test.parts {
		if len(p.data) > 3000 || p.cut {
			continue
		}
		for n := 1; n < len(p.data) && !t.Failed(); n++ {
			check(fmt.Sprintf("part %d split at %d", i, n), splitAt(i, n))
		}
	}
}

// difference is cmp.Diff, which is slow, where there is one.
func difference(want, got []result) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

func TestDetect(t *testing.T) {
	first := beginID(0x1234)
	for n := range len(first) + 1 {
		want := probes.Maybe
		if n >= headerSize {
			want = probes.Yes
		}
		for _, dir := range []probes.Direction{probes.Ingress, probes.Egress} {
			if v, requests := protocol.Detect(dir, []byte(first[:n])); v != want || v == probes.Yes && !requests {
				t.Errorf("%q: %v, requests %v", first[:n], v, requests)
			}
		}
	}
	for i := range headerSize + 2 {
		if i == 2 || i == 3 { // the id
			continue
		}
		other := []byte(first)
		other[i] ^= 0x40
		for n := range len(first) + 1 {
			v, _ := protocol.Detect(probes.Ingress, other[:n])
			// The role is looked at where it is there as a whole.
			if no := n > i && (i < headerSize || n >= headerSize+2); no != (v == probes.No) {
				t.Errorf("%q: %v", other[:n], v)
			}
		}
	}
	for _, role := range []byte{0, 1, 2, 3, 4} {
		other := []byte(first)
		other[9] = role
		if v, _ := protocol.Detect(probes.Ingress, other); (v == probes.Yes) != (role >= 1 && role <= 3) {
			t.Errorf("role %d: %v", role, v)
		}
	}
	for _, s := range []string{"GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "\x16\x03\x01\x02\x00\x01", "\x01\x00", "\x00", say(ok), rec(params, 1, ""), rec(getValues, 0, "")} {
		if v, _ := protocol.Detect(probes.Egress, []byte(s)); v != probes.No {
			t.Errorf("%q: %v", s, v)
		}
	}
}

func TestPairs(t *testing.T) {
	long := strings.Repeat("v", 70000)
	all := []string{"A", "", "", "b", "C", long[:127], "D", long[:128], long[:200], "e", "F", long}
	b := []byte(nv(all...))
	var got []string
	collect := func(name, value []byte) { got = append(got, string(name), string(value)) }
	if !pairs(b, collect) || !slices.Equal(got, all) {
		t.Errorf("%d names and values, want %d", len(got), len(all))
	}
	for n := range 700 {
		got = got[:0]
		complete := pairs(b[:n], collect)
		if !slices.Equal(got, all[:len(got)]) || complete != (nv(got...) == string(b[:n])) {
			t.Fatalf("%d bytes: %v, %d names and values", n, complete, len(got))
		}
	}
	if pairs([]byte("\xff\xff\xff\xff\xff\xff\xff\xffab"), collect) {
		t.Error("lengths of 2 GiB are believed")
	}
}

// TestBodiesAreZeroed delivers the bytes whole and in pieces of every size.
func TestBodiesAreZeroed(t *testing.T) {
	const secret = "<q<zq>"
	upload := beginID(1) + rec(params, 1, nv(common([]string{"CONTENT_LENGTH", "12"})...)) + rec(params, 1, "")
	for _, test := range []struct {
		name  string
		parts []part
	}{
		{"bodies", []part{req(post(secret, "CONTENT_LENGTH", "6")), rsp(say("Status: 200\r\n\r\n" + secret))}},
		{"in many records", []part{req(upload), req(rec(stdin, 1, secret)), req(padded(stdin, 1, secret, 3) + rec(stdin, 1, "")), rsp(rec(stdout, 1, "A: b\r\n\r\n"+secret)), rsp(rec(stdout, 1, secret) + endID(1))}},
		{"more than was announced", []part{req(post(secret+secret, "CONTENT_LENGTH", "1")), rsp(say("A: b\r\n\r\n"))}},
		{"after a response", []part{req(upload), rsp(say("A: b\r\n\r\n")), req(rec(stdin, 1, secret)), rsp(rec(stdout, 1, secret))}},
		{"errors and data", []part{req(upload + rec(data, 1, secret) + rec(stdout, 1, secret) + rec(params, 1, secret)), rsp(rec(stderr, 1, secret) + rec(stdin, 1, secret) + rec(stdout, 1, "A: b\n\n"+secret))}},
		{"of another request", []part{req(upload + rec(stdin, 2, secret) + rec(params, 2, secret)), rsp(rec(stdout, 2, secret) + rec(stderr, 0, secret))}},
		{"without a request", []part{req(rec(stdin, 1, secret) + rec(params, 1, secret)), rsp(rec(stdout, 1, secret))}},
		{"without fields", []part{req(ask()), rsp(say("\r\n" + secret + "\r\n\r\n" + secret))}},
		{"HEAD", []part{req(ask("REQUEST_METHOD", "HEAD")), rsp(say(ok + secret))}},
		{"no status", []part{req(ask()), rsp(say("Status: x\r\n\r\n" + secret))}},
		{"a head without end", []part{req(ask()), rsp(rec(stdout, 1, strings.Repeat("x", maxHead)+secret) + rec(stdout, 1, secret))}},
		{"padding", []part{req(ask() + strings.Replace(padded(stdin, 1, "", 6), "PPPPPP", secret, 1)), rsp(strings.Replace(padded(stderr, 1, "x", 6), "PPPPPP", secret, 1))}},
	} {
		for n := 1; n < 500; n++ {
			events := chunks(test.parts, true, steps(n))
			if _, err := play(t, testConn(nil), true, events); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			var all [2]string
			for _, ev := range events {
				all[ev.Dir] += string(ev.Head)
			}
			if s := all[0] + all[1]; strings.Contains(s, secret[:3]) || strings.Contains(s, secret[3:]) {
				t.Fatalf("%s: in pieces of %d: %q is left", test.name, n, s)
			}
			if n > 100 && len(all[1]) > maxHead {
				break
			}
		}
	}
	for _, test := range []struct {
		name        string
		parts       []part
		established bool
		err         error
	}{
		{"tail", []part{req(upload), req(rec(stdin, 1, strings.Repeat(secret, 6))).captured(10, 20), rsp(rec(stdout, 1, "A: b\r\n\r\n"+strings.Repeat(secret, 9))).captured(30, 10)}, false, nil},
		{"unseen head", []part{req(upload), rsp(rec(stdout, 1, long+strings.Repeat(secret, 9))).captured(0, 24), rsp(rec(stdout, 1, secret+"\r\n\r\n"+secret))}, false, nil},
		{"lost", []part{req(upload), req(rec(stdin, 1, secret)).afterLoss(), rsp(secret)}, false, nil},
		{"middle", []part{req(secret), rsp(secret), req(strings.Repeat(secret, 9)).captured(9, 9), req(rec(stdin, 1, secret))}, true, nil},
		{"junk", []part{req(upload + secret + secret)}, false, probes.ErrNotProtocol},
		{"junk within", []part{req(rec(stdin, 1, long)).captured(20, 0), req(secret+long+secret).captured(40, 6)}, false, probes.ErrNotProtocol},
		{"several at once", []part{req(ask() + beginID(2) + rec(stdin, 2, secret))}, false, probes.ErrNotProtocol},
	} {
		events := chunks(test.parts, true, whole)
		conn := testConn(nil)
		conn.Established = test.established
		if _, err := play(t, conn, true, events); !errors.Is(err, test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, ev := range events {
			if all := string(ev.Head) + string(ev.Tail); strings.Contains(all, secret[2:]) {
				t.Errorf("%s: %q is left", test.name, all)
			}
		}
	}
}

// TestNames: a request has the name that the kernel side gave its first byte, else one that a replay repeats.
func TestNames(t *testing.T) {
	a := ask()
	for _, test := range []struct {
		name  string
		parts []part
		want  []trace.SpanID // zero where it is made up
		seqs  []uint32       // positions
	}{
		{"each its own", []part{req(a).name(1), rsp(say(ok)), req(a).name(2), rsp(say(ok))}, []trace.SpanID{named(1), named(2)}, []uint32{0, uint32(len(a))}},
		{"none", []part{req(a).noName(), rsp(say(ok)), req(a).noName(), rsp(say(ok)), req(a).noName()}, make([]trace.SpanID, 3), []uint32{0, uint32(len(a)), uint32(2 * len(a))}},
		{"two in one call", []part{req(a + a).name(1), rsp(say(ok) + say(ok)), req(a).name(2)}, []trace.SpanID{named(1), {}, named(2)}, []uint32{0, uint32(len(a)), uint32(2 * len(a))}},
		{"of the first byte", []part{req(a[:1]).name(1), req(a[1:]).name(2), rsp(say(ok))}, []trace.SpanID{named(1)}, []uint32{0}},
		{"of the first bytes", []part{req(a[:8]).name(1), req(a[8:]), rsp(say(ok))}, []trace.SpanID{named(1)}, []uint32{0}},
		{"behind another record", []part{req(rec(getValues, 0, "") + a).name(1), rsp(say(ok))}, []trace.SpanID{{}}, []uint32{8}},
		{"begun in the call before", []part{req(a + a[:3]).name(1), rsp(say(ok)), req(a[3:]).name(2)}, []trace.SpanID{named(1), {}}, []uint32{0, uint32(len(a))}},
	} {
		var before []trace.SpanID
		events := chunks(test.parts, true, whole)
		for range 2 {
			k, err := play(t, testConn(nil), true, append(slices.Clip(events), chunk{end: new(probes.Closed)}))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			var ids []trace.SpanID
			var seqs []uint32
			for _, s := range k.opened {
				if s.Evidence.PID != 42 || !s.Evidence.HasSeq {
					t.Errorf("%s: evidence %+v", test.name, s.Evidence)
				}
				ids = append(ids, s.ID)
				seqs = append(seqs, s.Evidence.Seq+5)
			}
			for i, id := range ids {
				if i < len(test.want) && (test.want[i].IsValid() && id != test.want[i] || !test.want[i].IsValid() && isNamed(id)) {
					t.Errorf("%s: span %d is %v, want %v", test.name, i, id, test.want[i])
				}
			}
			if !slices.Equal(seqs, test.seqs) {
				t.Errorf("%s: sequence numbers %v, want %v", test.name, seqs, test.seqs)
			}
			if before != nil && !slices.Equal(ids, before) {
				t.Errorf("%s: %v, then %v", test.name, before, ids)
			}
			before = ids
		}
	}
}

func TestNamesOfPartsAreAliases(t *testing.T) {
	full := post("hello world", "CONTENT_LENGTH", "11")
	body := strings.Index(full, "hello")
	for _, test := range []struct {
		name  string
		parts []part
		want  []trace.SpanID
	}{
		{"a body after a part of the response", []part{req(full[:body]).name(1), rsp(head(1)), req(full[body : body+4]).name(2), rsp(piece), req(full[body+4:]).name(3)}, []trace.SpanID{named(2), named(3)}},
		{"a body's record after a part of the response", []part{req(full[:body-8]).name(1), rsp(rec(stderr, 1, "x")), req(full[body-8:]).name(2)}, []trace.SpanID{named(2)}},
		{"not the next request", []part{req(full).name(1), rsp(say(ok)), req(full).name(2), rsp(head(1))}, nil},
		{"nor its own", []part{req(full).name(1), rsp(head(1))}, nil},
		{"nor what comes after it", []part{req(full[:body]).name(1), rsp(say(ok)), req(full[body:]).name(2)}, nil},
		{"nor one that takes its place", []part{req(full).name(1), rsp(head(1)), req(full).name(2)}, nil},
	} {
		k, err := play(t, testConn(nil), true, chunks(test.parts, true, whole))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
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

// TestSpansAreHandedOverInTime follows one exchange: it is open when its parameters are complete, answered when its response's
// head is, done with the record that ends it.
func TestSpansAreHandedOverInTime(t *testing.T) {
	for _, server := range []bool{true, false} {
		d := protocol.New(testConn(nil), server)
		k := newSink(t)
		a := ask("HTTP_TRACEPARENT", traceparent, "HTTP_TRACESTATE", "a=1")
		parts := []part{req(a[:len(a)-9]), req(a[len(a)-9 : len(a)-8]), req(a[len(a)-8:]), rsp(rec(stdout, 1, "Status: 200\r\n\r")), rsp(rec(stdout, 1, "\nx")), rsp(endID(1)[:15]), rsp(endID(1)[15:])}
		states := []int{-1, int(span.Open), int(span.Open), int(span.Open), int(span.Answered), int(span.Answered), int(span.Done)} // -1: no span
		for i, ev := range chunks(parts, server, whole) {
			if err := d.Decode(&ev.Chunk, k); err != nil {
				t.Fatal(err)
			}
			if _, _, waits := d.Waiting(); waits {
				t.Errorf("step %d: it waits", i)
			}
			if len(k.opened) == 0 {
				if states[i] != -1 {
					t.Errorf("step %d: no span", i)
				}
				continue
			}
			s := k.opened[0]
			if int(s.State) != states[i] || s.Start != 1000 || s.Wire != wire || s.Evidence.Seq != uint32(0xfffffffb) {
				t.Errorf("step %d: %+v", i, s)
			}
			if want := map[bool]trace.SpanKind{true: trace.SpanKindServer, false: trace.SpanKindClient}[server]; s.Kind != want {
				t.Errorf("step %d: kind %v", i, s.Kind)
			}
		}
	}
}

func TestUnansweredRequestsSaySo(t *testing.T) {
	for _, test := range []struct {
		name  string
		parts []part
		want  bool
	}{
		{"answered", []part{req(ask()), rsp(say(ok))}, false},
		{"closed", []part{req(ask()), end(probes.Closed)}, true},
		{"reset", []part{req(ask()), end(probes.Reset)}, true},
		{"given up", []part{req(ask()), end(probes.Stopped)}, true},
		{"in the middle of the answer", []part{req(ask()), rsp(head(1)), end(probes.Reset)}, false},
	} {
		k, err := play(t, testConn(nil), false, chunks(test.parts, false, whole))
		if err != nil || len(k.done) != 1 || k.done[0].Unanswered != test.want {
			t.Errorf("%s: %v, %+v", test.name, err, k.done)
		}
	}
}

// TestParametersOfManyRecords: what is longer than is put together is treated as not captured.
func TestParametersOfManyRecords(t *testing.T) {
	for _, size := range []int{maxParams / 2, maxParams, 2 * maxParams} {
		all := nv(append(common(nil), "HTTP_COOKIE", strings.Repeat("c", size))...)
		s := beginID(1)
		for len(all) > 0 {
			n := min(len(all), 0xffff)
			s += rec(params, 1, all[:n])
			all = all[n:]
		}
		s += rec(params, 1, "") + rec(stdin, 1, "")
		for _, step := range []int{1000, 4096, len(s)} {
			acc := new(ledger.Account)
			k, err := play(t, testConn(acc), true, chunks([]part{req(s), rsp(say(ok)), req(ask()), rsp(say(ok))}, true, steps(step)))
			if err != nil || len(k.done) != 2 {
				t.Fatalf("%d in steps of %d: %v, %d spans", size, step, err, len(k.done))
			}
			k.balance(acc)
			want := serverAttrs(nil)
			if size >= maxParams {
				want["breadcrumb.truncated"] = true
			}
			if diff := cmp.Diff(want, k.results()[0].Attrs); diff != "" {
				t.Errorf("%d in steps of %d: (-want +got)\n%s", size, step, diff)
			}
		}
	}
}

func TestUnixSocket(t *testing.T) {
	conn := &probes.Conn{ID: 1, LocalAddr: "/run/php-fpm.sock", Network: "unix", Target: new(span.Target)}
	k, err := play(t, conn, true, chunks([]part{req(ask()), rsp(say(ok))}, true, whole))
	if err != nil {
		t.Fatal(err)
	}
	want := serverAttrs(attrs{"network.peer.address": nil, "network.peer.port": nil, "network.transport": "unix"})
	if diff := cmp.Diff(want, k.results()[0].Attrs); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestEachRequestIsTheProcessesThatHasTheConnection: a connection may be given from one process to another.
func TestEachRequestIsTheProcessesThatHasTheConnection(t *testing.T) {
	conn := testConn(new(ledger.Account))
	first, second := conn.Target, &span.Target{Account: new(ledger.Account)}
	d := protocol.New(conn, true)
	k := newSink(t)
	for i, ev := range chunks([]part{req(ask()), rsp(say(ok)), req(ask()), rsp(say(ok)), req(ask("REQUEST_METHOD", ""))}, true, whole) {
		if i == 2 {
			conn.Target = second
		}
		if err := d.Decode(&ev.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	if k.done[0].Target != first || k.done[1].Target != second {
		t.Error("a span is another process's")
	}
	if a, b := first.Account.Counts(), second.Account.Counts(); a[ledger.Seen] != 1 || b[ledger.Seen] != 2 || b[ledger.Unparsed] != 1 {
		t.Errorf("%v and %v", a, b)
	}
}
