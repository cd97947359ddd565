// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"encoding/binary"
	"strings"

	"breadcrumb/probes"
)

// RFC 9113, section 4.1.
const headerSize = 9

// preface is what a client begins with (section 3.4).
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// kind is a frame's type (section 6).
type kind uint8

const (
	data kind = iota
	headers
	priority
	rstStream
	settings
	pushPromise
	ping
	goAway
	windowUpdate
	continuation
	// maxKind is beyond all that are registered; what has a greater one is taken for something else.
	maxKind = 0x20
)

// Flags.
const (
	endStream   = 0x1
	endHeaders  = 0x4
	padded      = 0x8
	hasPriority = 0x20
)

// maxFrame is the longest frame that is believed: most endpoints allow 16 KiB, gRPC's C core 4 MiB.
const maxFrame = 1 << 23

// usualFrame is the longest frame that every endpoint allows (section 4.2).
const usualFrame = 1 << 14

// frame is a frame's header.
type frame struct {
	length int
	kind   kind
	flags  uint8
	stream uint32
}

// parseFrame takes nine bytes.
func parseFrame(b []byte) (f frame, ok bool) {
	f = frame{int(b[0])<<16 | int(b[1])<<8 | int(b[2]), kind(b[3]), b[4], binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1)}
	if f.length > maxFrame || f.kind >= maxKind {
		return f, false
	}
	switch f.kind {
	case data, headers, pushPromise, continuation:
		return f, f.stream != 0
	case rstStream:
		return f, f.stream != 0 && f.length == 4
	case priority:
		return f, f.stream != 0 && f.length == 5
	case settings:
		return f, f.stream == 0 && f.length%6 == 0
	case ping:
		return f, f.stream == 0 && f.length == 8
	case windowUpdate:
		return f, f.length == 4
	case goAway:
		return f, f.stream == 0 && f.length >= 8
	}
	return f, true
}

// usual says that the frame is one that a connection may well go on with; most that are no frames are not.
func (f frame) usual() bool {
	ok := f.length <= usualFrame
	switch f.kind {
	case data:
		return ok && f.flags&^(endStream|padded) == 0
	case headers:
		return ok && f.flags&^(endStream|endHeaders|padded|hasPriority) == 0 && f.stream%2 == 1
	}
	return ok && f.kind != continuation
}

// unwrap takes padding, priority and the promised stream off the payload of a HEADERS or PUSH_PROMISE frame.
func (f frame) unwrap(b []byte) ([]byte, bool) {
	pad := 0
	if f.flags&padded != 0 {
		if len(b) == 0 {
			return nil, false
		}
		pad, b = int(b[0]), b[1:]
	}
	skip := 0
	switch {
	case f.kind == headers && f.flags&hasPriority != 0:
		skip = 5
	case f.kind == pushPromise:
		skip = 4
	}
	if skip+pad > len(b) {
		return nil, false
	}
	return b[skip : len(b)-pad], true
}

// detect looks for a client's preface, or, in the middle of a connection, for a HEADERS frame that begins as requests do, or
// responses.
func detect(_ probes.Direction, head []byte) (v probes.Verdict, requests bool) {
	if n := min(len(head), len(preface)); bytes.Equal(head[:n], preface[:n]) {
		if n == len(preface) {
			return probes.Yes, true
		}
		return probes.Maybe, true
	}
	for len(head) >= headerSize {
		f, ok := parseFrame(head)
		if !ok || !f.usual() {
			return probes.No, false // of a few hundred bytes, TLS' ClientHello would be one of 1.4 MB
		}
		switch f.kind {
		case settings, ping, goAway, windowUpdate, rstStream, priority: // these say nothing of who asks, and come before others
			v = probes.Maybe
		}
		payload := head[headerSize:min(len(head), headerSize+f.length)]
		if f.kind == headers {
			if f.flags&endHeaders == 0 {
				return probes.No, false
			}
			if f.flags&padded != 0 { // the padding may not have come
				f.flags &^= padded
				payload = payload[min(1, len(payload)):]
			}
			block, ok := f.unwrap(payload)
			if !ok {
				return probes.No, false
			}
			return begins(block)
		}
		head = head[headerSize+len(payload):]
	}
	return v, false
}

// begins says whether a header block begins with a pseudo-field, and whether with a request's (RFC 9113, section 8.3).
func begins(block []byte) (v probes.Verdict, requests bool) {
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // a change of the table's size
		_, rest, ok := integer(block, 5)
		if !ok {
			return probes.No, false
		}
		block = rest
	}
	verdict := probes.No
	for len(block) > 0 {
		c := block[0]
		bits := uint(4)
		switch {
		case c&0x80 != 0:
			bits = 7
		case c&0x40 != 0:
			bits = 6
		}
		i, rest, ok := integer(block, bits)
		switch {
		case !ok:
			return verdict, false
		case i == 0 && bits != 7:
			name, _, err := readText(rest)
			if err != nil || !strings.HasPrefix(name.s, ":") {
				return verdict, false
			}
			return probes.Yes, name.s != ":status"
		case 1 <= i && i <= 7:
			return probes.Yes, true
		case 8 <= i && i <= 14:
			return probes.Yes, false
		case i < uint64(len(static)):
			return verdict, false
		}
		verdict = probes.Maybe // what the sender has said before; what comes behind it may tell, or the answer
		if bits != 7 {
			if _, rest, _ = readText(rest); rest == nil {
				return verdict, false
			}
		}
		block = rest
	}
	return verdict, false
}
