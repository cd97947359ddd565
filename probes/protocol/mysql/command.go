// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"encoding/binary"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
)

// said takes the next piece of what the client sends, of which whole says that it is all of a packet.
func (d *decoder) said(s *side, c *probes.Chunk, p []byte, whole bool, out probes.Out) error {
	switch d.phase {
	case greets:
		d.wipe(p)
		return nil
	case answers:
		d.login.take(p, d.greeting.caps, d.wipe)
		return nil
	case proves:
		d.wipe(p)
		return nil
	case commands:
	}
	from := int(min(s.size, maxText)) // what lies behind maxText is of no concern
	kind := command(s.first)
	if s.size == 0 {
		kind = command(p[0])
		s.first = p[0]
		if !s.more && !kind.fits(s.left) {
			d.wipe(p)
			return d.stray(s, c, out)
		}
		d.attributed = false
		if kind == comChangeUser {
			d.login.init(true, d.caps, d.capsSet)
		}
	}
	if room := kept(kind) - len(s.buf); !whole && room > 0 && !s.cut {
		s.buf = append(s.buf, p[:min(len(p), room)]...)
	}
	switch kind {
	case comInitDB, comStmtPrepare:
	case comQuery:
		d.attributes(s, p, from)
	case comStmtExecute:
		d.bound(s, p, from)
	case comStmtBulkExecute:
		d.rows(s, p, from)
	case comChangeUser:
		d.login.take(p, 0, d.wipe)
	default:
		if n := kept(kind) - from; n < len(p) {
			d.wipe(p[max(n, 0):])
		}
	}
	return nil
}

// kept is how much of a command's payload is kept, and stays as it is but for what is bound to it.
func kept(k command) int {
	switch k {
	case comQuery, comStmtPrepare:
		return maxText
	case comInitDB:
		return 1 + maxName
	case comStmtExecute:
		return executeSize
	case comStmtSendLongData, comStmtBulkExecute:
		return bulkSize
	case comStmtClose, comStmtReset, comStmtFetch:
		return 9
	}
	return 1
}

// attributesAt is how much of a COM_QUERY shows whether it has query attributes: the number of them, and that of their sets, 1.
const attributesAt = 3

// attributes passes over a query's attributes. p is a piece of the payload, which begins at from.
func (d *decoder) attributes(s *side, p []byte, from int) {
	if from+len(p) < attributesAt {
		return
	}
	if from < attributesAt {
		head := &d.head // in the decoder, as what takes it has it escape
		n := copy(head[:], s.buf[:min(from, len(s.buf))])
		copy(head[n:], p)
		d.attributed = false
		switch d.has(clientQueryAttribute) {
		case is:
			d.attributed = true
		case unknown: // no statement has such a beginning
			d.attributed = head[1] <= maxAttributes && head[2] == 1
		case isNot:
		}
		if d.attributed {
			d.query = attributes{}
			d.query.take(head[:], d.wipe)
			p = p[attributesAt-from:]
		}
	}
	if d.attributed {
		d.query.take(p, d.wipe)
	}
}

// parameterCount is the flag of a COM_STMT_EXECUTE that says that attributes may be among what is bound to it.
const parameterCount = 8

// bound passes over what is bound to a COM_STMT_EXECUTE.
func (d *decoder) bound(s *side, p []byte, from int) {
	if from+len(p) <= executeSize {
		return
	}
	if from <= executeSize {
		var head [executeSize]byte
		n := copy(head[:], s.buf[:min(from, len(s.buf))])
		copy(head[n:], p)
		p = p[executeSize-from:]
		if d.attributed = d.has(clientQueryAttribute) == is && head[5]&parameterCount != 0; d.attributed {
			d.query = attributes{part: attributesCount, execute: true}
		}
	}
	if d.attributed {
		d.query.take(p, d.wipe)
	} else {
		d.wipe(p)
	}
}

// rows passes over the rows of a COM_STMT_BULK_EXECUTE.
func (d *decoder) rows(s *side, p []byte, from int) {
	if from+len(p) < bulkSize {
		return
	}
	if from < bulkSize {
		var head [bulkSize]byte
		n := copy(head[:], s.buf[:min(from, len(s.buf))])
		copy(head[n:], p)
		p = p[bulkSize-from:]
		params, types := -1, []byte(nil)
		if st := d.session.prepared.find(binary.LittleEndian.Uint32(head[1:])); st != nil {
			params, types = int(st.params), st.types
		}
		d.bulk.init(params, binary.LittleEndian.Uint16(head[5:]), types)
	}
	d.bulk.take(p, d.wipe)
}

// lastPrepared is the id that stands for the statement that was prepared last (MariaDB).
const lastPrepared = 0xffffffff

// tell deals with a command, of which body is what is kept of its payload; cut: that is not all. It may have more to come.
func (d *decoder) tell(s *side, c *probes.Chunk, body []byte, cut bool, out probes.Out) error {
	s.told = true
	kind := command(s.first)
	if len(body) == 0 {
		return d.desync(s, c, s.pos, false, out) // what it is was not captured
	}
	switch replies[kind] {
	case replyNone:
		if kind == comStmtClose && len(body) >= 5 {
			d.session.prepared.remove(binary.LittleEndian.Uint32(body[1:]))
		}
		return nil
	case replyStream:
		return probes.ErrUpgraded
	}
	if d.queue.len() == maxPipelined {
		return probes.ErrNotProtocol
	}
	d.overtaken = false
	if d.queue.len() == 0 {
		d.sides[d.out].realign()
		d.answer = answer{}
		// A call is told when it has ended, and a thread that reads may overtake the one that writes: but the command began before its
		// answer did.
		d.overtaken = !d.server && d.unasked > s.start.time
	}
	d.unasked = 0
	ex := d.queue.push()
	s.exchange = d.queue.next()
	ex.command, ex.start = kind, s.start
	switch kind {
	case comQuery:
		at, known := 1, true
		if d.attributed && len(body) >= attributesAt {
			at, known = d.query.text()
		}
		if known && at <= len(body) {
			d.read(ex, body[at:], cut)
		} else {
			ex.cut = true
		}
		d.open(ex, s.exchange-1, out)
	case comStmtPrepare:
		d.read(ex, body[1:], cut)
		d.session.prepared.last = statement{statement: ex.statement, cut: ex.cut, digest: ex.digest, change: ex.change}
	case comStmtExecute, comStmtBulkExecute, comStmtFetch:
		d.execute(ex, body)
		if kind != comStmtFetch {
			d.open(ex, s.exchange-1, out)
		}
	case comInitDB:
		ex.change = &change{database: string(body[1:]), uses: true, unknown: cut}
	case comResetConnection:
		ex.change = &change{resets: true}
	}
	return nil
}

// execute finds the statement that a command is about.
func (d *decoder) execute(ex *exchange, body []byte) {
	if ex.command == comStmtBulkExecute {
		d.values.isMariaDB()
	}
	if len(body) < 5 {
		return
	}
	ex.id = binary.LittleEndian.Uint32(body[1:])
	st := d.session.prepared.find(ex.id)
	if ex.id == lastPrepared {
		st = &d.session.prepared.last
		d.values.isMariaDB()
	}
	if st == nil {
		return
	}
	ex.statement, ex.cut, ex.digest = st.statement, st.cut, st.digest
	if ex.command != comStmtFetch {
		ex.change = st.change
		ex.again, st.executed = st.executed, true
	}
}

// saidAll is called when all of what the client sends at once has passed: a command, or a part of the handshake.
func (d *decoder) saidAll(s *side, c *probes.Chunk, body []byte, cut bool, out probes.Out) error {
	switch d.phase {
	case greets, proves:
		return nil
	case answers:
		return d.loggedIn(s)
	case commands:
	}
	if !s.told {
		if err := d.tell(s, c, body, cut, out); err != nil || s.lost {
			return err
		}
	}
	ex := d.queue.find(s.exchange)
	if ex == nil {
		return nil // it has no answer, or has it already
	}
	ex.seq, ex.sequenced = s.seq+1, true
	switch ex.command {
	case comStmtBulkExecute:
		if ex.batch = d.bulk.count(); ex.batch > 0 && ex.id != lastPrepared {
			if st := d.session.prepared.find(ex.id); st != nil {
				st.types = append(st.types[:0], d.bulk.types...)
			}
		}
	case comChangeUser:
		db, ok := d.login.database()
		ex.change = &change{database: string(db), uses: true, unknown: !ok, resets: true}
	}
	if d.overtaken {
		d.overtaken = false
		d.complete(d.unaskedEnd, outcome{unknown: true}, out)
	}
	return nil
}

// loggedIn takes the client's answer to the greeting, which is over.
func (d *decoder) loggedIn(s *side) error {
	l := &d.login
	if l.caps&clientSSL != 0 && s.size == loginSize {
		return probes.ErrUpgraded // to TLS
	}
	if l.part == loginFixed {
		d.unsettle()
		return nil
	}
	d.phase = proves
	if l.caps&clientProtocol41 == 0 {
		return probes.ErrNotProtocol // one that has not been spoken since 2004
	}
	d.caps, d.capsSet = l.caps&d.greeting.caps, true
	d.eof = whether(d.caps&clientDeprecateEOF == 0)
	d.session.set(l.set)
	d.session.pending = ""
	if db, ok := l.database(); ok {
		d.session.pending = string(db)
	}
	return nil
}

// unseen counts a command that began in bytes that were not captured.
func (d *decoder) unseen(c *probes.Chunk) {
	cause := ledger.Truncated
	if c.Unreadable {
		cause = ledger.Unreadable
	}
	d.account().Add(ledger.Seen, 1)
	d.account().Add(cause, 1)
	d.session.forget() // it may have changed any of it
}
