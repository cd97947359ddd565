// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"encoding/binary"
	"strings"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
)

// expects is what the next packet of an answer is.
type expects uint8

const (
	expectsFirst   expects = iota // of a result, or of the answer as a whole
	expectsColumns                // definitions of columns, or of parameters
	expectsEOF                    // the EOF packet behind them, if there are such: else a row
	expectsRows
)

// answer is what answers the oldest command, as far as it has come.
type answer struct {
	begun     bool
	expects   expects
	seq       byte // of the next packet
	sequenced bool // that is known
	late      bool // the first packet is numbered as if nothing had been asked
	columns   uint64
	width     uint64 // columns of the result set
	then      uint64 // COM_STMT_PREPARE: columns, behind the parameters
	between   bool   // these are next, and whether an EOF packet is before them is not known
	rows      uint64
	sets      int    // result sets
	inexact   bool   // not all rows were seen
	chunks    int    // in which it came
	hidden    bool   // some of it was not captured
	last      int64  // when the last of it passed that is known of
	reached   uint64 // where that was, if no chunk has told
	lostAt    uint64 // the position of the first packet that was not seen
	countable bool   // its sequence id is seq
	over      bool   // it may be over, but is not for certain
	overAt    int64
}

// class is what is done with a packet of the server's.
type class uint8

const (
	classKeep class = iota
	classRow
	classColumn
	classNone
)

// answerHeader takes the header of a packet of the server's.
func (d *decoder) answerHeader(s *side, c *probes.Chunk, out probes.Out) error {
	if d.phase != commands {
		if d.phase == greets && s.seq != 0 {
			return d.stray(s, c, out)
		}
		return nil
	}
	a, ex := &d.answer, d.queue.front()
	s.extra = false
	if d.mayTrail {
		d.mayTrail = false
		if s.left == eofSize && (s.seq == d.trailing || d.squeezed == is) {
			s.extra = true
			d.eof = is
			return nil
		}
	}
	if a.begun && a.sequenced && s.seq != a.seq && d.squeezed != is && d.queue.base < d.run {
		d.concludeBefore(d.run, out) // the client has gone on since
		ex = d.queue.front()
	}
	switch {
	case ex == nil: // nobody has asked, as far as is known
		d.unasked, d.unaskedEnd = c.Begin, c.End
		s.reset()
		s.lost = true
		return nil
	case s.left == 0:
		return d.stray(s, c, out)
	case d.squeezed == is: // there, packets are not numbered as they are sent
	case a.begun && a.sequenced && s.seq != a.seq:
		return d.stray(s, c, out)
	case !a.begun && ex.sequenced && s.seq != ex.seq:
		if s.seq != 0 {
			return d.stray(s, c, out)
		}
		a.late = true
	}
	a.seq, a.sequenced = s.seq+1, true
	if !a.begun {
		a.begun = true
		if replies[ex.command] == replyRows {
			a.expects = expectsRows
		} else if replies[ex.command] == replyColumns {
			a.expects, a.columns = expectsColumns, ^uint64(0)
		}
	}
	return nil
}

// classify says what is done with a packet by its first byte, and how much of it stays as it is.
func (d *decoder) classify(s *side) (class, int) {
	stays := maxAnswer
	switch {
	case s.first == headErr:
		stays = errHead
	case s.first == headLocalFile, s.first == headMore:
		stays = 1
	}
	if d.phase != commands {
		if s.first != headOK && s.first != headErr {
			stays = 1
		}
		return classKeep, stays
	}
	a := &d.answer
	switch {
	case s.extra:
		return classNone, eofSize
	case a.expects == expectsFirst:
		switch replies[d.queue.front().command] {
		case replyOne:
			if s.first != headOK && s.first != headEOF && s.first != headErr {
				stays = 1
			}
		case replyAuth:
			if s.first != headOK && s.first != headErr {
				stays = 1
			}
		default:
			if s.first == headMore { // one column
				stays = maxAnswer
			}
		}
		return classKeep, stays
	case s.first == headErr, s.first == headEOF && s.left < maxPayload:
		return classKeep, stays
	case a.expects == expectsColumns:
		return classColumn, 4
	}
	return classRow, 0
}

// answered takes the next piece of what the server sends, of which whole says that it is all of a packet.
func (d *decoder) answered(s *side, c *probes.Chunk, p []byte, whole bool, out probes.Out) error {
	if d.phase == greets && (s.size > 0 || p[0] != headErr) {
		d.greeting.take(p, d.wipe)
		s.first = 0
		return nil
	}
	if d.givenUp(s) {
		d.wipe(p)
		return nil
	}
	if s.size == 0 {
		s.first = p[0]
		s.class, s.stays = d.classify(s)
		if d.phase == commands && !s.extra {
			if d.answer.late && s.first != headErr {
				d.wipe(p)
				return d.stray(s, c, out)
			}
			if ex := d.queue.front(); ex.span != nil && ex.span.State == span.Open {
				ex.span.State = span.Answered
				out.Span(ex.span)
			}
		}
	}
	if room := maxAnswer - len(s.buf); s.class == classKeep && !whole && room > 0 && !s.cut {
		s.buf = append(s.buf, p[:min(len(p), room)]...)
	}
	if from := min(s.size, maxAnswer); uint64(s.stays) < from+uint64(len(p)) {
		d.wipe(p[max(s.stays-int(from), 0):])
	}
	return nil
}

// givenUp says that nobody waits any more for the packet that is passing.
func (d *decoder) givenUp(s *side) bool {
	if d.phase != commands || s.extra || d.queue.len() > 0 {
		return false
	}
	s.reset()
	s.lost = true
	return true
}

// answeredAll is called when all of a server's packet has passed. body is what is kept of it.
func (d *decoder) answeredAll(s *side, c *probes.Chunk, body []byte, out probes.Out) error {
	switch d.phase {
	case greets:
		return d.greeted(s, c, out)
	case answers:
		return nil // it does not want to know
	case proves:
		d.proved(body)
		return nil
	case commands:
	}
	if s.extra || d.givenUp(s) {
		return nil
	}
	a, ex := &d.answer, d.queue.front()
	if s.first == headErr && s.class == classKeep {
		return d.failed(c, body, out)
	}
	switch a.expects {
	case expectsColumns:
		if s.class == classColumn {
			if a.between { // no EOF packet stands between parameters and columns
				d.eof, a.between = isNot, false
			}
			if a.columns--; a.columns == 0 {
				d.described(s, ex, c, out)
			}
			return nil
		}
		if s.size == eofSize && replies[ex.command] == replyPrepared && d.eof == unknown && a.between {
			d.eof, a.between = is, false
			return nil
		}
		if replies[ex.command] != replyColumns {
			return d.stray(s, c, out)
		}
		return d.rowsEnd(s, c, body, out)
	case expectsEOF:
		if st, ok := parseEOF(body); ok && s.size == eofSize && s.class == classKeep {
			d.eof = is
			d.columnsEnd(ex, st, c, out)
			return nil
		}
		if s.class == classKeep && s.cut {
			return d.unreadable(s, c, out)
		}
		if d.eof == is {
			return d.stray(s, c, out)
		}
		d.eof = isNot
		a.expects = expectsRows
		fallthrough
	case expectsRows:
		if s.class == classRow {
			a.rows++
			return nil
		}
		return d.rowsEnd(s, c, body, out)
	case expectsFirst:
	}
	switch replies[ex.command] {
	case replyOne:
		if st, ok := s.status(body); ok {
			d.session.status(st)
			d.track(body)
		}
		d.sure = true
		d.complete(c.End, outcome{}, out)
		return nil
	case replyAuth:
		if s.first == headOK {
			if st, _, ok := parseOK(body); ok {
				d.session.status(st)
			}
			d.complete(c.End, outcome{}, out)
			d.track(body)
			return nil
		}
		d.setAside()
		return nil
	case replyPrepared:
		return d.prepared(s, ex, c, body, out)
	}
	switch {
	case s.first == headOK && s.size >= minOK:
		st, _, ok := parseOK(body)
		if !ok {
			return d.unreadable(s, c, out)
		}
		d.sure = true
		d.session.status(st)
		if st&statusMoreResults != 0 {
			d.track(body)
			return nil
		}
		d.complete(c.End, outcome{}, out)
		d.track(body)
		return nil
	case s.first == headLocalFile:
		if ex.command != comQuery {
			return d.stray(s, c, out)
		}
		d.sure = true
		d.setAside()
		return nil
	}
	n, follows, ok := parseColumns(body)
	if !ok || s.cut {
		return d.unreadable(s, c, out)
	}
	d.sure = true
	a.sets++
	a.width, a.columns = n, n
	a.expects = expectsColumns
	if !follows {
		a.columns = 0
		d.described(s, ex, c, out)
	}
	return nil
}

// setAside has what the client says be data for the oldest command, until that is answered: how it numbers its packets then does not
// matter.
func (d *decoder) setAside() {
	d.aside, d.answer.sequenced = true, false
	d.sides[d.in].reset()
}

// unreadable is called for a packet that says nothing, because it was not captured or because it is none.
func (d *decoder) unreadable(s *side, c *probes.Chunk, out probes.Out) error {
	if s.cut {
		return d.desync(s, c, s.pos, false, out)
	}
	return d.stray(s, c, out)
}

// status takes the status of an OK or an EOF packet, of which body is what was captured.
func (s *side) status(body []byte) (status, bool) {
	switch {
	case len(body) == 0 || body[0] != headOK && body[0] != headEOF:
		return 0, false
	case s.size == eofSize && body[0] == headEOF:
		return parseEOF(body)
	case s.size < minOK:
		return 0, false
	}
	st, _, ok := parseOK(body)
	return st, ok
}

// track takes what an OK packet says of changes of the session.
func (d *decoder) track(body []byte) {
	if st, rest, ok := parseOK(body); ok && st&statusSessionChanged != 0 && d.has(clientSessionTrack) != isNot {
		if !sessionState(rest, d.session.changed) && d.has(clientSessionTrack) == is {
			d.session.namespace = attribute.KeyValue{} // it may be among what has changed
		}
	}
}

// described is called when the definitions of columns or of parameters are over.
func (d *decoder) described(s *side, ex *exchange, c *probes.Chunk, out probes.Out) {
	a := &d.answer
	if replies[ex.command] != replyPrepared {
		a.expects = expectsEOF
		if d.eof == isNot {
			a.expects = expectsRows
		}
		return
	}
	if d.eof == is {
		a.expects = expectsEOF
		return
	}
	d.nextColumns(s, c, out)
}

// nextColumns goes on to the definitions of columns behind those of parameters.
func (d *decoder) nextColumns(s *side, c *probes.Chunk, out probes.Out) {
	a := &d.answer
	if a.columns, a.then = a.then, 0; a.columns > 0 {
		a.expects, a.between = expectsColumns, d.eof == unknown
		return
	}
	d.mayTrail, d.trailing = d.eof == unknown, a.seq
	d.complete(c.End, outcome{}, out)
}

// columnsEnd takes the EOF packet behind definitions.
func (d *decoder) columnsEnd(ex *exchange, st status, c *probes.Chunk, out probes.Out) {
	a := &d.answer
	d.session.status(st)
	switch {
	case replies[ex.command] == replyPrepared:
		d.nextColumns(&d.sides[d.out], c, out)
	case st&statusCursor != 0: // the rows are to be fetched
		a.inexact = true
		d.complete(c.End, outcome{}, out)
	default:
		a.expects = expectsRows
	}
}

// rowsEnd takes the packet behind the last row.
func (d *decoder) rowsEnd(s *side, c *probes.Chunk, body []byte, out probes.Out) error {
	a := &d.answer
	st, ok := s.status(body)
	if !ok {
		return d.unreadable(s, c, out)
	}
	d.eof = whether(s.size == eofSize)
	d.session.status(st)
	a.inexact = a.inexact || st&statusCursor != 0
	if st&statusMoreResults != 0 {
		a.expects = expectsFirst
		d.track(body)
		return nil
	}
	d.complete(c.End, outcome{}, out)
	d.track(body)
	return nil
}

// failed takes an ERR packet.
func (d *decoder) failed(c *probes.Chunk, body []byte, out probes.Out) error {
	code := 0
	if len(body) >= 3 {
		code = int(binary.LittleEndian.Uint16(body[1:]))
	}
	if code == progressCode {
		return nil
	}
	d.sure = true
	d.complete(c.End, outcome{failed: true, code: code}, out)
	return nil
}

// prepared takes the first packet of the answer to COM_STMT_PREPARE.
func (d *decoder) prepared(s *side, ex *exchange, c *probes.Chunk, body []byte, out probes.Out) error {
	if s.first != headOK || len(body) < prepareSize {
		return d.unreadable(s, c, out)
	}
	d.sure = true
	columns, params := binary.LittleEndian.Uint16(body[5:]), binary.LittleEndian.Uint16(body[7:])
	d.session.prepared.add(statement{
		id: binary.LittleEndian.Uint32(body[1:]), params: int(params), statement: ex.statement, cut: ex.cut, digest: ex.digest, change: ex.change,
		executed: d.session.prepared.last.statement == ex.statement && d.session.prepared.last.executed, // in the same run
	})
	a := &d.answer
	a.columns, a.then = uint64(params), uint64(columns)
	if len(body) > prepareSize && body[prepareSize] == 0 { // the client does without definitions
		a.columns, a.then = 0, 0
	}
	if a.columns == 0 {
		a.columns, a.then = a.then, 0
	}
	if a.expects = expectsColumns; a.columns == 0 {
		d.complete(c.End, outcome{}, out)
	}
	return nil
}

// greeted takes the greeting, which is over.
func (d *decoder) greeted(s *side, c *probes.Chunk, out probes.Out) error {
	if s.first == headErr && d.greeting.n == 0 {
		return nil // the server does not want to
	}
	if !d.greeting.whole() {
		d.unsettle()
		return nil
	}
	d.sure = true
	d.phase = answers
	d.session.mariaDB = d.greeting.mariaDB()
	if d.session.mariaDB {
		d.values.isMariaDB()
	}
	d.session.status(d.greeting.status)
	d.login.init(false, 0, false)
	d.sides[d.in].realign()
	return nil
}

// proved takes a packet of the authentication: OK ends it.
func (d *decoder) proved(body []byte) {
	if len(body) == 0 || body[0] != headOK {
		return
	}
	if st, _, ok := parseOK(body); ok {
		d.session.status(st)
	}
	d.session.use(d.session.pending)
	d.track(body)
	d.phase = commands
	d.squeezed = whether(d.caps&(clientCompress|clientZstd) != 0)
	d.sides[d.in].realign()
}

// goesOn is called when the client sends a command: answers to what it has sent before the latest turn are over.
func (d *decoder) goesOn(out probes.Out) {
	s := &d.sides[d.out]
	if s.lost && d.queue.len() > 0 && d.queue.base < d.run {
		d.concludeBefore(d.run, out)
		s.realign()
	}
}

// concludeBefore makes spans of the commands before number n. They are answered, but how was not seen.
func (d *decoder) concludeBefore(n uint64, out probes.Out) {
	for d.queue.len() > 0 && d.queue.base < n {
		a, ex := &d.answer, d.queue.front()
		switch {
		case a.over:
			d.complete(a.overAt, outcome{}, out)
		case a.begun:
			d.complete(a.last, outcome{unknown: true}, out)
		case d.heard > ex.start.time:
			d.complete(d.heard, outcome{unknown: true}, out)
		default:
			d.drop(ledger.Truncated, out)
		}
	}
}

// resync looks for the packet that ends an answer at the end of b, with which a chunk ends, where the decoder is out of step. It
// returns the size of the packet, or 0 if there is none.
func (d *decoder) resync(s *side, c *probes.Chunk, b []byte, out probes.Out) int {
	a, ex := &d.answer, d.queue.front()
	if d.phase != commands || d.squeezed == is || d.queue.len() != 1 || !a.begun || a.expects == expectsFirst ||
		replies[ex.command] == replyPrepared {
		return 0
	}
	e, ok := endingOf(b, d.eof != isNot, d.eof != is)
	if !ok {
		return 0
	}
	rows, counted, ok := d.passed(&e, c.Pos+c.Total-uint64(e.size))
	if !ok {
		return 0
	}
	one := oneResult(ex)
	switch {
	case e.code != 0:
		clear(b[len(b)-e.size+headerSize+errHead:])
		d.complete(c.End, outcome{failed: true, code: int(e.code)}, out)
		return e.size
	case e.eof && a.expects != expectsRows && a.countable && e.seq == a.seq+byte(a.columns):
		d.eof = is
		s.realign()
		a.seq, a.sequenced, a.columns = e.seq+1, true, 0
		d.columnsEnd(ex, e.status, c, out)
		return e.size
	case e.eof && !one || e.eof && a.expects != expectsRows && !a.countable:
		// It may stand behind the columns of another result.
		a.over, a.overAt = e.status&statusMoreResults == 0, c.End
		a.inexact = true
		return e.size
	}
	d.eof = whether(e.eof)
	d.session.status(e.status)
	if counted && one {
		a.rows += rows
	} else {
		a.inexact = true
	}
	if e.status&statusMoreResults != 0 {
		s.realign()
		a.expects, a.seq, a.sequenced = expectsFirst, e.seq+1, true
		return e.size
	}
	body := b[len(b)-e.size+headerSize:]
	d.complete(c.End, outcome{}, out)
	d.track(body)
	return e.size
}

// The least that packets take: a definition is six texts and twelve bytes, a row a byte for each column, or a bit.
const (
	minColumn = headerSize + 22
	minEOF    = headerSize + eofSize
)

// passed says how many rows passed unseen before the packet that ends a result, which lies at a position, and whether that is known:
// packets are numbered, but only up to 256, so no more of them may have had room there. ok is false where the number cannot be.
func (d *decoder) passed(e *ending, at uint64) (rows uint64, counted, ok bool) {
	a, ex := &d.answer, d.queue.front()
	if !a.countable {
		return 0, false, true
	}
	if at < a.lostAt {
		return 0, false, false
	}
	room := at - a.lostAt
	fixed, used := uint64(0), uint64(0)
	if a.expects == expectsColumns {
		fixed, used = a.columns, a.columns*minColumn
	}
	if replies[ex.command] == replyColumns {
		fixed, used = 0, 0
	}
	if a.expects != expectsRows && e.eof && replies[ex.command] != replyColumns {
		if e.seq == a.seq+byte(a.columns) && used <= room {
			return 0, true, true // it is the one behind the columns
		}
		fixed, used = fixed+1, used+minEOF
	}
	row := headerSize + max(a.width, 1)
	if ex.command != comQuery {
		row = headerSize + 1 + (a.width+9)/8
	}
	if replies[ex.command] == replyColumns || replies[ex.command] == replyRows {
		row = headerSize + 1
	}
	if e.code != 0 {
		return 0, false, uint64(e.seq-a.seq) <= room/headerSize
	}
	n := uint64(e.seq - a.seq - byte(fixed)) // rows, or 256 more, or so
	if used+n*row > room {
		return 0, false, false
	}
	return n, used+(n+256)*row > room && d.reports() == isNot, true
}

// reports says whether the server may send reports of progress, which are numbered as well.
func (d *decoder) reports() tristate {
	if d.greeting.whole() && !d.session.mariaDB {
		return isNot
	}
	return d.has(clientProgress | clientProgressOld)
}

// oneResult says whether the statement has one result set and no more.
func oneResult(ex *exchange) bool {
	if replies[ex.command] == replyRows || replies[ex.command] == replyColumns {
		return true
	}
	st := ex.statement
	if st == nil || st.Statements != 1 || ex.cut {
		return false
	}
	operation, _, _ := strings.Cut(st.Operation, " ")
	switch operation {
	case "SELECT", "SHOW", "WITH", "DESCRIBE", "DESC", "EXPLAIN", "TABLE", "VALUES":
		return true
	}
	return false
}
