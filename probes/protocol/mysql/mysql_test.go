// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// protocol is MySQL as the agent has it.
var protocol = New(sql.Sanitised)

type attrs = map[string]any

// result is what a test compares of a span.
type result struct {
	Name       string
	ID         string // "" where the test does not name it
	Start, End int64
	Status     codes.Code
	Attrs      attrs
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
		r := result{Name: s.Name, Start: s.Start, End: s.End, Status: s.Status, Attrs: attrs{}, Wire: s.Wire}
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

// balance checks that the account is what was handed over; all must be over. uncounted is how many messages are counted of which no
// span was opened.
func (k *sink) balance(acc *ledger.Account, uncounted uint64) {
	k.t.Helper()
	c := acc.Counts()
	if got, want := c[ledger.Seen]-c.Lost(), uint64(len(k.done)); got != want {
		k.t.Errorf("seen %d, lost %d, but %d spans", c[ledger.Seen], c.Lost(), want)
	}
	if len(k.opened) != len(k.done)+len(k.lost) {
		k.t.Errorf("%d spans opened, %d done, %d lost", len(k.opened), len(k.done), len(k.lost))
	}
	if got := c[ledger.Seen] - uint64(len(k.opened)); got != uncounted {
		k.t.Errorf("%d spans opened, but seen %d", len(k.opened), c[ledger.Seen])
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
	answer     bool // it is the server's
	data       string
	head       int // bytes of it that are captured at the start, and
	tail       int // at the end; cut says that it is so
	cut        bool
	skip       int  // bytes that pass unseen before
	lost       bool // an event was lost before
	named      int  // the kernel side's name for it; else it is named where the direction turns
	unreadable bool
	end        *probes.End
}

func req(data ...string) part   { return part{data: strings.Join(data, "")} }
func rsp(data ...string) part   { return part{answer: true, data: strings.Join(data, "")} }
func end(e probes.End) part     { return part{end: &e} }
func (p part) name(n int) part  { p.named = n; return p }
func (p part) after(n int) part { p.skip = n; return p }
func (p part) afterLoss() part  { p.lost = true; return p }
func (p part) unread() part     { p.cut, p.unreadable = true, true; return p }

// captured says how many of the bytes are, at the start and at the end.
func (p part) captured(head, tail int) part { p.cut, p.head, p.tail = true, head, tail; return p }

// testConn is a connection between an application and a database.
func testConn(acc *ledger.Account, server bool) *probes.Conn {
	c := &probes.Conn{ID: 7, Network: "tcp", Type: "ipv4", Target: &span.Target{Account: acc}}
	c.LocalAddr, c.LocalPort, c.RemoteAddr, c.RemotePort = "192.0.2.1", 40000, "192.0.2.7", 3306
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

// chunks makes events of parts. A part's bytes pass from time 1000·n on, one by unit of time.
func chunks(parts []part, server bool, split splitter) []chunk {
	var list []chunk
	var pos [2]uint64
	var id trace.SpanID
	asks := false
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
			case j > 0 || p.answer:
			case p.named != 0:
				id, c.Named = named(p.named), true
			case !asks:
				id, c.Named = byItself(i+1), true
			}
			asks = !p.answer
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
	k, _, err := playOn(protocol.New(conn, server), t, events)
	return k, err
}

func playOn(by probes.Decoder, t testing.TB, events []chunk) (*sink, *decoder, error) {
	d := by.(*decoder)
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
				return k, d, err
			}
		}
	}
	return k, d, nil
}

// What the two sides say. Their bytes are put together as the protocol's documents have them, and not as the decoder does.

func packet(seq int, payload ...string) string {
	p := strings.Join(payload, "")
	var b []byte
	for {
		n := min(len(p), 0xffffff)
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(seq))
		b = append(b, p[:n]...)
		p = p[n:]
		seq++
		if n < 0xffffff {
			return string(b)
		}
	}
}

func le(n int, size int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	return string(b[:size])
}

func number(n int) string {
	switch {
	case n < 0xfb:
		return le(n, 1)
	case n < 1<<16:
		return "\xfc" + le(n, 2)
	case n < 1<<24:
		return "\xfd" + le(n, 3)
	}
	return "\xfe" + le(n, 8)
}

func str(s string) string { return number(len(s)) + s }

// wire is what two sides have agreed upon, and makes their packets.
type wire struct {
	caps  uint64
	maria bool
}

const (
	capsPlain = clientMySQL | clientConnectWithDB | clientProtocol41 | clientSecure | 1<<19 | 1<<20 | clientSessionTrack
	capsNew   = capsPlain | clientAuthLenenc | clientDeprecateEOF
	salt      = "saltSALT"
	moreSalt  = "moresaltMORE"
	password  = "scrambledSECRET12345"
)

func (w wire) greeting(version string) string {
	caps := w.caps
	more := strings.Repeat("\x00", 10)
	if w.maria {
		caps &^= clientMySQL
		more = strings.Repeat("\x00", 6) + le(int(caps>>32), 4)
	}
	return packet(0, "\x0a", version, "\x00", le(99, 4), salt, "\x00", le(int(caps&0xffff), 2), "\x21", le(2, 2), le(int(caps>>16&0xffff), 2), le(21, 1), more, moreSalt, "\x00", "caching_sha2_password\x00")
}

func (w wire) login(seq int, db string) string {
	caps := w.caps
	if w.maria {
		caps &^= clientMySQL
	}
	more := strings.Repeat("\x00", 23)
	if w.maria {
		more = strings.Repeat("\x00", 19) + le(int(caps>>32), 4)
	}
	if db == "" {
		caps &^= clientConnectWithDB
	} else {
		db += "\x00"
	}
	return packet(seq, le(int(caps&0xffffffff), 4), le(1<<24, 4), "\x21", more, "app\x00", str(password), db, "caching_sha2_password\x00", str(str("_os")+str("attrSECRET")))
}

// hello is a handshake, without what precedes a packet of the server's that ends it.
func (w wire) hello(db string) []part {
	version := "8.4.2"
	if w.maria {
		version = "5.5.5-10.11.6-MariaDB-log"
	}
	return []part{rsp(w.greeting(version)), req(w.login(1, db)), rsp(packet(2, "\x01\x03"), packet(3, okay(2)))}
}

// okay is an OK packet's payload.
func okay(st int) string { return "\x00\x00\x00" + le(st, 2) + "\x00\x00" }

// okayWith has changes of the session.
func okayWith(st int, changes ...string) string {
	return "\x00\x01\x00" + le(st|0x4000, 2) + "\x00\x00" + str("") + str(strings.Join(changes, ""))
}

func schema(db string) string          { return "\x01" + str(str(db)) }
func variable(name, v string) string   { return "\x00" + str(str(name)+str(v)) }
func fail(code int, msg string) string { return "\xff" + le(code, 2) + "#42S02" + msg }

func query(text string) string   { return packet(0, "\x03", text) }
func prepare(text string) string { return packet(0, "\x16", text) }
func closeStmt(id int) string    { return packet(0, "\x19", le(id, 4)) }
func fetch(id, n int) string     { return packet(0, "\x1c", le(id, 4), le(n, 4)) }
func bulkRows(id, flags int, rest ...string) string {
	return packet(0, "\xfa", le(id, 4), le(flags, 2), strings.Join(rest, ""))
}

// execute binds texts.
func execute(id int, values ...string) string {
	b := "\x17" + le(id, 4) + "\x00" + le(1, 4)
	if len(values) > 0 {
		b += strings.Repeat("\x00", (len(values)+7)/8) + "\x01" + strings.Repeat("\xfd\x00", len(values))
		for _, v := range values {
			b += str(v)
		}
	}
	return packet(0, b)
}

func (w wire) eof(seq, st int) string {
	if w.caps&clientDeprecateEOF != 0 {
		return packet(seq, "\xfe\x00\x00", le(st, 2), "\x00\x00")
	}
	return packet(seq, "\xfe\x00\x00", le(st, 2))
}

func column(name string) string {
	return str("def") + str("shop") + str("users") + str("users") + str(name) + str(name) + "\x0c" + le(33, 2) + le(80, 4) + "\xfd" + le(0, 2) + "\x00" + le(0, 2)
}

func row(values ...string) string {
	b := ""
	for _, v := range values {
		b += str(v)
	}
	return b
}

// set is a result set; rows are payloads.
func (w wire) set(seq, st int, columns []string, rows ...string) string {
	b := packet(seq, number(len(columns)))
	next := func(payload string) {
		seq++
		b += packet(seq&0xff, payload)
	}
	for _, c := range columns {
		next(column(c))
	}
	if w.caps&clientDeprecateEOF == 0 {
		seq++
		b += w.eof(seq&0xff, st)
	}
	for _, r := range rows {
		next(r)
	}
	return b + w.eof((seq+1)&0xff, st)
}

// seqAfter is the sequence id behind a set.
func (w wire) seqAfter(seq, columns, rows int) int {
	n := seq + 1 + columns + rows + 1
	if w.caps&clientDeprecateEOF == 0 {
		n++
	}
	return n & 0xff
}

func (w wire) prepared(id, params, columns int) string {
	b := packet(1, "\x00", le(id, 4), le(columns, 2), le(params, 2), "\x00", le(0, 2))
	seq := 1
	for _, n := range []int{params, columns} {
		for i := range n {
			seq++
			b += packet(seq, column(fmt.Sprint("c", i)))
		}
		if n > 0 && w.caps&clientDeprecateEOF == 0 {
			seq++
			b += w.eof(seq, 2)
		}
	}
	return b
}

// clientAttrs are those of a span of the application's.
func clientAttrs(more attrs) attrs {
	m := attrs{"db.system.name": "mysql", "server.address": "192.0.2.7", "server.port": int64(3306), "network.peer.address": "192.0.2.7", "network.peer.port": int64(3306)}
	return merge(m, more)
}

// serverAttrs are those of the same span of the database's.
func serverAttrs(more attrs) attrs {
	m := attrs{"db.system.name": "mysql", "server.address": "192.0.2.7", "server.port": int64(3306), "client.address": "192.0.2.1", "network.peer.address": "192.0.2.1", "network.peer.port": int64(40000)}
	return merge(m, more)
}

func merge(m, more attrs) attrs {
	maps.Copy(m, more)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

// statementAttrs are those of a statement as the reader shows it.
func statementAttrs(text string, more attrs) attrs {
	st := sql.New(sql.MySQL, sql.Sanitised).Read([]byte(text), false, sql.Modes{})
	m := attrs{"db.query.text": st.Text, "db.operation.name": st.Operation, "db.collection.name": st.Collection, "db.query.summary": st.Summary, "db.stored_procedure.name": st.Procedure}
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	if st.Statements > 1 {
		m["db.operation.batch.size"] = int64(st.Statements)
	}
	return merge(m, more)
}
