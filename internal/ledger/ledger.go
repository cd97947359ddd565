// SPDX-License-Identifier: Apache-2.0

// Package ledger counts, per process, what became of every message, so that the sums add up:
//
//	Seen = Exported + the sum of all Lost causes + what is still under way
//
// A message is one exchange: a request and its answer as one process saw them. Every message is counted
// as Seen exactly once, by whoever first learns of it, and ends in exactly one other entry.
package ledger

import "sync/atomic"

// Entry is a line of the ledger.
type Entry uint8

const (
	Seen     Entry = iota // messages that were noticed at all
	Exported              // spans taken by the exporter

	// What follows are the causes of loss.
	RingFull      // the kernel side found no room in the ring buffer
	MapFull       // the kernel side found no room in a map
	Unreadable    // the process's memory could not be read when the message passed
	Truncated     // the message began in bytes that are not captured
	Unparsed      // the bytes are not what they seemed to be
	Muted         // the message passed on a connection that no protocol claims
	QueueFull     // the export queue overflowed while the endpoint was away or slow
	ExportRefused // the endpoint refused the spans for good

	Entries // the number of entries
)

// FirstLoss is the first entry that is a cause of loss.
const FirstLoss = RingFull

// String is the entry's name in the summary and in the metrics.
func (e Entry) String() string {
	return [Entries]string{"seen", "exported", "ring_full", "map_full", "unreadable", "truncated",
		"unparsed", "muted", "queue_full", "export_refused"}[e]
}

// Account is the ledger of one process. Its methods may be called from any goroutine; a nil account
// counts nothing.
type Account struct {
	counts [Entries]atomic.Uint64
}

// Add counts n messages under e.
func (a *Account) Add(e Entry, n uint64) {
	if a != nil {
		a.counts[e].Add(n)
	}
}

// Counts is a snapshot of an account, or the sum of several.
type Counts [Entries]uint64

// Counts reads the account. Entries that move while it reads may be off by what moved.
func (a *Account) Counts() Counts {
	var c Counts
	if a == nil {
		return c
	}
	for i := range c {
		c[i] = a.counts[i].Load()
	}
	return c
}

// Plus is the sum of two snapshots.
func (c Counts) Plus(d Counts) Counts {
	for i := range c {
		c[i] += d[i]
	}
	return c
}

// Lost is the sum over all causes of loss.
func (c Counts) Lost() uint64 {
	var n uint64
	for e := FirstLoss; e < Entries; e++ {
		n += c[e]
	}
	return n
}

// Open is the number of messages still under way; at the end of a run it must be 0.
func (c Counts) Open() int64 { return int64(c[Seen] - c[Exported] - c.Lost()) }
