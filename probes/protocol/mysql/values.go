// SPDX-License-Identifier: Apache-2.0

package mysql

// Values that a client binds are zeroed where they lie, as they come, in pieces or not. Their lengths stay, so that a recording is
// read in the same way.

// valueSize is how many bytes a value of a type takes in the binary protocol: -1 if it begins with its length of encoded length,
// which for dates and times is one byte; -2 if the type is not known.
func valueSize(kind byte) int {
	switch kind {
	case 0x06: // NULL
		return 0
	case 0x01: // TINY
		return 1
	case 0x02, 0x0d: // SHORT, YEAR
		return 2
	case 0x03, 0x09, 0x04: // LONG, INT24, FLOAT
		return 4
	case 0x08, 0x05: // LONGLONG, DOUBLE
		return 8
	case 0x07, 0x0a, 0x0b, 0x0c, // TIMESTAMP, DATE, TIME, DATETIME
		0x00, 0x0f, 0x10, 0xf2, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff: // texts, numbers as texts, and bytes
		return -1
	}
	return -2
}

// value is one that is being passed over.
type value struct {
	left   uint64 // bytes of its content
	length [9]byte
	have   int // bytes of the length
	sized  bool
}

// init prepares for a value, and returns false if there is nothing to pass over.
func (v *value) init(kind byte) (more, ok bool) {
	n := valueSize(kind)
	*v = value{left: uint64(max(n, 0)), sized: n >= 0}
	return n != 0, n != -2
}

// take passes over the next byte. length says whether that is of the value's length; over that nothing of it is left.
func (v *value) take(c byte) (length, over bool) {
	if v.sized {
		v.left--
		return false, v.left == 0
	}
	v.length[v.have] = c
	v.have++
	n, size := lenenc(v.length[:v.have])
	if size == 0 && v.have < len(v.length) && c != headLocalFile {
		return true, false
	}
	v.sized, v.left = true, n
	return true, v.left == 0
}

// maxBulkTypes bounds the parameters of a COM_STMT_BULK_EXECUTE whose rows are counted.
const maxBulkTypes = 256

// bulk counts the rows of a COM_STMT_BULK_EXECUTE.
type bulk struct {
	types  []byte // by parameter
	params int
	untold int // bytes of types that are to come
	param  int
	rows   int
	value  value
	inside bool // a value
	bad    bool
}

// bulkSize is what each begins with: the statement's id, and flags.
const bulkSize = 1 + 4 + 2

// sendTypes is the flag that says that types follow.
const sendTypes = 0x80

// init prepares for the rows of a statement that has so many parameters, -1 if that is not known, and that had these types before.
func (u *bulk) init(params int, flags uint16, before []byte) {
	*u = bulk{types: u.types[:0], params: params}
	switch {
	case params <= 0 || params > maxBulkTypes:
		u.bad = true
	case flags&sendTypes != 0:
		u.untold = 2 * params
	case len(before) == params:
		u.types = append(u.types, before...)
	default:
		u.bad = true
	}
}

// Parameter indicators.
const indicatorNone = 0 // a value follows

func (u *bulk) take(b []byte, wipe func([]byte)) {
	for i, c := range b {
		switch {
		case u.bad:
			wipe(b[i:])
			return
		case u.untold > 0:
			if u.untold%2 == 0 {
				u.types = append(u.types, c)
			}
			u.untold--
		case u.inside:
			length, over := u.value.take(c)
			if !length {
				wipe(b[i : i+1])
			}
			if over {
				u.next()
			}
		case c == indicatorNone:
			more, ok := u.value.init(u.types[u.param])
			u.bad, u.inside = !ok, more
			if !more {
				u.next()
			}
		case c > 3:
			u.bad = true
		default:
			u.next()
		}
	}
}

func (u *bulk) next() {
	u.inside = false
	if u.param++; u.param == u.params {
		u.param = 0
		u.rows++
	}
}

// count is the number of rows; the packet is over. It is 0 if it is not known.
func (u *bulk) count() int {
	if u.bad || u.inside || u.param != 0 || u.untold > 0 {
		return 0
	}
	return u.rows
}

// maxAttributes bounds the attributes of a query: beyond that the statement is not looked for.
const maxAttributes = 32

// attributes are what precedes the text of a COM_QUERY where both sides know query attributes
// (https://dev.mysql.com/doc/refman/8.4/en/query-attributes.html), or what is bound to a COM_STMT_EXECUTE. MySQL's own drivers carry a
// trace context in them.
type attributes struct {
	part    attributesPart
	size    int // bytes seen, all in all
	n       int // of the part
	length  [9]byte
	count   int
	null    [maxAttributes / 8]byte
	types   [maxAttributes]byte
	traces  int // the attribute whose name is traceparent, from 1 on
	param   int
	name    [len(traceparentName)]byte
	left    uint64 // of a name
	of      uint64 // its length
	value   value
	trace   [maxTrace]byte
	traced  int // bytes of it
	isTrace bool
	execute bool // of a COM_STMT_EXECUTE, among what is bound to it
	bad     bool
}

type attributesPart uint8

const (
	attributesCommand attributesPart = iota
	attributesCount
	attributesSets
	attributesNull
	attributesBound
	attributesType
	attributesNameLength
	attributesName
	attributesValue
	attributesOver // the text is next
)

const (
	traceparentName = "traceparent"
	maxTrace        = 64 // of a traceparent, which has 55 bytes
)

func (a *attributes) next(p attributesPart) { a.part, a.n = p, 0 }

// integer takes the next byte of an integer of encoded length.
func (a *attributes) integer(c byte) (v uint64, done bool) {
	a.length[a.n] = c
	a.n++
	v, n := lenenc(a.length[:a.n])
	if n == 0 && (a.n == len(a.length) || c == headLocalFile && a.n == 1) {
		a.bad = true
	}
	return v, n > 0
}

// take takes the next bytes of the payload, of which values are zeroed.
func (a *attributes) take(b []byte, wipe func([]byte)) {
	for i, c := range b {
		if a.bad {
			wipe(b[i:])
			return
		}
		if a.part == attributesOver {
			return
		}
		a.size++
		switch a.part {
		case attributesCommand:
			a.next(attributesCount)
		case attributesCount:
			if v, done := a.integer(c); done {
				a.bad = v > maxAttributes
				a.count = int(v)
				if !a.execute {
					a.next(attributesSets)
				} else if a.next(attributesNull); a.count == 0 {
					a.next(attributesOver)
				}
			}
		case attributesSets:
			if v, done := a.integer(c); done {
				a.bad = a.bad || v != 1
				a.next(attributesNull)
				if a.count == 0 {
					a.next(attributesOver)
				}
			}
		case attributesNull:
			a.null[a.n] = c
			if a.n++; a.n == (a.count+7)/8 {
				a.next(attributesBound)
			}
		case attributesBound:
			a.bad = c != 1
			a.next(attributesType)
		case attributesType:
			if a.n == 0 {
				a.types[a.param] = c
			}
			if a.n++; a.n == 2 {
				a.next(attributesNameLength)
			}
		case attributesNameLength:
			if v, done := a.integer(c); done {
				a.left, a.of = v, v
				a.next(attributesName)
				if v == 0 {
					a.named()
				}
			}
		case attributesName:
			if a.n < len(a.name) {
				a.name[a.n] = c
			}
			a.n++
			if a.left--; a.left == 0 {
				if a.of == uint64(len(a.name)) && string(a.name[:]) == traceparentName {
					a.traces = a.param + 1
				}
				a.named()
			}
		case attributesValue:
			length, over := a.value.take(c)
			switch {
			case length:
			case a.isTrace && a.traced < len(a.trace):
				a.trace[a.traced] = c
				a.traced++
			default:
				wipe(b[i : i+1])
			}
			if over {
				a.param++
				a.values()
			}
		}
	}
}

// named is called behind a name.
func (a *attributes) named() {
	if a.param++; a.param < a.count {
		a.next(attributesType)
		return
	}
	a.param = 0
	a.next(attributesValue)
	a.values()
}

// values goes on to the next parameter that has a value.
func (a *attributes) values() {
	for ; a.param < a.count; a.param++ {
		if a.null[a.param/8]&(1<<(a.param%8)) != 0 {
			continue
		}
		more, ok := a.value.init(a.types[a.param])
		if a.bad = !ok; a.bad {
			return
		}
		if more {
			a.isTrace = a.param+1 == a.traces && valueSize(a.types[a.param]) == -1
			return
		}
	}
	a.next(attributesOver)
}

// text is where the statement begins in the payload; ok says whether that is known.
func (a *attributes) text() (at int, ok bool) { return a.size, a.part == attributesOver && !a.bad }
