// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"breadcrumb/internal/span"

	"go.uber.org/zap"
)

// tee shows spans to a second exporter on their way to the first.
type tee struct {
	primary, secondary Exporter
	log                *zap.Logger
	again              bool // this batch is the rest of one that was shown
	off                bool // the secondary has failed
}

// Tee exports to primary, which alone decides what becomes of the spans and what the ledger says, and
// shows each span once to secondary when it is first tried. A secondary that fails is warned about and
// left out from then on. Its Export runs before the primary's, so it must not wait: give it a
// BackgroundWriter.
func Tee(primary, secondary Exporter, log *zap.Logger) Exporter {
	return &tee{primary: primary, secondary: secondary, log: log}
}

func (t *tee) Export(ctx context.Context, batch []*span.Span) error {
	if !t.again && !t.off {
		if err := t.secondary.Export(ctx, batch); err != nil {
			t.off = true
			t.log.Warn("the second output has failed and ends; spans are still exported", zap.Error(err))
		}
	}
	err := t.primary.Export(ctx, batch)
	t.again = outcome(err, len(batch)).Retry
	return err
}

func (t *tee) Shutdown(ctx context.Context) error {
	return errors.Join(t.secondary.Shutdown(ctx), t.primary.Shutdown(ctx))
}

// BackgroundWriter writes lines to a writer that may block for long, such as a terminal that was stopped
// or a pager that nobody scrolls, without ever blocking itself. Beyond its limit whole writes are skipped,
// their lines counted and the count logged when writing goes on.
type BackgroundWriter struct {
	w     io.Writer
	log   *zap.Logger
	limit int
	wake  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	waiting []byte
	skipped int // lines, since the last write
	err     error
	closed  bool
}

// NewBackgroundWriter starts a writer that holds back at most limit bytes.
func NewBackgroundWriter(w io.Writer, limit int, log *zap.Logger) *BackgroundWriter {
	b := &BackgroundWriter{w: w, limit: limit, log: log, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go b.run()
	return b
}

// Write returns the error of an earlier write, once there was one.
func (b *BackgroundWriter) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if len(b.waiting)+len(p) > b.limit {
		if b.skipped == 0 {
			b.log.Warn("the output is stalled, lines are skipped")
		}
		b.skipped += bytes.Count(p, []byte{'\n'})
		return len(p), nil
	}
	b.waiting = append(b.waiting, p...)
	signal(b.wake)
	return len(p), nil
}

// Close writes what waits, for as long as ctx allows. It closes nothing else.
func (b *BackgroundWriter) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	signal(b.wake)
	select {
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *BackgroundWriter) run() {
	defer close(b.ended)
	var out []byte
	for range b.wake {
		b.mu.Lock()
		out, b.waiting = b.waiting, out[:0]
		skipped, closed := b.skipped, b.closed
		b.skipped = 0
		b.mu.Unlock()
		if skipped > 0 {
			b.log.Warn("the output goes on", zap.Int("skipped_lines", skipped))
		}
		if len(out) > 0 {
			if _, err := b.w.Write(out); err != nil {
				b.mu.Lock()
				b.err = err
				b.mu.Unlock()
				return
			}
		}
		if closed {
			return
		}
	}
}
