// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"
)

// reply is one of a server's messages, as far as it matters.
type reply struct {
	kind       byte
	tag        tag
	failure    outcome // of an ErrorResponse
	rows       int64   // beside this one
	begin, end int64   // of the chunk with the last of it
}

// answers takes the next piece of a server's message: keeps what is needed of it, if it is not all there, and zeroes what nobody has
// a use for.
func (s *side) answers(p []byte, whole bool) {
	switch s.kind {
	case errorResponse:
		s.buf = s.errs.take(p, s.buf)
	case commandComplete, ready, parameter:
		keep := min(max(maxAnswer-s.size, 0), len(p))
		clear(p[keep:])
		if !whole && !s.cut {
			s.buf = append(s.buf, p[:keep]...)
		}
	case rowDescription: // a connection is known by it; it holds names
	default:
		clear(p)
	}
}

// errorScan goes through an ErrorResponse's fields. Severity and code come first; what follows holds what the client has sent.
type errorScan struct {
	field byte
	over  bool
}

// head is the first fields of an ErrorResponse's body.
func (e *errorScan) head(b []byte) []byte {
	for i, c := range b {
		switch {
		case e.field != 0 && c == 0:
			e.field = 0
		case e.field == 0 && c != 'S' && c != 'V' && c != 'C':
			return b[:i]
		case e.field == 0:
			e.field = c
		}
	}
	return b
}

// take zeroes all but the first fields, and adds these to kept.
func (e *errorScan) take(p, kept []byte) []byte {
	for i, c := range p {
		if e.field == 0 && c != 'S' && c != 'V' && c != 'C' {
			e.over = true
		}
		if e.over {
			clear(p[i:])
			break
		}
		if len(kept) < maxAnswer {
			kept = append(kept, c)
		}
		if e.field == 0 {
			e.field = c
		} else if c == 0 {
			e.field = 0
		}
	}
	return kept
}

// parseError takes an ErrorResponse's first fields. The severity in 'S' may be in any language; servers before 9.6 have no other.
func parseError(b []byte) outcome {
	o := outcome{kind: failed}
	for len(b) > 0 && b[0] != 0 {
		value, rest, ok := text(b[1:])
		if !ok {
			break
		}
		switch {
		case b[0] == 'C' && isCode(value):
			copy(o.code[:], value)
		case string(value) == "FATAL":
			o.severity = severityFatal
		case string(value) == "PANIC":
			o.severity = severityPanic
		}
		b = rest
	}
	return o
}

func isCode(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(b) == len(outcome{}.code)
}

// current is the unit that the next answer is for.
func (d *decoder) current() *unit {
	switch {
	case d.held < d.queue.len():
		return d.queue.at(d.held)
	case d.pending.kind != unitNone && d.pending.acks > 0 && !d.cleared:
		return &d.pending
	}
	return nil
}

// answering takes the header of a server's message.
func (d *decoder) answering(s *side, c *probes.Chunk, out probes.Out) {
	if noise(s.kind) {
		return
	}
	d.heard, d.rests = true, false
	if in := &d.sides[d.in]; (in.left > 0 || in.have > 0) && !in.lost && !d.starting && !d.cleared && d.current() == nil {
		// The rest of what is answered was not seen.
		if in.left > 0 && !in.told {
			d.tell(in, in.buf, out)
		}
		if d.current() == nil {
			d.miss(c, out)
		}
	}
	d.answered(out)
}

// answered is called when some of an answer has come.
func (d *decoder) answered(out probes.Out) {
	if u := d.current(); u != nil && u.span != nil && u.span.State == span.Open {
		u.span.State = span.Answered
		out.Span(u.span)
	}
}

// answer is called when all of a server's message has passed, of which body is what is kept.
func (d *decoder) answer(s *side, c *probes.Chunk, body []byte, out probes.Out) error {
	r := reply{kind: s.kind, begin: c.Begin, end: c.End}
	switch s.kind {
	case notice, notification, negotiate, authentication, keyData, copyData, copyDone:
		return nil
	case parameter:
		name, rest, _ := text(body)
		if value, _, ok := text(rest); ok {
			d.session.parameter(string(name), string(value))
		}
		return nil
	case commandComplete:
		t, _, ok := text(body)
		if !ok {
			t = nil
		}
		r.tag = parseTag(t)
	case errorResponse:
		r.failure = parseError(s.buf)
	case ready:
		if s.cut || len(body) < 1 {
			break
		}
		if !isStatus(body[0]) {
			return d.stray(s, c, out)
		}
		d.rests = true
	}
	if len(d.early) > 0 || d.current() == nil && !d.server && !d.doubt && !d.cleared {
		d.keep(&r)
		return nil
	}
	return d.reply(&r, out)
}

// keep keeps an answer that came before what it answers.
func (d *decoder) keep(r *reply) {
	n := len(d.early)
	switch {
	case n > 0 && r.kind == dataRow && d.early[n-1].kind == dataRow:
		d.early[n-1].rows++
	case n == maxEarly:
		d.early = d.early[:0]
		d.hole(ledger.Unparsed, true)
		d.cutOff()
	default:
		d.early = append(d.early, *r)
	}
}

// catchUp goes through the answers that came before what they answer.
func (d *decoder) catchUp(out probes.Out) error {
	for len(d.early) > 0 {
		if d.current() == nil {
			return nil
		}
		r := d.early[0]
		d.early = d.early[:copy(d.early, d.early[1:])]
		d.answered(out)
		if err := d.reply(&r, out); err != nil {
			return err
		}
	}
	return nil
}

// reply takes an answer.
func (d *decoder) reply(r *reply, out probes.Out) error {
	if d.doubt {
		d.doubtful(r, out)
		return nil
	}
	u := d.current()
	if u == nil {
		if r.kind == errorResponse && r.failure.severity != severityError || d.starting { // the server closes the connection
			return nil
		}
		if d.cleared && r.kind == ready { // the Sync was not seen
			d.endSegment(out)
			d.goesOn()
			d.readied(out)
			return nil
		}
		if d.strays++; d.strays > maxDoubts && !d.sure {
			return probes.ErrNotProtocol
		}
		d.hole(ledger.Truncated, false)
		d.cutOff()
		u = d.current()
	}
	if u.kind == unitHole && d.presumed.kind != unitNone {
		u = d.presume(u, r, out)
	}
	executes := u.kind == unitExecute && u.acks == 0 || u.kind == unitQuery
	prepares := (u.kind == unitExecute || u.kind == unitPrepare) && u.acks > 0
	switch r.kind {
	case ready:
		return d.ready(u, r, out)
	case errorResponse:
		d.fail(u, r, out)
	case parseComplete, closeComplete, bindComplete, noData, rowDescription:
		switch {
		case u.kind == unitHole:
		case u.kind == unitQuery && r.kind == rowDescription:
			u.result.described = true
		case !prepares:
			return d.misfit(out)
		default:
			return d.acknowledge(u, r, out)
		}
	case parameters:
		if !prepares && u.kind != unitHole {
			return d.misfit(out)
		}
	case dataRow:
		switch {
		case executes:
			u.result.rows += 1 + r.rows
		case u.kind != unitHole:
			return d.misfit(out)
		}
	case commandComplete, emptyQuery, suspended:
		switch {
		case u.kind == unitHole:
			d.absorb(u)
		case !executes || r.kind == suspended && u.kind == unitQuery:
			return d.misfit(out)
		default:
			d.results(u, r, out)
		}
	case copyIn, copyOut, copyBoth:
		switch {
		case u.kind == unitHole:
		case !executes:
			return d.misfit(out)
		case r.kind == copyIn:
			d.copies(u)
		case r.kind == copyOut:
			u.result.copyOut = true
		default:
			d.release(out)
			d.finish(u, r.end, out)
			d.queue.pop()
			return probes.ErrUpgraded
		}
	case callResponse:
		switch {
		case u.kind == unitHole:
			d.absorb(u)
		case u.kind != unitCall:
			return d.misfit(out)
		default:
			u.outcome.kind = succeeded
		}
	}
	return nil
}

// presume has what was prepared before a hole be executed, if an answer shows that something is.
func (d *decoder) presume(hole *unit, r *reply, out probes.Out) *unit {
	switch r.kind {
	case rowDescription, noData, parameters:
		return hole
	case dataRow, commandComplete, emptyQuery, suspended, copyIn, copyOut, errorResponse:
	default:
		d.presumed = unit{}
		return hole
	}
	u := d.presumed
	d.presumed = unit{}
	u.kind, u.acks, u.changes = unitExecute, 0, 0
	d.open(&u, out)
	u.span.State = span.Answered
	out.Span(u.span)
	return d.queue.insert(d.held, &u)
}

// misfit is called for an answer that nothing of what was asked can have.
func (d *decoder) misfit(out probes.Out) error {
	if d.strays++; d.strays > maxStrays || d.strays > maxDoubts && !d.sure {
		return probes.ErrNotProtocol
	}
	d.dropAll(ledger.Unparsed, out)
	d.hole(ledger.Unparsed, true)
	d.cutOff()
	d.proven = false
	return nil
}

// absorb counts what was asked unseen, by its answer.
func (d *decoder) absorb(hole *unit) {
	switch {
	case hole.debt > 0:
		hole.debt--
	case !hole.silent:
		d.account().Add(ledger.Seen, 1)
		d.account().Add(hole.cause, 1)
	}
}

// acknowledge takes the answer to a message that executes nothing.
func (d *decoder) acknowledge(u *unit, r *reply, out probes.Out) error {
	u.acks--
	if r.kind == parseComplete || r.kind == closeComplete {
		kind := byte(parse)
		if r.kind == closeComplete {
			kind = closing
		}
		if !d.session.confirm(kind) {
			return d.misfit(out)
		}
		u.changes--
	}
	if u.kind == unitExecute && r.kind == rowDescription {
		u.result.described = true
	}
	if u.kind == unitPrepare && u.acks == 0 && u != &d.pending {
		d.queue.remove(d.held)
	}
	return nil
}

// copies is called when the server asks for a unit's data.
func (d *decoder) copies(u *unit) {
	d.copying = !u.copied
	// What the client has said by now, the server reads as part of the data.
	for i := d.held + 1; i < d.queue.len(); {
		s := d.queue.at(i)
		if s.kind != unitSync || u.copied && !s.ignored {
			break
		}
		d.queue.remove(i)
	}
}

// results takes the end of a result.
func (d *decoder) results(u *unit, r *reply, out probes.Out) {
	d.copying = false
	u.count(r)
	if r.kind == commandComplete {
		d.session.done(r.tag.verb, &u.what)
	}
	if u.kind == unitQuery {
		return
	}
	u.outcome.kind = succeeded
	d.complete(u, r.end, out)
}

// count adds a result that is complete to those of its unit.
func (u *unit) count(r *reply) {
	u.results++
	t, res := r.tag, &u.result
	switch {
	case r.kind == emptyQuery:
	case r.kind == suspended: // exactly the limit was reached
		if u.limit > 0 {
			u.add(int64(u.limit))
		} else {
			u.vague = true
		}
	case t.verb == verbCopy:
		if res.copyOut && t.rows >= 0 {
			u.add(t.rows)
		}
	case !res.cut && (res.rows > 0 || res.described || t.verb == verbSelect && t.rows == 0 || t.verb == verbFetch):
		u.add(res.rows)
	case !res.cut: // it returns nothing: CREATE TABLE AS has the tag of SELECT
	case t.rows >= 0 && (res.rows > 0 || res.described || t.verb == verbSelect || t.verb == verbFetch):
		u.add(t.rows)
	default:
		u.vague = true
	}
	u.command = t.name
	*res = result{}
}

func (u *unit) add(rows int64) {
	u.rows += rows
	u.returns = true
}

// complete is called when an Execute is over, at time t. What fails when its transaction is committed, at the Sync, may still be
// about it.
func (d *decoder) complete(u *unit, t int64, out probes.Out) {
	u.ended = t
	last := false
	for i := d.held + 1; i < d.queue.len(); i++ {
		next := d.queue.at(i)
		if last = next.kind == unitSync; last || next.kind != unitPrepare || next.prepares {
			break
		}
	}
	if !d.unsure {
		d.release(out)
	}
	if last || d.unsure {
		d.held++
		return
	}
	d.finish(u, t, out)
	d.queue.pop()
}

// release hands over what was held.
func (d *decoder) release(out probes.Out) {
	for ; d.held > 0; d.held-- {
		u := d.queue.front()
		d.finish(u, u.ended, out)
		d.queue.pop()
	}
}

// readied takes note that all up to a Sync is answered.
func (d *decoder) readied(out probes.Out) {
	d.sure, d.strays, d.unsure, d.copying = true, 0, false, false
	d.release(out)
}

// ready takes a ReadyForQuery.
func (d *decoder) ready(u *unit, r *reply, out probes.Out) error {
	d.sure, d.copying = true, false
	switch {
	case u.kind == unitHole:
		if d.sliding {
			return nil
		}
	case !u.kind.readied():
		return d.misfit(out)
	default:
		d.readied(out)
		if u = d.queue.front(); u.kind == unitQuery || u.kind == unitCall {
			if u.outcome.kind == noOutcome {
				u.outcome.kind = succeeded
			}
			d.finish(u, r.end, out)
		}
		d.queue.pop()
	}
	if !d.sliding && d.queue.len() > 0 && d.queue.front().kind == unitHole {
		d.settle(out) // all that was asked is answered
	}
	return nil
}

// fail takes an ErrorResponse.
func (d *decoder) fail(u *unit, r *reply, out probes.Out) {
	o := r.failure
	switch u.kind {
	case unitHole:
		d.absorb(u)
	case unitStart:
	case unitQuery, unitCall:
		d.copying = false
		if u.outcome.kind != failed {
			u.outcome = o
		}
		if o.severity != severityError { // nothing else comes
			d.release(out)
			d.finish(u, r.end, out)
			d.queue.pop()
		}
	case unitSync:
		if d.held > 0 {
			held := d.queue.at(d.held - 1)
			held.outcome, held.ended = o, r.end
		}
	default:
		d.copying = false
		d.skip(o, r.end, out)
	}
}

// skip ends what the server skips after an error: all up to a Sync. The first that executes is what has failed, with what prepares
// it; else it is what was to be prepared.
func (d *decoder) skip(o outcome, t int64, out probes.Out) {
	if !d.unsure {
		d.release(out)
	}
	changes, given := 0, false
	var late unit
	for d.held < d.queue.len() {
		u := d.queue.at(d.held)
		if u.kind == unitSync || u.kind == unitHole || u.kind == unitStart {
			break
		}
		changes += u.changes
		if u.kind == unitPrepare {
			if late.kind == unitNone {
				late = *u
			}
			d.queue.remove(d.held)
			continue
		}
		u.outcome = outcome{kind: aborted}
		if !given {
			given, u.outcome = true, o
		}
		u.ended = t
		if d.unsure {
			d.held++
			continue
		}
		d.finish(u, t, out)
		d.queue.pop()
	}
	if d.held == d.queue.len() { // the Sync is still to come
		d.cleared = true
		d.failure, d.failed = outcome{}, t
		d.pending.acks = 0
		if !given && late.kind == unitNone {
			given = true
			d.failure = o
		}
	}
	d.session.revert(min(changes, len(d.session.changes)))
	if !given {
		d.tellLate(&late, o, t, out)
	}
}

// tellLate makes a span of what prepares only, as it has failed.
func (d *decoder) tellLate(u *unit, o outcome, t int64, out probes.Out) {
	if u.kind == unitNone {
		return
	}
	name := d.name
	if u.name != name {
		d.name = mint(d.conn.ID, u.pos)
	}
	late := *u
	d.open(&late, out)
	if u.name != name {
		d.name = name
	}
	late.outcome = o
	d.finish(&late, t, out)
}

// doubts is called where a message of the server's begins in bytes that were not captured.
func (d *decoder) doubts(out probes.Out) {
	if !d.unsure && d.held > 0 { // it may have failed as it was committed
		d.queue.at(d.held - 1).outcome.kind = unknown
		d.release(out)
	}
	u := d.current()
	if u == nil || u.kind == unitHole {
		return
	}
	u.result.cut = true
	if !d.doubt {
		d.doubt, d.readies = true, 0
	}
	d.final, d.ends = reply{}, false
}

// doubtful takes an answer of which it is not known what it answers.
func (d *decoder) doubtful(r *reply, out probes.Out) {
	switch r.kind {
	case ready:
		d.sure, d.ends = true, true
		if d.readies++; !d.sliding || d.readies == d.queue.ready && d.queue.holes == 0 {
			d.settle(out)
		}
	case closeComplete:
	default:
		d.final, d.ends = *r, false
	}
}

// settle ends all that was asked, as it is answered. What is known of how is in final, if nothing has come after it but a
// ReadyForQuery.
func (d *decoder) settle(out probes.Out) {
	final := d.final
	if !d.doubt || !d.ends {
		final = reply{}
	}
	n := d.queue.len()
	// Of those that the last ReadyForQuery is about: the first, the last that has a span, and how many have.
	first, last, spans := 0, -1, 0
	for i := range n {
		u := d.queue.at(i)
		if u.kind == unitHole {
			final = reply{}
		}
		if u.span != nil && u.ended == 0 {
			last = i
			spans++
		}
		if u.kind.readied() && i+1 < n {
			first, last, spans = i+1, -1, 0
		}
	}
	sure := final.kind == commandComplete || final.kind == suspended || final.kind == emptyQuery
	for i := range n {
		u := d.queue.front()
		t := u.ended
		if t == 0 {
			t = d.last
			switch {
			case i == last && sure:
				d.settled(u, &final)
			case i == last && final.kind == errorResponse && spans == 1:
				u.outcome = final.failure
			case i >= first && last >= 0 && sure:
				u.outcome.kind = succeeded // else the last would have been skipped
				u.vague = true
			case u.outcome.kind == noOutcome:
				u.outcome.kind = unknown
			}
		}
		d.finish(u, t, out)
		d.queue.pop()
	}
	d.session.settle(sure && first == 0)
	d.held, d.doubt, d.unsure, d.copying = 0, false, false, false
	d.pending, d.presumed, d.cleared, d.failure = unit{}, unit{}, false, outcome{}
}

// settled ends a unit of which some of the answer was not seen, with the last of it.
func (d *decoder) settled(u *unit, r *reply) {
	if u.kind == unitQuery && (u.what.statement == nil || u.what.statement.Statements != 1) {
		u.vague = true
	}
	u.result.cut = true
	u.count(r)
	d.session.done(r.tag.verb, &u.what)
	if u.outcome.kind == noOutcome {
		u.outcome.kind = succeeded
	}
}

// adrift takes bytes of a direction in which it is not known where messages begin.
func (d *decoder) adrift(s *side, c *probes.Chunk, b []byte, out probes.Out) {
	if s.request {
		clear(b)
		return
	}
	d.heard, d.rests = true, false
	d.answered(out)
	if len(b) == 0 {
		s.match = s.match[:0]
		return
	}
	// What may be the end of an answer stays, in case the rest comes with the next chunk.
	from := max(0, len(b)-maxEnding)
	clear(b[:from])
	tail := b[from:]
	s.match = append(s.match, tail...)
	if s.pos == c.Pos+c.Total {
		if r, n, ok := ending(s.match); ok {
			clear(tail[:max(0, len(tail)-n)])
			if e := tail[max(0, len(tail)-n):]; r.kind == errorResponse && e[0] == errorResponse {
				var scan errorScan
				scan.take(e[headerSize:len(e)-readySize], nil)
			}
			r.begin, r.end = c.Begin, c.End
			s.align()
			d.resync(&r, out)
			return
		}
	}
	keep := beginsEnding(s.match)
	clear(tail[:max(0, len(tail)-keep)])
	s.match = append(s.match[:0], s.match[len(s.match)-keep:]...)
}

// maxEnding is how much is looked at of what may be the end of an answer.
const maxEnding = 512

// resync is called where a ReadyForQuery has shown where messages begin. r is what came before it, if that is known.
func (d *decoder) resync(r *reply, out probes.Out) {
	d.rests = true
	z := reply{kind: ready, begin: r.begin, end: r.end}
	if d.doubt {
		if r.kind != 0 {
			d.doubtful(r, out)
		} else {
			d.final = reply{}
		}
		d.doubtful(&z, out)
		return
	}
	d.sure = true
	if u := d.current(); u != nil && u.kind == unitHole && !d.sliding {
		d.settle(out)
	}
}

const readySize = headerSize + 1

// ending finds the messages that end an answer at the very end of b: ReadyForQuery, and what came before it, if all of that is there.
// n is how many bytes of b they are.
func ending(b []byte) (r reply, n int, ok bool) {
	at := len(b) - readySize
	if at < 0 || !isReady(b[at:]) {
		return reply{}, 0, false
	}
	for {
		kind, from := messageBefore(b[:at])
		if kind == 0 {
			return failedBefore(b, at)
		}
		switch body := b[from+headerSize : at]; kind {
		case closeComplete, parameter:
			at = from
			continue
		case commandComplete:
			r.tag = parseTag(body[:len(body)-1])
		case errorResponse:
			var scan errorScan
			r.failure = parseError(scan.head(body))
		}
		r.kind = kind
		return r, len(b) - from, true
	}
}

// failedBefore is ending where the message before at is not all there: the end of an error is known by the routine that reports it,
// which is its last field. Some report what is none, too.
func failedBefore(b []byte, at int) (r reply, n int, ok bool) {
	end := at - len("\x00\x00")
	if end < 0 || b[end] != 0 || b[end+1] != 0 {
		return reply{}, len(b) - at, true
	}
	from := bytes.LastIndexByte(b[:end], 0)
	if from < 0 || b[from+1] != 'R' {
		return reply{}, len(b) - at, true
	}
	for _, c := range b[from+2 : end] {
		if !letter(c) && (c < '0' || c > '9') {
			return reply{}, len(b) - at, true
		}
	}
	switch string(b[from+2 : end]) {
	case "", "exec_simple_query", "exec_parse_message", "exec_bind_message", "exec_execute_message", // how long it took
		"exec_stmt_raise": // RAISE of PL/pgSQL, at any level
		return reply{}, len(b) - at, true
	}
	return reply{kind: errorResponse, failure: outcome{kind: failed}}, len(b) - from, true
}

func isReady(b []byte) bool {
	return b[0] == ready && b[1] == 0 && b[2] == 0 && b[3] == 0 && b[4] == readySize-1 && isStatus(b[5])
}

// messageBefore finds the message that ends at the end of b, and is of those that come before a ReadyForQuery; kind is 0 if there is
// none.
func messageBefore(b []byte) (kind byte, from int) {
	for from = len(b) - headerSize; from >= 0; from-- {
		n := len(b) - from - 1
		if b[from+1] != 0 || b[from+2] != 0 || int(b[from+3])<<8|int(b[from+4]) != n {
			continue
		}
		body := b[from+headerSize:]
		switch kind = b[from]; kind {
		case closeComplete, emptyQuery, suspended:
			if len(body) == 0 {
				return kind, from
			}
		case commandComplete:
			if isTag(body) {
				return kind, from
			}
		case parameter:
			if plausible(kind, body, true, false) {
				return kind, from
			}
		case errorResponse:
			if len(body) > 2 && body[0] == 'S' && body[len(body)-1] == 0 && (body[len(body)-2] == 0) {
				return kind, from
			}
		}
	}
	return 0, 0
}

// beginsEnding returns how many of the last bytes of b may be the beginning of what ending finds. Errors are not looked for.
func beginsEnding(b []byte) int {
	for from := max(0, len(b)-headerSize-maxTag-readySize); from < len(b); from++ {
		if mayEnd(b[from:]) {
			return len(b) - from
		}
	}
	return 0
}

// mayEnd says whether b is the beginning of a CommandComplete, or another message that ends an answer, and a ReadyForQuery.
func mayEnd(b []byte) bool {
	for len(b) > 0 {
		size := readySize
		switch b[0] {
		case commandComplete:
			if size = headerSize + maxTag; len(b) >= headerSize {
				size = 1 + int(b[4])
			}
		case emptyQuery, suspended, closeComplete:
			size = headerSize
		case ready:
		default:
			return false
		}
		for i := 1; i < min(len(b), 4); i++ {
			if b[i] != 0 {
				return false
			}
		}
		if size > headerSize+maxTag || len(b) >= headerSize && b[0] != commandComplete && int(b[4]) != size-1 {
			return false
		}
		for i := headerSize; i < min(len(b), size); i++ {
			c := b[i]
			switch {
			case b[0] == ready && !isStatus(c),
				b[0] == commandComplete && i == size-1 && c != 0,
				b[0] == commandComplete && i < size-1 && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != ' ':
				return false
			}
		}
		if b[0] == ready {
			return len(b) <= size
		}
		b = b[min(len(b), size):]
	}
	return true
}
