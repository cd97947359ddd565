// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestTeeShowsEachSpanOnceAndCountsByThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, attempt := process(), 0
		primary, secondary := new(fake), new(fake)
		primary.export = func(_ context.Context, batch []*span.Span) error {
			switch attempt++; attempt {
			case 1:
				return &Error{Retry: true, Err: errors.New("away")}
			case 2:
				return &Error{Done: 3, Retry: true, Err: errors.New("away")}
			case 4:
				return errors.New("refused")
			}
			return nil
		}
		q := start(t, small(), Tee(primary, secondary, zap.NewNop()))
		all := spans(p, 25)
		q.Add(all)
		stop(t, q)
		check(t, p, 15, 0, 10)
		if diff := cmp.Diff([]int{10, 10, 7, 10, 5}, primary.sizes()); diff != "" {
			t.Error(diff)
		}
		if !slices.Equal(slices.Concat(secondary.calls...), all) {
			t.Errorf("shown in batches of %v, want each span once", secondary.sizes())
		}
		if primary.shutdown != 1 || secondary.shutdown != 1 {
			t.Error("not both were shut down")
		}
	})
}

func TestTeeGoesOnWithoutASecondaryThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := process()
		core, logs := observer.New(zapcore.InfoLevel)
		secondary := &fake{export: func(context.Context, []*span.Span) error { return io.ErrClosedPipe }}
		q := start(t, small(), Tee(new(fake), secondary, zap.New(core)))
		q.Add(spans(p, 30))
		stop(t, q)
		check(t, p, 30, 0, 0)
		if len(secondary.calls) != 1 || logs.Len() != 1 {
			t.Errorf("%d calls and %d log lines, want one of each", len(secondary.calls), logs.Len())
		}
	})
}

// gate is a writer that blocks until it is opened.
type gate struct {
	open chan struct{}
	err  error
	bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	if g.err != nil {
		return 0, g.err
	}
	return g.Buffer.Write(p)
}

func TestBackgroundWriterNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		g := &gate{open: make(chan struct{})}
		w := NewBackgroundWriter(g, 10, zap.New(core))
		write := func(s string) {
			if n, err := io.WriteString(w, s); n != len(s) || err != nil {
				t.Errorf("write %q: %d, %v", s, n, err)
			}
		}
		write("one\n")
		synctest.Wait() // stuck in the write of this
		write("two\n")
		write("three\n") // fits
		write("four\nfive\n")
		write("six\n")
		close(g.open)
		synctest.Wait()
		write("seven\n")
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := g.String(), "one\ntwo\nthree\nseven\n"; got != want {
			t.Errorf("written %q, want %q", got, want)
		}
		var said []string
		for _, l := range logs.All() {
			said = append(said, l.Message)
		}
		if diff := cmp.Diff([]string{"the output is stalled, lines are skipped", "the output goes on"}, said); diff != "" {
			t.Error(diff)
		}
		if n := logs.All()[1].ContextMap()["skipped_lines"]; n != int64(3) {
			t.Errorf("%v lines skipped, want 3", n)
		}
	})
}

func TestBackgroundWriterReturnsTheErrorLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{}), err: io.ErrClosedPipe}
		close(g.open)
		w := NewBackgroundWriter(g, 10, zap.NewNop())
		_, _ = io.WriteString(w, "x")
		synctest.Wait()
		if _, err := io.WriteString(w, "y"); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("error %v, want %v", err, io.ErrClosedPipe)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestBackgroundWriterThatIsStuckAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		w := NewBackgroundWriter(g, 1000, zap.NewNop())
		_, _ = io.WriteString(w, strings.Repeat("x", 100))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
		}
		close(g.open)
	})
}
