// SPDX-License-Identifier: Apache-2.0

// Package mysql decodes the client/server protocol of MySQL and MariaDB.
// https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
// https://mariadb.com/docs/server/reference/clientserver-protocol
//
// A span is a command that runs a statement: COM_QUERY, COM_STMT_EXECUTE, or COM_STMT_BULK_EXECUTE, however many statements and
// results it has. What prepares a statement, fetches more of its rows or closes it is none, unless it fails: then it is what the
// application gets to see. What holds no SQL (COM_PING, COM_INIT_DB, the handshake) never is. Replication and TLS make the connection
// opaque.
//
// The kernel side shows what the client says, up to 16 KiB of each run, and the beginnings and ends of what the server answers. Where
// the end of a packet passed unseen, the decoder is out of step in that direction until it finds the packet that ends the result, or
// until the client goes on. Where the outcome or the number of rows is not known then, the span does not tell them.
//
// Rows, bound values, passwords and their salts, the data of local files, and the messages of errors are overwritten with zeros
// in the chunk itself once they have been passed over, so that nothing behind the decoder can hold them.
package mysql

import (
	"math"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/trace"
)

// New returns the protocol, which is listed in cmd/agent/probes.go. policy says what is shown of statements.
func New(policy sql.Policy) probes.Protocol {
	shared := &shared{policy: policy}
	return probes.Protocol{
		Name:     "mysql",
		Captures: probes.CaptureEnds,
		Detect:   shared.detect,
		New: func(c *probes.Conn, server bool) probes.Decoder {
			return newDecoder(c, server, shared)
		},
	}
}

// shared is what all connections have in common.
type shared struct {
	policy    sql.Policy
	inflaters inflaters
}

const (
	// maxText is how much of a statement is put together; the kernel side captures no more of what is said at once.
	maxText = 32 << 10
	// maxAnswer is how much is kept of a server's packet that says how a command ended.
	maxAnswer = 1 << 10
	// keepBuffer is the largest buffer that a connection keeps between commands.
	keepBuffer = 4 << 10
	// maxPipelined is how many commands may wait for their answers. Drivers that pipeline send some tens.
	maxPipelined = 1024
	// maxStatements is how many prepared statements a connection is known by: drivers that cache them keep some hundred.
	maxStatements = 1024
	// maxStatementBytes bounds what is kept of them.
	maxStatementBytes = 1 << 20
	// maxStrays is how often a connection that was seen to speak the protocol may be out of step without a cause.
	maxStrays = 64
	// reported is how many chunks of an answer are told for certain; of those that follow only what looks like its end.
	reported = 8
)

// phase is how far a connection has come.
type phase uint8

const (
	greets   phase = iota // the server is to say who it is
	answers               // the client is to do so
	proves                // the two agree on who they are
	commands              // commands and their answers
)

// decoder follows one connection: commands in one direction, answers in the other, in the same order.
type decoder struct {
	conn    *probes.Conn
	server  bool
	shared  *shared
	reader  *sql.Reader
	in, out probes.Direction
	sides   [2]side // by probes.Direction
	dead    bool
	sure    bool // it was seen to speak the protocol
	strays  int
	wiped   bool // something was zeroed

	phase    phase
	greeting greeting
	login    login
	caps     uint64 // that both sides have
	capsSet  bool   // they are known
	squeezed tristate
	eof      tristate // whether EOF packets stand behind columns, and at the end of rows
	session  session

	queue      queue
	answer     answer
	mayTrail   bool // an EOF packet numbered trailing may follow the answer that is complete
	trailing   byte
	aside      bool       // what the client says is data for the oldest command
	fresh      bool       // that was so until now: bytes of it may have passed unseen
	query      attributes // of the command under way,
	attributed bool       // if it has such
	head       [attributesAt]byte
	bulk       bulk // of the COM_STMT_BULK_EXECUTE under way

	begun  bool         // there was a chunk
	asks   bool         // the latest was the client's
	turned bool         // the one that is being decoded is, and the one before was not
	run    uint64       // number of the first exchange of the client's latest run
	name   trace.SpanID // the kernel side's for that run, until a span has it
	late   trace.SpanID // another that it gave in the middle of a command
	heard  int64        // when the server last said anything
	values values

	unasked, unaskedEnd int64 // when it said something that nobody had asked for; 0: it has not, since the last command
	overtaken           bool  // that was the answer to the command under way
}

// tristate is whether something is so.
type tristate uint8

const (
	unknown tristate = iota
	isNot
	is
)

func whether(b bool) tristate {
	if b {
		return is
	}
	return isNot
}

// side is one direction: packets, one after the other. A command or a row may take several.
type side struct {
	request  bool
	known    bool
	pos      uint64 // of the next byte on the wire
	lost     bool   // where the next packet begins is not known
	header   [headerSize]byte
	have     int    // bytes of it
	seq      byte   // from it
	left     int    // bytes of the payload to come
	more     bool   // the next packet goes on with it
	size     uint64 // bytes of the payload so far
	first    byte   // the first of them
	buf      []byte // those that matter, if they came in pieces
	cut      bool   // not all were captured
	class    class  // of a server's packet
	stays    int    // how much of it stays as it is
	extra    bool   // it belongs to the answer before
	told     bool   // the command is dealt with, though not all of it has passed
	exchange uint64 // the number of its exchange, from 1 on; 0: it has none
	start    start
	frame    frame
}

// start is where a command began, or the frame in which it did.
type start struct {
	pos      uint64
	index    uint32 // of the command in the frame
	time     int64
	evidence span.Evidence
}

// set notes that something began at a position, which is in c.
func (a *start) set(pos uint64, c *probes.Chunk) {
	*a = start{pos: pos, time: c.Begin, evidence: c.Evidence}
	if c.Evidence.HasSeq {
		a.evidence.Seq += uint32(pos - c.Pos)
	}
}

func newDecoder(c *probes.Conn, server bool, shared *shared) *decoder {
	d := &decoder{conn: c, server: server, shared: shared, in: probes.Ingress, out: probes.Egress}
	if !server {
		d.in, d.out = probes.Egress, probes.Ingress
	}
	d.sides[d.in].request = true
	d.reader = sql.New(sql.MySQL, shared.policy)
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

// wipe zeroes bytes of a chunk.
func (d *decoder) wipe(b []byte) {
	if len(b) > 0 {
		clear(b)
		d.wiped = true
	}
}

// has says whether both sides have a capability.
func (d *decoder) has(capability uint64) tristate {
	if !d.capsSet {
		return unknown
	}
	return whether(d.caps&capability != 0)
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	if d.dead {
		return probes.ErrNotProtocol
	}
	if !d.begun && c.Total > 0 {
		d.begin(c)
	}
	if c.Lost {
		d.lose(c.LossCause(), out)
	}
	err := d.take(c, out)
	if err != nil {
		d.giveUp(ledger.Unparsed, out)
	}
	return err
}

// begin looks at the first chunk: of a connection that is seen from its beginning, the server says who it is; else it is somewhere in
// the middle of commands, and what the two sides have agreed upon is not known.
func (d *decoder) begin(c *probes.Chunk) {
	d.begun = true
	if c.Dir == d.out && c.Pos == 0 && isGreeting(c.Head) != probes.No {
		return
	}
	d.phase = commands
	d.sides[d.in].lost = true
	d.session.forget()
}

// take follows a direction through the bytes of c.
func (d *decoder) take(c *probes.Chunk, out probes.Out) error {
	s := &d.sides[c.Dir]
	if !s.known && c.Total > 0 {
		s.known, s.pos = true, c.Pos
	}
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	err := d.turn(s, c, head, out)
	if err == nil && c.Pos > s.pos {
		err = d.gap(s, c, c.Pos-s.pos, out)
	}
	if err != nil {
		d.wipe(head)
		d.wipe(c.Tail)
		return err
	}
	if !s.request && c.Total > 0 {
		d.heard = max(d.heard, c.End)
		d.answer.last, d.answer.over = max(d.answer.last, c.End), false
	}
	s.pos = c.Pos
	d.fresh = d.fresh && !s.request
	if s.request && (d.turned || c.Named) && (s.lost || s.frame.lost) {
		if err := d.resume(s, head, c.Total); err != nil {
			d.wipe(head)
			d.wipe(c.Tail)
			return err
		}
	}
	d.turned = false
	hidden := c.Total - uint64(len(head)+len(tail))
	err = d.show(s, c, head, hidden == 0 && len(tail) == 0, out)
	if err == nil && hidden > 0 {
		err = d.hide(s, c, hidden, out)
	}
	if err != nil {
		d.wipe(c.Tail)
		return err
	}
	if err := d.show(s, c, tail, true, out); err != nil {
		return err
	}
	if a := &d.answer; !s.request && a.begun && c.Total > 0 {
		a.chunks++
		a.hidden = a.hidden || hidden > 0
	}
	return nil
}

// turn is called before the bytes of a chunk: where the other side has spoken before, the client begins a run of commands, or the
// server the answers to one.
func (d *decoder) turn(s *side, c *probes.Chunk, head []byte, out probes.Out) error {
	if c.Total == 0 {
		return nil
	}
	asks := d.asks
	d.asks = s.request
	if !s.request {
		in := &d.sides[d.in]
		if in.size > 0 && in.left > 0 && !in.told && d.phase == commands && !d.aside {
			return d.tell(in, c, in.buf, true, out) // it is answered before it is complete
		}
		return nil
	}
	if d.turned = !asks && !d.aside; d.turned {
		d.run = d.queue.next()
		d.name, d.late = trace.SpanID{}, trace.SpanID{}
	}
	switch {
	case !c.Named:
	case d.aside:
		d.alias(d.queue.front(), c.ID, out)
	case d.phase == commands && (s.have > 0 || s.left > 0) && c.Pos <= s.pos && s.told:
		d.alias(d.queue.find(s.exchange), c.ID, out)
	case d.phase == commands && (s.have > 0 || s.left > 0) && c.Pos <= s.pos:
		d.late = c.ID
	default:
		d.name = c.ID
	}
	return nil
}

// alias tells that the kernel side's name means a command that was under way.
func (d *decoder) alias(ex *exchange, id trace.SpanID, out probes.Out) {
	if ex != nil && ex.span != nil && ex.span.ID != id {
		out.Alias(id, ex.span)
	}
}

// gap passes over n bytes that no chunk has told of.
func (d *decoder) gap(s *side, c *probes.Chunk, n uint64, out probes.Out) error {
	if s.request && d.fresh {
		return nil
	}
	if s.request || d.phase != commands {
		return d.hide(s, c, n, out)
	}
	d.answer.over = false
	switch ex := d.queue.front(); {
	case ex == nil:
		return nil
	case !d.answer.begun && !s.lost: // the beginnings of answers are told: these bytes were of one before
		s.realign()
		return nil
	case d.queue.base < d.run && !d.aside && n > s.unhidden(d.squeezed == is):
		// The client has gone on since, so the answers to what it had said before are over.
		d.concludeBefore(d.run, out)
		s.realign()
		return nil
	}
	// When what is missing passed is known if the kernel side was asked, or told it as the client went on; else it was before that.
	at := *c
	at.End = c.Begin
	if d.answer.reached >= c.Pos {
		at.End = d.answer.last
	} else if next := d.queue.find(d.run + 1); next != nil && d.queue.base < d.run {
		at.End = min(at.End, next.start.time)
	}
	if err := d.hide(s, &at, n, out); err != nil {
		return err
	}
	if s.lost && d.queue.len() > 0 && d.queue.base < d.run && !d.aside {
		d.concludeBefore(d.run, out)
		s.realign()
	}
	return nil
}

// unhidden is how many bytes on the wire may be missing without a loss of step.
func (s *side) unhidden(squeezed bool) uint64 {
	if squeezed {
		return uint64(s.frame.left)
	}
	return uint64(s.left)
}

// lose takes the loss of events, of either side: what became of the commands under way is not known, nor what others did.
func (d *decoder) lose(cause ledger.Entry, out probes.Out) {
	d.dropAll(cause, out)
	d.aside = false
	d.session.forget()
	for i := range d.sides {
		d.sides[i].reset()
		d.sides[i].lost, d.sides[i].frame.lost = true, true
	}
	if d.phase != commands {
		d.unsettle()
	}
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	if e < probes.Closed && (e == probes.PeerClosed) == d.server {
		return // the side that asks may stop to
	}
	d.finish(e, t, out)
	s := &d.sides[d.out]
	s.reset()
	s.lost = true // nobody waits for what may still come
	d.dead = d.dead || e >= probes.Closed
}

// Waiting implements probes.Decoder. The end of a long answer is not told for certain; how far it has come says when it was.
func (d *decoder) Waiting() (probes.Direction, uint64, bool) {
	a := &d.answer
	if d.phase != commands || !a.begun || d.queue.len() == 0 || !a.hidden && a.chunks < reported {
		return d.out, 0, false
	}
	if s := &d.sides[d.out]; !s.lost && d.squeezed != is {
		return d.out, s.pos + uint64(s.left), true
	}
	return d.out, math.MaxUint64, true
}

// Progress implements probes.Decoder. The position may be ahead of chunks that are still to come, so only its time is of use.
func (d *decoder) Progress(dir probes.Direction, pos uint64, t int64, _ probes.Out) {
	a := &d.answer
	if dir == d.out && a.begun && d.queue.len() > 0 && (d.queue.base >= d.run || d.aside) && pos > d.sides[dir].pos {
		a.last, a.reached, a.over = max(a.last, t), pos, false
	}
}

// mint names a command that the kernel side did not name. Replays must give the same name, so it comes from the connection and the
// position at which the command began.
func mint(conn uint64, s *start) trace.SpanID {
	x := mix(mix(conn) + s.pos + uint64(s.index)<<40)
	if x == 0 {
		x = 1
	}
	return trace.SpanID{byte(x >> 56), byte(x >> 48), byte(x >> 40), byte(x >> 32), byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)}
}

// mix is one step of SplitMix64 (https://prng.di.unimi.it/splitmix64.c).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
