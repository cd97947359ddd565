// SPDX-License-Identifier: Apache-2.0

package fastcgi

import (
	"encoding/binary"

	"breadcrumb/probes"
)

// Section 8 of the specification.
const (
	version    = 1
	headerSize = 8
	beginSize  = headerSize + 8 // of a beginning of a request, with its body
	endSize    = headerSize + 8 // of an end

	responder = 1 // role
)

// kind is a record's type.
type kind uint8

const (
	beginRequest kind = 1 + iota
	abortRequest
	endRequest
	params
	stdin
	stdout
	stderr
	data
	getValues
	getValuesResult
	unknownType
)

// record is the header of a record.
type record struct {
	kind    kind
	id      uint16
	length  int // of the content, bytes
	padding int
}

// parseHeader takes the first eight bytes of a record.
func parseHeader(b []byte) (r record, ok bool) {
	r = record{kind(b[1]), binary.BigEndian.Uint16(b[2:]), int(binary.BigEndian.Uint16(b[4:])), int(b[6])}
	return r, b[0] == version && r.kind >= beginRequest && r.kind <= unknownType
}

// begins says whether b, which may be cut off, is the header of the beginning of a request. Eight bytes of which six are fixed
// are rarely anything else.
func begins(b []byte) probes.Verdict {
	fixed := [headerSize]int{version, int(beginRequest), -1, -1, 0, 8, 0, 0}
	for i, want := range fixed[:min(len(b), headerSize)] {
		if want >= 0 && int(b[i]) != want {
			return probes.No
		}
	}
	switch {
	case len(b) < headerSize:
		return probes.Maybe
	case len(b) >= headerSize+2 && (b[8] != 0 || b[9] < responder || b[9] > 3):
		return probes.No
	}
	return probes.Yes
}

// pairs calls f for each name and value, as section 3.4 has them, and returns false if the last one is cut off.
func pairs(b []byte, f func(name, value []byte)) bool {
	for len(b) > 0 {
		var lengths [2]int
		for i := range lengths {
			switch {
			case len(b) >= 1 && b[0] < 0x80:
				lengths[i], b = int(b[0]), b[1:]
			case len(b) >= 4:
				lengths[i], b = int(binary.BigEndian.Uint32(b)&0x7fffffff), b[4:]
			default:
				return false
			}
		}
		if lengths[0] > len(b) || lengths[1] > len(b)-lengths[0] {
			return false
		}
		f(b[:lengths[0]], b[lengths[0]:lengths[0]+lengths[1]])
		b = b[lengths[0]+lengths[1]:]
	}
	return true
}
