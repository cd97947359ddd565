// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"go.uber.org/zap"
)

const (
	// An endpoint that is away is tried after 1, 2, 4, 8 and then every 10 seconds, a fifth more or less
	// so that agents on many nodes do not come back in step.
	firstBackoff = time.Second
	maxBackoff   = 10 * time.Second
	// maxThrottle bounds the pause that an endpoint may ask for.
	maxThrottle = 5 * time.Minute
	// stuckGrace is what an exporter gets to return after its context is done, at the end of the run.
	stuckGrace = time.Second
	// maxBackstep is how many spans a batch may fall short so as not to cut a trace in two.
	maxBackstep = 64
	// logInterval keeps conditions that flap from filling the log.
	logInterval = time.Minute
)

// Queue holds finished spans until the exporter has taken them. The pipeline adds; one goroutine of the
// queue's own makes batches, exports them one at a time and tries again for as long as that may help.
//
// Each span that was added ends in exactly one entry of its target's account: Exported; ExportRefused if
// the endpoint will not have it; QueueFull if there was no room for it, or no time at the end of the run.
// An endpoint that did take a batch but whose answer was lost gets it twice.
type Queue struct {
	cfg      Config
	exporter Exporter
	release  func([]*span.Span)
	log      *zap.Logger

	ctx    context.Context // done when there is no more time
	cancel context.CancelFunc
	wake   chan struct{} // something to do: a first span, a full batch, a flush, the end
	hurry  chan struct{} // do not sit out the back-off
	ended  chan struct{} // closed when run has returned

	mu sync.Mutex
	// ring holds the waiting spans; head and tail are positions in the stream of all spans ever added,
	// ring[p % len(ring)] is the span at position p.
	ring       []*span.Span
	head, tail uint64
	// flight are the spans that are being exported; they are at the positions from flightAt on.
	flight    []*span.Span
	flightAt  uint64
	flushes   []flush
	closed    bool // nothing more is added
	abandoned bool // the exporter hangs; what it still holds was counted
	dropped   uint64
	fullLog   sparingly

	// What follows belongs to run.
	batch     []*span.Span // backs flight
	awaySince time.Time    // zero while the endpoint answers
	awayFrom  uint64       // dropped, at that time
	refuseLog sparingly
}

// flush is a caller that waits until everything before a position is settled.
type flush struct {
	upto uint64
	done chan struct{}
}

// New starts a queue in front of an exporter. Release, which may be nil, gets spans back that nobody
// needs any more; it is called from the goroutine that adds and from the queue's own, and must not keep
// the slice.
func New(cfg Config, exporter Exporter, release func([]*span.Span), log *zap.Logger) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("export queue: %w", err)
	}
	if release == nil {
		release = func([]*span.Span) {}
	}
	q := &Queue{
		cfg: cfg, exporter: exporter, release: release, log: log,
		wake:  make(chan struct{}, 1),
		hurry: make(chan struct{}, 1),
		ended: make(chan struct{}),
		ring:  make([]*span.Span, cfg.MaxQueueSize),
		batch: make([]*span.Span, cfg.MaxExportBatchSize),
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	go q.run()
	return q, nil
}

// Add queues finished spans and never waits for anything but the queue's own lock. The spans belong to
// the queue from then on, the slice stays the caller's. The spans of a trace are best added together:
// the queue then exports them together.
func (q *Queue) Add(spans []*span.Span) {
	if len(spans) == 0 {
		return
	}
	q.mu.Lock()
	if q.closed {
		q.dropped += uint64(len(spans))
		q.mu.Unlock()
		q.lose(spans)
		return
	}
	before := int(q.tail - q.head)
	var evicted, refused []*span.Span
	sayFull := false
	if over := before + len(spans) - len(q.ring); over > 0 {
		evicted = make([]*span.Span, min(over, before))
		q.take(evicted)
		refused, spans = spans[:over-len(evicted)], spans[over-len(evicted):]
		q.dropped += uint64(over)
		sayFull = q.fullLog.now()
	}
	q.put(spans)
	after := int(q.tail - q.head)
	q.mu.Unlock()

	if before == 0 || before < q.cfg.MaxExportBatchSize && after >= q.cfg.MaxExportBatchSize {
		signal(q.wake)
	}
	q.lose(evicted)
	q.lose(refused)
	if sayFull {
		q.log.Warn("the export queue is full, the oldest spans are dropped and counted",
			zap.Int("max_queue_size", q.cfg.MaxQueueSize))
	}
}

// Len is the number of spans that wait or are being exported.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int(q.tail-q.head) + len(q.flight)
}

// Flush waits until all spans added so far are settled. An endpoint that is away is tried at once.
func (q *Queue) Flush(ctx context.Context) error {
	f := flush{done: make(chan struct{})}
	q.mu.Lock()
	f.upto = q.tail
	q.flushes = append(q.flushes, f)
	q.mu.Unlock()
	signal(q.wake)
	signal(q.hurry)
	select {
	case <-f.done:
		return nil
	case <-q.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush the export queue: %w", ctx.Err())
	}
}

// Shutdown exports what waits and ends the queue and its exporter. What could not be sent when ctx is
// done counts as QueueFull, as does what is added from now on. It is called once.
func (q *Queue) Shutdown(ctx context.Context) error {
	defer q.cancel()
	q.mu.Lock()
	q.closed = true
	before := q.dropped
	q.mu.Unlock()
	signal(q.wake)
	signal(q.hurry)
	select {
	case <-q.ended:
	case <-ctx.Done():
		q.cancel()
		grace := time.NewTimer(stuckGrace)
		defer grace.Stop()
		select {
		case <-q.ended:
		case <-grace.C:
			return q.abandon()
		}
	}
	q.mu.Lock()
	lost := q.dropped - before
	q.mu.Unlock()
	var err error
	if lost > 0 {
		err = fmt.Errorf("export queue: %d spans could not be sent in time", lost)
	}
	if e := q.exporter.Shutdown(ctx); e != nil {
		err = errors.Join(err, fmt.Errorf("shut down the exporter: %w", e))
	}
	return err
}

// abandon accounts for everything that an exporter that hangs keeps from being settled.
func (q *Queue) abandon() error {
	q.mu.Lock()
	q.abandoned = true
	rest := append([]*span.Span(nil), q.flight...)
	waiting := make([]*span.Span, q.tail-q.head)
	q.take(waiting)
	q.flight = nil
	q.dropped += uint64(len(rest) + len(waiting))
	q.mu.Unlock()
	count(rest) // not released: the exporter may still read them
	q.lose(waiting)
	return fmt.Errorf("export queue: the exporter hangs; %d spans could not be sent", len(rest)+len(waiting))
}

// run is the queue's goroutine.
func (q *Queue) run() {
	defer close(q.ended)
	delay := time.NewTimer(q.cfg.ScheduleDelay)
	defer delay.Stop()
	for q.next(delay) {
		q.deliver()
	}
}

// next waits until a batch is due and makes it the flight; false means that all is done.
func (q *Queue) next(delay *time.Timer) bool {
	armed, due := false, false
	for {
		q.mu.Lock()
		n := int(q.tail - q.head)
		if q.ctx.Err() != nil || q.abandoned {
			rest := make([]*span.Span, n)
			q.take(rest)
			q.dropped += uint64(n)
			q.mu.Unlock()
			q.lose(rest)
			return false
		}
		if n > 0 && (due || n >= q.cfg.MaxExportBatchSize || q.closed || len(q.flushes) > 0) {
			n = q.whole(min(n, q.cfg.MaxExportBatchSize))
			q.flight = q.batch[:n]
			q.flightAt = q.head
			q.take(q.flight)
			q.mu.Unlock()
			return true
		}
		closed := q.closed
		q.tell()
		q.mu.Unlock()
		if closed {
			return false
		}
		var expired <-chan time.Time
		if n > 0 {
			if !armed {
				delay.Reset(q.cfg.ScheduleDelay)
				armed = true
			}
			expired = delay.C
		}
		select {
		case <-q.wake:
		case <-expired:
			due = true
		case <-q.ctx.Done():
		}
	}
}

// whole shortens a batch of n spans so that it ends with a trace, if that ends near.
func (q *Queue) whole(n int) int {
	at := func(i int) *span.Span { return q.ring[(q.head+uint64(i))%uint64(len(q.ring))] }
	if n == int(q.tail-q.head) {
		return n
	}
	for m := n; m > max(0, n-maxBackstep); m-- {
		if at(m-1).TraceID != at(m).TraceID {
			return m
		}
	}
	return n
}

// deliver exports the flight until it is settled.
func (q *Queue) deliver() {
	backoff := firstBackoff
	for rest := q.flight; ; {
		select {
		case <-q.hurry: // this attempt is what was asked for
		default:
		}
		ctx, cancel := context.WithTimeout(q.ctx, q.cfg.ExportTimeout)
		err := q.exporter.Export(ctx, rest)
		cancel()
		o := outcome(err, len(rest))
		if !q.settle(rest[:o.Done], o.Refused) {
			return
		}
		rest = rest[o.Done:]
		if q.ctx.Err() == nil {
			q.report(o)
		}
		if len(rest) == 0 {
			return
		}
		if o.Done > 0 {
			backoff = firstBackoff
		}
		pause := backoff + time.Duration((rand.Float64()-0.5)*0.4*float64(backoff))
		wait := time.NewTimer(max(pause, min(o.After, maxThrottle)))
		select {
		case <-wait.C:
			backoff = min(2*backoff, maxBackoff)
		case <-q.hurry:
			backoff = firstBackoff
		case <-q.ctx.Done():
			q.giveUp(rest)
			wait.Stop()
			return
		}
		wait.Stop()
	}
}

// settle accounts for spans at the head of the flight. False means that this was done already, by abandon.
func (q *Queue) settle(spans []*span.Span, refused int) bool {
	q.mu.Lock()
	if q.abandoned {
		q.mu.Unlock()
		return false
	}
	q.flight = q.flight[len(spans):]
	q.flightAt += uint64(len(spans))
	q.mu.Unlock()
	share(spans, refused)
	q.finish(spans)
	return true
}

// giveUp counts the rest of the flight as lost for want of time.
func (q *Queue) giveUp(rest []*span.Span) {
	q.mu.Lock()
	if q.abandoned {
		q.mu.Unlock()
		return
	}
	q.flight = nil
	q.dropped += uint64(len(rest))
	q.mu.Unlock()
	count(rest)
	q.finish(rest)
}

// finish hands spans back and tells those who wait for them to be settled.
func (q *Queue) finish(spans []*span.Span) {
	q.release(spans)
	clear(spans)
	q.mu.Lock()
	q.tell()
	q.mu.Unlock()
}

// tell ends the flushes that have nothing left to wait for.
func (q *Queue) tell() {
	settled := q.head
	if len(q.flight) > 0 {
		settled = q.flightAt
	}
	waiting := q.flushes[:0]
	for _, f := range q.flushes {
		if f.upto <= settled {
			close(f.done)
		} else {
			waiting = append(waiting, f)
		}
	}
	q.flushes = waiting
}

// report logs when the endpoint goes away, comes back, or refuses; once each.
func (q *Queue) report(o Error) {
	switch {
	case o.Retry && q.awaySince.IsZero():
		q.awaySince = time.Now()
		q.mu.Lock()
		q.awayFrom = q.dropped
		q.mu.Unlock()
		q.log.Warn("the endpoint is away or busy, spans wait; beyond max_queue_size the oldest are dropped and counted",
			zap.Error(o.Err), zap.Int("waiting", q.Len()), zap.Int("max_queue_size", q.cfg.MaxQueueSize))
	case !o.Retry && !q.awaySince.IsZero():
		q.mu.Lock()
		dropped := q.dropped - q.awayFrom
		q.mu.Unlock()
		q.log.Info("the endpoint is back", zap.Duration("away", time.Since(q.awaySince)),
			zap.Uint64("dropped", dropped))
		q.awaySince = time.Time{}
	}
	if !o.Retry && o.Err != nil && q.refuseLog.now() {
		what := "the endpoint refuses spans; they are counted and not sent again"
		if o.Refused == 0 {
			what = "the endpoint has taken the spans, with a remark"
		}
		q.log.Warn(what, zap.Int("refused", o.Refused), zap.Int("of", o.Done), zap.Error(o.Err))
	}
}

// lose counts spans that the queue had no room or no time for, and hands them back.
func (q *Queue) lose(spans []*span.Span) {
	if len(spans) > 0 {
		count(spans)
		q.release(spans)
	}
}

// put appends to the ring, which has room.
func (q *Queue) put(spans []*span.Span) {
	at := int(q.tail % uint64(len(q.ring)))
	n := copy(q.ring[at:], spans)
	copy(q.ring, spans[n:])
	q.tail += uint64(len(spans))
}

// take moves the oldest spans out of the ring, which has as many as spans has room for.
func (q *Queue) take(spans []*span.Span) {
	at := int(q.head % uint64(len(q.ring)))
	n := copy(spans, q.ring[at:])
	copy(spans[n:], q.ring)
	clear(q.ring[at : at+n])
	clear(q.ring[:len(spans)-n])
	q.head += uint64(len(spans))
}

// count books spans as QueueFull.
func count(spans []*span.Span) {
	for len(spans) > 0 {
		account, n := sameAccount(spans)
		account.Add(ledger.QueueFull, uint64(n))
		spans = spans[n:]
	}
}

// share books spans as Exported but for so many of them, which are ExportRefused. An endpoint says how
// many it refused and not which: the sum over all accounts is exact, and each target bears its share.
func share(spans []*span.Span, refused int) {
	seen, booked := 0, 0
	for rest := spans; len(rest) > 0; {
		account, n := sameAccount(rest)
		seen += n
		r := seen*refused/len(spans) - booked
		booked += r
		account.Add(ledger.ExportRefused, uint64(r))
		account.Add(ledger.Exported, uint64(n-r))
		rest = rest[n:]
	}
}

// sameAccount is the account of the first span and the number of spans at the head that share it.
func sameAccount(spans []*span.Span) (*ledger.Account, int) {
	t, n := spans[0].Target, 1
	for n < len(spans) && spans[n].Target == t {
		n++
	}
	if t == nil {
		return nil, n
	}
	return t.Account, n
}

// signal leaves a note in a channel of capacity one, unless one lies there already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sparingly says yes at most once in logInterval.
type sparingly struct{ last time.Time }

func (s *sparingly) now() bool {
	t := time.Now()
	if !s.last.IsZero() && t.Sub(s.last) < logInterval {
		return false
	}
	s.last = t
	return true
}
