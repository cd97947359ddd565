// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"

	"golang.org/x/net/http2/hpack"
)

// RFC 7541.
const (
	entryOverhead = 32 // section 4.1
	defaultTable  = 4096
	// maxTable bounds what is kept of a table. An encoder may use more if its peer allows it, as few do: then the oldest entries
	// are unknown here.
	maxTable = 64 << 10
	// maxText bounds a name or a value; what is longer is unknown.
	maxText = 16 << 10
)

var errBlock = errors.New("malformed header block")

// field is a header field. What refers to an entry of before the agent looked is not known.
type field struct {
	name, value text
}

// text is a name or a value, if it is known.
type text struct {
	s     string
	known bool
}

func known(s string) text { return text{s, true} }

// table is the dynamic table of one direction, as far as it is known. Entries are counted from the newest, so those that were
// added since the agent looks have their right numbers whatever was there before.
type table struct {
	entries  []field // oldest first
	size     int     // at least: an unknown text counts as empty. So an entry may be kept that the encoder has evicted: it refers to none such.
	max      int
	assumed  bool // max may have been raised unseen. So an entry may be evicted that the encoder has kept: a reference to it is unknown.
	complete bool // there are no others
}

func newTable(complete bool) table {
	return table{max: defaultTable, assumed: !complete, complete: complete}
}

// stale is called when header blocks were missed: nothing of before is where it was.
func (t *table) stale() {
	clear(t.entries)
	t.entries, t.size, t.complete = t.entries[:0], 0, false
	t.max, t.assumed = max(t.max, defaultTable), true
}

func (t *table) resize(max int) {
	t.max, t.assumed = max, false
	t.evict()
	if max == 0 {
		t.complete = true
	}
}

func (t *table) evict() {
	n := 0
	for n < len(t.entries) && t.size > min(t.max, maxTable) {
		t.size -= size(t.entries[n])
		n++
	}
	if n > 0 {
		t.complete = t.max <= maxTable && !t.assumed
		kept := copy(t.entries, t.entries[n:])
		clear(t.entries[kept:])
		t.entries = t.entries[:kept]
	}
}

func size(f field) int { return len(f.name.s) + len(f.value.s) + entryOverhead }

func (t *table) add(f field) {
	t.entries = append(t.entries, f)
	t.size += size(f)
	t.evict()
}

// at is the field with an index (section 2.3.3).
func (t *table) at(i uint64) (field, error) {
	switch {
	case i == 0:
		return field{}, errBlock
	case i < uint64(len(static)):
		return static[i], nil
	}
	i -= uint64(len(static))
	if i < uint64(len(t.entries)) {
		return t.entries[len(t.entries)-1-int(i)], nil
	}
	if t.complete {
		return field{}, errBlock
	}
	return field{}, nil
}

// decode calls emit for each field of a complete header block. After an error the table is stale.
func (t *table) decode(b []byte, emit func(field)) (err error) {
	defer func() {
		if err != nil {
			t.stale()
		}
	}()
	for first := true; len(b) > 0; {
		c := b[0]
		switch {
		case c&0x80 != 0: // section 6.1
			i, rest, ok := integer(b, 7)
			if !ok {
				return errBlock
			}
			f, err := t.at(i)
			if err != nil {
				return err
			}
			emit(f)
			b, first = rest, false
		case c&0xe0 == 0x20: // section 6.3
			n, rest, ok := integer(b, 5)
			if !ok || !first || n > 1<<30 {
				return errBlock
			}
			t.resize(int(n))
			b = rest
		default: // sections 6.2.1, 6.2.2 and 6.2.3
			bits := uint(4)
			if c&0x40 != 0 {
				bits = 6
			}
			i, rest, ok := integer(b, bits)
			if !ok {
				return errBlock
			}
			var f field
			if i != 0 {
				if f, err = t.at(i); err != nil {
					return err
				}
			} else if f.name, rest, err = readText(rest); err != nil {
				return err
			}
			if f.value, rest, err = readText(rest); err != nil {
				return err
			}
			if c&0x40 != 0 {
				t.add(f)
			}
			emit(f)
			b, first = rest, false
		}
	}
	return nil
}

// integer decodes section 5.1's.
func integer(b []byte, bits uint) (n uint64, rest []byte, ok bool) {
	mask := uint64(1)<<bits - 1
	n, b = uint64(b[0])&mask, b[1:]
	if n < mask {
		return n, b, true
	}
	for shift := uint(0); shift < 63 && len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}

// readText decodes section 5.2's string.
func readText(b []byte) (text, []byte, error) {
	if len(b) == 0 {
		return text{}, nil, errBlock
	}
	huffman := b[0]&0x80 != 0
	n, rest, ok := integer(b, 7)
	if !ok || n > uint64(len(rest)) {
		return text{}, nil, errBlock
	}
	raw, rest := rest[:n], rest[n:]
	if len(raw) > maxText {
		return text{}, rest, nil
	}
	if !huffman {
		return known(string(raw)), rest, nil
	}
	s, err := hpack.HuffmanDecodeToString(raw)
	switch {
	case err != nil:
		return text{}, nil, errBlock
	case len(s) > maxText:
		return text{}, rest, nil
	}
	return known(s), rest, nil
}

// static is appendix A.
var static = func() []field {
	list := []field{{}}
	for _, f := range [...][2]string{
		{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"}, {":scheme", "http"},
		{":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"}, {":status", "304"}, {":status", "400"},
		{":status", "404"}, {":status", "500"}, {"accept-charset", ""}, {"accept-encoding", "gzip, deflate"}, {"accept-language", ""},
		{"accept-ranges", ""}, {"accept", ""}, {"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""},
		{"cache-control", ""}, {"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
		{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""}, {"expect", ""},
		{"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""}, {"if-none-match", ""}, {"if-range", ""},
		{"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""}, {"location", ""}, {"max-forwards", ""},
		{"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""}, {"referer", ""}, {"refresh", ""}, {"retry-after", ""},
		{"server", ""}, {"set-cookie", ""}, {"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""},
		{"via", ""}, {"www-authenticate", ""},
	} {
		list = append(list, field{known(f[0]), known(f[1])})
	}
	return list
}()
