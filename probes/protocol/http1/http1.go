// SPDX-License-Identifier: Apache-2.0

// Package http1 decodes HTTP/1.0 and HTTP/1.1.
// https://www.rfc-editor.org/rfc/rfc9112
//
// It pairs requests with responses and makes one span of each pair. It never keeps a body: it counts
// its bytes, and overwrites those that were captured with zeros in the chunk itself, so that nothing
// behind the decoder (a recording above all) can hold them. What it decides never hangs on a body's
// bytes where the framing is known, so that a recording with zeroed bodies gives the same spans.
package http1

import (
	"math"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/trace"
)

// New returns the protocol, which is listed in cmd/agent/probes.go.
func New(cfg Config) probes.Protocol {
	labels := newLabels(cfg)
	return probes.Protocol{
		Name:   "http",
		Detect: detect,
		New: func(c *probes.Conn, server bool) probes.Decoder {
			return newDecoder(c, server, labels)
		},
	}
}

func detect(_ probes.Direction, head []byte) (probes.Verdict, bool) {
	if v := statusLine(head); v != probes.No {
		return v, false
	}
	return requestLine(head), true
}

const (
	// maxHead is the longest head that is put together from several chunks. Servers refuse longer ones
	// (nginx 32 KiB, Node 16 KiB, Go 1 MiB by default); what is beyond is treated as not captured.
	maxHead = 64 << 10

	// keepHead is the largest head buffer that a connection keeps between messages, so that thousands of
	// idle connections do not each hold on to their longest head.
	keepHead = 4 << 10

	// maxPipelined is how many requests may wait for their responses. Clients that pipeline at all send
	// tens; a thousand means that we have lost count.
	maxPipelined = 1024

	// maxJunk is how many captured bytes in one direction may pass without the start of a message, where
	// one is looked for, until the connection is given up. An agent that comes in the middle of a body
	// sees at most some hundred bytes of it, as bodies are captured by their edges only.
	maxJunk = 64 << 10

	// reported is how many chunks in a row without a message's start are reported for certain. The kernel
	// side passes over most that follow.
	reported = 8
)

// decoder follows one connection: a stream of requests in one direction and one of responses in the
// other, and the exchanges that wait for the rest of their response, oldest first.
type decoder struct {
	conn   *probes.Conn
	server bool
	dead   bool
	labels *labels

	streams [2]stream // by probes.Direction
	in, out probes.Direction

	exchanges queue
	answer    answer

	// name is the kernel side's name for the current chunk, until it is known what it names.
	name trace.SpanID

	// hidden is why requests passed unseen (ledger.Seen if none did): they began in bytes that were not
	// captured. Their responses tell how many there were. While they are outstanding, responses cannot be
	// paired with requests that came after them: debt counts those, which were given up at once.
	hidden ledger.Entry
	debt   int
	loss   ledger.Entry // probes.Chunk.LossCause of the latest loss

	req    request
	rsp    response
	values values
}

// exchange is a request whose response is not complete.
type exchange struct {
	span      *span.Span
	size      int64 // of the request's body; -1 where it is not known
	method    method
	head      bool // the request's attributes are set
	body      bool // some of the request's body was seen
	done      bool // the request is complete
	announced bool // size is what the request's head says
	truncated bool // its head was not captured to the end
}

// answer is the response under way.
type answer struct {
	active    bool
	bound     bool // it answers the oldest exchange; else no request is known for it
	ended     bool // it is complete, and kept in case its request is still to come
	closes    bool // its body ends when the connection does
	truncated bool // its head was not captured to the end
	status    int
	size      int64 // of the body; -1 where it is not known
	begin     int64 // when its first byte passed
	chunks    int   // how many held a part of it
	headEnd   int64 // when its head was complete
	last      int64 // when the last byte seen passed
}

func newDecoder(c *probes.Conn, server bool, labels *labels) *decoder {
	d := &decoder{conn: c, server: server, labels: labels, in: probes.Ingress, out: probes.Egress}
	if !server {
		d.in, d.out = probes.Egress, probes.Ingress
	}
	d.streams[d.in].request = true
	for i := range d.streams {
		d.streams[i].state = atStart
		if c.Established {
			d.streams[i].state = skipping
		}
	}
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
		d.lose(c, out)
	}
	s := &d.streams[c.Dir]
	d.name = trace.SpanID{}
	if c.Named && s.request {
		d.name = c.ID
	}
	if !s.known && c.Total > 0 { // else all of it passed unseen
		s.known = true
		s.pos = c.Pos
		if c.Pos != 0 && s.state == atStart {
			s.state = skipping
		}
	}
	err := d.take(s, c, out)
	if _, goesOn := err.(*probes.Upgrade); err != nil && !goesOn {
		d.giveUp(out)
		clear(c.Tail)
	}
	return err
}

// take follows s through the bytes of c.
func (d *decoder) take(s *stream, c *probes.Chunk, out probes.Out) error {
	if c.Pos > s.pos {
		if s.unsure && s.state == inLength && !s.request && d.answer.bound && c.Pos >= s.until {
			d.drop(d.loss, out) // when it ended is lost
			d.answer = answer{}
			s.skip()
		}
		if err := d.gap(s, c.Pos, c.Begin, ledger.Truncated, out); err != nil {
			return err
		}
	}
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	if err := d.feed(s, c, head, c.Pos, out); err != nil {
		return err
	}
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	pos := c.Pos + c.Total - uint64(len(tail))
	if pos > s.pos {
		cause := ledger.Truncated
		if c.Unreadable {
			cause = ledger.Unreadable
		}
		if !s.request {
			d.answer.last = c.End
		}
		if len(head) == 0 && s.state == skipping && !s.request && !s.unsure && d.exchanges.len() > 0 && c.Begin > d.exchanges.at(0).span.Start {
			// Nothing of this is seen, and any of what is outstanding may have been answered in it.
			d.dropFrom(0, cause, out)
			d.answer = answer{}
		}
		if err := d.gap(s, pos, c.End, cause, out); err != nil {
			return err
		}
	}
	if err := d.feed(s, c, tail, pos, out); err != nil {
		return err
	}
	if s.state == toLastChunk && s.matched == len(lastChunk) {
		d.endMessage(s, c.End, out)
	}
	if !s.request && d.answer.active {
		d.answer.chunks++
	}
	return nil
}

// lose takes the loss of events before c. Where a position is known at which a message ends, that still
// holds; all else about both directions is unsure. Of the exchanges, only one whose response's head was
// seen and whose body has a known length can be trusted to be answered by the bytes that follow.
func (d *decoder) lose(c *probes.Chunk, out probes.Out) {
	answers := &d.streams[d.out]
	keep := 0
	if d.answer.bound && answers.state == inLength && (c.Dir != d.out || c.Pos < answers.until) {
		keep = 1
	}
	d.loss = c.LossCause()
	d.dropFrom(keep, d.loss, out)
	if keep == 0 {
		d.answer.bound = false
		d.answer.begin = math.MinInt64 // no request claims it any more
	}
	d.hidden, d.debt = ledger.Seen, 0
	for i := range d.streams {
		s := &d.streams[i]
		s.unsure = true
		if s.state != inLength {
			s.skip()
		}
	}
	if answers.state != inLength {
		d.answer = answer{}
	}
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	switch e {
	case probes.PeerClosed:
		if d.server {
			return // a client may stop sending and still wait for its responses
		}
	case probes.LocalClosed:
		if !d.server {
			return
		}
	case probes.Closed, probes.Reset, probes.Stopped:
	}
	if (d.endless() || d.silent()) && e != probes.Reset && e != probes.Stopped {
		end := d.answer.last
		if d.answer.closes {
			end = t // the close is what ends the response
		}
		d.endMessage(&d.streams[d.out], end, out)
	}
	if d.streams[d.out].unsure && e != probes.Stopped {
		d.dropFrom(0, d.loss, out) // how they ended is lost; the connection's end says nothing of it
	}
	for d.exchanges.len() > 0 {
		switch e {
		case probes.Reset:
			d.finish(t, failure{kind: connectionReset}, out)
		case probes.Stopped:
			d.finish(t, failure{unfinished: true}, out)
		default:
			d.finish(t, failure{kind: connectionClosed}, out)
		}
	}
	d.answer = answer{}
	d.streams[d.out].skip()
	if e >= probes.Closed {
		d.streams[d.in].skip()
		d.dead = true
	}
}

// Waiting implements probes.Decoder. Only responses are waited for: nothing hangs on the moment at which
// a request's body ends.
func (d *decoder) Waiting() (probes.Direction, uint64, bool) {
	if s := &d.streams[d.out]; s.state == inLength && d.answer.bound {
		return d.out, s.until, true
	}
	return d.out, 0, false
}

// Progress implements probes.Decoder. The position may be ahead of chunks that are still to come, so it
// is believed only up to the end of the body that is waited for.
func (d *decoder) Progress(dir probes.Direction, pos uint64, t int64, out probes.Out) {
	s := &d.streams[dir]
	if d.dead || s.state != inLength || pos <= s.pos {
		return
	}
	if pos < s.until {
		s.pos = pos
		d.sawBody(s)
		if !s.request {
			d.answer.last = t
		}
		return
	}
	if pos > s.until {
		// The time is that of a later message. What tells this one's is on its way, or was lost, which the next
		// chunk says.
		return
	}
	s.pos = s.until
	d.sawBody(s)
	d.endMessage(s, d.estimate(t), out)
}

// estimate bounds the time at which the response under way ended when only a later moment is known: a
// client that does not pipeline sends its next request after that. Where events were lost, the next request
// that was seen may be a much later one: then the last byte seen has to do.
func (d *decoder) estimate(t int64) int64 {
	if d.streams[d.out].unsure && d.answer.last != 0 {
		return min(t, d.answer.last)
	}
	if d.answer.bound && d.exchanges.len() > 1 {
		if next := d.exchanges.at(1).span.Start; next >= d.answer.last {
			return min(t, next)
		}
	}
	return t
}

// begin makes the span of a request whose first byte, in c, is the next of s, and counts it.
func (d *decoder) begin(s *stream, c *probes.Chunk, out probes.Out) *exchange {
	d.account().Add(ledger.Seen, 1)
	sp := out.New()
	if sp.ID = d.name; !sp.ID.IsValid() {
		sp.ID = mint(d.conn.ID, s.pos)
	}
	d.name = trace.SpanID{}
	sp.Kind = trace.SpanKindClient
	if d.server {
		sp.Kind = trace.SpanKindServer
	}
	sp.Start = c.Begin
	sp.Evidence = c.Evidence
	if c.Evidence.HasSeq {
		sp.Evidence.Seq += uint32(s.pos - c.Pos)
	}
	sp.Target = d.conn.Target

	// A response whose end cannot be seen is over when the client goes on to something else.
	if d.endless() {
		a := &d.streams[d.out]
		d.endMessage(a, d.answer.last, out)
		a.skip()
	}
	ex := d.exchanges.push()
	ex.span = sp
	ex.size = -1
	s.exchange = d.exchanges.last()
	return ex
}

// requestHead takes a complete or truncated request head that was parsed into d.req, and sets up what
// follows at position pos. ex is nil if the request's exchange is over.
func (d *decoder) requestHead(s *stream, ex *exchange, truncated bool, pos uint64) {
	if ex != nil && !ex.head {
		d.describe(ex, truncated)
	}
	s.expect = d.req.expect
	s.junk = 0
	s.unsure = false
	s.size, s.exact = 0, true
	f := &d.req.framing
	switch {
	case truncated:
		s.state = toClose
	case f.coding == codingChunked:
		s.toChunkSize()
	case f.coding == codingOther || f.bad:
		s.state = toClose
	case f.length > 0:
		s.state = inLength
		s.until = pos + uint64(f.length)
		if ex != nil {
			ex.size, ex.announced = f.length, true
		}
	default:
		s.state = atStart
		if ex != nil {
			ex.done = true
			if f.length == 0 {
				ex.size = 0
			}
		}
	}
	s.bodyStart = pos
	d.req = request{} // it refers to the chunk
}

// opened settles what had to wait until the head of ex, the newest exchange, was known.
func (d *decoder) opened(ex *exchange, out probes.Out) error {
	if d.exchanges.len() > maxPipelined {
		return probes.ErrNotProtocol
	}
	if d.hidden != ledger.Seen {
		if d.exchanges.len() > 1 || d.debt > 0 || d.answer.active && !d.answer.ended {
			d.debt++
			d.dropFrom(d.exchanges.len()-1, d.hidden, out)
			return nil
		}
		d.hidden = ledger.Seen // all is answered; the two sides are in step again
	}
	return d.claim(ex, out)
}

// claim pairs a client's request with a response that was reported before it. A call's chunks come when
// the call has ended, and a thread that reads may overtake the one that writes; but the request began
// before the response did, which tells such a response from one to an earlier, unseen request.
func (d *decoder) claim(ex *exchange, out probes.Out) error {
	a := &d.answer
	if d.server || !a.active || a.bound || ex != d.exchanges.at(0) || ex.span.Start > a.begin {
		return nil
	}
	a.bound = true
	s := &d.streams[d.out]
	switch {
	case d.tunnels(ex):
		d.finish(a.headEnd, failure{}, out)
		return probes.ErrUpgraded
	case ex.method == methodHead:
		a.size = -1
		if !a.ended {
			s.state = atStart
		}
		d.finish(a.headEnd, failure{}, out)
	case a.ended:
		d.finish(a.last, failure{}, out)
	}
	return nil
}

// tunnels says whether the response under way turns the connection into something else.
func (d *decoder) tunnels(ex *exchange) bool {
	st := d.answer.status
	return st == 101 || ex != nil && ex.method == methodConnect && st >= 200 && st < 300
}

// responseHead takes a complete or truncated response head that was parsed into d.rsp and whose last
// byte passed at t, and sets up what follows at position pos.
func (d *decoder) responseHead(s *stream, truncated bool, pos uint64, t int64, out probes.Out) error {
	s.junk = 0
	s.unsure = false
	r := &d.rsp
	if r.status < 200 && r.status != 101 { // an interim response
		s.state = atStart
		if truncated {
			s.state = skipping
		}
		return nil
	}
	var ex *exchange
	if d.exchanges.len() > 0 {
		ex = d.exchanges.at(0)
	}
	if r.status == 101 && equalFold(r.upgrade, "h2c") && !truncated && ex != nil && ex.head && d.hidden == ledger.Seen {
		// RFC 7540, section 3.2: the answer comes over HTTP/2.
		s.state = atStart
		u := &probes.Upgrade{Protocol: "http2"}
		u.Pos[d.in], u.Pos[d.out] = d.streams[d.in].pos, pos
		return u
	}
	a := &d.answer
	*a = answer{active: true, truncated: truncated, status: r.status, size: -1, begin: s.begin, headEnd: t, last: t}
	if ex != nil {
		if !ex.head && !d.describePartly(ex) {
			d.drop(ledger.Unparsed, out)
			ex = nil
		}
	} else if d.hidden != ledger.Seen {
		if d.debt > 0 {
			d.debt--
		} else {
			d.account().Add(ledger.Seen, 1)
			d.account().Add(d.hidden, 1)
		}
	}
	a.bound = ex != nil
	if a.bound {
		ex.span.State = span.Answered
		out.Span(ex.span)
	}
	if d.tunnels(ex) && (a.bound || d.server) {
		if a.bound {
			d.finish(t, failure{}, out)
		}
		return probes.ErrUpgraded
	}
	s.size, s.exact = 0, true
	f := &r.framing
	switch {
	case truncated:
		s.state = toClose
	case ex != nil && ex.method == methodHead, r.status == 204, r.status == 304:
		d.endMessage(s, t, out)
	case f.coding == codingChunked:
		s.toChunkSize()
	case f.coding == codingOther:
		s.state = toClose
		a.closes = true
	case f.bad:
		s.state = toClose
	case f.length > 0:
		s.state = inLength
		s.until = pos + uint64(f.length)
		a.size = f.length
	case f.length == 0:
		a.size = 0
		d.endMessage(s, t, out)
	default:
		s.state = toClose
		a.closes = true
	}
	s.bodyStart = pos
	return nil
}

// endMessage takes the end of the message under way in s, whose last byte passed at t.
func (d *decoder) endMessage(s *stream, t int64, out probes.Out) {
	chunked := s.state == inTrailer
	s.state = atStart
	if s.request {
		if ex := d.exchanges.find(s.exchange); ex != nil {
			ex.done = true
			if chunked && s.exact {
				ex.size = int64(s.size)
			}
		}
		return
	}
	a := &d.answer
	if chunked && s.exact {
		a.size = int64(s.size)
	}
	if a.bound {
		d.finish(t, failure{}, out)
		return
	}
	// Its request may still come, if this is the client's side.
	a.last, a.ended = t, true
	if d.server {
		*a = answer{}
	}
}

// failure says why an exchange ended before its response did.
type failure struct {
	kind       failureKind
	unfinished bool
}

// finish makes the oldest exchange's span complete, with its response as far as that is known, and
// hands it over.
func (d *decoder) finish(t int64, f failure, out probes.Out) {
	ex := d.exchanges.at(0)
	if !ex.head && !d.describePartly(ex) {
		d.drop(ledger.Unparsed, out)
		return
	}
	d.conclude(ex, f)
	sp := ex.span
	sp.End = max(t, sp.Start)
	sp.State = span.Done
	d.exchanges.pop()
	if d.answer.bound {
		d.answer = answer{}
	}
	out.Span(sp)
}

// drop gives the oldest exchange up.
func (d *decoder) drop(cause ledger.Entry, out probes.Out) {
	sp := d.exchanges.at(0).span
	d.exchanges.pop()
	if d.answer.bound {
		d.answer.bound = false
	}
	d.lost(sp, cause, out)
}

// dropFrom gives up all exchanges but the n oldest.
func (d *decoder) dropFrom(n int, cause ledger.Entry, out probes.Out) {
	for i := n; i < d.exchanges.len(); i++ {
		d.lost(d.exchanges.at(i).span, cause, out)
	}
	d.exchanges.truncate(n)
}

func (d *decoder) lost(sp *span.Span, cause ledger.Entry, out probes.Out) {
	if sp.Target != nil {
		sp.Target.Account.Add(cause, 1) // where it was counted as seen
	}
	sp.State = span.Lost
	out.Span(sp)
}

// giveUp ends the decoder: the connection is not, or no longer, HTTP/1.
func (d *decoder) giveUp(out probes.Out) {
	d.dead = true
	d.dropFrom(0, ledger.Unparsed, out)
	d.answer = answer{}
	for i := range d.streams {
		d.streams[i].skip()
	}
}

// alias tells that the current chunk's name means the request that its bytes belong to.
func (d *decoder) alias(s *stream, out probes.Out) {
	if !d.name.IsValid() {
		return
	}
	if ex := d.exchanges.find(s.exchange); ex != nil && ex.span.ID != d.name {
		out.Alias(d.name, ex.span)
	}
	d.name = trace.SpanID{}
}

// sawBody notes that some of the body of the request under way passed.
func (d *decoder) sawBody(s *stream) {
	if s.request {
		if ex := d.exchanges.find(s.exchange); ex != nil {
			ex.body = true
		}
	}
}

// mint names a request that the kernel side did not name. Replays must give the same name, so it comes
// from the connection and the position of the request's first byte.
func mint(conn, pos uint64) trace.SpanID {
	x := mix(mix(conn) + pos)
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
