// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"

	"breadcrumb/internal/span"
	"breadcrumb/probes/protocol/http1"
)

var (
	traceparent = []byte("traceparent=")
	tracestate  = []byte("tracestate=")
)

// contextIn is the trace context in a comment, which consists of key='value', separated by commas, with the values encoded as in URLs
// (https://google.github.io/sqlcommenter/spec/).
func contextIn(comment []byte) (c span.Context) {
	if comment == nil {
		return c
	}
	var parent, state [1024]byte
	f := http1.ContextFields{Traceparent: valueOf(parent[:0], comment, traceparent)}
	if f.Traceparent == nil {
		return c
	}
	f.Tracestate = valueOf(state[:0], comment, tracestate)
	return f.Context()
}

// valueOf appends the value of a key to b, up to its capacity. It returns nil if there is none.
func valueOf(b, comment, key []byte) []byte {
	i := bytes.Index(comment, key)
	if i < 0 || i > 0 && comment[i-1] != ',' && comment[i-1] != ' ' {
		return nil
	}
	v := comment[i+len(key):]
	if len(v) == 0 || v[0] != '\'' {
		return nil
	}
	for v = v[1:]; len(v) > 0 && len(b) < cap(b); v = v[1:] {
		switch c := v[0]; {
		case c == '\'':
			return b
		case c == '%':
			if len(v) < 3 {
				return nil
			}
			high, low := hexValue(v[1]), hexValue(v[2])
			if high < 0 || low < 0 {
				return nil
			}
			b = append(b, byte(high<<4|low))
			v = v[2:]
		case c == '\\' && len(v) > 1:
			v = v[1:]
			b = append(b, v[0])
		default:
			b = append(b, c)
		}
	}
	return nil
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
