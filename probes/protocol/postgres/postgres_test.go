// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// protocol shows statements as they are.
var protocol = New(sql.Raw)

// msg is a message.
func msg(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))) + body
}

func int16s(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func int32s(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// What a client says.

func startup(params ...string) string {
	s := int32s(codeVersion3)
	for _, p := range params {
		s += p + "\x00"
	}
	return int32s(len(s)+5) + s + "\x00"
}

func q(text string) string          { return msg(query, text+"\x00") }
func p(name, text string) string    { return msg(parse, name+"\x00"+text+"\x00"+int16s(0)) }
func e(portal string, n int) string { return msg(execute, portal+"\x00"+int32s(n)) }
func dS(name string) string         { return msg(describe, "S"+name+"\x00") }
func dP(name string) string         { return msg(describe, "P"+name+"\x00") }
func cS(name string) string         { return msg(closing, "S"+name+"\x00") }
func cP(name string) string         { return msg(closing, "P"+name+"\x00") }
func fn(oid int, args string) string {
	return msg(functionCall, int32s(oid)+int16s(0)+int16s(1)+int32s(len(args))+args+int16s(0))
}

func b(portal, name string, values ...string) string {
	s := portal + "\x00" + name + "\x00" + int16s(0) + int16s(len(values))
	for _, v := range values {
		s += int32s(len(v)) + v
	}
	return msg(bind, s+int16s(0))
}

var (
	sy    = msg(syncing, "")
	fl    = msg(flush, "")
	bye   = msg(terminate, "")
	cDone = msg(copyDone, "")
)

// What a server says.

func tagged(tag string) string { return msg(commandComplete, tag+"\x00") }
func z(status string) string   { return msg(ready, status) }

func row(values ...string) string {
	s := int16s(len(values))
	for _, v := range values {
		s += int32s(len(v)) + v
	}
	return msg(dataRow, s)
}

func rowsOf(columns ...string) string {
	s := int16s(len(columns))
	for _, c := range columns {
		s += c + "\x00" + int32s(0) + int16s(0) + int32s(25) + int16s(-1) + int32s(-1) + int16s(0)
	}
	return msg(rowDescription, s)
}

func failing(severity, code, message string) string {
	return msg(errorResponse, "S"+severity+"\x00V"+severity+"\x00C"+code+"\x00M"+message+"\x00Ffile.c\x00L12\x00Rsome_routine\x00\x00")
}

func noticing(message string) string {
	return msg(notice, "SNOTICE\x00VNOTICE\x00C00000\x00M"+message+"\x00Ffile.c\x00L12\x00Rsome_routine\x00\x00")
}

func param(name, value string) string { return msg(parameter, name+"\x00"+value+"\x00") }

var (
	okParse = msg(parseComplete, "")
	okBind  = msg(bindComplete, "")
	okClose = msg(closeComplete, "")
	empty   = msg(emptyQuery, "")
	stop    = msg(suspended, "")
	none    = msg(noData, "")
	oids    = msg(parameters, int16s(0))
	idleZ   = z("I")
	notify  = msg(notification, int32s(7)+"channel\x00planted-payload\x00")

	authOK  = msg(authentication, int32s(0))
	greeted = authOK + param("client_encoding", "UTF8") + param("standard_conforming_strings", "on") + msg(keyData, int32s(77)+"planted-key!") + idleZ
)

// result is what a test compares of a span.
type spanned struct {
	Name       string
	ID         string // "" where the test does not name it
	Start, End int64
	Status     codes.Code
	Message    string
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

func (k *sink) results() []spanned {
	out := make([]spanned, 0, len(k.done))
	for _, s := range k.done {
		r := spanned{Name: s.Name, Start: s.Start, End: s.End, Status: s.Status, Message: s.Message, Attrs: map[string]any{}, Wire: s.Wire}
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
	answer     bool // it is from the server
	data       string
	head       int // bytes of it that are captured at the start, and
	tail       int // at the end; cut says that it is so
	cut        bool
	skip       int  // bytes that pass unseen before
	lost       bool // an event was lost before
	named      int  // the kernel side names a request here
	unreadable bool
	at         int64 // when, if not in turn
	end        *probes.End
	prog       int // Progress to this many bytes after those seen
}

func ask(data ...string) part    { return part{data: strings.Join(data, "")} }
func say(data ...string) part    { return part{answer: true, data: strings.Join(data, "")} }
func end(e probes.End) part      { return part{end: &e} }
func (p part) name(n int) part   { p.named = n; return p }
func (p part) after(n int) part  { p.skip = n; return p }
func (p part) afterLoss() part   { p.lost = true; return p }
func (p part) time(t int64) part { p.at = t; return p }
func (p part) unnamed() part     { p.named = -1; return p }
func (p part) unread() part      { p.cut, p.unreadable = true, true; return p }

// captured says how many of the bytes are, at the start and at the end.
func (p part) captured(head, tail int) part {
	if head+tail < len(p.data) {
		p.cut, p.head, p.tail = true, head, tail
	}
	return p
}

// testConn is a connection from a client to a server, as the one or the other sees it.
func testConn(acc *ledger.Account, server bool) *probes.Conn {
	c := &probes.Conn{
		ID: 7, LocalAddr: "192.0.2.1", LocalPort: 40000, RemoteAddr: "192.0.2.7", RemotePort: 5432,
		Network: "tcp", Type: "ipv4", Target: &span.Target{Account: acc},
	}
	if server {
		c.LocalAddr, c.LocalPort, c.RemoteAddr, c.RemotePort = c.RemoteAddr, c.RemotePort, c.LocalAddr, c.LocalPort
	}
	return c
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

// chunks makes events of parts. All of the n-th part passes at time 1000·n.
func chunks(parts []part, server bool, split splitter) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	asked := false
	for i, p := range parts {
		now := int64(i+1) * 1000
		if p.at != 0 {
			now = p.at
		}
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
		for j, piece := range pieces {
			n := uint64(len(piece))
			c := chunk{Chunk: probes.Chunk{Dir: dir, Pos: pos[dir], Total: n, Head: []byte(piece), Begin: now, End: now}}
			c.Evidence = span.Evidence{PID: 42, Conn: 7, Seq: uint32(pos[dir]) - 5, HasSeq: true}
			if p.cut {
				c.Head, c.Tail = []byte(piece[:p.head]), []byte(piece[len(piece)-p.tail:])
			}
			switch {
			case j > 0 || p.answer || p.named < 0:
			case p.named != 0:
				id, c.Named = named(p.named), true
			case !asked:
				id, c.Named = byItself(i+1), true
			}
			c.Lost = j == 0 && p.lost
			c.Unreadable = p.unreadable
			c.ID = id
			list = append(list, c)
			pos[dir] += n
		}
		asked = !p.answer
	}
	return list
}

// play feeds events to a new decoder. A decoder that gives up sees no more.
func play(t testing.TB, proto probes.Protocol, conn *probes.Conn, server bool, events []chunk) (*sink, error) {
	d := proto.New(conn, server)
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
				for _, ev := range events[i+1:] { // nobody is shown these
					clear(ev.Head)
					clear(ev.Tail)
				}
				return k, err
			}
		}
	}
	return k, nil
}
