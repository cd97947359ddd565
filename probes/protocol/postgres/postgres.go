// SPDX-License-Identifier: Apache-2.0

// Package postgres decodes PostgreSQL's frontend/backend protocol, version 3.
// https://www.postgresql.org/docs/18/protocol.html
//
// A span is a Query, whatever number of statements it holds; an Execute, with what prepares it (a portal that is executed several
// times, with a limit, makes as many spans); or a FunctionCall. A Query ends with its ReadyForQuery. An Execute ends with its own
// result, and what the server skips after an error ends as aborted. What only prepares or closes is no span, unless it fails: then
// it is what the application gets to see. What starts a connection or cancels a statement never is.
//
// The kernel side shows what the client says, up to 16 KiB of each run, and the beginnings and ends of what the server answers. Where
// the beginning of a message passed unseen, the decoder is out of step in that direction: of the server, until a call ends in
// ReadyForQuery; of both, until the client speaks again. Where the outcome or the number of rows is not known then, the span does not
// tell them.
//
// Rows, bound values, passwords and all else that authenticates, COPY's data, and the messages of errors are overwritten with zeros
// in the chunk itself, so that nothing behind the decoder can hold them. The texts of statements stay there, with the literals in
// them: a recording without them would give other spans.
package postgres

import (
	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/trace"
)

// New returns the protocol, which is listed in cmd/agent/probes.go. policy says what is shown of statements.
func New(policy sql.Policy) probes.Protocol {
	return probes.Protocol{
		Name:     "postgresql",
		Captures: probes.CaptureEnds,
		Detect:   detect,
		New: func(c *probes.Conn, server bool) probes.Decoder {
			return newDecoder(c, server, policy)
		},
	}
}

const (
	// maxText is how much of a statement is put together; the kernel side captures no more of what is said at once.
	maxText = 32 << 10
	// maxAnswer is how much is kept of a server's message that came in pieces: what is looked at is no longer.
	maxAnswer = 128
	// keepBuffer is the largest buffer that a connection keeps between messages, keepUnits the longest queue.
	keepBuffer = 4 << 10
	keepUnits  = 16
	// maxUnits is how many units may wait for their answers: drivers that pipeline send some hundred at once.
	maxUnits = 2048
	// maxEarly is how many answers are kept that were told before what they answer.
	maxEarly = 32
	// maxStrays is how often in a row a connection may be out of step without a cause.
	maxStrays = 64
	// maxDoubts is the same of one that was not seen to speak the protocol.
	maxDoubts = 8
	// idle is how long (ns) a client that pipelines must have heard nothing after a ReadyForQuery, when it speaks again, to be believed
	// to wait for no answer. It matters only after the two sides were out of step.
	idle = 1e9
)

// decoder follows one connection: messages in one direction, their answers in the other, in the same order.
type decoder struct {
	conn    *probes.Conn
	server  bool
	reader  *sql.Reader
	in, out probes.Direction
	sides   [2]side // by probes.Direction
	dead    bool
	sure    bool // it was seen to speak the protocol
	strays  int

	starting bool // the next of the client's messages starts the connection
	offered  bool // the next of the server's bytes says whether it speaks TLS

	queue   queue
	held    int  // how many of the oldest units are complete, but not handed over
	pending unit // the messages since the last that ended a unit; its kind is unitNone if there are none
	// presumed is what was prepared last before a hole. If the server executes something then, it is that.
	presumed unit
	over     bool // all that was asked before the bytes that are missing now is answered
	session  session
	copying  bool // the client is to send data for the oldest unit
	// cleared says that an error was reported, and that the server skips what follows, up to a Sync. failure is that error, and failed
	// its time, as long as no span has it.
	cleared bool
	failure outcome
	failed  int64

	heard bool // the server has answered since the client last asked
	name  trace.SpanID
	late  trace.SpanID // another name, given in the middle of a unit
	last  int64        // when the server's last byte passed
	rests bool         // what it has said last was a ReadyForQuery

	// sliding says that the client was seen to go on past a Sync before that was answered. Else a ReadyForQuery answers all that was
	// asked before.
	sliding bool
	// proven says that nothing is outstanding but what is in the queue. unsure says that this is taken to be so as the client began
	// to speak, and is to be shown by the next ReadyForQuery: until then, spans are held.
	proven, unsure bool
	// doubt says that the queue holds all that is not answered, and more. final is the last answer seen then.
	doubt   bool
	final   reply
	ends    bool // nothing has come after final but a ReadyForQuery
	readies int  // of them, since it is in doubt

	early  []reply // a client's, told before what they answer
	values values
}

func newDecoder(c *probes.Conn, server bool, policy sql.Policy) *decoder {
	d := &decoder{conn: c, server: server, in: probes.Ingress, out: probes.Egress}
	if !server {
		d.in, d.out = probes.Egress, probes.Ingress
	}
	d.sides[d.in].request = true
	d.reader = sql.New(sql.PostgreSQL, policy)
	d.session.modes.Unsure = true // until the server says
	d.values.init(c, server)
	return d
}

// account is that of the process that uses the connection now.
func (d *decoder) account() *ledger.Account {
	if d.conn.Target == nil {
		return nil
	}
	return d.conn.Target.Account
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	if d.dead {
		return probes.ErrNotProtocol
	}
	if c.Lost {
		d.lose(c.LossCause(), out)
	}
	err := d.take(c, out)
	if err != nil {
		d.dead = true
		d.dropAll(ledger.Unparsed, out)
	}
	return err
}

// take follows a direction through the bytes of c.
func (d *decoder) take(c *probes.Chunk, out probes.Out) error {
	s := &d.sides[c.Dir]
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	if !s.known && c.Total > 0 {
		d.first(s, c, head)
	}
	gap := c.Pos > s.pos
	switch {
	case s.fresh && gap && (s.lost || c.Pos-s.pos > uint64(s.left)):
		s.align()
	case gap:
		// Where the server has been heard since, and no event was lost, it had what is missing before it spoke.
		d.over = s.request && d.heard && !c.Lost && !d.sliding && d.queue.len() == 0
		err := d.hide(s, c, c.Pos-s.pos, out)
		if d.over = false; err != nil {
			clear(head)
			clear(tail)
			return err
		}
	}
	s.pos = c.Pos
	if c.Total == 0 {
		return nil
	}
	if s.request {
		if err := d.speaks(s, c, head, out); err != nil {
			clear(head)
			clear(tail)
			return err
		}
	} else {
		if s.fresh && s.lost {
			s.align()
		}
		s.fresh = false
		d.last = max(d.last, c.End)
	}
	err := d.feed(s, c, head, out)
	if hidden := c.Total - uint64(len(head)+len(tail)); hidden > 0 && err == nil {
		err = d.hide(s, c, hidden, out)
	}
	if err != nil {
		clear(tail)
		return err
	}
	if err := d.feed(s, c, tail, out); err != nil {
		return err
	}
	if s.request {
		return d.catchUp(out)
	}
	return nil
}

// first takes the first chunk of a direction.
func (d *decoder) first(s *side, c *probes.Chunk, head []byte) {
	s.known, s.pos = true, c.Pos
	other := d.sides[c.Dir.Other()].known
	if s.request && !other && startUp(head) != probes.No {
		d.starting, d.proven = true, true
		d.sides[d.out].fresh = true
		return
	}
	if !other { // it is the middle
		d.heard = true
		d.hole(ledger.Truncated, true)
	}
	if s.request {
		s.lost = begins(head, &said) == probes.No
	} else {
		s.lost = begins(head, &answered) != probes.Yes
	}
}

// speaks is called before the client's bytes of a chunk.
func (d *decoder) speaks(s *side, c *probes.Chunk, head []byte, out probes.Out) error {
	if len(d.early) > 0 {
		if d.early[0].begin >= c.Begin {
			d.heard = false // a thread that reads has overtaken the one that writes
		} else {
			d.early = d.early[:0] // it answers nothing that was seen
		}
	}
	if c.Named && d.holed() {
		d.heard = true // though what the server has said was not seen
	}
	underway := s.have > 0 || s.left > 0 || d.pending.kind != unitNone
	switch {
	case c.Named && d.copying:
		if u := d.current(); u != nil && u.span != nil {
			out.Alias(c.ID, u.span)
		}
	case c.Named && underway && d.name.IsValid():
		d.late = c.ID
	case c.Named:
		d.name, d.late = c.ID, trace.SpanID{}
	case d.heard && !underway:
		d.name, d.late = trace.SpanID{}, trace.SpanID{}
	}
	if !s.lost || !d.heard {
		return nil
	}
	if !d.copying {
		d.ask(c, out)
	}
	if begins(head, &said) != probes.No {
		s.align()
		return nil
	}
	if d.strays++; d.strays > maxDoubts && !d.sure {
		return probes.ErrNotProtocol
	}
	if !d.copying {
		d.miss(c, out)
	}
	return nil
}

// ask is called when the client begins to ask for something after the server has answered. What is outstanding by then?
func (d *decoder) ask(c *probes.Chunk, out probes.Out) {
	d.heard = false
	quiet := d.rests && c.Begin-d.last >= idle
	newest := d.queue.newest()
	switch {
	case newest == nil:
		d.proven = d.proven || quiet
	case quiet && (d.doubt || newest.kind == unitHole):
		d.settle(out)
		d.proven = true
	case d.doubt && d.sliding:
		d.dropAll(ledger.Truncated, out)
		d.hole(ledger.Truncated, true)
	case d.doubt && newest.kind.readied(): // it has had its ReadyForQuery
		d.settle(out)
	case newest.kind == unitHole && newest.silent && !d.sliding:
		d.settle(out)
		d.unsure = true
	}
	if s := &d.sides[d.out]; d.queue.len() == 0 {
		s.fresh = true
		if s.left > maxText || s.left > 0 && !noise(s.kind) {
			s.lost, s.have, s.left = true, 0, 0 // it is in the middle of nothing
		}
	}
}

// lose is called where events were lost, of either side.
func (d *decoder) lose(cause ledger.Entry, out probes.Out) {
	d.dropAll(cause, out)
	d.hole(cause, true)
	d.cutOff()
	d.early = d.early[:0]
	d.proven, d.heard, d.rests = false, false, false
	d.sides[d.out].fresh = false
	d.session.modes.Unsure = true
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	if d.dead || e < probes.Closed && (e == probes.PeerClosed) == d.server {
		return // a client may stop sending and still wait for its answers
	}
	d.dead = e >= probes.Closed
	if d.doubt && (e != probes.Stopped || d.ends) {
		d.settle(out)
	}
	if d.unsure && d.held > 0 {
		d.dropAll(ledger.Truncated, out)
	}
	d.release(out)
	o := outcome{kind: connectionClosed}
	switch e {
	case probes.Reset:
		o.kind = connectionReset
	case probes.Stopped:
		o.kind = unfinished
	case probes.PeerClosed, probes.LocalClosed, probes.Closed:
	}
	for d.queue.len() > 0 {
		u := d.queue.front()
		if u.outcome.kind == noOutcome {
			u.outcome = o
		}
		d.finish(u, t, out)
		d.queue.pop()
	}
	d.pending = unit{}
}

// Waiting implements probes.Decoder: the kernel side tells what ends an answer.
func (d *decoder) Waiting() (probes.Direction, uint64, bool) { return d.out, 0, false }

// Progress implements probes.Decoder.
func (d *decoder) Progress(dir probes.Direction, pos uint64, t int64, _ probes.Out) {
	if dir == d.out && pos > d.sides[dir].pos {
		d.last = max(d.last, t)
	}
}
