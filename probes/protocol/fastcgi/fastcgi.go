// SPDX-License-Identifier: Apache-2.0

// Package fastcgi decodes FastCGI 1.0, by which web servers ask PHP-FPM and others.
// https://fastcgi-archives.github.io/FastCGI_Specification.html
//
// What it carries is HTTP, in other words: a request's fields as parameters (RFC 3875, section 4.1), a response with a Status
// field instead of a status line (section 6). So each request is put into HTTP/1's words again, and HTTP/1's decoder makes
// the span.
package fastcgi

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxParams bounds what is put together of a request's parameters, and maxHead of a response's head. Web servers send some
// hundred bytes to a few KiB.
const (
	maxParams = 64 << 10
	maxHead   = 16 << 10
)

// New returns the protocol. http is HTTP/1, which makes the spans.
func New(http probes.Protocol) probes.Protocol {
	return probes.Protocol{
		Name:   "fastcgi",
		Detect: func(_ probes.Direction, head []byte) (probes.Verdict, bool) { return begins(head), true },
		New: func(c *probes.Conn, server bool) probes.Decoder {
			d := &decoder{of: c, conn: *c, server: server, http: http, in: probes.Ingress, out: probes.Egress}
			if !server {
				d.in, d.out = probes.Egress, probes.Ingress
			}
			d.conn.Established = false // for the decoder of each request, which sees it from its beginning
			d.streams[d.out].lost = c.Established
			d.streams[d.in].lost = c.Established
			return d
		},
	}
}

// decoder follows one connection, on which one request is under way at a time: nginx, Apache and PHP-FPM know no more.
type decoder struct {
	of      *probes.Conn
	conn    probes.Conn // the same, as the decoder of a request sees it
	server  bool
	http    probes.Protocol
	in, out probes.Direction
	streams [2]stream // by probes.Direction
	request *request  // under way; nil: none
}

// stream is one direction: records, one after the other.
type stream struct {
	known  bool
	pos    uint64 // of the next byte
	header [headerSize]byte
	have   int          // bytes of the header
	first  probes.Chunk // in which the first of them passed, without its bytes; of requests only
	at     uint64       // the position of that
	record record       // when they are all there
	left   int          // of its content
	pad    int          // of what follows that
	lost   bool         // where the next record begins is not known
}

// request is one that is under way, and its response.
type request struct {
	id     uint16
	begin  probes.Chunk // in which it began
	inner  probes.Decoder
	span   *span.Span // while it is open
	told   bool       // HTTP/1's decoder has it
	params []byte     // so far
	cut    bool       // some of them were not captured
	head   []byte     // of the response, so far
	pos    [2]uint64
	body   uint64 // bytes of the request's that are to come
	seen   bool   // some of the response is
	headed bool   // its head is told
	done   bool   // its span is made, or lost: HTTP/1's decoder is told no more
	last   int64  // when the last of the response passed
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	err := d.take(c, out)
	if err != nil {
		clear(c.Tail)
		d.lose(ledger.Unparsed, out)
	}
	return err
}

// take follows a direction through the bytes of c.
func (d *decoder) take(c *probes.Chunk, out probes.Out) error {
	s := &d.streams[c.Dir]
	if c.Lost {
		for i := range d.streams {
			d.streams[i].lost = true
		}
		d.lose(c.LossCause(), out)
	}
	if !s.known && c.Total > 0 {
		s.known, s.pos = true, c.Pos
		s.lost = s.lost || c.Pos != 0
	}
	if c.Pos > s.pos {
		d.skip(s, c, c.Pos-s.pos, out)
	}
	head := c.Head[:min(uint64(len(c.Head)), c.Total)]
	if s.lost && d.resumes(c, head) {
		*s = stream{known: true, pos: c.Pos}
	}
	s.pos = c.Pos
	named := c.Named && c.Dir == d.in && (s.lost || s.have > 0 || begins(head) == probes.No)
	if err := d.feed(s, c, head, out); err != nil {
		return err
	}
	if r := d.request; named && r != nil && r.span != nil && r.begin.Pos < c.Pos {
		out.Alias(c.ID, r.span) // the rest of a request, after a part of its response, was taken for a new one
	}
	tail := c.Tail[:min(uint64(len(c.Tail)), c.Total-uint64(len(head)))]
	if hidden := c.Total - uint64(len(head)+len(tail)); hidden > 0 {
		d.skip(s, c, hidden, out)
	}
	return d.feed(s, c, tail, out)
}

// resumes says that a record begins with the chunk, in a direction of which it is not known where they do.
func (d *decoder) resumes(c *probes.Chunk, head []byte) bool {
	if c.Dir == d.in {
		return begins(head) == probes.Yes
	}
	if len(head) < headerSize || d.request == nil {
		return false
	}
	r, ok := parseHeader(head)
	return ok && r.id == d.request.id && (r.kind == stdout || r.kind == stderr || r.kind == endRequest) && head[7] == 0
}

// skip passes over bytes that were not captured.
func (d *decoder) skip(s *stream, c *probes.Chunk, n uint64, out probes.Out) {
	s.pos += n
	if s.lost {
		d.missed(s, c, out)
		return
	}
	if s.have < headerSize {
		d.desync(s, c, n, out)
		return
	}
	content := min(n, uint64(s.left))
	s.left -= int(content)
	if content > 0 {
		d.unseen(s, c, content, out)
	}
	n -= content
	pad := min(n, uint64(s.pad))
	s.pad -= int(pad)
	if n -= pad; s.left == 0 && s.pad == 0 {
		d.complete(s, c, out)
	}
	if n > 0 {
		d.desync(s, c, n, out)
	}
}

// desync is called when n bytes passed unseen in which at least one record begins. A response's last one has a known length.
func (d *decoder) desync(s *stream, c *probes.Chunk, n uint64, out probes.Out) {
	r := d.request
	rest := c.Pos + c.Total - s.pos
	if c.Dir == d.out && r != nil && r.headed && s.have == 0 && n >= headerSize && n+rest == endSize && rest <= uint64(len(c.Tail)) {
		s.have, s.record, s.left, s.pad = headerSize, record{kind: endRequest, id: r.id}, int(rest), 0
		if rest == 0 {
			d.complete(s, c, out)
		}
		return
	}
	s.lost = true
	if c.Dir == d.in && r != nil && !r.told {
		r.cut = true
		d.tell(c, out)
	}
	d.missed(s, c, out)
}

// missed is called for bytes of which it is not known what they are. A response's head may have been in them, so none is looked for
// in what follows. But what passed before its first chunk is the rest of the response before: the kernel side tells heads.
func (d *decoder) missed(s *stream, c *probes.Chunk, out probes.Out) {
	if r := d.request; r != nil && c.Dir == d.out && (r.seen || s.pos > c.Pos) {
		d.answered(c, true, out)
		r.last = c.End
	}
}

// feed takes captured bytes.
func (d *decoder) feed(s *stream, c *probes.Chunk, b []byte, out probes.Out) error {
	if s.lost {
		clear(b)
		s.pos += uint64(len(b))
		if len(b) > 0 {
			d.missed(s, c, out)
		}
		return nil
	}
	if r := d.request; r != nil && c.Dir == d.out && len(b) > 0 {
		r.seen = true
	}
	for len(b) > 0 {
		if s.have < headerSize {
			if s.have == 0 && c.Dir == d.in {
				s.first, s.at = *c, s.pos
				s.first.Head, s.first.Tail = nil, nil
			}
			n := copy(s.header[s.have:], b)
			s.have += n
			s.pos += uint64(n)
			if s.have < headerSize {
				return nil
			}
			var ok bool
			if s.record, ok = parseHeader(s.header[:]); !ok {
				clear(b) // nobody has a use for what follows
				return probes.ErrNotProtocol
			}
			b = b[n:]
			s.left, s.pad = s.record.length, s.record.padding
			if err := d.header(s, c, out); err != nil {
				clear(b[min(len(b), beginSize-headerSize):]) // begins looks at what is before that
				return err
			}
		}
		n := min(s.left, len(b))
		if n > 0 {
			d.content(s, c, b[:n], out)
			s.left -= n
			s.pos += uint64(n)
			b = b[n:]
		}
		n = min(s.pad, len(b))
		if s.left == 0 {
			clear(b[:n]) // it may be anything, a rest of what its buffer held above all
			s.pad -= n
			s.pos += uint64(n)
			b = b[n:]
		}
		if s.left == 0 && s.pad == 0 {
			d.complete(s, c, out)
		}
	}
	return nil
}

// complete is called when all of a record has passed.
func (d *decoder) complete(s *stream, c *probes.Chunk, out probes.Out) {
	s.have = 0
	if s.record.kind == endRequest && c.Dir == d.out && d.request != nil && s.record.id == d.request.id {
		d.end(c.End, out)
	}
}

// header is called when a record's header is complete.
func (d *decoder) header(s *stream, c *probes.Chunk, out probes.Out) error {
	r := d.request
	switch {
	case c.Dir == d.in && s.record.kind == beginRequest:
		if s.record.length != beginSize-headerSize {
			return probes.ErrNotProtocol
		}
		if r != nil && r.id != s.record.id && r.told && !d.streams[d.out].lost {
			return probes.ErrNotProtocol // several at once
		}
		d.replace(out)
		d.conn.Target = d.of.Target // another process may use the connection by now
		d.request = &request{id: s.record.id, begin: s.first, inner: d.http.New(&d.conn, d.server), last: c.End}
		if b := &d.request.begin; s.at > b.Pos || !b.Named { // the kernel side has no name for it
			b.ID = mint(d.conn.ID, s.at)
			b.Evidence.Seq += uint32(s.at - b.Pos)
		}
		d.request.begin.Named = true
	case c.Dir == d.in && s.record.kind == params && s.record.length == 0 && r != nil && r.id == s.record.id:
		d.tell(c, out)
	}
	return nil
}

// content takes a part of a record's.
func (d *decoder) content(s *stream, c *probes.Chunk, b []byte, out probes.Out) {
	r := d.request
	if r == nil || s.record.id != r.id {
		clear(b)
		return
	}
	switch {
	case c.Dir == d.in && s.record.kind == params && !r.told:
		if n := min(len(b), maxParams-len(r.params)); !r.cut {
			r.params = append(r.params, b[:n]...)
			r.cut = n < len(b)
		}
	case c.Dir == d.in && s.record.kind == beginRequest: // begins looks at it
	case c.Dir == d.in && s.record.kind == stdin:
		d.body(c, d.in, uint64(len(b)), out)
		clear(b)
	case c.Dir == d.out && s.record.kind == stdout && !r.headed:
		d.answer(c, b, out)
	case c.Dir == d.out && s.record.kind == stdout:
		d.body(c, d.out, uint64(len(b)), out)
		clear(b)
	default:
		clear(b)
	}
	if c.Dir == d.out {
		r.last = c.End
	}
}

// unseen is content for what was not captured.
func (d *decoder) unseen(s *stream, c *probes.Chunk, n uint64, out probes.Out) {
	r := d.request
	if r == nil || s.record.id != r.id {
		return
	}
	switch {
	case c.Dir == d.in && s.record.kind == params:
		r.cut = true
	case c.Dir == d.in && s.record.kind == stdin:
		d.body(c, d.in, n, out)
	case c.Dir == d.out && s.record.kind == stdout:
		d.answered(c, true, out)
		d.body(c, d.out, n, out)
	}
	if c.Dir == d.out {
		r.last = c.End
	}
}

// tell gives HTTP/1's decoder the request's head.
func (d *decoder) tell(c *probes.Chunk, out probes.Out) {
	r := d.request
	if r.told {
		return
	}
	r.told = true
	var head []byte
	head, r.body = requestHead(r.params, r.cut)
	r.params = nil
	if len(head) > 0 {
		first := r.begin
		first.Dir, first.Pos, first.Head, first.Total, first.Lost = d.in, 0, head, uint64(len(head)), false
		first.End = max(first.Begin, c.End)
		if r.cut {
			first.Total++ // something is not seen of it
		}
		_ = r.inner.Decode(&first, d.marked(out)) // it is a well-formed head, if the method is
		r.pos[d.in] = first.Total
	}
	if r.span != nil {
		return
	}
	r.done = true
	if t := d.conn.Target; t != nil {
		t.Account.Add(ledger.Seen, 1)
		if r.cut {
			t.Account.Add(ledger.Truncated, 1)
		} else {
			t.Account.Add(ledger.Unparsed, 1)
		}
	}
}

// body passes n bytes of a message's body.
func (d *decoder) body(c *probes.Chunk, dir probes.Direction, n uint64, out probes.Out) {
	r := d.request
	if dir == d.in {
		n = min(n, r.body) // more than was announced has no place in HTTP/1
		r.body -= n
	}
	if n == 0 || r.done || dir == d.out && !r.headed {
		return
	}
	b := *c
	b.Dir, b.Pos, b.Total, b.Head, b.Tail, b.Named, b.Lost = dir, r.pos[dir], n, nil, nil, false, false
	b.ID = trace.SpanID{}
	_ = r.inner.Decode(&b, d.marked(out))
	r.pos[dir] += n
}

// answer takes the next of a response, up to its blank line.
func (d *decoder) answer(c *probes.Chunk, b []byte, out probes.Out) {
	r := d.request
	before := len(r.head)
	r.head = append(r.head, b[:min(len(b), maxHead-before)]...)
	end, blank := endOfHead(r.head, max(0, before-2))
	switch {
	case end >= 0:
		rest := len(b) - (end + blank - before)
		clear(b[len(b)-rest:])
		r.head = r.head[:end]
		d.answered(c, false, out)
		if rest > 0 {
			d.body(c, d.out, uint64(rest), out)
		}
	case len(r.head) == maxHead:
		clear(b[maxHead-before:])
		d.answered(c, true, out)
	}
}

// answered gives HTTP/1's decoder the response's head; cut: not all of it is known.
func (d *decoder) answered(c *probes.Chunk, cut bool, out probes.Out) {
	r := d.request
	if r.headed {
		return
	}
	d.tell(c, out)
	r.headed = true
	head := responseHead(r.head, cut)
	r.head = nil
	switch {
	case r.done:
		return
	case head == nil && c.Unreadable:
		d.drop(r, ledger.Unreadable, out)
		return
	case head == nil && cut:
		d.drop(r, ledger.Truncated, out)
		return
	case head == nil:
		d.drop(r, ledger.Unparsed, out)
		return
	}
	b := *c
	b.Dir, b.Pos, b.Total, b.Head, b.Tail, b.Named, b.Lost = d.out, 0, uint64(len(head)), head, nil, false, false
	if cut {
		b.Total++
	}
	_ = r.inner.Decode(&b, d.marked(out))
	r.pos[d.out] = b.Total
}

// end is called when the request's end has been told at time t (Unix ns).
func (d *decoder) end(t int64, out probes.Out) {
	r := d.request
	if !r.told {
		r.cut = true
		d.tell(&r.begin, out)
	}
	c := &probes.Chunk{Begin: t, End: t}
	if !r.headed && len(r.head) > 0 {
		d.answered(c, false, out)
	}
	d.body(c, d.out, 1, out) // what tells the end is the last of the response
	if !r.done && d.server {
		r.inner.End(probes.LocalClosed, t, d.marked(out))
	} else if !r.done {
		r.inner.End(probes.PeerClosed, t, d.marked(out))
	}
	d.close(probes.Closed, t, out)
}

// close ends what is left of the request.
func (d *decoder) close(e probes.End, t int64, out probes.Out) {
	if r := d.request; !r.done {
		r.inner.End(e, t, d.marked(out))
	}
	d.request = nil
}

// replace ends a request of whose end nothing was told, as the next one begins. If nothing of its response was seen, that has
// passed all the same.
func (d *decoder) replace(out probes.Out) {
	r := d.request
	if r == nil {
		return
	}
	t := max(r.last, r.begin.Begin)
	r.cut = r.cut || !r.told
	d.answered(&probes.Chunk{Begin: t, End: t}, true, out)
	d.end(t, out)
	d.streams[d.out].lost = true
}

// lose gives up what is under way.
func (d *decoder) lose(cause ledger.Entry, out probes.Out) {
	r := d.request
	if r == nil {
		return
	}
	r.cut = r.cut || !r.told
	d.tell(&r.begin, out)
	d.drop(r, cause, out)
	d.request = nil
}

// drop gives up the span of a request.
func (d *decoder) drop(r *request, cause ledger.Entry, out probes.Out) {
	s := r.span
	r.span, r.done = nil, true
	if s == nil {
		return
	}
	if s.Target != nil {
		s.Target.Account.Add(cause, 1)
	}
	s.State = span.Lost
	out.Span(s)
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	r := d.request
	if r == nil || e == probes.PeerClosed && d.server || e == probes.LocalClosed && !d.server {
		return
	}
	d.tell(&r.begin, out)
	if r.headed && e != probes.Reset && e != probes.Stopped {
		d.end(r.last, out)
		return
	}
	d.close(e, t, out)
}

// Waiting implements probes.Decoder: what ends a response is a record of its own.
func (d *decoder) Waiting() (probes.Direction, uint64, bool) { return d.out, 0, false }

// Progress implements probes.Decoder.
func (d *decoder) Progress(dir probes.Direction, pos uint64, t int64, _ probes.Out) {
	if r := d.request; r != nil && dir == d.out && pos > d.streams[dir].pos {
		r.last = max(r.last, t)
	}
}

// marked has spans say what has carried them.
func (d *decoder) marked(out probes.Out) probes.Out { return marked{out, d.request} }

type marked struct {
	probes.Out
	request *request
}

var protocolName = semconv.NetworkProtocolName("fastcgi")

func (m marked) Span(s *span.Span) {
	switch s.State {
	case span.Open:
		m.request.span = s
	case span.Answered:
	case span.Done:
		s.Attrs = append(withoutVersion(s.Attrs), protocolName)
		m.request.span, m.request.done = nil, true
	case span.Lost:
		m.request.span, m.request.done = nil, true
	}
	m.Out.Span(s)
}

// withoutVersion takes out the version of HTTP: the web server's client spoke it.
func withoutVersion(attrs []attribute.KeyValue) []attribute.KeyValue {
	kept := attrs[:0]
	for _, a := range attrs {
		if a.Key != semconv.NetworkProtocolVersionKey {
			kept = append(kept, a)
		}
	}
	return kept
}

// mint names a request that the kernel side did not name, by where it began: replays must give the same name.
func mint(conn, pos uint64) (id trace.SpanID) {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, conn), pos))
	h.Sum(id[:0])
	return id
}

// requestHead puts a request's parameters into HTTP/1's words; cut: some are not known. It is empty if the method is not. body is
// the length of what follows.
func requestHead(b []byte, cut bool) (_ []byte, body uint64) {
	var method, uri, script, info, query, host, name, port, remote, scheme []byte
	var fields bytes.Buffer
	forwarded := false
	pairs(b, func(key, value []byte) {
		if bytes.ContainsAny(key, "\r\n \t:") || bytes.ContainsAny(value, "\r\n") {
			return // it could not be told from other fields
		}
		switch k := string(key); k {
		case "REQUEST_METHOD":
			method = value
		case "REQUEST_URI":
			uri = value
		case "SCRIPT_NAME":
			script = value
		case "PATH_INFO":
			info = value
		case "QUERY_STRING":
			query = value
		case "HTTP_HOST":
			host = value
		case "SERVER_NAME":
			name = value
		case "SERVER_PORT":
			port = value
		case "REMOTE_ADDR":
			remote = value
		case "REQUEST_SCHEME":
			scheme = value
		case "HTTPS":
			if len(value) > 0 && !strings.EqualFold(string(value), "off") {
				scheme = []byte("https")
			}
		case "CONTENT_LENGTH":
			if n, err := strconv.ParseUint(string(value), 10, 62); err == nil {
				body = n
				field(&fields, "content-length", value)
			}
		default:
			header, ok := strings.CutPrefix(k, "HTTP_")
			header = strings.ReplaceAll(strings.ToLower(header), "_", "-")
			if ok && header != "" && header != "content-length" && header != "transfer-encoding" {
				forwarded = forwarded || header == "x-forwarded-for" || header == "forwarded"
				field(&fields, header, value)
			}
		}
	})
	if len(method) == 0 {
		return nil, 0
	}
	if len(uri) == 0 {
		uri = append(append([]byte{}, script...), info...)
		if len(query) > 0 {
			uri = append(append(uri, '?'), query...)
		}
	}
	if len(uri) == 0 {
		uri = []byte{'/'}
	}
	if len(host) == 0 && len(name) > 0 {
		host = name
		if len(port) > 0 {
			host = append(append(append([]byte{}, name...), ':'), port...)
		}
	}
	var head bytes.Buffer
	head.Write(method)
	head.WriteByte(' ')
	if string(scheme) == "https" && len(host) > 0 && uri[0] == '/' {
		head.WriteString("https://")
		head.Write(host)
	}
	head.Write(bytes.ReplaceAll(uri, []byte{' '}, []byte("%20")))
	head.WriteString(" HTTP/1.1\r\n")
	if len(host) > 0 {
		field(&head, "host", host)
	}
	if len(remote) > 0 && !forwarded {
		field(&head, "x-forwarded-for", remote)
	}
	head.Write(fields.Bytes())
	if !cut {
		head.WriteString("\r\n")
	}
	return head.Bytes(), body
}

func field(b *bytes.Buffer, name string, value []byte) {
	b.WriteString(name)
	b.WriteString(": ")
	b.Write(value)
	b.WriteString("\r\n")
}

// responseHead puts a response's head into HTTP/1's words; cut: there is more of it. Its body ends with the request. It is nil if
// the status is not known. That comes first by custom, so what is cut off does not hold it, if there is anything else.
func responseHead(b []byte, cut bool) []byte {
	var status []byte
	location := false
	if cut {
		if b = b[:bytes.LastIndexByte(b, '\n')+1]; len(b) == 0 {
			return nil
		}
	}
	for line := range bytes.Lines(b) {
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{':'})
		value = bytes.TrimSpace(value)
		switch {
		case strings.EqualFold(string(name), "status"):
			if !isStatus(value) {
				return nil
			}
			status = value[:3]
		case strings.EqualFold(string(name), "location"):
			location = bytes.Contains(value, []byte("://")) && value[0] != '/'
		}
	}
	switch {
	case status != nil:
	case location: // RFC 3875, section 6.2.3
		status = []byte("302")
	default:
		status = []byte("200")
	}
	head := append(append([]byte("HTTP/1.1 "), status...), " \r\n"...)
	if !cut {
		head = append(head, "\r\n"...)
	}
	return head
}

// isStatus says whether a value begins with a status code. A script answers once: there are no interim ones.
func isStatus(b []byte) bool {
	digit := func(i int) bool { return i < len(b) && b[i] >= '0' && b[i] <= '9' }
	return digit(0) && b[0] >= '2' && digit(1) && digit(2) && !digit(3)
}

// endOfHead finds the blank line that ends a response's head, from an offset on; end is -1 if there is none yet.
func endOfHead(b []byte, from int) (end, length int) {
	for i := from; i < len(b); i++ {
		line := 0 // offset of the line that may be blank
		if i > 0 && b[i] != '\n' {
			continue
		} else if i > 0 {
			line = 1
		}
		switch rest := b[i+line:]; {
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i, line + 2
		case bytes.HasPrefix(rest, []byte("\n")):
			return i, line + 1
		}
	}
	return -1, 0
}
