// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"

	"breadcrumb/probes"
)

// detect must say the same of a recording, in which bodies are zeroed: it looks only at what stays.
func detect(_ probes.Direction, head []byte) (probes.Verdict, bool) {
	if v := startUp(head); v != probes.No {
		return v, true
	}
	asks, answers := asks(head), answers(head)
	if answers == probes.Yes || asks == probes.No {
		return answers, false
	}
	return asks, true
}

// startUp says whether b, which may be cut off, is what a client begins a connection with.
func startUp(b []byte) probes.Verdict {
	if len(b) < startHeaderSize {
		for _, c := range b[:min(len(b), 2)] {
			if c != 0 { // it is a short message
				return probes.No
			}
		}
		return probes.Maybe
	}
	code, ok := parseStart(b)
	if !ok {
		return probes.No
	}
	if rest := b[startHeaderSize:]; code>>16 == codeVersion3>>16 && len(rest) > 0 && !letter(rest[0]) && rest[0] != 0 {
		return probes.No // parameters have names
	}
	return probes.Yes
}

// parseStart takes the header of what a client begins a connection with.
func parseStart(b []byte) (code uint32, ok bool) {
	n := binary.BigEndian.Uint32(b)
	code = binary.BigEndian.Uint32(b[4:])
	switch {
	case code == codeTLS, code == codeGSS:
		return code, n == startHeaderSize
	case code == codeCancel: // from version 3.2 on, the key may have up to 256 bytes
		return code, n >= startHeaderSize+4+4 && n <= startHeaderSize+4+256
	}
	return code, code>>16 == codeVersion3>>16 && n > startHeaderSize && n <= maxStart
}

// begins says whether b, which may be cut off, begins with a message of those that one side sends, and goes on with others.
func begins(b []byte, sizes *[256]size) probes.Verdict {
	v := probes.Maybe
	walk(b, sizes, func(_ byte, _ []byte, _ bool) { v = probes.Yes }, func() { v = probes.No })
	return v
}

// walk calls f for each message in b, of which the last may not be whole, or bad for what is none.
func walk(b []byte, sizes *[256]size, f func(kind byte, body []byte, whole bool), bad func()) {
	for len(b) > 0 {
		kind := b[0]
		if sizes[kind].most == 0 || len(b) > 1 && b[1] != 0 { // longer ones are rare, and anything may look like them
			bad()
			return
		}
		if len(b) < headerSize {
			return
		}
		n := binary.BigEndian.Uint32(b[1:])
		if !sizes[kind].fits(n) {
			bad()
			return
		}
		body := b[headerSize:]
		whole := uint64(len(body)) >= uint64(n)-4
		if whole {
			body = body[:n-4]
		}
		if !plausible(kind, body, whole, sizes == &said) {
			bad()
			return
		}
		f(kind, body, whole)
		b = b[headerSize+len(body):]
	}
}

// plausible says whether a message's body, which may be cut off, is what it should be.
func plausible(kind byte, body []byte, whole, asked bool) bool {
	names, rest := 0, 0 // strings that it begins with, and bytes behind them; -1: any number
	switch {
	case asked && kind == query:
		names = 1
	case asked && (kind == parse || kind == bind):
		names, rest = 2, -1
	case asked && kind == execute:
		names, rest = 1, 4
	case asked && (kind == describe || kind == closing):
		if len(body) > 0 && body[0] != 'S' && body[0] != 'P' {
			return false
		}
		names = 1
	case asked:
		return true
	case kind == commandComplete:
		return !whole || isTag(body)
	case kind == ready:
		return !whole || isStatus(body[0])
	case kind == parameter:
		names = 2
	case kind == rowDescription:
		return isRow(body, whole)
	case kind == errorResponse:
		return len(body) == 0 || body[0] == 'S' || body[0] == 0
	default:
		return true
	}
	for ; names > 0; names-- {
		s, after, ok := text(body)
		if !ok {
			return !whole && isText(body)
		}
		if !isText(s) {
			return false
		}
		body = after
	}
	return rest < 0 || !whole || len(body) == rest
}

// isText says whether there are no control characters in b.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' && c != '\f' && c != '\v' || c == 0x7f {
			return false
		}
	}
	return true
}

func isStatus(c byte) bool { return c == 'I' || c == 'T' || c == 'E' }

// isRow says whether b, which may be cut off, is a RowDescription's body.
func isRow(b []byte, whole bool) bool {
	if len(b) < 2 {
		return !whole
	}
	n := int(binary.BigEndian.Uint16(b))
	for b = b[2:]; n > 0; n-- {
		s, rest, ok := text(b)
		if !ok {
			return !whole && isText(b)
		}
		if !isText(s) {
			return false
		}
		if len(rest) < 18 {
			return !whole
		}
		if rest[16] != 0 || rest[17] > 1 { // the format
			return false
		}
		b = rest[18:]
	}
	return !whole || len(b) == 0
}

// asks says whether a client says b, which may be cut off: a Query, a Parse, or other messages up to a Sync or a Flush.
func asks(b []byte) probes.Verdict {
	v, ends, n := probes.Maybe, false, 0
	walk(b, &said, func(kind byte, body []byte, whole bool) {
		n++
		switch ends = false; kind {
		case query, parse:
			if kind == parse {
				_, body, _ = text(body)
			}
			if beginsStatement(body, whole) {
				v = probes.Yes
			}
		case syncing, flush:
			ends = n > 1
		case bind, execute, describe, closing:
		default: // nobody begins with any other
			if n == 1 {
				v = probes.No
			}
		}
	}, func() { v, ends = probes.No, false })
	if ends {
		v = probes.Yes
	}
	return v
}

// beginsStatement says whether b is a statement, or looks like the beginning of a long one. The packets of MySQL that begin as a Query
// does would be short ones.
func beginsStatement(b []byte, whole bool) bool {
	if whole || len(b) < 64 {
		return whole
	}
	w, _ := word(b)
	return len(w) >= 2 && len(w) <= len("DEALLOCATE") || len(b) > 0 && (b[0] == '(' || b[0] == '/' || b[0] == '-')
}

// answers says whether a server says b, which may be cut off: messages up to a ReadyForQuery, or the short ones that begin an answer,
// or the description of rows, with another behind them.
func answers(b []byte) probes.Verdict {
	v, ends, n := probes.Maybe, false, 0
	strong := false
	walk(b, &answered, func(kind byte, body []byte, whole bool) {
		if n++; n > 1 && strong {
			v = probes.Yes
		}
		strong = false
		switch ends = false; kind {
		case parseComplete, bindComplete, closeComplete, noData:
			strong = true
		case rowDescription:
			strong = whole
		case ready:
			ends = whole
		}
	}, func() { v, ends = probes.No, false })
	if ends {
		v = probes.Yes
	}
	return v
}
