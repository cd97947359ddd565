// SPDX-License-Identifier: Apache-2.0

// Package http2 decodes HTTP/2 and gRPC.
// https://www.rfc-editor.org/rfc/rfc9113
//
// The kernel side leaves out what is of no use here: the payload of large DATA frames, and frames that are about the connection
// only. What it leaves out begins and ends where frames do, or lies within one. So where bytes are missing and no event was lost,
// the next ones begin with a frame, unless a DATA frame goes on.
//
// A stream's request and response are put into HTTP/1's words again, and HTTP/1's decoder makes the span. What is gRPC is
// renamed.
package http2

import (
	"math"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/trace"
)

// New returns the protocol. http is HTTP/1, which makes the spans.
func New(http probes.Protocol) probes.Protocol {
	return probes.Protocol{
		Name:   "http2",
		Framed: true,
		Detect: detect,
		New: func(c *probes.Conn, server bool) probes.Decoder {
			d := &decoder{conn: *c, server: server, http: http, in: probes.Ingress, out: probes.Egress, streams: map[uint32]*stream{}}
			if !server {
				d.in, d.out = probes.Egress, probes.Ingress
			}
			d.target = c
			d.conn.Established = false // for the decoder of each stream, which sees it from its beginning
			for i := range d.sides {
				d.sides[i].table = newTable(!c.Established)
			}
			return d
		},
	}
}

const (
	// maxBlock bounds a header block that is put together from several frames: servers refuse longer ones (Go 1 MiB, nginx 32 KiB).
	maxBlock = 64 << 10
	// maxStreams bounds the streams that are open at once. Servers allow some hundred.
	maxStreams = 4096
)

// decoder follows one connection.
type decoder struct {
	conn    probes.Conn
	target  *probes.Conn // whose process may change
	server  bool
	http    probes.Protocol
	in, out probes.Direction
	sides   [2]side // by probes.Direction
	streams map[uint32]*stream
	dead    bool
	grpc    bool // it was seen to carry gRPC
	common  common
}

// side is one direction.
type side struct {
	known  bool
	pos    uint64 // of the next byte
	begun  bool   // the preface is over
	have   int    // bytes of the next frame's header
	header [headerSize]byte
	frame  frame  // while some of it is to come
	left   int    // bytes of it to come
	start  start  // where it began
	buf    []byte // the payload of a header block, or of a RST_STREAM frame, so far
	over   bool   // the block is longer than maxBlock, or not all of it was seen
	first  frame
	origin start // of the block
	table  table
}

// start is where a frame began.
type start struct {
	pos   uint64
	chunk probes.Chunk // without its bytes
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	if d.dead {
		return probes.ErrNotProtocol
	}
	s := &d.sides[c.Dir]
	if c.Lost {
		d.lose(c.Begin, out)
	}
	if !s.known && c.Total > 0 {
		s.known, s.pos = true, c.Pos
		s.begun = c.Pos != 0 || c.Dir == d.out || !startsPreface(c.Head)
	}
	if c.Pos > s.pos {
		d.skip(s, c, c.Pos-s.pos, out)
	}
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	err := d.feed(s, c, head, c.Pos, out)
	if err == nil {
		if hidden := c.Total - uint64(len(head)+len(tail)); hidden > 0 {
			d.skip(s, c, hidden, out)
		}
		err = d.feed(s, c, tail, c.Pos+c.Total-uint64(len(tail)), out)
	}
	if err != nil {
		d.giveUp(out)
	}
	return err
}

func startsPreface(b []byte) bool {
	n := min(len(b), len(preface))
	return string(b[:n]) == string(preface[:n])
}

// skip passes over bytes that were left out.
func (d *decoder) skip(s *side, c *probes.Chunk, n uint64, out probes.Out) {
	s.pos += n
	if s.have > 0 && s.have < headerSize { // its rest was left out: what frame it was is not known
		s.have, s.left = 0, 0
		return
	}
	if n < uint64(s.left) {
		s.left -= int(n)
		s.over = true
		return
	}
	if s.left > 0 {
		s.over = true
		s.left = 0
		d.frameEnd(s, c, out)
	}
}

// feed takes captured bytes, of which the first is at pos.
func (d *decoder) feed(s *side, c *probes.Chunk, b []byte, pos uint64, out probes.Out) error {
	s.pos = pos + uint64(len(b))
	for len(b) > 0 {
		if !s.begun {
			n := min(len(b), len(preface)-s.have)
			s.have += n
			b, pos = b[n:], pos+uint64(n)
			if s.have == len(preface) {
				s.begun, s.have = true, 0
			}
			continue
		}
		if s.left == 0 {
			if s.have == 0 {
				s.start = start{pos, *c}
				s.start.chunk.Head, s.start.chunk.Tail = nil, nil
			}
			n := copy(s.header[s.have:], b)
			s.have += n
			b, pos = b[n:], pos+uint64(n)
			if s.have < headerSize {
				return nil
			}
			s.have = 0
			f, ok := parseFrame(s.header[:])
			if !ok {
				return probes.ErrNotProtocol
			}
			s.frame, s.left = f, f.length
			switch f.kind {
			case headers, pushPromise:
				s.buf, s.over, s.first, s.origin = s.buf[:0], false, f, s.start
			case rstStream:
				s.buf, s.over = s.buf[:0], false
			}
			if f.kind == data {
				// The rest of it may pass unseen. It is no longer than what moves at once.
				if st := d.streams[f.stream]; st != nil {
					st.size[c.Dir] += int64(f.length)
					if f.flags&endStream != 0 {
						d.ended(st, c, out)
					}
				}
			}
			if s.left == 0 {
				d.frameEnd(s, c, out)
			}
			continue
		}
		n := min(s.left, len(b))
		switch s.frame.kind {
		case headers, continuation, pushPromise, rstStream:
			if len(s.buf)+n > maxBlock {
				s.over = true
			} else if !s.over {
				s.buf = append(s.buf, b[:n]...)
			}
		case data:
			clear(b[:n])
		}
		s.left -= n
		b, pos = b[n:], pos+uint64(n)
		if s.left == 0 {
			d.frameEnd(s, c, out)
		}
	}
	return nil
}

// frameEnd is called when a frame is over.
func (d *decoder) frameEnd(s *side, c *probes.Chunk, out probes.Out) {
	f := s.frame
	switch f.kind {
	case headers, pushPromise, continuation:
		if f.kind != continuation {
			if b, ok := f.unwrap(s.buf); ok {
				s.buf = append(s.buf[:0], b...)
			} else {
				s.over = true
			}
		}
		if f.flags&endHeaders != 0 {
			d.blockEnd(s, c, out)
		}
	case rstStream:
		if st := d.streams[f.stream]; st != nil && len(s.buf) == 4 {
			b := s.buf
			d.reset(st, c, uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3]), out)
		}
	}
}

// blockEnd is called when a header block is complete.
func (d *decoder) blockEnd(s *side, c *probes.Chunk, out probes.Out) {
	var m block
	if s.over {
		s.table.stale()
		m.cut = true
	} else if s.table.decode(s.buf, m.take) != nil {
		m.cut = true
	}
	if cap(s.buf) > 4<<10 {
		s.buf = nil
	}
	f := s.first
	if f.kind == pushPromise {
		return
	}
	st := d.streams[f.stream]
	end := f.flags&endStream != 0
	switch {
	case c.Dir == d.in && st == nil && f.stream%2 == 1:
		st = d.open(f.stream, &s.origin, out)
		if st == nil {
			return
		}
		d.request(st, &m, c, out)
	case c.Dir == d.out && st != nil && !st.answered && m.interim():
		end = false
	case c.Dir == d.out && st != nil && !st.answered:
		d.response(st, &m, c, out)
	case c.Dir == d.out && st != nil:
		st.trailers(&m)
	}
	if st != nil && end {
		d.ended(st, c, out)
	}
}

// open makes a stream that begins at a place.
func (d *decoder) open(id uint32, at *start, out probes.Out) *stream {
	if len(d.streams) >= maxStreams {
		if t := d.target.Target; t != nil {
			t.Account.Add(ledger.Seen, 1)
			t.Account.Add(ledger.Unparsed, 1)
		}
		return nil
	}
	d.conn.Target = d.target.Target
	st := &stream{id: id, begin: at.chunk}
	st.begin.Named, st.begin.Lost, st.begin.Dir, st.begin.Pos = true, false, d.in, 0
	st.begin.ID = mint(d.conn.ID, id)
	st.begin.Evidence.Multiplexed = true
	st.begin.Evidence.Seq += uint32(at.pos - at.chunk.Pos)
	d.streams[id] = st
	return st
}

// ended is called when a direction of a stream is over.
func (d *decoder) ended(st *stream, c *probes.Chunk, out probes.Out) {
	if c.Dir == d.in {
		st.asked = true
		return
	}
	if !st.answered { // DATA without HEADERS: those were not seen
		d.response(st, &block{cut: true}, c, out)
	}
	d.finish(st, c.End, out)
}

// finish ends a stream whose response is complete.
func (d *decoder) finish(st *stream, t int64, out probes.Out) {
	st.complete = true
	e := probes.PeerClosed
	if d.server {
		e = probes.LocalClosed
	}
	if st.inner != nil {
		st.inner.End(e, t, st.out(out, d.server))
	}
	d.close(st, probes.Closed, t, out)
}

// close ends what is left of a stream.
func (d *decoder) close(st *stream, e probes.End, t int64, out probes.Out) {
	if st.inner != nil {
		st.inner.End(e, t, st.out(out, d.server))
	} else {
		d.end(st, e, t, out)
	}
	delete(d.streams, st.id)
}

// reset takes the reset of a stream by the side that sent c.
func (d *decoder) reset(st *stream, c *probes.Chunk, code uint32, out probes.Out) {
	if code == 0 && c.Dir == d.out && st.answered { // RFC 9113, section 8.1: the rest of the request is not wanted
		d.finish(st, c.End, out)
		return
	}
	st.resetBy(code, c.End)
	d.close(st, probes.Reset, c.End, out)
}

// lose is called where events were lost: what was sent by either side is not known, nor where the tables are.
func (d *decoder) lose(t int64, out probes.Out) {
	for i := range d.sides {
		s := &d.sides[i]
		s.table.stale()
		s.have, s.left, s.begun, s.buf, s.over = 0, 0, true, s.buf[:0], true
	}
	for _, st := range sorted(d.streams) {
		if st.inner == nil {
			d.drop(st, ledger.RingFull, out)
			continue
		}
		_ = st.inner.Decode(&probes.Chunk{Dir: d.in, Pos: st.pos[d.in], Begin: t, End: t, Lost: true}, st.out(out, d.server))
		d.close(st, probes.Closed, t, out)
	}
}

// giveUp is called when the connection turns out not to be HTTP/2.
func (d *decoder) giveUp(out probes.Out) {
	d.dead = true
	for _, st := range sorted(d.streams) {
		d.close(st, probes.Stopped, math.MinInt64, out)
	}
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	if e < probes.Closed && (e == probes.PeerClosed) == d.server {
		return // the side that asks may stop to
	}
	for _, st := range sorted(d.streams) {
		d.close(st, max(e, probes.Closed), t, out)
	}
	d.dead = d.dead || e >= probes.Closed
}

// Waiting implements probes.Decoder: what ends a response is a flag of a frame.
func (d *decoder) Waiting() (probes.Direction, uint64, bool) { return d.out, 0, false }

// Progress implements probes.Decoder.
func (d *decoder) Progress(probes.Direction, uint64, int64, probes.Out) {}

// mint names a stream. Replays must give the same name.
func mint(conn uint64, stream uint32) trace.SpanID {
	x := mix(mix(conn) ^ uint64(stream)<<32)
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
