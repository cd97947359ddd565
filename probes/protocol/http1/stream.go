// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
)

// state says what the next byte of a stream is.
type state uint8

const (
	skipping    state = iota // unknown; a message may begin at the start of any chunk
	atStart                  // the first of a message
	inHead                   // in a head that began in an earlier chunk
	inLength                 // in a body that ends at stream.until
	inSize                   // in the line with a chunk's size
	inData                   // in a chunk that ends at stream.until
	inDataEnd                // in the line end after a chunk
	inTrailer                // after the last chunk
	toLastChunk              // in a chunked body of which the chunks' bounds were not captured
	toClose                  // in a body whose end cannot be seen
)

const (
	// maxSizeLine bounds the line with a chunk's size and extensions, as net/http does.
	maxSizeLine = 4 << 10
	// maxTrailer bounds what follows the last chunk.
	maxTrailer = maxHead
)

// stream is one direction of a connection.
type stream struct {
	request bool // requests are sent in it
	state   state
	known   bool // a chunk was seen, so pos holds
	unsure  bool // events were lost since the last head: gaps may hide what will be counted elsewhere
	expect  bool // the client waits for an interim response before it sends the body

	pos       uint64 // of the next byte
	until     uint64 // where the body or the chunk ends
	bodyStart uint64

	buf   []byte // the head under way
	line  int    // where its last, incomplete line begins
	begin int64  // when its first byte passed

	acc     uint64 // chunk size under way
	digits  uint8
	ext     bool
	linelen int    // bytes of the line under way
	total   int    // bytes of the trailer
	size    uint64 // sum of chunk sizes
	exact   bool   // all of them were seen
	matched int    // bytes of lastChunk that the stream ends with

	junk     int    // bytes since the last head in which none was found
	exchange uint64 // number of the exchange that the request under way belongs to
}

// skip goes on without knowing what the next byte is.
func (s *stream) skip() {
	s.state = skipping
	s.dropHead()
}

func (s *stream) dropHead() {
	s.line = 0
	if cap(s.buf) > keepHead {
		s.buf = nil
	}
	s.buf = s.buf[:0]
}

func (s *stream) toChunkSize() {
	s.state = inSize
	s.acc, s.digits, s.ext, s.linelen = 0, 0, false, 0
}

// feed takes captured bytes of c that begin at pos. It overwrites those that are of a body.
func (d *decoder) feed(s *stream, c *probes.Chunk, b []byte, pos uint64, out probes.Out) error {
	if pos < s.pos { // reached by Progress already: body
		n := min(uint64(len(b)), s.pos-pos)
		clear(b[:n])
		b = b[n:]
	}
	for len(b) > 0 {
		n := 0
		var err error
		switch s.state {
		case skipping, toLastChunk, toClose:
			if s.pos == c.Pos && d.interrupts(s, b) {
				n, err = d.startMessage(s, c, b, out)
				break
			}
			n = len(b)
			d.body(s, b, c.End, out)
			if s.state == skipping {
				if s.junk += n; s.junk > maxJunk {
					return probes.ErrNotProtocol
				}
			} else if s.state == toLastChunk {
				s.match(b)
				clear(b[:n-min(s.matched, n)])
				break
			}
			clear(b)
		case atStart:
			if b[0] == '\r' || b[0] == '\n' { // RFC 9112, 2.2: empty lines before a request are ignored
				n = 1
				if s.junk++; s.junk > maxJunk {
					return probes.ErrNotProtocol
				}
				break
			}
			n, err = d.startMessage(s, c, b, out)
		case inHead:
			d.alias(s, out)
			n, err = d.continueHead(s, c, b, out)
		case inLength:
			if s.pos == c.Pos && d.replaces(s, b) {
				s.skip()
				n, err = d.startMessage(s, c, b, out)
				break
			}
			n = int(min(uint64(len(b)), s.until-s.pos))
			d.body(s, b[:n], c.End, out)
			clear(b[:n])
		case inData:
			n = int(min(uint64(len(b)), s.until-s.pos))
			d.body(s, b[:n], c.End, out)
			clear(b[:n])
		case inSize, inDataEnd, inTrailer:
			var ok bool
			n, ok = s.chunkLine(b)
			d.body(s, b[:n], c.End, out)
			if !ok {
				s.state = toClose
				s.exact = false
			}
		}
		b = b[n:]
		s.pos += uint64(n)
		if err != nil {
			if _, goesOn := err.(*probes.Upgrade); !goesOn {
				clear(b) // nobody has a use for what follows
			}
			return err
		}
		switch {
		case s.state == inLength && s.pos == s.until:
			d.endMessage(s, c.End, out)
		case s.state == inData && s.pos == s.until:
			s.state = inDataEnd
			s.linelen = 0
		case s.state == inTrailer && s.linelen < 0:
			d.endMessage(s, c.End, out)
		}
	}
	return nil
}

// body takes note of body bytes b, whose call ended at t.
func (d *decoder) body(s *stream, b []byte, t int64, out probes.Out) {
	if len(b) == 0 {
		return
	}
	if s.request {
		d.alias(s, out)
		d.sawBody(s)
	} else {
		d.answer.last = t
	}
}

// gap takes bytes up to position to that were not captured, the last of which passed at t. cause is how
// a message is counted that began in them.
func (d *decoder) gap(s *stream, to uint64, t int64, cause ledger.Entry, out probes.Out) error {
	s.pos = to
	switch s.state {
	case skipping:
	case atStart:
		d.hide(s, cause, out)
	case inHead:
		return d.cutHead(s, to, t, cause, out)
	case inLength:
		d.sawBody(s)
		if to < s.until {
			return nil
		}
		d.endMessage(s, d.estimate(t), out)
		if to > s.until {
			d.hide(s, cause, out)
		}
		return nil
	case inData:
		if to < s.until {
			break
		}
		if to == s.until {
			s.state = inDataEnd
			s.linelen = 0
			break
		}
		s.uncounted()
	case inSize, inDataEnd, inTrailer, toLastChunk:
		s.uncounted()
	case toClose:
	}
	return nil
}

// uncounted goes on in a chunked body after bytes that may have held chunks' sizes.
func (s *stream) uncounted() {
	s.state = toLastChunk
	s.exact = false
	s.matched = 2 // what comes next may be a line's start
}

// hide takes bytes between messages that were not captured: messages may have begun in them.
func (d *decoder) hide(s *stream, cause ledger.Entry, out probes.Out) {
	s.skip()
	if s.unsure {
		return
	}
	if s.request {
		d.hidden = cause
		return
	}
	// Any of the requests may have been answered in there.
	d.dropFrom(0, cause, out)
	d.answer = answer{}
}

// interrupts says whether b, the start of a chunk in a stream whose place is not known, is the start of
// a message.
func (d *decoder) interrupts(s *stream, b []byte) bool {
	if s.request {
		// What the request's body holds must not be taken for another one. But when its response has
		// begun, whose end may have passed unseen, another one is what is to be expected.
		if s.state != skipping && d.exchanges.find(s.exchange) != nil && !d.answers(s.exchange) {
			return false
		}
		if d.name.IsValid() {
			return startsRequest(b)
		}
		// If the first bytes passed in a chunk of their own that was not seen, there is no name.
		return requestLine(b) == probes.Yes && !endsMethod(b)
	}
	if s.state == skipping || !d.answer.bound {
		return statusLine(b) != probes.No
	}
	return d.exchanges.len() > 1 && statusLine(b) == probes.Yes
}

// answers says whether the response under way is that of the exchange with number n.
func (d *decoder) answers(n uint64) bool {
	return d.answer.active && d.answer.bound && n == d.exchanges.base
}

// endless says whether the end of the response under way cannot be seen.
func (d *decoder) endless() bool {
	s := &d.streams[d.out]
	return d.answer.active && d.answer.bound && (s.state == toClose || s.state == toLastChunk)
}

// silent says whether the end of the chunked response under way may have passed without being reported.
func (d *decoder) silent() bool {
	switch d.streams[d.out].state {
	case inSize, inData, inDataEnd, inTrailer:
		return d.answer.active && d.answer.bound && d.answer.chunks > reported
	}
	return false
}

// replaces says whether b, the start of a chunk where a body of known length is expected, is the start of
// another message. That can be in two cases only.
func (d *decoder) replaces(s *stream, b []byte) bool {
	if !s.request {
		// A response whose request is not known may be to a HEAD request, and then it has no body.
		return !d.answer.bound && statusLine(b) == probes.Yes
	}
	// A client that was refused when it asked to send the body need not send it (RFC 9110, 10.1.1).
	return s.expect && s.pos == s.bodyStart && d.exchanges.find(s.exchange) == nil && requestLine(b) == probes.Yes
}

// startMessage takes b, which begins where a message may begin.
func (d *decoder) startMessage(s *stream, c *probes.Chunk, b []byte, out probes.Out) (int, error) {
	if s.request {
		return d.startRequest(s, c, b, out)
	}
	return d.startResponse(s, c, b, out)
}

func (d *decoder) startRequest(s *stream, c *probes.Chunk, b []byte, out probes.Out) (int, error) {
	n, v := d.req.parse(b[:min(len(b), maxHead)])
	if v == probes.No {
		return d.notMessage(s, b)
	}
	ex := d.begin(s, c, out)
	if v == probes.Yes || len(b) >= maxHead {
		truncated := v != probes.Yes
		if truncated {
			n = maxHead
		}
		d.requestHead(s, ex, truncated, s.pos+uint64(n))
		out.Span(ex.span)
		return n, d.opened(ex, out)
	}
	s.state = inHead
	s.buf = append(s.buf[:0], b...)
	s.line = lastLine(b, 0)
	// A request must be known as early as its name, which calls may already carry as their cause.
	out.Span(ex.span)
	d.req = request{}
	return len(b), nil
}

func (d *decoder) startResponse(s *stream, c *probes.Chunk, b []byte, out probes.Out) (int, error) {
	n, v := d.rsp.parse(b[:min(len(b), maxHead)])
	if v == probes.No {
		return d.notMessage(s, b)
	}
	if d.answer.active && (s.state == toClose || s.state == toLastChunk) {
		d.endMessage(s, d.answer.last, out)
	}
	s.begin = c.Begin
	if v == probes.Yes || len(b) >= maxHead {
		truncated := v != probes.Yes
		if truncated {
			n = maxHead
		}
		return n, d.responseHead(s, truncated, s.pos+uint64(n), c.End, out)
	}
	s.state = inHead
	s.buf = append(s.buf[:0], b...)
	s.line = lastLine(b, 0)
	return len(b), nil
}

// notMessage takes bytes that begin where a message should but are none.
func (d *decoder) notMessage(s *stream, b []byte) (int, error) {
	s.skip()
	clear(b)
	if s.junk += len(b); s.junk > maxJunk {
		return len(b), probes.ErrNotProtocol
	}
	return len(b), nil
}

// continueHead takes more bytes of a head that began in an earlier chunk.
func (d *decoder) continueHead(s *stream, c *probes.Chunk, b []byte, out probes.Out) (int, error) {
	old := len(s.buf)
	n := min(len(b), maxHead-old)
	// The first line may show that this is no head at all.
	first := s.line == 0
	s.buf = append(s.buf, b[:n]...)
	end := headEnd(s.buf, &s.line)
	if first && (s.line > 0 || old < 64) && d.lineVerdict(s) == probes.No {
		return d.notHead(s, b, out)
	}
	truncated := end < 0 && len(s.buf) == maxHead
	if end < 0 && !truncated {
		return n, nil
	}
	if end >= 0 {
		n = end - old
	}
	return n, d.takeHead(s, truncated, s.pos+uint64(n), c.End, out)
}

// lineVerdict looks at the first line of the head under way.
func (d *decoder) lineVerdict(s *stream) probes.Verdict {
	if s.request {
		return requestLine(s.buf)
	}
	return statusLine(s.buf)
}

// notHead takes what began like a head and is none.
func (d *decoder) notHead(s *stream, b []byte, out probes.Out) (int, error) {
	if s.request {
		d.dropNewest(s, ledger.Unparsed, out)
	}
	return d.notMessage(s, b)
}

// takeHead takes the head in s.buf, complete or truncated, whose last byte passed at t and which ends at
// pos.
func (d *decoder) takeHead(s *stream, truncated bool, pos uint64, t int64, out probes.Out) error {
	defer s.dropHead()
	if !s.request {
		d.rsp.parse(s.buf)
		return d.responseHead(s, truncated, pos, t, out)
	}
	d.req.parse(s.buf)
	ex := d.exchanges.find(s.exchange)
	d.requestHead(s, ex, truncated, pos)
	if ex == nil {
		return nil
	}
	return d.opened(ex, out)
}

// cutHead takes the end of what is captured of the head under way; it went on to position pos or beyond.
func (d *decoder) cutHead(s *stream, pos uint64, t int64, cause ledger.Entry, out probes.Out) error {
	if !s.request {
		if statusLine(s.buf) != probes.Yes {
			d.hide(s, cause, out)
			return nil
		}
		return d.takeHead(s, true, pos, t, out)
	}
	d.req.parse(s.buf)
	if d.req.method != nil {
		return d.takeHead(s, true, pos, t, out)
	}
	d.dropNewest(s, cause, out)
	s.skip()
	return nil
}

// dropNewest gives up the exchange whose request's head is under way in s.
func (d *decoder) dropNewest(s *stream, cause ledger.Entry, out probes.Out) {
	if d.exchanges.find(s.exchange) == nil {
		return
	}
	d.dropFrom(d.exchanges.len()-1, cause, out)
	d.answer.bound = d.answer.bound && d.exchanges.len() > 0
}

// chunkLine takes bytes of a chunked body that are not data, up to the next data. It returns how many,
// and false if they are not what they should be.
func (s *stream) chunkLine(b []byte) (int, bool) {
	for i, c := range b {
		switch s.state {
		case inSize:
			if s.linelen++; s.linelen > maxSizeLine {
				return i, false
			}
			switch v := hexValue[c]; {
			case c == '\n':
				switch {
				case s.digits == 0:
					return i, false
				case s.acc == 0:
					s.state = inTrailer
					s.linelen, s.total = 0, 0
				default:
					s.until = s.pos + uint64(i) + 1 + s.acc
					s.size += s.acc
					s.state = inData
					return i + 1, true
				}
			case s.ext, c == '\r':
			case v != noHex:
				// 15 digits keep sums of sizes and positions far from overflow.
				if s.digits++; s.digits > 15 {
					return i, false
				}
				s.acc = s.acc<<4 | uint64(v)
			case s.digits > 0 && (c == ';' || c == ' ' || c == '\t'):
				s.ext = true
			default:
				return i, false
			}
		case inDataEnd:
			switch {
			case c == '\r' && s.linelen == 0:
				s.linelen = 1
			case c == '\n':
				s.toChunkSize()
			default:
				return i, false
			}
		case inTrailer:
			if s.total++; s.total > maxTrailer {
				return i, false
			}
			switch c {
			case '\n':
				if s.linelen == 0 {
					s.linelen = -1 // the end
					return i + 1, true
				}
				s.linelen = 0
			case '\r':
			default:
				s.linelen++
			}
		}
	}
	return len(b), true
}

// lastChunk is how a chunked body without trailers ends.
var lastChunk = []byte("\r\n0\r\n\r\n")

// lastChunkBack is, for each number of matched bytes, how many of lastChunk's first bytes they also end
// with (the failure function of Knuth, Morris and Pratt).
var lastChunkBack = [...]int{0, 0, 0, 0, 1, 2, 1, 2}

// match counts how much of lastChunk the stream ends with after b.
func (s *stream) match(b []byte) {
	if len(b) > len(lastChunk) {
		b = b[len(b)-len(lastChunk):]
		s.matched = 0
	}
	for _, c := range b {
		for {
			if s.matched < len(lastChunk) && c == lastChunk[s.matched] {
				s.matched++
				break
			}
			if s.matched == 0 {
				break
			}
			s.matched = lastChunkBack[s.matched]
		}
	}
}

// lastLine returns where the last, incomplete line of b begins, given that it is not before from.
func lastLine(b []byte, from int) int {
	if i := bytes.LastIndexByte(b[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	return from
}

// headEnd returns the length of the head in b, or -1 if it is not complete. *line is where the first line
// begins that was not looked at; it is moved on.
func headEnd(b []byte, line *int) int {
	for {
		i := bytes.IndexByte(b[*line:], '\n')
		if i < 0 {
			return -1
		}
		empty := *line > 0 && (i == 0 || i == 1 && b[*line] == '\r')
		*line += i + 1
		if empty {
			return *line
		}
	}
}
