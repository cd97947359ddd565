// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"slices"

	"breadcrumb/probes"
)

// maxMethod is the length of the longest method that is believed; the longest registered one,
// UPDATEREDIRECTREF, has 17 bytes.
const maxMethod = 24

// minLine is the length of what follows the target in a request line, " HTTP/1.x".
const minLine = len(" HTTP/1.x")

// isToken is true for the bytes of a token (RFC 9110, 5.6.2).
var isToken = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

const noHex = 0xff

// hexValue is the value of a hexadecimal digit, else noHex.
var hexValue = func() (t [256]uint8) {
	for i := range t {
		t[i] = noHex
	}
	for i, c := range "0123456789abcdef" {
		t[c] = uint8(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = uint8(10 + i)
	}
	return t
}()

// lowerHexValue is hexValue without the digits in upper case.
var lowerHexValue = func() (t [256]uint8) {
	t = hexValue
	for c := 'A'; c <= 'F'; c++ {
		t[c] = noHex
	}
	return t
}()

// requestLine says whether b begins with a request line.
func requestLine(b []byte) probes.Verdict {
	i := 0
	for i < len(b) && i <= maxMethod && isToken[b[i]] {
		i++
	}
	if i == len(b) && i <= maxMethod {
		return probes.Maybe
	}
	if i == 0 || i > maxMethod || b[i] != ' ' {
		return probes.No
	}
	rest := b[i+1:]
	if len(rest) == 0 {
		return probes.Maybe
	}
	switch c := rest[0]; {
	case c == '/', c == '*', c == '[', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
	default:
		return probes.No
	}
	end := bytes.IndexByte(rest, '\n')
	if end < 0 {
		for i, c := range rest {
			if c < ' ' && !(c == '\r' && i == len(rest)-1) || c == 0x7f {
				return probes.No
			}
		}
		if isVersion(trimCR(rest)) {
			return probes.Yes
		}
		return probes.Maybe
	}
	if isVersion(trimCR(rest[:end])) {
		return probes.Yes
	}
	return probes.No
}

// startsRequest says whether b, which may as well be of a body, is the start of a request. Where the line is not
// complete a common method is asked for, and the start of a target: much text begins with a word and a space.
func startsRequest(b []byte) bool {
	if v := requestLine(b); v != probes.Maybe {
		return v == probes.Yes
	}
	name, target, spaced := bytes.Cut(b, space)
	if !spaced {
		return beginsOne(b, methodNames[1:])
	}
	switch methodOf(name) {
	case methodOther:
		return false
	case methodConnect:
		return true
	}
	return len(target) == 0 || target[0] == '/' || string(target) == "*" || bytes.HasPrefix(target, []byte("* ")) ||
		equalFold(target[:min(len(target), len("http"))], "http"[:min(len(target), len("http"))])
}

// beginsOne says whether one of the names begins with b.
func beginsOne(b []byte, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return len(b) <= len(name) && string(b) == name[:len(b)] })
}

// isVersion says whether line, without the method, ends with a version after a target.
func isVersion(line []byte) bool {
	if len(line) <= minLine {
		return false
	}
	v := line[len(line)-minLine:]
	return string(v[:minLine-1]) == " HTTP/1." && v[minLine-1] >= '0' && v[minLine-1] <= '9'
}

// statusLine says whether b begins with a status line.
func statusLine(b []byte) probes.Verdict {
	const version = "HTTP/1."
	if len(b) > 12 && string(b[:len(version)]) == version && b[7]-'0' <= 9 && b[8] == ' ' &&
		b[9]-'1' <= 8 && b[10]-'0' <= 9 && b[11]-'0' <= 9 && (b[12] == ' ' || b[12] == '\r' || b[12] == '\n') {
		return probes.Yes
	}
	n := min(len(b), len(version))
	if string(b[:n]) != version[:n] {
		return probes.No
	}
	for i := n; i < len(b) && i < 13; i++ {
		c := b[i]
		ok := false
		switch i {
		case 7, 10, 11:
			ok = c >= '0' && c <= '9'
		case 8:
			ok = c == ' '
		case 9:
			ok = c >= '1' && c <= '9'
		case 12:
			ok = c == ' ' || c == '\r' || c == '\n'
		}
		if !ok {
			return probes.No
		}
	}
	if len(b) < 13 {
		return probes.Maybe
	}
	return probes.Yes
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// coding is what Transfer-Encoding says of the framing.
type coding uint8

const (
	codingNone    coding = iota
	codingChunked        // the last coding is chunked
	codingOther          // it is another
)

// framing is what a head says about the length of the body (RFC 9112, 6.3).
type framing struct {
	length int64 // -1: not said
	coding coding
	bad    bool // it says several things
	last   bool // the last field was one of framing
}

func (f *framing) reset() { *f = framing{length: -1} }

// contentLength takes a value of Content-Length: one number, or the same one several times.
func (f *framing) contentLength(v []byte) {
	f.last = true
	for {
		item, rest, more := bytes.Cut(v, comma)
		n, ok := number(trim(item))
		if !ok || f.length >= 0 && f.length != n {
			f.bad = true
			return
		}
		f.length = n
		if !more {
			return
		}
		v = rest
	}
}

// transferEncoding takes a value of Transfer-Encoding. Where there are several, the last one counts.
func (f *framing) transferEncoding(v []byte) {
	f.last = true
	if i := bytes.LastIndexByte(v, ','); i >= 0 {
		v = trim(v[i+1:])
	}
	switch {
	case equalFold(v, "chunked"):
		f.coding = codingChunked
	case equalFold(v, "identity") && f.coding == codingNone:
		// RFC 2616 had it; it means no coding.
	default:
		f.coding = codingOther
	}
}

// folded takes a continuation of the line before it. Recipients differ on what it means (RFC 9112, 5.2);
// that matters here only where the length of the body hangs on it.
func (f *framing) folded() {
	if f.last {
		f.coding, f.bad, f.length = codingNone, true, -1
	}
}

var comma, space = []byte{','}, []byte{' '}

// number parses decimal digits; 18 of them fit without overflow.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// trim cuts spaces and tabs from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares b with lower, which is in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// field cuts a line of a head into name and value; it returns a nil name for what is none. Spaces before
// the colon are not allowed, but some servers cut them off, and so do we.
func field(line []byte) (name, value []byte) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return nil, nil
	}
	name = line[:i]
	if c := name[i-1]; c == ' ' || c == '\t' {
		name = trim(name)
	}
	value = line[i+1:]
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	if n := len(value); n > 0 && (value[0] <= ' ' || value[n-1] <= ' ') {
		value = trim(value)
	}
	return name, value
}

// request is a parsed request head. Its slices are parts of the head.
type request struct {
	method, target []byte
	minor          byte // of the version, a digit; 0 if the request line is not complete
	framing        framing
	expect         bool

	host, agent                                 []byte
	forwarded, forFor, forHost, forProto        []byte
	traceparent, b3, b3Trace, b3Span, b3Sampled []byte
	traceparents, states                        int
	tracestate                                  []byte // of the last of states
	b3Debug                                     bool
	head                                        []byte // all of it, for what is rare
}

// parse parses the request head at the start of b and returns its length and Yes; or Maybe and as much
// as there is, if it is not complete; or No.
func (r *request) parse(b []byte) (int, probes.Verdict) {
	*r = request{}
	r.framing.reset()
	i := 0
	for i < len(b) && isToken[b[i]] {
		i++
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		v := requestLine(b)
		if v == probes.No {
			return 0, v
		}
		if i < len(b) {
			r.method = b[:i]
			r.target = trimCR(b[i+1:])
			if isVersion(r.target) {
				r.minor = r.target[len(r.target)-1]
				r.target = r.target[:len(r.target)-minLine]
			}
		}
		return len(b), probes.Maybe
	}
	if i == 0 || i > maxMethod || i >= end || b[i] != ' ' {
		return 0, probes.No
	}
	line := trimCR(b[i+1 : end])
	if !isVersion(line) {
		return 0, probes.No
	}
	r.method = b[:i]
	r.target = line[:len(line)-minLine]
	r.minor = line[len(line)-1]
	if c := r.target[0]; c != '/' && requestLine(b[:end+1]) != probes.Yes {
		return 0, probes.No
	}
	n := end + 1
	for {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			r.head = b[:n]
			return len(b), probes.Maybe
		}
		line := trimCR(b[n : n+end])
		n += end + 1
		if len(line) == 0 {
			r.head = b[:n]
			return n, probes.Yes
		}
		r.field(line)
	}
}

// field takes a line of the head.
func (r *request) field(line []byte) {
	switch line[0] | 0x20 {
	case 'b', 'c', 'e', 'f', 'h', 't', 'u', 'x': // what the fields below begin with
	case ' ', '\t' | 0x20:
		if line[0] == ' ' || line[0] == '\t' {
			r.framing.folded()
		}
		return
	default:
		r.framing.last = false
		return
	}
	r.framing.last = false
	name, v := field(line)
	switch len(name) {
	case len("b3"):
		if equalFold(name, "b3") {
			r.b3 = v
		}
	case len("host"):
		if r.host == nil && equalFold(name, "host") {
			r.host = v
		}
	case len("expect"):
		if equalFold(name, "expect") && equalFold(v, "100-continue") {
			r.expect = true
		}
	case len("forwarded"):
		if r.forwarded == nil && equalFold(name, "forwarded") {
			r.forwarded = v
		}
	case len("user-agent"): // tracestate and x-b3-flags are as long
		switch name[0] | 0x20 {
		case 'u':
			if equalFold(name, "user-agent") {
				r.agent = v
			}
		case 't':
			if equalFold(name, "tracestate") {
				r.states++
				r.tracestate = v
			}
		case 'x':
			if equalFold(name, "x-b3-flags") && string(v) == "1" {
				r.b3Debug = true
			}
		}
	case len("traceparent"): // x-b3-spanid is as long
		if equalFold(name, "traceparent") {
			r.traceparents++
			r.traceparent = v
		} else if equalFold(name, "x-b3-spanid") {
			r.b3Span = v
		}
	case len("x-b3-traceid"): // x-b3-sampled is as long
		if equalFold(name, "x-b3-traceid") {
			r.b3Trace = v
		} else if equalFold(name, "x-b3-sampled") {
			r.b3Sampled = v
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			r.framing.contentLength(v)
		}
	case len("x-forwarded-for"):
		if r.forFor == nil && equalFold(name, "x-forwarded-for") {
			r.forFor = v
		}
	case len("x-forwarded-host"):
		if r.forHost == nil && equalFold(name, "x-forwarded-host") {
			r.forHost = v
		}
	case len("transfer-encoding"): // x-forwarded-proto is as long
		if equalFold(name, "transfer-encoding") {
			r.framing.transferEncoding(v)
		} else if r.forProto == nil && equalFold(name, "x-forwarded-proto") {
			r.forProto = v
		}
	}
}

// response is a parsed response head.
type response struct {
	status  int
	upgrade []byte // the value of Upgrade
	framing framing
}

// parse parses the response head at the start of b, as request.parse does.
func (r *response) parse(b []byte) (int, probes.Verdict) {
	*r = response{}
	r.framing.reset()
	switch statusLine(b) {
	case probes.No:
		return 0, probes.No
	case probes.Maybe:
		return len(b), probes.Maybe
	case probes.Yes:
	}
	r.status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	n := 0
	for first := true; ; first = false {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			return len(b), probes.Maybe
		}
		line := trimCR(b[n : n+end])
		n += end + 1
		if first {
			continue
		}
		if len(line) == 0 {
			return n, probes.Yes
		}
		if line[0] == ' ' || line[0] == '\t' {
			r.framing.folded()
			continue
		}
		r.framing.last = false
		if c := line[0] | 0x20; c != 'c' && c != 't' && c != 'u' {
			continue
		}
		switch name, v := field(line); len(name) {
		case len("upgrade"):
			if equalFold(name, "upgrade") {
				r.upgrade = v
			}
		case len("content-length"):
			if equalFold(name, "content-length") {
				r.framing.contentLength(v)
			}
		case len("transfer-encoding"):
			if equalFold(name, "transfer-encoding") {
				r.framing.transferEncoding(v)
			}
		}
	}
}
