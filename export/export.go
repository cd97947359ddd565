// SPDX-License-Identifier: Apache-2.0

// Package export takes finished spans off the hands of the pipeline and sees each one out: to an
// exporter, or into the ledger as lost. It knows nothing of what a span says; the folders below it
// translate spans for those who read them.
package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"breadcrumb/internal/span"
)

// Exporter hands batches of spans to somebody. It is called from one goroutine.
//
// Export reads the spans and keeps none of them: they are used again as soon as the queue has accounted
// for them. It returns soon after ctx is done. Its error says what became of the batch:
//
//   - nil: all spans were taken.
//   - an *Error: as that says. Spans that may be sent again come again, first and in the same order,
//     before any others.
//   - the error of a context: as an *Error with Retry set.
//   - any other error: all spans were refused for good.
type Exporter interface {
	Export(ctx context.Context, batch []*span.Span) error
	Shutdown(ctx context.Context) error
}

// Error is how an exporter tells more than that a batch was refused.
type Error struct {
	Done    int           // so many spans at the head of the batch are dealt with
	Refused int           // so many of those were refused; the answer need not say which
	Retry   bool          // the rest may be sent again; otherwise it was refused too
	After   time.Duration // but not before this time has passed
	Err     error         // never nil
}

func (e *Error) Error() string {
	if e.Done == 0 && e.Refused == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%d of the first %d spans refused: %v", e.Refused, e.Done, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// outcome reads the error of an Export call of n spans.
func outcome(err error, n int) Error {
	var e *Error
	switch {
	case err == nil:
		return Error{Done: n}
	case errors.As(err, &e):
		o := *e
		o.Done = min(max(o.Done, 0), n)
		o.Retry = o.Retry && o.Done < n
		if !o.Retry {
			o.Refused += n - o.Done
			o.Done = n
		}
		o.Refused = min(max(o.Refused, 0), o.Done)
		return o
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Error{Retry: true, Err: err}
	}
	return Error{Done: n, Refused: n, Err: err}
}

// Discard is an Exporter that takes everything and does nothing with it.
type Discard struct{}

// Export implements Exporter.
func (Discard) Export(context.Context, []*span.Span) error { return nil }

// Shutdown implements Exporter.
func (Discard) Shutdown(context.Context) error { return nil }
