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
	"strconv"
	"strings"

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
			d := &decoder{conn: *c, server: server, http: http, in: probes.Ingress, out: probes.Egress}
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
	conn    probes.Conn
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
	have   int    // bytes of the header
	record record // when they are all there
	left   int    // of its content
	pad    int    // of what follows that
	lost   bool   // where the next record begins is not known
}

// request is one that is under way, and its response.
type request struct {
	id     uint16
	begin  probes.Chunk // in which it began
	inner  probes.Decoder
	told   bool   // HTTP/1's decoder has it
	params []byte // so far
	cut    bool   // some of them were not captured
	head   []byte // of the response, so far
	pos    [2]uint64
	body   uint64 // bytes of the request's that are to come
	headed bool   // the head of the response is told
	done   bool   // HTTP/1's decoder has made its span
	last   int64  // when the last of the response passed
}

// Decode implements probes.Decoder.
func (d *decoder) Decode(c *probes.Chunk, out probes.Out) error {
	s := &d.streams[c.Dir]
	if c.Lost {
		for i := range d.streams {
			d.streams[i].lost = true
		}
		d.giveUp(c.Begin, true, out)
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
	if err := d.feed(s, c, head, out); err != nil {
		d.giveUp(c.Begin, false, out)
		return err
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
		s.have = 0
	}
	if n > 0 {
		d.desync(s, c, n, out)
	}
}

// desync is called when n bytes passed unseen in which at least one record begins. A response's last one has a known length.
func (d *decoder) desync(s *stream, c *probes.Chunk, n uint64, out probes.Out) {
	r := d.request
	if c.Dir == d.out && s.have == 0 && n == endSize && r != nil && s.pos >= c.Pos+c.Total {
		d.end(c.End, out)
		return
	}
	s.lost = true
	if r == nil {
		return
	}
	if c.Dir == d.in && !r.told {
		r.cut = true
		d.tell(c, out)
	}
	if c.Dir == d.out {
		r.last = c.End
	}
}

// feed takes captured bytes.
func (d *decoder) feed(s *stream, c *probes.Chunk, b []byte, out probes.Out) error {
	if s.lost {
		clear(b)
		s.pos += uint64(len(b))
		if r := d.request; r != nil && c.Dir == d.out {
			r.last = c.End
		}
		return nil
	}
	for len(b) > 0 {
		if s.have < headerSize {
			n := copy(s.header[s.have:], b)
			s.have += n
			s.pos += uint64(n)
			b = b[n:]
			if s.have < headerSize {
				return nil
			}
			var ok bool
			if s.record, ok = parseHeader(s.header[:]); !ok {
				return probes.ErrNotProtocol
			}
			s.left, s.pad = s.record.length, s.record.padding
			if err := d.header(s, c, out); err != nil {
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
			s.pad -= n
			s.pos += uint64(n)
			b = b[n:]
		}
		if s.left == 0 && s.pad == 0 {
			s.have = 0
			if s.record.kind == endRequest && c.Dir == d.out && d.request != nil && s.record.id == d.request.id {
				d.end(c.End, out)
			}
		}
	}
	return nil
}

// header is called when a record's header is complete.
func (d *decoder) header(s *stream, c *probes.Chunk, out probes.Out) error {
	r := d.request
	switch {
	case c.Dir == d.in && s.record.kind == beginRequest:
		if r != nil && r.id != s.record.id && r.told {
			return probes.ErrNotProtocol // several at once
		}
		d.giveUp(c.Begin, false, out)
		d.request = &request{id: s.record.id, begin: *c, inner: d.http.New(&d.conn, d.server), last: c.End}
		d.request.begin.Head, d.request.begin.Tail = nil, nil
		if pos := s.pos - headerSize; pos > c.Pos { // it began within the chunk
			d.request.begin.Named = false
			d.request.begin.Evidence.Seq += uint32(pos - c.Pos)
		}
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
	case c.Dir == d.in && s.record.kind == stdin:
		d.body(c, d.in, uint64(len(b)), out)
		clear(b)
	case c.Dir == d.out && s.record.kind == stdout && !r.headed:
		d.answer(c, b, out)
	case c.Dir == d.out && s.record.kind == stdout:
		d.body(c, d.out, uint64(len(b)), out)
		clear(b)
	case s.record.kind == stderr:
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
	first := r.begin
	first.Dir, first.Pos, first.Head, first.Total, first.Lost = d.in, 0, head, uint64(len(head)), false
	first.End = max(first.Begin, c.End)
	if r.cut || len(head) == 0 {
		first.Total++ // something is not seen of it
	}
	_ = r.inner.Decode(&first, d.marked(out)) // it is a well-formed head
	r.pos[d.in], r.params = first.Total, nil
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
	end, blank := endOfHead(r.head)
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
	b := *c
	b.Dir, b.Pos, b.Total, b.Head, b.Tail, b.Named, b.Lost = d.out, 0, uint64(len(head)), head, nil, false, false
	if cut {
		b.Total++
	}
	_ = r.inner.Decode(&b, d.marked(out))
	r.pos[d.out], r.head = b.Total, nil
}

// end is called when the request's end has been told at time t (Unix ns).
func (d *decoder) end(t int64, out probes.Out) {
	r := d.request
	if !r.headed && len(r.head) > 0 {
		d.answered(&probes.Chunk{Begin: t, End: t}, true, out)
	}
	if d.server {
		r.inner.End(probes.LocalClosed, t, d.marked(out))
	} else {
		r.inner.End(probes.PeerClosed, t, d.marked(out))
	}
	d.close(probes.Closed, t, out)
}

// close ends what is left of the request.
func (d *decoder) close(e probes.End, t int64, out probes.Out) {
	d.request.inner.End(e, t, d.marked(out))
	d.request = nil
}

// giveUp ends a request of whose end nothing was told; lost: because of lost events.
func (d *decoder) giveUp(t int64, lost bool, out probes.Out) {
	r := d.request
	if r == nil {
		return
	}
	if lost {
		r.cut = r.cut || !r.told
		d.tell(&r.begin, out)
		_ = r.inner.Decode(&probes.Chunk{Dir: d.in, Pos: r.pos[d.in], Begin: t, End: t, Lost: true}, d.marked(out))
	}
	d.finish(probes.Closed, max(r.last, r.begin.Begin), out)
}

// finish ends the request with its connection, or as if it had.
func (d *decoder) finish(e probes.End, t int64, out probes.Out) {
	r := d.request
	if !r.told {
		d.tell(&r.begin, out)
	}
	if r.headed && e != probes.Reset && e != probes.Stopped {
		d.end(t, out)
		return
	}
	d.close(e, t, out)
}

// End implements probes.Decoder.
func (d *decoder) End(e probes.End, t int64, out probes.Out) {
	r := d.request
	if r == nil || e == probes.PeerClosed && d.server || e == probes.LocalClosed && !d.server {
		return
	}
	if r.headed && r.last != 0 {
		t = r.last
	}
	d.finish(e, t, out)
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
	m.request.done = m.request.done || s.State == span.Done || s.State == span.Lost
	if s.State == span.Done {
		s.Attrs = append(withoutVersion(s.Attrs), protocolName)
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

// requestHead puts a request's parameters into HTTP/1's words; cut: some are not known. It is empty if the method is not. body is
// the length of what follows.
func requestHead(b []byte, cut bool) (_ []byte, body uint64) {
	var method, uri, script, info, query, host, name, port, remote, scheme []byte
	var fields bytes.Buffer
	forwarded := false
	pairs(b, func(key, value []byte) {
		if bytes.ContainsAny(value, "\r\n") {
			return
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
			if header, ok := strings.CutPrefix(k, "HTTP_"); ok && header != "" && header != "CONTENT_LENGTH" && header != "TRANSFER_ENCODING" {
				header = strings.ReplaceAll(strings.ToLower(header), "_", "-")
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

// responseHead puts a response's head into HTTP/1's words; cut: there is more of it. Its body ends with the request.
func responseHead(b []byte, cut bool) []byte {
	status, location := []byte("200"), false
	for line := range bytes.Lines(b) {
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{':'})
		value = bytes.TrimSpace(value)
		switch {
		case strings.EqualFold(string(name), "status") && len(value) >= 3:
			status, location = value[:3], false
		case strings.EqualFold(string(name), "location") && string(status) == "200":
			location = bytes.Contains(value, []byte("://"))
		}
	}
	if location { // RFC 3875, section 6.2.4
		status = []byte("302")
	}
	head := append(append([]byte("HTTP/1.1 "), status...), " \r\n"...)
	if !cut {
		head = append(head, "\r\n"...)
	}
	return head
}

// endOfHead finds the blank line that ends a response's head; end is -1 if there is none yet.
func endOfHead(b []byte) (end, length int) {
	for i := range b {
		switch {
		case bytes.HasPrefix(b[i:], []byte("\r\n\r\n")):
			return i, 4
		case bytes.HasPrefix(b[i:], []byte("\n\n")):
			return i, 2
		}
	}
	return -1, 0
}
