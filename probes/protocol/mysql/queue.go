// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"breadcrumb/internal/span"
	"breadcrumb/probes/protocol/sql"
)

// exchange is a command whose answer is not complete.
type exchange struct {
	command   command
	seq       byte // of the packet that is to answer it
	sequenced bool // that is known
	cut       bool // the statement is not known to its end
	start     start
	span      *span.Span     // nil: it has none, yet or for good
	statement *sql.Statement // nil: it has none, or it is not known
	digest    uint64         // of its text, if that is whole
	again     bool           // it was executed before: what context its text carries was another's
	id        uint32         // of the prepared statement
	batch     int            // rows of bound values, where there may be several; 0: not known
	change    *change        // what it does to the session
}

// keepExchanges is how many exchanges a connection keeps room for.
const keepExchanges = 64

// queue holds the exchanges under way, oldest first. Each has a number. Pointers into the queue hold until the next push.
type queue struct {
	items []exchange
	head  int    // where the oldest is
	base  uint64 // its number
}

func (q *queue) len() int { return len(q.items) - q.head }

// next is the number of the exchange that will be pushed next.
func (q *queue) next() uint64 { return q.base + uint64(q.len()) }

// front is the oldest exchange, or nil.
func (q *queue) front() *exchange {
	if q.len() == 0 {
		return nil
	}
	return &q.items[q.head]
}

// find returns the exchange with number n-1, or nil if it is over.
func (q *queue) find(n uint64) *exchange {
	if i := n - 1 - q.base; n > 0 && i < uint64(q.len()) {
		return &q.items[q.head+int(i)]
	}
	return nil
}

func (q *queue) push() *exchange {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, exchange{})
	return &q.items[len(q.items)-1]
}

// pop forgets the oldest exchange.
func (q *queue) pop() {
	q.items[q.head] = exchange{}
	q.head++
	q.base++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > keepExchanges {
			q.items = nil
		}
	}
}
