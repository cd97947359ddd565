// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"

	"breadcrumb/probes"
)

// side is one direction: messages, one after the other.
type side struct {
	request bool
	known   bool
	pos     uint64 // of the next byte
	lost    bool   // where the next message begins is not known
	fresh   bool   // the next chunk begins with a message, if bytes are missing before it
	header  [startHeaderSize]byte
	have    int // bytes of it
	kind    byte
	left    int // bytes of the body to come
	size    int // that have passed
	buf     []byte
	cut     bool // not all of the body was captured
	told    bool // it is dealt with, though not all of it has passed
	zeros   int  // of what ends strings in the body, so far
	errs    errorScan
	began   start
	match   []byte // lost: what the stream ends with, if an answer may end so
}

// align has the next byte be the first of a message.
func (s *side) align() {
	s.lost, s.have, s.left, s.match = false, 0, 0, s.match[:0]
}

// feed takes captured bytes.
func (d *decoder) feed(s *side, c *probes.Chunk, b []byte, out probes.Out) error {
	for len(b) > 0 {
		if s.lost {
			s.pos += uint64(len(b))
			d.adrift(s, c, b, out)
			return nil
		}
		if !s.request && d.offered {
			d.offered = false
			switch b[0] {
			case 'S', 'G':
				clear(b[1:])
				return probes.ErrUpgraded
			case 'N':
				b = b[1:]
				s.pos++
				continue
			}
		}
		if s.left == 0 {
			if s.have == 0 && s.request {
				s.began = start{s.pos, c.Begin, c.Evidence}
				if c.Evidence.HasSeq {
					s.began.evidence.Seq += uint32(s.pos - c.Pos)
				}
			}
			size := headerSize
			if s.request && d.starting {
				size = startHeaderSize
			}
			n := copy(s.header[s.have:size], b)
			s.have += n
			s.pos += uint64(n)
			b = b[n:]
			if s.have < size {
				return nil
			}
			if ok, err := d.begin(s, c, out); !ok {
				clear(b)
				s.pos += uint64(len(b))
				return err
			}
			if s.left > 0 {
				continue
			}
			if err := d.end(s, c, nil, out); err != nil {
				clear(b)
				return err
			}
			continue
		}
		n := min(s.left, len(b))
		p := b[:n]
		b = b[n:]
		s.pos += uint64(n)
		whole := s.size == 0 && n == s.left
		if s.request {
			s.says(p, whole)
		} else {
			s.answers(p, whole)
		}
		s.size += n
		if s.left -= n; s.left > 0 {
			return nil
		}
		body := s.buf
		if whole {
			body = p
		}
		if err := d.end(s, c, body, out); err != nil {
			clear(b)
			return err
		}
	}
	return nil
}

// begin takes a message's header; false: there is no message.
func (d *decoder) begin(s *side, c *probes.Chunk, out probes.Out) (ok bool, err error) {
	s.size, s.buf, s.cut, s.told, s.zeros, s.errs = 0, s.buf[:0], false, false, 0, errorScan{}
	if s.request && d.starting {
		if _, ok := parseStart(s.header[:]); !ok {
			return false, probes.ErrNotProtocol
		}
		s.kind = 0
		s.left = int(binary.BigEndian.Uint32(s.header[:])) - startHeaderSize
		return true, nil
	}
	s.kind = s.header[0]
	n := binary.BigEndian.Uint32(s.header[1:])
	sizes := &answered
	if s.request {
		sizes = &said
	}
	if sizes[s.kind].most == 0 || !sizes[s.kind].fits(n) {
		return false, d.stray(s, c, out)
	}
	s.left = int(n) - 4
	if s.request {
		d.asking(s, c, out)
	} else {
		d.answering(s, c, out)
	}
	return true, nil
}

// end is called when all of a message has passed, of which body is what is kept.
func (d *decoder) end(s *side, c *probes.Chunk, body []byte, out probes.Out) error {
	s.have = 0
	var err error
	if s.request {
		err = d.said(s, body, out)
	} else {
		err = d.answer(s, c, body, out)
	}
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	return err
}

// hide passes over n bytes that were not captured.
func (d *decoder) hide(s *side, c *probes.Chunk, n uint64, out probes.Out) error {
	s.pos += n
	if s.lost {
		d.adrift(s, c, nil, out)
		return nil
	}
	if take := min(n, uint64(s.left)); take > 0 {
		s.cut = true
		s.size += int(take)
		s.left -= int(take)
		n -= take
		if s.request && !s.told {
			d.tell(s, s.buf, out)
		}
		if s.left == 0 {
			if err := d.end(s, c, s.buf, out); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		return nil
	}
	d.desync(s, c, out)
	return nil
}

// desync is called where a message begins in bytes that were not captured.
func (d *decoder) desync(s *side, c *probes.Chunk, out probes.Out) {
	s.lost, s.have, s.left, s.match = true, 0, 0, s.match[:0]
	if s.request {
		d.starting = false
		if d.over {
			d.session.missed()
			d.pending = unit{}
		} else {
			d.miss(c, out)
		}
		return
	}
	d.session.modes.Unsure = true // it may have been changed
	d.doubts(out)
	d.adrift(s, c, nil, out)
}

// stray is called where something else stands than what must.
func (d *decoder) stray(s *side, c *probes.Chunk, out probes.Out) error {
	if d.strays++; d.strays > maxStrays || d.strays > maxDoubts && !d.sure {
		return probes.ErrNotProtocol
	}
	d.desync(s, c, out)
	return nil
}
