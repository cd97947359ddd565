// SPDX-License-Identifier: Apache-2.0

package http1

// queue holds the exchanges under way, oldest first. Each has a number, by which it can be found for as
// long as it is in the queue. Pointers into the queue hold until the next push.
type queue struct {
	items []exchange
	head  int    // where the oldest is
	base  uint64 // its number
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) at(i int) *exchange { return &q.items[q.head+i] }

// last is the number of the newest exchange.
func (q *queue) last() uint64 { return q.base + uint64(q.len()) - 1 }

// find returns the exchange with number n, or nil if it is over.
func (q *queue) find(n uint64) *exchange {
	if i := n - q.base; i < uint64(q.len()) {
		return q.at(int(i))
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
	q.reset()
}

// truncate forgets all but the n oldest.
func (q *queue) truncate(n int) {
	clear(q.items[q.head+n:])
	q.items = q.items[:q.head+n]
	q.reset()
}

func (q *queue) reset() {
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
}
