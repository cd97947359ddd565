// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an exporter that does as it is told and remembers what it took.
type fake struct {
	export   func(ctx context.Context, batch []*span.Span) error // nil: take everything
	mu       sync.Mutex
	calls    [][]*span.Span
	shutdown int
}

func (f *fake) Export(ctx context.Context, batch []*span.Span) error {
	f.mu.Lock()
	f.calls = append(f.calls, slices.Clone(batch))
	f.mu.Unlock()
	if f.export == nil {
		return nil
	}
	return f.export(ctx, batch)
}

func (f *fake) Shutdown(context.Context) error {
	f.shutdown++
	return nil
}

func (f *fake) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n []int
	for _, c := range f.calls {
		n = append(n, len(c))
	}
	return n
}

// process is a target with its own account.
func process() *span.Target { return &span.Target{Account: new(ledger.Account)} }

var nextTrace uint64

// spans makes n spans, each of its own trace.
func spans(t *span.Target, n int) []*span.Span {
	made := make([]*span.Span, n)
	for i := range made {
		nextTrace++
		s := &span.Span{Target: t}
		for b := range 8 {
			s.TraceID[b] = byte(nextTrace >> (8 * b))
		}
		made[i] = s
	}
	return made
}

func small() Config {
	return Config{MaxQueueSize: 100, MaxExportBatchSize: 10, ScheduleDelay: time.Second, ExportTimeout: 30 * time.Second}
}

func start(t *testing.T, cfg Config, e Exporter) *Queue {
	t.Helper()
	q, err := New(cfg, e, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func stop(t *testing.T, q *Queue) {
	t.Helper()
	if err := q.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// check compares exported, queue full, export refused.
func check(t *testing.T, p *span.Target, exported, full, refused uint64) {
	t.Helper()
	c := p.Account.Counts()
	got := [3]uint64{c[ledger.Exported], c[ledger.QueueFull], c[ledger.ExportRefused]}
	if want := [3]uint64{exported, full, refused}; got != want {
		t.Errorf("exported, queue full, refused: %v, want %v", got, want)
	}
}

func TestBatchLeavesWhenItIsFullOrOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := new(fake), process()
		q := start(t, small(), e)
		q.Add(spans(p, 3))
		time.Sleep(900 * time.Millisecond)
		q.Add(spans(p, 3))
		synctest.Wait()
		if n := e.sizes(); n != nil {
			t.Fatalf("batches %v before the delay was over", n)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		q.Add(spans(p, 25)) // two full batches at once
		synctest.Wait()
		if diff := cmp.Diff([]int{6, 10, 10}, e.sizes()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]int{6, 10, 10, 5}, e.sizes()); diff != "" {
			t.Error(diff)
		}
		stop(t, q)
		check(t, p, 31, 0, 0)
		if e.shutdown != 1 {
			t.Errorf("exporter shut down %d times", e.shutdown)
		}
	})
}

func TestTraceIsNotCutInTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := new(fake), process()
		q := start(t, small(), e)
		add := spans(p, 20)
		for i := 8; i < 13; i++ {
			add[i].TraceID = trace.TraceID{0xff}
		}
		q.Add(add)
		long := spans(p, 20) // does not fit into one batch whatever one does
		for _, s := range long {
			s.TraceID = trace.TraceID{0xfe}
		}
		q.Add(long)
		stop(t, q)
		if diff := cmp.Diff([]int{8, 10, 2, 10, 10}, e.sizes()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEndpointAwayCostsOnlyTheOldestBeyondTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Bool
		e, p := new(fake), process()
		e.export = func(context.Context, []*span.Span) error {
			if !back.Load() {
				return &Error{Retry: true, Err: errors.New("connection refused")}
			}
			return nil
		}
		core, logs := observer.New(zapcore.InfoLevel)
		q, err := New(small(), e, nil, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		all := spans(p, 130)
		q.Add(all[:10])
		synctest.Wait() // the first batch is under way
		for i := 10; i < 110; i++ {
			q.Add(all[i : i+1])
		}
		if n := q.Len(); n != 110 {
			t.Errorf("length %d, want 110", n)
		}
		time.Sleep(5 * time.Minute)
		check(t, p, 0, 0, 0) // a full queue and a batch under way: nothing lost yet
		q.Add(all[110:130])
		check(t, p, 0, 20, 0)
		if n := len(e.sizes()); n < 30 || n > 40 {
			t.Errorf("%d attempts in five minutes, want about one in ten seconds", n)
		}
		back.Store(true)
		time.Sleep(2 * maxBackoff)
		stop(t, q)
		check(t, p, 110, 20, 0)

		var order []*span.Span
		e.mu.Lock()
		for _, call := range e.calls[len(e.calls)-11:] {
			order = append(order, call...)
		}
		e.mu.Unlock()
		if want := append(slices.Clone(all[:10]), all[30:]...); !slices.Equal(order, want) {
			t.Error("the spans came out of order, or others than the oldest were dropped")
		}
		var said []string
		for _, l := range logs.All() {
			said = append(said, fmt.Sprint(l.Level, " ", l.Message[:20]))
		}
		if diff := cmp.Diff([]string{"warn the endpoint is away", "warn the export queue is ", "info the endpoint is back"}, said); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAddLargerThanTheQueueKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := new(fake), process()
		cfg := small()
		cfg.MaxQueueSize = 10
		var mu sync.Mutex
		var released []*span.Span
		q, err := New(cfg, e, func(s []*span.Span) {
			mu.Lock()
			defer mu.Unlock()
			released = append(released, s...)
		}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		all := spans(p, 28)
		q.Add(all[:3])
		q.Add(all[3:])
		stop(t, q)
		check(t, p, 10, 18, 0)
		if len(e.calls) != 1 || !slices.Equal(e.calls[0], all[18:]) {
			t.Errorf("exported batches of %v, want the newest ten", e.sizes())
		}
		if !slices.Equal(released, all) {
			t.Errorf("%d spans released, want all 28 in order", len(released))
		}
	})
}

func TestRefusedSpansAreSharedByTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := process(), process()
		e := &fake{export: func(_ context.Context, batch []*span.Span) error {
			return &Error{Done: len(batch), Refused: 5, Err: errors.New("too old")}
		}}
		q := start(t, small(), e)
		q.Add(append(spans(one, 2), spans(two, 8)...))
		stop(t, q)
		check(t, one, 1, 0, 1)
		check(t, two, 4, 0, 4)
	})
}

func TestOutcomes(t *testing.T) {
	other := errors.New("no")
	for _, tc := range []struct {
		name string
		err  error
		want Error
	}{
		{"taken", nil, Error{Done: 10}},
		{"refused", other, Error{Done: 10, Refused: 10}},
		{"time-out", fmt.Errorf("x: %w", context.DeadlineExceeded), Error{Retry: true}},
		{"some taken, then away", &Error{Done: 4, Refused: 1, Retry: true, After: time.Hour, Err: other}, Error{Done: 4, Refused: 1, Retry: true, After: time.Hour}},
		{"some taken, then refused", fmt.Errorf("x: %w", &Error{Done: 4, Refused: 1, Err: other}), Error{Done: 10, Refused: 7}},
		{"all taken, some refused", &Error{Done: 10, Refused: 3, Err: other}, Error{Done: 10, Refused: 3}},
		{"retry of nothing", &Error{Done: 10, Retry: true, Err: other}, Error{Done: 10}},
		{"nonsense", &Error{Done: 99, Refused: -5, Err: other}, Error{Done: 10}},
	} {
		got := outcome(tc.err, 10)
		got.Err = nil
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestRestOfABatchIsTriedAgainAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, again := process(), false
		e := new(fake)
		e.export = func(_ context.Context, batch []*span.Span) error {
			if !again {
				again = true
				return &Error{Done: 6, Refused: 1, Retry: true, After: time.Minute, Err: errors.New("busy")}
			}
			return nil
		}
		q := start(t, small(), e)
		began := time.Now()
		q.Add(spans(p, 10))
		synctest.Wait()
		check(t, p, 5, 0, 1)
		q.Add(spans(p, 10))
		for q.Len() > 0 {
			time.Sleep(time.Second)
		}
		if d := time.Since(began); d < time.Minute {
			t.Errorf("tried again after %v, the endpoint asked for a minute", d)
		}
		if diff := cmp.Diff([]int{10, 4, 10}, e.sizes()); diff != "" {
			t.Error(diff)
		}
		stop(t, q)
		check(t, p, 19, 0, 1)
	})
}

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Bool
		p := process()
		e := &fake{export: func(context.Context, []*span.Span) error {
			if !back.Load() {
				return &Error{Retry: true, Err: errors.New("away")}
			}
			return nil
		}}
		q := start(t, small(), e)
		if err := q.Flush(t.Context()); err != nil { // of nothing
			t.Fatal(err)
		}
		q.Add(spans(p, 15))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := q.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flush with the endpoint away: %v", err)
		}
		back.Store(true)
		began := time.Now()
		if err := q.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("flush sat out the back-off: %v", d)
		}
		check(t, p, 15, 0, 0)
		stop(t, q)
		if err := q.Flush(t.Context()); err != nil { // after the end
			t.Fatal(err)
		}
	})
}

func TestShutdownCountsWhatItCouldNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := process()
		e := &fake{export: func(context.Context, []*span.Span) error {
			return &Error{Retry: true, Err: errors.New("away")}
		}}
		q := start(t, small(), e)
		q.Add(spans(p, 50))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := q.Shutdown(ctx); err == nil {
			t.Error("shut down with spans left, and no error")
		}
		check(t, p, 0, 50, 0)
		q.Add(spans(p, 2))
		check(t, p, 0, 52, 0)
		if q.Len() != 0 || e.shutdown != 1 {
			t.Errorf("length %d, shut down %d times", q.Len(), e.shutdown)
		}
	})
}

func TestShutdownEndsAnExportThatHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := process()
		e := &fake{export: func(ctx context.Context, _ []*span.Span) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		core, logs := observer.New(zapcore.InfoLevel)
		q, err := New(small(), e, nil, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		q.Add(spans(p, 12))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = q.Shutdown(ctx)
		check(t, p, 0, 12, 0)
		if logs.Len() != 0 {
			t.Errorf("logged %q", logs.All()[0].Message)
		}
	})
}

func TestExporterThatHangsIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, hang := process(), make(chan struct{})
		e := &fake{export: func(context.Context, []*span.Span) error {
			<-hang
			return nil
		}}
		q := start(t, small(), e)
		q.Add(spans(p, 25))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Shutdown(ctx); err == nil {
			t.Error("no error")
		}
		check(t, p, 0, 25, 0)
		close(hang) // and does come back: nothing is counted twice
		synctest.Wait()
		check(t, p, 0, 25, 0)
	})
}

func TestExportTimeoutIsARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := process(), 0
		e := &fake{export: func(ctx context.Context, _ []*span.Span) error {
			if n++; n < 3 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		q := start(t, small(), e)
		q.Add(spans(p, 10))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		check(t, p, 10, 0, 0)
		stop(t, q)
	})
}

// TestEverySpanIsCountedOnce lets exporters fail in all their ways, at random, under a load that is at
// times too much, and ends at a random moment.
func TestEverySpanIsCountedOnce(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { countedOnce(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func countedOnce(t *testing.T, rng *rand.Rand) {
	source := rand.New(rand.NewPCG(rng.Uint64(), 2)) // the exporter's own
	outage := false
	e := new(fake)
	e.export = func(ctx context.Context, batch []*span.Span) error {
		time.Sleep(time.Duration(source.IntN(300)) * time.Millisecond)
		if source.IntN(10) == 0 {
			outage = !outage
		}
		if outage {
			return &Error{Retry: true, Err: errors.New("away")}
		}
		n := len(batch)
		switch source.IntN(12) {
		case 0:
			return errors.New("refused")
		case 1:
			return &Error{Done: n, Refused: source.IntN(n + 1), Err: errors.New("some refused")}
		case 2:
			done := source.IntN(n + 1)
			return &Error{Done: done, Refused: source.IntN(done + 1), Retry: source.IntN(2) == 0, Err: errors.New("part")}
		case 3:
			<-ctx.Done()
			return ctx.Err()
		case 4:
			return &Error{Retry: true, After: time.Duration(source.IntN(20)) * time.Second, Err: errors.New("busy")}
		}
		return nil
	}
	targets := []*span.Target{process(), process(), process()}
	var mu sync.Mutex
	released := make(map[*span.Span]int)
	cfg := Config{MaxQueueSize: 1 + rng.IntN(200), ScheduleDelay: time.Duration(rng.IntN(2000)) * time.Millisecond, ExportTimeout: 5 * time.Second}
	cfg.MaxExportBatchSize = 1 + rng.IntN(cfg.MaxQueueSize)
	q, err := New(cfg, e, func(s []*span.Span) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range s {
			released[s]++
		}
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	added := make(map[*span.Target]uint64)
	total := 0
	for range rng.IntN(200) {
		p := targets[rng.IntN(len(targets))]
		n := rng.IntN(1 + rng.IntN(60))
		q.Add(spans(p, n))
		added[p] += uint64(n)
		total += n
		time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
		if rng.IntN(20) == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_ = q.Flush(ctx)
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(10_000))*time.Millisecond)
	defer cancel()
	err = q.Shutdown(ctx)
	q.Add(spans(targets[0], 3))
	added[targets[0]] += 3
	total += 3
	for _, p := range targets {
		c := p.Account.Counts()
		if sum := c[ledger.Exported] + c[ledger.QueueFull] + c[ledger.ExportRefused]; sum != added[p] {
			t.Errorf("%d exported + %d queue full + %d refused = %d, want the %d added (shutdown: %v)",
				c[ledger.Exported], c[ledger.QueueFull], c[ledger.ExportRefused], sum, added[p], err)
		}
	}
	if len(released) != total {
		t.Errorf("%d spans released, want %d", len(released), total)
	}
	for _, n := range released {
		if n != 1 {
			t.Fatalf("a span was released %d times", n)
		}
	}
	if q.Len() != 0 {
		t.Errorf("%d spans are left", q.Len())
	}
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{ScheduleDelay: -1}).Validate(); err == nil {
		t.Error("an empty configuration is valid")
	}
	for _, tc := range []struct {
		name string
		env  map[string]string
		want func(*Config)
		bad  bool
	}{
		{"none", nil, func(*Config) {}, false},
		{"all", map[string]string{"OTEL_BSP_MAX_QUEUE_SIZE": "4096", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
			"OTEL_BSP_SCHEDULE_DELAY": "5000", "OTEL_BSP_EXPORT_TIMEOUT": "10000"},
			func(c *Config) { *c = Config{4096, 512, 5 * time.Second, 10 * time.Second} }, false},
		{"small queue", map[string]string{"OTEL_BSP_MAX_QUEUE_SIZE": "100"},
			func(c *Config) { c.MaxQueueSize, c.MaxExportBatchSize = 100, 100 }, false},
		{"no delay", map[string]string{"OTEL_BSP_SCHEDULE_DELAY": "0"}, func(c *Config) { c.ScheduleDelay = 0 }, false},
		{"unusable", map[string]string{"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_BSP_EXPORT_TIMEOUT": "-1"}, func(*Config) {}, true},
	} {
		got, want := Default(), Default()
		tc.want(&want)
		if err := got.FromEnv(func(name string) string { return tc.env[name] }); (err != nil) != tc.bad {
			t.Errorf("%s: %v", tc.name, err)
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, want)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// discard takes everything at once.
type discard struct{}

func (discard) Export(context.Context, []*span.Span) error { return nil }
func (discard) Shutdown(context.Context) error             { return nil }

func BenchmarkQueue(b *testing.B) {
	q, err := New(Default(), discard{}, nil, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	batch := spans(process(), 64)
	b.ReportAllocs()
	for b.Loop() {
		q.Add(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/span")
	if err := q.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
}
