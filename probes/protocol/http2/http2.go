// SPDX-License-Identifier: Apache-2.0

// Package http2 decodes HTTP/2 and gRPC.
// https://www.rfc-editor.org/rfc/rfc9113
//
// The kernel side leaves out what is of no use here: large DATA frames, or only the payload of those with which a stream ends, and
// frames that are about the connection only. What it leaves out begins and ends where frames do, or lies within one. So where bytes
// are missing and no event was lost, the next ones begin with a frame, unless a DATA frame goes on.
//
// A stream's request and response are put into HTTP/1's words again, and HTTP/1's decoder makes the span. What is gRPC is
// renamed.
package http2

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/trace"
)

// New returns the protocol. http is HTTP/1, which makes the spans.
func New(http probes.Protocol) probes.Protocol {
	return probes.Protocol{
		Name:     "http2",
		Captures: probes.CaptureFrames,
		Detect:   detect,
		New: func(c *probes.Conn, server bool) probes.Decoder {
			d := &decoder{conn: *c, server: server, http: http, in: probes.Ingress, out: probes.Egress, streams: map[uint32]*stream{}}
			if !server {
				d.in, d.out = probes.Egress, probes.Ingress
			}
			d.target, d.base = c, mixed(c.ID)
			d.conn.Established = false // for the decoder of each stream, which sees it from its beginning
			d.take = d.section.take
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
	// maxStrays is how often a side may be lost until a header block shows that it is HTTP/2: of a long body that is read by small
	// pieces, many may look like a frame.
	maxStrays = 1000
	// maxEarly bounds the responses that are told before their requests.
	maxEarly = 64
	// maxFree bounds the streams that are kept for others, maxSpare the bytes of each buffer.
	maxFree  = 16
	maxSpare = 4 << 10
	// largeData is the kernel side's DATA_LARGE: a longer DATA frame may be left out as a whole, if no stream ends with it.
	largeData = 2048
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
	free    []*stream
	last    uint32 // the newest stream that was opened; their numbers grow (RFC 9113, section 5.1.1)
	missed  bool   // events were lost: streams may have been opened that were not seen
	untold  bool   // missed: probes.Chunk.Untold
	mark    uint32 // missed: last, before that
	since   uint64 // missed: how many streams were seen to be opened since
	doubt   uint32 // one that was opened when it was not sure that it is one
	early   int    // streams whose request was not told yet
	adopted bool   // the connection spoke HTTP/1 before
	dead    bool
	grpc    bool              // it was seen to carry gRPC
	base    uint64            // of the streams' ids, by the kernel side
	methods map[uint32]string // of streams, told before their requests
	common  common
	section section      // of the block that is being decoded
	take    func(field)  // adds to it
	head    bytes.Buffer // in HTTP/1's words
}

// side is one direction.
type side struct {
	known  bool
	lossy  bool   // events were lost: if bytes are missing before the next, it is not known what they were
	sure   bool   // a frame begins where one is looked for; else a header block is to show it
	framed bool   // there was a frame
	strays int    // chunks that did not begin with one, since the last header block
	astray bool   // the rest of the chunk is passed over
	gaps   int    // in which there may have been DATA frames
	from   uint64 // where the first byte of HTTP/2 is
	pos    uint64 // of the next byte
	begun  bool   // the preface is over
	have   int    // bytes of the next frame's header
	header [headerSize]byte
	frame  frame  // while some of it is to come
	left   int    // bytes of it to come
	pad    bool   // of which the first is the length of the padding of a DATA frame
	start  start  // where it began
	buf    []byte // the payload of a header block, or of a RST_STREAM frame, so far
	over   bool   // the block is longer than maxBlock, or not all of it was seen
	first  frame  // of the block that is not complete; its stream is 0 if there is none
	origin start  // of the block
	table  table
}

// start is where a frame began.
type start struct {
	pos   uint64
	chunk probes.Chunk // without its bytes
}

func (a *start) set(pos uint64, c *probes.Chunk) {
	a.pos, a.chunk = pos, *c
	a.chunk.Head, a.chunk.Tail = nil, nil
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	if d.dead {
		return probes.ErrNotProtocol
	}
	s := &d.sides[c.Dir]
	s.astray = false
	if c.ID.IsValid() {
		d.base = binary.BigEndian.Uint64(c.ID[:])
	}
	if c.Lost {
		d.lose(c, out)
	}
	switch {
	case !s.known && c.Total > 0:
		s.known, s.pos = true, c.Pos
		first := c.Pos == s.from
		s.sure = first && (!d.target.Established || d.adopted)
		if !first {
			s.lose()
		}
		s.begun = !first || c.Dir == d.out || !startsPreface(c.Head)
	case c.Pos > s.pos && s.lossy:
		s.lose()
		s.pos = c.Pos
	case c.Pos > s.pos:
		d.skip(s, c, c.Pos-s.pos, out)
	}
	s.lossy = s.lossy && c.Total == 0
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	err := d.feed(s, c, head, c.Pos, out)
	if hidden := c.Total - uint64(len(head)+len(tail)); err == nil && hidden > 0 {
		if s.frame.kind == data && hidden <= uint64(s.left) {
			d.skip(s, c, hidden, out)
		} else {
			// The kernel side does not walk the frames yet: any may be in there, and in what it leaves out next.
			d.drop(c.Begin, !d.missed || d.untold, out) // else it is a consequence of that
			s.lose()
			s.lossy = true
			s.pos += hidden
		}
	}
	if err == nil {
		err = d.feed(s, c, tail, c.Pos+c.Total-uint64(len(tail)), out)
	}
	if err != nil {
		clear(tail)
		d.giveUp(out)
	}
	return err
}

// Adopt implements probes.Adopter: the answer comes over stream 1 (RFC 7540, section 3.2).
func (d *decoder) Adopt(old probes.Decoder, pos [2]uint64) {
	d.adopted = true
	for i := range d.sides {
		d.sides[i].from = pos[i]
		d.sides[i].table = newTable(true)
	}
	d.last = 1
	st := d.stream(1)
	st.inner, st.pos, st.asked = old, pos, true
}

func startsPreface(b []byte) bool {
	n := min(len(b), len(preface))
	return string(b[:n]) == string(preface[:n])
}

// skip passes over bytes that were left out.
func (d *decoder) skip(s *side, c *probes.Chunk, n uint64, out probes.Out) {
	s.pos += n
	if s.have > 0 || !s.begun { // the rest of a header, or of the preface: what it was is not known
		s.lose()
		return
	}
	if s.pad {
		s.pad = false
		if st := d.streams[s.frame.stream]; st != nil {
			st.gaps[c.Dir] = -1
		}
	}
	if n < uint64(s.left) {
		s.left -= int(n)
		s.over = true
		return
	}
	if n-uint64(s.left) > largeData {
		s.gaps++
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
		if s.astray {
			clear(b)
			return nil
		}
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
			began, split := pos, s.have > 0
			n := copy(s.header[s.have:], b)
			s.have += n
			b, pos = b[n:], pos+uint64(n)
			if s.have < headerSize {
				if !split {
					s.start.set(began, c)
				}
				return nil
			}
			s.have = 0
			f, ok := parseFrame(s.header[:])
			if !ok || !s.sure && !f.usual() {
				clear(b)
				return d.astray(s, c, out)
			}
			if s.first.stream != 0 && (f.kind != continuation || f.stream != s.first.stream) {
				// RFC 9113, section 6.10: nothing comes between the frames of a block. Some of it was not seen.
				s.over = true
				d.blockEnd(s, c, out)
			}
			s.framed = true
			s.frame, s.left = f, f.length
			switch f.kind {
			case headers, pushPromise:
				s.buf, s.over, s.first = s.buf[:0], false, f
				if !split {
					s.start.set(began, c)
				}
				s.origin = s.start
			case continuation:
				s.over = s.over || s.first.stream == 0
			case rstStream:
				s.buf, s.over = s.buf[:0], false
			case data:
				// The rest of it may pass unseen. It is no longer than what moves at once.
				b = d.dataBegin(s, c, b, out)
				pos = s.pos - uint64(len(b))
			}
			if s.left == 0 {
				d.frameEnd(s, c, out)
			}
			continue
		}
		if s.pad {
			b = d.padding(s, c, b)
			pos++
		}
		n := min(s.left, len(b))
		switch s.frame.kind {
		case headers, continuation, pushPromise, rstStream:
			if len(s.buf)+n > maxBlock {
				s.over = true
			} else if !s.over {
				s.buf = append(s.buf, b[:n]...)
			}
		default:
			clear(b[:n]) // a body, or what nobody here has a use for
		}
		s.left -= n
		b, pos = b[n:], pos+uint64(n)
		if s.left == 0 {
			d.frameEnd(s, c, out)
		}
	}
	return nil
}

// dataBegin takes the header of a DATA frame, and, of what comes behind it, the length of the padding.
func (d *decoder) dataBegin(s *side, c *probes.Chunk, b []byte, out probes.Out) []byte {
	f := s.frame
	st := d.streams[f.stream]
	if st != nil && st.untyped && c.Dir == d.in && st.size[d.in] == 0 && isMessage(f, b) {
		st.grpc, d.grpc = true, true
	}
	if st != nil {
		st.size[c.Dir] += int64(f.length)
	}
	if s.pad = f.flags&padded != 0 && f.length > 0; s.pad && len(b) > 0 {
		b = d.padding(s, c, b)
	}
	if st != nil && f.flags&endStream != 0 {
		if s.pad {
			st.gaps[c.Dir] = -1 // how much of it is a body is not known
		}
		d.ended(st, c, out)
	}
	return b
}

// padding takes the length of a DATA frame's padding off. It stays in the chunk, so that a recording gives the same.
func (d *decoder) padding(s *side, c *probes.Chunk, b []byte) []byte {
	if st := d.streams[s.frame.stream]; st != nil {
		st.size[c.Dir] -= min(1+int64(b[0]), int64(s.frame.length))
	}
	s.pad = false
	s.left--
	return b[1:]
}

// astray is called where no frame begins though one should: the kernel side has lost its way, or it is not HTTP/2. Each chunk is
// taken to begin with a frame, until too many do not.
func (d *decoder) astray(s *side, c *probes.Chunk, out probes.Out) error {
	if s.strays++; s.strays > maxStrays || s.sure && !s.framed {
		return probes.ErrNotProtocol
	}
	d.drop(c.Begin, !d.missed || d.untold, out) // else it is a consequence of that
	s.lose()
	s.astray = true
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
	m := &d.section
	m.reset()
	sure := s.sure
	switch {
	case s.over:
		s.table.stale()
		m.cut = true
	case s.table.decode(s.buf, d.take) != nil:
		s.over, m.cut = true, true
	case len(s.buf) > 0:
		s.strays, s.sure = 0, true
	}
	if cap(s.buf) > maxSpare {
		s.buf = nil
	}
	if s.over && !s.sure { // it may be none
		s.lose()
		return
	}
	f := s.first
	s.first = frame{}
	if f.kind == pushPromise {
		return
	}
	st := d.streams[f.stream]
	end := f.flags&endStream != 0
	switch {
	case c.Dir == d.in && (st == nil || st.early) && f.stream%2 == 1:
		if f.stream <= d.last || f.stream == d.doubt {
			return // the trailers of a request whose response is complete
		}
		d.opened(f.stream, sure)
		st = d.open(f.stream, &s.origin)
		if st == nil {
			return
		}
		d.request(st, m, c, out)
		if end {
			d.ended(st, c, out)
		}
		d.catchUp(st, out)
		return
	case c.Dir == d.out && st == nil && f.stream > d.last && f.stream%2 == 1:
		if d.server || d.early == maxEarly || m.interim() {
			return // to a request that was not seen
		}
		st = d.stream(f.stream)
		st.early = true
		d.early++
		d.response(st, m, c, out)
	case c.Dir == d.out && st != nil && !st.answered && m.interim():
		end = false
	case c.Dir == d.out && st != nil && !st.answered:
		d.response(st, m, c, out)
	case c.Dir == d.out && st != nil:
		st.trailers(m)
	}
	if st != nil && end {
		d.ended(st, c, out)
	}
}

// stream makes a stream.
func (d *decoder) stream(id uint32) *stream {
	var st *stream
	if n := len(d.free); n > 0 {
		st, d.free = d.free[n-1], d.free[:n-1]
	} else {
		st = new(stream)
	}
	st.id = id
	for i := range d.sides {
		st.gaps[i] = d.sides[i].gaps
	}
	d.streams[id] = st
	return st
}

// forget takes a stream away of which the spans are handed over.
func (d *decoder) forget(st *stream) {
	if st.early {
		d.early--
	}
	delete(d.streams, st.id)
	if len(d.free) < maxFree {
		*st = stream{}
		d.free = append(d.free, st)
	}
}

// open makes a stream that begins at a place, or completes one whose response was told before.
func (d *decoder) open(id uint32, at *start) *stream {
	if d.early > 0 {
		for n, st := range d.streams {
			if st.early && n < id { // its request was not seen, or it would have come before this one
				d.forget(st)
			}
		}
	}
	st := d.streams[id]
	if st == nil && len(d.streams) >= maxStreams {
		if t := d.target.Target; t != nil {
			t.Account.Add(ledger.Seen, 1)
			t.Account.Add(ledger.Unparsed, 1)
		}
		return nil
	}
	if st == nil {
		st = d.stream(id)
	}
	d.conn.Target = d.target.Target
	b := &st.begin
	*b = at.chunk
	b.Named, b.Lost, b.Dir, b.Pos = true, false, d.in, 0
	b.ID = mint(d.base, id)
	b.Evidence.Multiplexed = true
	b.Evidence.Seq += uint32(at.pos - at.chunk.Pos)
	return st
}

// opened notes the number of a stream. What is not sure must not have it that all the others are old. Clients count by two: what was
// left out since events were lost is counted as lost.
func (d *decoder) opened(id uint32, sure bool) {
	if d.missed {
		if d.since++; sure {
			if n := uint64(id-d.mark) / 2; d.mark > 0 && id > d.mark && n > d.since && d.target.Target != nil {
				d.target.Target.Account.Add(ledger.Seen, n-d.since)
				d.target.Target.Account.Add((&probes.Chunk{Untold: d.untold}).LossCause(), n-d.since)
			}
			d.missed = false
		}
	}
	switch {
	case sure && id < d.doubt:
		d.last, d.doubt = id, 0
	case sure:
		d.last = id
	case d.doubt < id:
		d.last, d.doubt = max(d.last, d.doubt), id
	default:
		d.doubt = id
	}
}

// catchUp hands over what was told of a stream's response before its request. A client's calls are told when they end, and a thread
// that reads may overtake the one that writes.
func (d *decoder) catchUp(st *stream, out probes.Out) {
	if !st.early {
		return
	}
	st.early = false
	d.early--
	if st.answered {
		d.answer(st, &st.answer, out)
	}
	switch {
	case st.complete:
		d.finish(st, st.overAt, out)
	case st.reset != "":
		d.close(st, probes.Reset, st.overAt, out)
	}
}

// ended is called when a direction of a stream is over.
func (d *decoder) ended(st *stream, c *probes.Chunk, out probes.Out) {
	if c.Dir == d.in {
		st.asked = true
		st.sized[d.in] = st.gaps[d.in] == d.sides[d.in].gaps
		return
	}
	if !st.answered { // DATA without HEADERS: those were not seen
		d.section.reset()
		d.section.cut = true
		d.response(st, &d.section, c, out)
	}
	d.finish(st, c.End, out)
}

// finish ends a stream whose response is complete.
func (d *decoder) finish(st *stream, t int64, out probes.Out) {
	st.complete = true
	st.sized[d.out] = st.gaps[d.out] == d.sides[d.out].gaps
	if st.early {
		st.overAt = t
		return
	}
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
	st.broken = e == probes.Closed && st.answered && !st.complete
	if st.inner != nil {
		st.inner.End(e, t, st.out(out, d.server))
	} else {
		d.end(st, e, t, out)
	}
	d.forget(st)
}

// reset takes the reset of a stream by the side that sent c.
func (d *decoder) reset(st *stream, c *probes.Chunk, code uint32, out probes.Out) {
	if code == 0 && c.Dir == d.out && st.answered { // RFC 9113, section 8.1: the rest of the request is not wanted
		d.finish(st, c.End, out)
		return
	}
	if st.early && st.complete {
		return
	}
	st.resetBy(code, c.End)
	if st.early {
		st.overAt = c.End
		return
	}
	d.close(st, probes.Reset, c.End, out)
}

// lose is called where events were lost, of either side: what became of the streams is not known. A side of which no bytes are
// missing has lost nothing.
func (d *decoder) lose(c *probes.Chunk, out probes.Out) {
	for i := range d.sides {
		d.sides[i].lossy = true
	}
	if !d.missed {
		d.missed, d.mark, d.since = true, max(d.last, d.doubt), 0
	}
	d.untold = c.Untold
	d.drop(c.Begin, c.Untold, out)
}

// lose is called where bytes are missing that may have been any: what comes next is taken to begin with a frame, and the table is
// not known.
func (s *side) lose() {
	s.table.stale()
	s.have, s.left, s.pad, s.begun, s.buf, s.over, s.first = 0, 0, false, true, s.buf[:0], true, frame{}
	s.sure = false
	s.gaps++
}

// drop gives the open streams up; untold as of a chunk.
func (d *decoder) drop(t int64, untold bool, out probes.Out) {
	for _, st := range sorted(d.streams) {
		loss := probes.Chunk{Dir: d.in, Pos: st.pos[d.in], Begin: t, End: t, Lost: true, Untold: untold}
		if st.inner == nil {
			d.giveUpCall(st, loss.LossCause(), out)
			continue
		}
		_ = st.inner.Decode(&loss, st.out(out, d.server))
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

// maxMethods bounds the methods that are told before their requests.
const maxMethods = 256

// Method takes a stream's method, "/pkg.Service/Method", as the process's memory has it.
func (d *decoder) Method(number uint32, method string, out probes.Out) {
	name, ok := strings.CutPrefix(method, "/")
	st := d.streams[number]
	switch {
	case !ok || name == "" || d.dead:
	case st == nil || st.early:
		if number > d.last && len(d.methods) < maxMethods {
			if d.methods == nil {
				d.methods = map[uint32]string{}
			}
			d.methods[number] = name
		}
	case st.method == "" || !st.grpc:
		d.grpc, st.grpc, st.method = true, true, valid(name)
		if st.span != nil {
			st.describe(st.span)
		}
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

// mint names a stream as the kernel side does, which knows its number and the connection's id.
func mint(base uint64, stream uint32) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], mixed(base+uint64(stream)*0x9e3779b97f4a7c15))
	return id
}

// mixed is the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), and never 0.
func mixed(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return max(x^x>>31, 1)
}
