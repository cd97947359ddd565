// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"math"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
)

// show takes captured bytes of a chunk, which lie at s.pos; last says that the chunk ends with them.
func (d *decoder) show(s *side, c *probes.Chunk, b []byte, last bool, out probes.Out) error {
	at := s.pos
	s.pos += uint64(len(b))
	switch {
	case len(b) == 0:
		return nil
	case s.request && d.aside:
		d.wipe(b)
		return nil
	case s.lost && !s.request && last:
		if n := d.resync(s, c, b, out); n > 0 {
			d.wipe(b[:len(b)-n])
			return nil
		}
	}
	if d.squeezed == is && d.phase == commands {
		return d.frames(s, c, b, at, out)
	}
	return d.feed(s, c, b, at, out)
}

// hide passes over n bytes that were not captured.
func (d *decoder) hide(s *side, c *probes.Chunk, n uint64, out probes.Out) error {
	at := s.pos
	s.pos += n
	switch {
	case s.request && d.aside:
		return nil
	case d.squeezed == is && d.phase == commands:
		return d.skipFrames(s, c, n, out)
	}
	return d.skip(s, c, n, at, out)
}

// feed takes bytes of packets, which lie at a position of the stream; or in the frame that began there, all of them.
func (d *decoder) feed(s *side, c *probes.Chunk, b []byte, at uint64, out probes.Out) error {
	step := uint64(1)
	if d.squeezed == is && d.phase == commands {
		step = 0
	}
	for len(b) > 0 {
		if s.lost || s.request && d.aside {
			d.wipe(b)
			return nil
		}
		if s.have < headerSize {
			switch {
			case s.have > 0 || s.more || !s.request:
			case step == 0:
				s.start = s.frame.start
				s.frame.start.index++ // of the next one in it
			default:
				s.start.set(at, c)
			}
			n := copy(s.header[s.have:], b)
			s.have += n
			b, at = b[n:], at+step*uint64(n)
			if s.have < headerSize {
				return nil
			}
			if err := d.header(s, c, out); err != nil {
				d.wipe(b)
				return err
			}
			if s.left > 0 || s.lost {
				continue
			}
			if err := d.packetEnd(s, c, nil, false, out); err != nil {
				d.wipe(b)
				return err
			}
			continue
		}
		n := min(s.left, len(b))
		p := b[:n]
		b, at = b[n:], at+step*uint64(n)
		whole := s.size == 0 && n == s.left && n < maxPayload
		var err error
		if s.request {
			err = d.said(s, c, p, whole, out)
		} else {
			err = d.answered(s, c, p, whole, out)
		}
		if err == nil && !s.lost {
			s.size += uint64(n)
			if s.left -= n; s.left == 0 {
				err = d.packetEnd(s, c, p, whole, out)
			}
		}
		if err != nil {
			d.wipe(b)
			return err
		}
	}
	return nil
}

// header takes the header of a packet, which is complete.
func (d *decoder) header(s *side, c *probes.Chunk, out probes.Out) error {
	before := s.seq
	s.left, s.seq = int(s.header[0])|int(s.header[1])<<8|int(s.header[2])<<16, s.header[3]
	if s.more {
		if s.seq != before+1 && d.squeezed != is {
			return d.stray(s, c, out)
		}
		if !s.request {
			d.answer.seq = s.seq + 1
		}
		return nil
	}
	s.size, s.buf, s.cut, s.told, s.exchange = 0, s.buf[:0], false, false, 0
	if !s.request {
		return d.answerHeader(s, c, out)
	}
	if d.phase == commands {
		if s.seq != 0 || s.left == 0 {
			return d.stray(s, c, out)
		}
		d.goesOn(out)
	}
	return nil
}

// packetEnd is called when a packet has passed. p is all of its payload if whole.
func (d *decoder) packetEnd(s *side, c *probes.Chunk, p []byte, whole bool, out probes.Out) error {
	s.have = 0
	s.more = int(s.header[0])|int(s.header[1])<<8|int(s.header[2])<<16 == maxPayload
	if s.more {
		return nil
	}
	body, cut := s.buf, s.cut || s.size > uint64(len(s.buf))
	if whole {
		body, cut = p, false
		if most := s.most(); len(body) > most {
			body, cut = body[:most], true
		}
	}
	var err error
	if s.request {
		err = d.saidAll(s, c, body, cut, out)
	} else {
		err = d.answeredAll(s, c, body, out)
	}
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	s.told = false
	return err
}

// most is how much of a payload is looked at, in pieces or not.
func (s *side) most() int {
	if s.request {
		return kept(command(s.first))
	}
	return maxAnswer
}

// skip passes over n bytes of packets that were not captured, of which the first is at a position.
func (d *decoder) skip(s *side, c *probes.Chunk, n, at uint64, out probes.Out) error {
	if s.lost || n == 0 || s.request && d.aside {
		return nil
	}
	if s.have == headerSize {
		take := min(n, uint64(s.left))
		if s.size == 0 && !s.more && d.phase == commands { // what it is was not captured
			if !s.request {
				d.answer.seq = s.seq // it is among those that were not seen
			}
			return d.desync(s, c, at-headerSize, true, out)
		}
		d.missed(s)
		s.cut = true
		s.size += take
		s.left -= int(take)
		n, at = n-take, at+take
		if s.request && d.phase == commands && !s.told {
			if err := d.tell(s, c, s.buf, true, out); err != nil || s.lost {
				return err
			}
		}
		if s.left == 0 {
			if err := d.packetEnd(s, c, nil, false, out); err != nil {
				return err
			}
		}
	}
	if n == 0 || s.lost {
		return nil
	}
	return d.desync(s, c, at-uint64(s.have), true, out)
}

// missed is called when a part of a packet was not captured that is taken byte by byte.
func (d *decoder) missed(s *side) {
	switch {
	case d.phase == greets && !s.request:
		d.greeting.after = math.MaxInt32
	case d.phase == answers && s.request, d.phase == commands && s.request && command(s.first) == comChangeUser:
		d.login.missed()
	case d.phase == commands && s.request && (command(s.first) == comQuery || command(s.first) == comStmtExecute):
		d.query.bad = true
	case d.phase == commands && s.request && command(s.first) == comStmtBulkExecute:
		d.bulk.bad = true
	}
}

// desync is called where a packet begins at a position in bytes that were not captured, or somewhere before it; exact: right there.
func (d *decoder) desync(s *side, c *probes.Chunk, at uint64, exact bool, out probes.Out) error {
	more := s.more
	s.reset()
	s.lost = true
	if d.phase != commands {
		d.unsettle()
		return nil
	}
	if s.request {
		if !more {
			d.unseen(c)
		}
		return nil
	}
	a := &d.answer
	a.lostAt, a.countable = at, exact && a.sequenced && d.squeezed != is
	return nil
}

// unsettle is called when something of the handshake was not seen: what the two sides have agreed upon is not known.
func (d *decoder) unsettle() {
	d.phase = commands
	d.capsSet, d.eof, d.squeezed = false, unknown, unknown
	d.session.forget()
	for i := range d.sides {
		d.sides[i].reset()
		d.sides[i].lost = true
	}
}

// reset forgets a packet under way.
func (s *side) reset() {
	s.have, s.left, s.more, s.size, s.buf, s.cut, s.told, s.exchange = 0, 0, false, 0, s.buf[:0], false, false, 0
}

// realign has the next byte be the first of a packet.
func (s *side) realign() {
	s.reset()
	s.lost = false
	s.frame.have, s.frame.left, s.frame.lost = 0, 0, false
}

// resume is called at the beginning of a run of the client's of which it is not known where packets begin: one begins there, if it
// looks like it.
func (d *decoder) resume(s *side, head []byte, total uint64) error {
	if d.phase != commands || d.aside || len(head) == 0 {
		return nil
	}
	switch {
	case d.squeezed != is && beginsCommand(head, total):
		if d.squeezed == unknown && len(head) > headerSize {
			d.squeezed = isNot
		}
	case d.squeezed != isNot && beginsFrame(head, total):
		d.squeezed = is
	case d.sure:
		return nil
	default:
		if d.strays++; d.strays > maxStrays {
			return probes.ErrNotProtocol
		}
		return nil
	}
	s.realign()
	return nil
}

// beginsCommand says whether b, which may be cut off and begins a chunk of total bytes, looks like a command.
func beginsCommand(b []byte, total uint64) bool {
	if len(b) < headerSize || b[3] != 0 {
		return false
	}
	length := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	if len(b) == headerSize {
		return length > 0 && total == headerSize // whoever reads a header first
	}
	if !command(b[headerSize]).fits(int(length)) {
		return false
	}
	switch k := command(b[headerSize]); {
	case k == comQuery || k == comStmtPrepare:
		if text := b[headerSize+1:]; !beginsText(text) {
			return false
		}
	case k == comStmtExecute && len(b) >= headerSize+executeSize && b[headerSize+6] != 1:
		return false
	}
	next := headerSize + length
	return next > total || next+3 >= uint64(len(b)) || length == maxPayload || b[next+3] == 0
}

// beginsText says whether b may be the beginning of a statement, with query attributes or without.
func beginsText(b []byte) bool {
	if len(b) == 0 || len(b) == 1 && b[0] <= maxAttributes || len(b) >= 2 && b[0] <= maxAttributes && b[1] == 1 {
		return true
	}
	switch c := b[0]; {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
	case c == ' ', c == '\t', c == '\n', c == '\r', c == '(', c == '/', c == '-', c == '#', c == '{', c == ';':
	default:
		return false
	}
	return true
}

// beginsFrame says the same of a frame of the compressed protocol.
func beginsFrame(b []byte, total uint64) bool {
	if len(b) < frameSize || b[3] != 0 {
		return false
	}
	length, _, size := parseFrame(b)
	switch {
	case length == 0:
		return false
	case len(b) == frameSize:
		return total == frameSize
	case size == 0:
		return beginsCommand(b[frameSize:], total-frameSize)
	}
	return deflated(b[frameSize:])
}

// stray is called where something else stands than what must.
func (d *decoder) stray(s *side, c *probes.Chunk, out probes.Out) error {
	d.strays++
	if !d.sure || d.strays > maxStrays {
		return probes.ErrNotProtocol
	}
	s.reset()
	s.lost = true
	if d.phase != commands {
		d.unsettle()
	} else if !s.request {
		d.dropAll(ledger.Unparsed, out)
	}
	return nil
}
