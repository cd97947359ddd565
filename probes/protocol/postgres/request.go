// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
)

// says takes the next piece of a client's message: keeps what is needed of it, if it is not all there, and zeroes what nobody has a
// use for.
func (s *side) says(p []byte, whole bool) {
	keep := 0
	switch s.kind {
	case 0:
		if keep = maxStart; binary.BigEndian.Uint32(s.header[4:]) == codeCancel {
			keep = 0 // it holds a key
		}
	case query, parse:
		if !whole && !s.cut {
			s.buf = append(s.buf, p[:min(len(p), maxText-len(s.buf))]...)
		}
		return // a recording needs all of it
	case bind:
		for keep < len(p) && s.zeros < 2 {
			if p[keep] == 0 {
				s.zeros++
			}
			keep++
		}
		clear(p[keep:])
		if !whole && !s.cut {
			s.buf = append(s.buf, p[:min(keep, 2*(maxName+1)-len(s.buf))]...)
		}
		return
	case functionCall:
		keep = 4
	case execute, describe, closing:
		keep = maxName + 6
	}
	keep = min(max(keep-s.size, 0), len(p))
	clear(p[keep:])
	if !whole && !s.cut {
		s.buf = append(s.buf, p[:keep]...)
	}
}

// asking takes the header of a client's message.
func (d *decoder) asking(s *side, c *probes.Chunk, out probes.Out) {
	switch s.kind {
	case bind, closing, describe, execute, flush, functionCall, parse, query, syncing:
		if d.heard && !d.copying {
			d.ask(c, out)
		}
	}
}

// said is called when all of a client's message has passed, of which body is what is kept.
func (d *decoder) said(s *side, body []byte, out probes.Out) error {
	if s.kind == 0 {
		return d.starts(s, body)
	}
	if !s.told {
		d.tell(s, body, out)
	}
	return nil
}

// starts takes what a client begins a connection with.
func (d *decoder) starts(s *side, body []byte) error {
	switch binary.BigEndian.Uint32(s.header[4:]) {
	case codeTLS, codeGSS:
		d.offered = true
		return nil
	case codeCancel:
		return probes.ErrUpgraded // nothing else comes
	}
	d.starting = false
	var user, database []byte
	for {
		name, rest, ok := text(body)
		if !ok || len(name) == 0 {
			break
		}
		var value []byte
		if value, body, ok = text(rest); !ok {
			break
		}
		switch string(name) {
		case "user":
			user = value
		case "database":
			database = value
		case "replication":
			if replicates(value) {
				return probes.ErrUpgraded // it carries what is not asked for
			}
		}
	}
	if len(database) == 0 {
		database = user
	}
	d.values.use(database)
	if !d.holed() {
		d.queue.push(unitStart)
	}
	return nil
}

// replicates says whether the value of the parameter asks for replication: all but what means "false" do.
func replicates(b []byte) bool {
	switch string(bytes.ToLower(b)) {
	case "f", "fa", "fal", "fals", "false", "of", "off", "n", "no", "0":
		return false
	}
	return true
}

// tell deals with a client's message, of which body is what is kept. It may have more to come.
func (d *decoder) tell(s *side, body []byte, out probes.Out) {
	s.told = true
	cut := s.cut || s.left > 0
	if d.copying {
		switch s.kind {
		case copyDone, copyFail:
			d.copying = false
			return
		case copyData, syncing, flush: // section "COPY Operations" of the documentation: these are ignored
			return
		}
	}
	if max(d.queue.len(), len(d.session.changes)) >= maxUnits && !d.holed() {
		d.hole(ledger.Unparsed, false)
	}
	switch s.kind {
	case query, functionCall, syncing, parse, bind, execute:
		if d.queue.ready == 0 || d.holed() {
			break
		}
		d.sliding = true
		if !d.proven {
			d.dropAll(ledger.Truncated, out)
			d.hole(ledger.Truncated, true)
		}
	}
	if d.holed() {
		d.unseen(s, body, cut)
		return
	}
	switch s.kind {
	case query:
		d.endSegment(out)
		d.session.unnamed = asked{} // it lasts until here
		u := unit{kind: unitQuery, start: s.began, what: d.read(body, cut)}
		d.run(&u, out)
	case functionCall:
		d.endSegment(out)
		u := unit{kind: unitCall, start: s.began}
		d.run(&u, out)
	case execute:
		u := *d.segment(s)
		d.pending = unit{}
		u.kind = unitExecute
		portal, rest, ok := text(body)
		if u.what = (asked{}); ok {
			u.what = d.session.bound(portal)
		}
		if len(rest) == 4 {
			u.limit = binary.BigEndian.Uint32(rest)
		}
		d.run(&u, out)
	case parse, bind, describe, closing:
		if s.kind == parse && d.pending.prepares {
			d.endSegment(out) // it is about another statement: which of them fails is told by what was acknowledged
		}
		u := d.segment(s)
		if u.acks++; s.kind == parse || s.kind == closing {
			u.changes++
		}
		u.prepares = u.prepares || s.kind != closing
		u.bound = u.bound || s.kind == bind
		d.prepares(u, s.kind, body, cut)
	case flush:
		d.endSegment(out)
	case syncing:
		d.endSegment(out)
		d.goesOn()
		d.queue.push(unitSync)
	case copyDone, copyFail:
		d.copied()
	}
}

// prepares takes a message that executes nothing.
func (d *decoder) prepares(u *unit, kind byte, body []byte, cut bool) {
	switch kind {
	case parse:
		name, rest, ok := text(body)
		var what asked
		if ok {
			what = d.read(rest, cut)
		}
		d.session.parse(name, ok, &what)
		u.what = what
	case bind:
		portal, rest, ok := text(body)
		name, _, known := text(rest)
		if !ok {
			d.session.forgetPortals()
			return
		}
		var what asked
		if known {
			what = d.session.find(name)
		}
		u.what = what
		d.session.bind(portal, what)
	case closing:
		d.session.close(body)
	}
}

// read makes of the text of a statement, which ends with a zero if it is all there, what may be shown of it.
func (d *decoder) read(b []byte, cut bool) asked {
	t, _, ok := text(b)
	if !ok {
		t, cut = b, true
	}
	what := asked{drops: drops(t)}
	if d.session.wide { // what is behind the first character that is not ASCII may be anything
		if i := bytes.IndexFunc(t, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
			t, cut = t[:i], true
		}
	}
	what.statement, what.cut = d.reader.Read(t, cut, d.session.modes), cut
	what.context = what.statement.Context
	if !cut {
		what.digest = d.reader.Digest()
	}
	return what
}

// segment is the unit that messages are added to which do not end one.
func (d *decoder) segment(s *side) *unit {
	if d.pending.kind == unitNone {
		d.pending = unit{kind: unitPrepare, start: s.began, name: d.name}
	}
	return &d.pending
}

// endSegment is called where what follows has nothing to do with the messages before.
func (d *decoder) endSegment(out probes.Out) {
	switch {
	case d.pending.kind == unitNone:
	case d.cleared && d.failure.kind != noOutcome:
		d.tellLate(&d.pending, d.failure, d.failed, out)
		d.failure = outcome{}
	case !d.cleared && d.pending.acks > 0:
		*d.queue.push(unitPrepare) = d.pending
	}
	d.pending = unit{}
}

// run begins a unit that has a span. What the server skips after an error is over at once.
func (d *decoder) run(u *unit, out probes.Out) {
	d.open(u, out)
	if !d.cleared {
		*d.queue.push(u.kind) = *u
		return
	}
	u.outcome = outcome{kind: aborted}
	if d.failure.kind != noOutcome {
		u.outcome, d.failure = d.failure, outcome{}
	}
	d.finish(u, d.failed, out)
}

// goesOn is called at a Sync: the server has skipped what came before it, if an error was reported.
func (d *decoder) goesOn() {
	if d.cleared {
		d.cleared, d.failure = false, outcome{}
		d.session.revert(len(d.session.changes))
	}
}

// copied is called when the client has said all of its COPY before the server has asked for it. A Sync before that is ignored, if it
// is one.
func (d *decoder) copied() {
	for i := d.queue.len() - 1; i >= d.held; i-- {
		u := d.queue.at(i)
		if u.kind != unitSync {
			u.copied = true
			return
		}
		u.ignored = true
	}
}

// holed says whether the newest unit is a hole: which answers belong to what is asked now is not known.
func (d *decoder) holed() bool {
	n := d.queue.newest()
	return n != nil && n.kind == unitHole
}

// hole notes that anything may have been asked. cause is how what is asked behind it is counted, and, unless silent, what was asked in
// it, as it is answered.
func (d *decoder) hole(cause ledger.Entry, silent bool) {
	d.pending, d.presumed, d.cleared, d.failure = unit{}, unit{}, false, outcome{}
	if !d.holed() {
		u := d.queue.push(unitHole)
		u.cause, u.silent = cause, silent
	}
}

// cutOff gives up a client's message that is under way, as it may be answered before the rest of it is seen. There is a hole.
func (d *decoder) cutOff() {
	switch s := &d.sides[d.in]; {
	case d.starting || s.lost:
	case s.left > 0 && !s.told:
		d.unseen(s, s.buf, true)
		s.told = true
	case s.left == 0 && s.have > 0: // what it is is not known
		s.lost = true
	}
}

// unseen takes a client's message behind a hole.
func (d *decoder) unseen(s *side, body []byte, cut bool) {
	hole := d.queue.newest()
	switch s.kind {
	case query, functionCall, execute:
		hole.debt++
		d.account().Add(ledger.Seen, 1)
		d.account().Add(hole.cause, 1)
	case parse, bind, closing:
		var u unit
		d.prepares(&u, s.kind, body, cut)
		d.session.unsure()
	}
}

// miss is called where messages of the client's begin in bytes that were not captured.
func (d *decoder) miss(c *probes.Chunk, out probes.Out) {
	cause := ledger.Truncated
	if c.Unreadable {
		cause = ledger.Unreadable
	}
	d.session.missed()
	presumed := unit{}
	if d.pending.bound && !d.cleared {
		presumed = d.pending
	}
	d.endSegment(out)
	d.hole(cause, false)
	d.presumed = presumed
}
