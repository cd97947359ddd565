// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// unitKind says what of a client's messages is answered together.
type unitKind uint8

const (
	unitNone    unitKind = iota
	unitPrepare          // messages up to a Sync or a Flush of which none executes
	unitExecute          // an Execute, and those that prepare it
	unitQuery
	unitCall
	unitSync
	unitStart // of the connection
	unitHole  // messages that were not captured, of any number
)

// readied says whether a ReadyForQuery ends it.
func (k unitKind) readied() bool {
	return k == unitQuery || k == unitCall || k == unitSync || k == unitStart
}

// unit is a part of what the client has said that is not answered to its end.
type unit struct {
	kind unitKind
	span *span.Span // while it is open
	start
	name     trace.SpanID // that the kernel side gave the run in which a unitPrepare began
	what     asked
	acks     int    // Parse, Bind, Describe and Close that are not answered
	changes  int    // Parse and Close among them
	prepares bool   // there was another than Close
	bound    bool   // there was a Bind
	limit    uint32 // rows that an Execute asks for; 0: all

	cause  ledger.Entry // a unitHole's: how what was not captured is counted
	silent bool         // not at all
	debt   int          // what was counted when it was asked

	outcome outcome
	ended   int64 // when it was complete; 0: it is not. What follows may still be about it
	result  result
	results int    // that are complete
	rows    int64  // of those
	returns bool   // there are results with rows
	vague   bool   // how many rows there are is not known
	command string // what the last result says that was done
	copied  bool   // the client has said all of its COPY
	ignored bool   // a Sync in the middle of a COPY
}

// result is one of a unit's, as far as it has come.
type result struct {
	rows      int64 // seen
	described bool
	copyOut   bool
	cut       bool // some of it passed unseen
}

// start is where a unit began.
type start struct {
	pos      uint64
	time     int64
	evidence span.Evidence
}

// queue holds units, oldest first. Pointers into it hold until the next push.
type queue struct {
	items []unit
	head  int // where the oldest is
	ready int // units that a ReadyForQuery ends
	holes int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) at(i int) *unit { return &q.items[q.head+i] }

// front is the oldest, nil if there is none.
func (q *queue) front() *unit {
	if q.len() == 0 {
		return nil
	}
	return q.at(0)
}

// newest is the opposite of front.
func (q *queue) newest() *unit {
	if q.len() == 0 {
		return nil
	}
	return q.at(q.len() - 1)
}

func (q *queue) push(kind unitKind) *unit {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, unit{})
	q.count(kind, 1)
	u := &q.items[len(q.items)-1]
	u.kind = kind
	return u
}

func (q *queue) count(kind unitKind, n int) {
	if kind.readied() {
		q.ready += n
	}
	if kind == unitHole {
		q.holes += n
	}
}

// insert puts a unit before the i-th.
func (q *queue) insert(i int, u *unit) *unit {
	q.push(u.kind)
	at := q.items[q.head+i:]
	copy(at[1:], at)
	at[0] = *u
	return &at[0]
}

// pop forgets the oldest.
func (q *queue) pop() {
	u := &q.items[q.head]
	q.count(u.kind, -1)
	*u = unit{}
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > keepUnits {
			q.items = nil
		}
	}
}

// remove forgets the i-th.
func (q *queue) remove(i int) {
	q.count(q.at(i).kind, -1)
	copy(q.items[q.head+i:], q.items[q.head+i+1:])
	q.items[len(q.items)-1] = unit{}
	q.items = q.items[:len(q.items)-1]
}
