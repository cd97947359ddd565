// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"breadcrumb/bpf"
	"breadcrumb/correlate"
	"breadcrumb/internal/recording"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"
)

// pipeline is everything behind the ring buffer, the same for a run and for a replay:
// read → conns → decode → correlate → queue. It runs on one goroutine, and what goes into it is all that
// decides what comes out: whatever is not a record of the kernel side is written to a recording too.
type pipeline struct {
	conns *probes.Conns
	corr  *correlate.Correlator
	emit  func([]*span.Span)
	rec   *recording.Writer // nil: nothing is recorded

	told    map[uint32]*span.Target // processes that are in the recording
	partial uint64                  // pipelineStats.partial

	stats atomic.Pointer[pipelineStats] // as of the last batch, for the metrics
}

// pipelineStats is what the stages count beside the ledger.
type pipelineStats struct {
	conns probes.Stats
	corr  correlate.Stats
	held  int
	// partial are finished spans of which fields are not known.
	partial uint64
}

// handOver is how many finished spans go to the queue before a batch of events is over: under load batches
// are long.
const handOver = 512

// correlation is the correlator's configuration for a run.
func correlation(infer bool, seed uint64) correlate.Config {
	cfg := correlate.Default()
	cfg.Infer, cfg.Seed = infer, seed
	return cfg
}

// newPipeline makes a pipeline. target finds the process of an event; emit takes the finished spans, and must
// not keep the slice.
func newPipeline(protocols []probes.Protocol, kernel probes.Kernel, target func(pid uint32) *span.Target, emit func([]*span.Span), cfg correlate.Config) *pipeline {
	p := &pipeline{corr: correlate.New(cfg), emit: emit, told: map[uint32]*span.Target{}}
	p.stats.Store(new(pipelineStats))
	p.conns = probes.NewConns(protocols, kernel, p, func(pid uint32) *span.Target {
		t := target(pid)
		if p.rec != nil && p.told[pid] != t {
			p.recordTarget(pid, t)
		}
		return t
	})
	return p
}

// handle takes one record of the kernel side.
func (p *pipeline) handle(record []byte) {
	p.conns.Handle(record)
	if k := bpf.Kind(record); k == bpf.EventExit || k == bpf.EventExec {
		if e := bpf.View[bpf.ProcessEvent](record); e != nil {
			p.corr.Exit(e.Hdr.Tgid)
		}
	}
	if p.rec != nil {
		p.rec.Write(recording.Event, bpf.Trim(record))
	}
	if p.corr.Ready() >= handOver {
		p.emit(p.corr.Take())
	}
}

// batch ends a batch of records at time now (Unix ns).
func (p *pipeline) batch(now int64) {
	p.corr.Expire(now)
	p.emit(p.corr.Take())
	if s := (pipelineStats{p.conns.Stats(), p.corr.Stats(), p.corr.Held(), p.partial}); s != *p.stats.Load() {
		p.stats.Store(&s)
	}
	if p.rec != nil {
		p.rec.WriteTime(recording.Batch, now)
	}
}

func (p *pipeline) setClock(offset int64) {
	p.conns.SetClock(offset)
	if p.rec != nil {
		p.rec.WriteTime(recording.Clock, offset)
	}
}

func (p *pipeline) progress(id uint64, dir probes.Direction, pos uint64, t int64) {
	p.conns.Progress(id, dir, pos, t)
	if p.rec != nil {
		var b [25]byte
		binary.LittleEndian.PutUint64(b[:], id)
		binary.LittleEndian.PutUint64(b[8:], pos)
		binary.LittleEndian.PutUint64(b[16:], uint64(t))
		b[24] = byte(dir)
		p.rec.Write(recording.Progress, b[:])
	}
}

// drop gives up connections whose end will not be told, at time now (Unix ns).
func (p *pipeline) drop(ids []uint64, now int64) {
	if len(ids) == 0 {
		return
	}
	p.conns.Drop(ids, now)
	if p.rec != nil {
		b := binary.LittleEndian.AppendUint64(nil, uint64(now))
		for _, id := range ids {
			b = binary.LittleEndian.AppendUint64(b, id)
		}
		p.rec.Write(recording.Drop, b)
	}
}

// stop ends what is under way at time now and hands over everything.
func (p *pipeline) stop(now int64) {
	p.conns.Stop(now)
	p.corr.Flush()
	p.emit(p.corr.Take())
	if p.rec != nil {
		p.rec.WriteTime(recording.Stop, now)
	}
}

// pending says that something waits for time to pass.
func (p *pipeline) pending() bool { return p.conns.Stats().Waiting > 0 || p.corr.Waiting() > 0 }

// replay feeds a recording through.
func (p *pipeline) replay(kind recording.Kind, data []byte) error {
	switch kind {
	case recording.Event:
		p.handle(data)
	case recording.Progress:
		if len(data) != 25 {
			return fmt.Errorf("%w: a progress record of %d bytes", recording.ErrFormat, len(data))
		}
		p.progress(binary.LittleEndian.Uint64(data), probes.Direction(data[24]&1),
			binary.LittleEndian.Uint64(data[8:]), int64(binary.LittleEndian.Uint64(data[16:])))
	case recording.Drop:
		if len(data) < 16 || len(data)%8 != 0 {
			return fmt.Errorf("%w: a drop record of %d bytes", recording.ErrFormat, len(data))
		}
		var ids []uint64
		for b := data[8:]; len(b) > 0; b = b[8:] {
			ids = append(ids, binary.LittleEndian.Uint64(b))
		}
		p.drop(ids, int64(binary.LittleEndian.Uint64(data)))
	case recording.Clock, recording.Batch, recording.Stop:
		t, ok := recording.Time(data)
		if !ok {
			return fmt.Errorf("%w: a time of %d bytes", recording.ErrFormat, len(data))
		}
		switch kind {
		case recording.Clock:
			p.setClock(t)
		case recording.Batch:
			p.batch(t)
		case recording.Stop:
			p.stop(t)
		}
	default:
		return fmt.Errorf("%w: a record of kind %d", recording.ErrFormat, kind)
	}
	return nil
}

// The following make the pipeline the sink of the decoders.

func (p *pipeline) Conn(c probes.ConnInfo) { p.corr.Conn(correlate.Conn(c)) }

func (p *pipeline) ConnGone(id uint64) { p.corr.ConnGone(id) }

func (p *pipeline) Add(s *span.Span) {
	if s.Partial && s.State == span.Done {
		p.partial++
	}
	p.corr.Add(s)
	if s.State == span.Lost {
		probes.Recycle([]*span.Span{s})
	}
}

func (p *pipeline) Moved(pid, tid uint32, conn uint64, dir uint8) { p.corr.Moved(pid, tid, conn, dir) }

func (p *pipeline) PeerEnded(conn uint64) { p.corr.PeerEnded(conn) }

func (p *pipeline) Job(pid uint32, call, request trace.SpanID, unclaimed int) {
	p.corr.Job(pid, call, request, unclaimed)
}

func (p *pipeline) Caller(call trace.SpanID, by span.Evidence) { p.corr.Caller(call, by) }

func (p *pipeline) HandOff(pid uint32, task uint64, request trace.SpanID) {
	p.corr.HandOff(pid, task, request)
}

func (p *pipeline) Alias(id trace.SpanID, s *span.Span) { p.corr.Alias(id, s) }

// recordedTarget is a process in a recording.
type recordedTarget struct {
	PID      uint32              `json:"pid"`
	Resource []recordedAttribute `json:"resource"`
}

type recordedAttribute struct {
	Key    string    `json:"key"`
	Type   string    `json:"type"`
	Str    string    `json:"str,omitempty"`
	Int    int64     `json:"int,omitempty"`
	Float  float64   `json:"float,omitempty"`
	Bool   bool      `json:"bool,omitempty"`
	Strs   []string  `json:"strs,omitempty"`
	Ints   []int64   `json:"ints,omitempty"`
	Floats []float64 `json:"floats,omitempty"`
	Bools  []bool    `json:"bools,omitempty"`
}

// recordTarget tells a recording what is known of a process from here on; t is nil if it is gone.
func (p *pipeline) recordTarget(pid uint32, t *span.Target) {
	if t == nil {
		delete(p.told, pid)
		p.rec.Write(recording.Gone, binary.LittleEndian.AppendUint32(nil, pid))
		return
	}
	p.told[pid] = t
	r := recordedTarget{PID: t.PID}
	for _, kv := range t.Resource {
		a := recordedAttribute{Key: string(kv.Key), Type: kv.Value.Type().String()}
		switch kv.Value.Type() {
		case attribute.BOOL:
			a.Bool = kv.Value.AsBool()
		case attribute.INT64:
			a.Int = kv.Value.AsInt64()
		case attribute.FLOAT64:
			a.Float = kv.Value.AsFloat64()
		case attribute.STRINGSLICE:
			a.Strs = kv.Value.AsStringSlice()
		case attribute.INT64SLICE:
			a.Ints = kv.Value.AsInt64Slice()
		case attribute.FLOAT64SLICE:
			a.Floats = kv.Value.AsFloat64Slice()
		case attribute.BOOLSLICE:
			a.Bools = kv.Value.AsBoolSlice()
		default:
			a.Type, a.Str = attribute.STRING.String(), kv.Value.String()
		}
		r.Resource = append(r.Resource, a)
	}
	if b, err := json.Marshal(r); err == nil {
		p.rec.Write(recording.Target, b)
	}
}

func (r recordedTarget) resource() []attribute.KeyValue {
	var kvs []attribute.KeyValue
	for _, a := range r.Resource {
		k := attribute.Key(a.Key)
		switch a.Type {
		case attribute.BOOL.String():
			kvs = append(kvs, k.Bool(a.Bool))
		case attribute.INT64.String():
			kvs = append(kvs, k.Int64(a.Int))
		case attribute.FLOAT64.String():
			kvs = append(kvs, k.Float64(a.Float))
		case attribute.STRINGSLICE.String():
			kvs = append(kvs, k.StringSlice(a.Strs))
		case attribute.INT64SLICE.String():
			kvs = append(kvs, k.Int64Slice(a.Ints))
		case attribute.FLOAT64SLICE.String():
			kvs = append(kvs, k.Float64Slice(a.Floats))
		case attribute.BOOLSLICE.String():
			kvs = append(kvs, k.BoolSlice(a.Bools))
		default:
			kvs = append(kvs, k.String(a.Str))
		}
	}
	return kvs
}

// clockOffset is what is to be added to the kernel's monotonic time to make it Unix time, ns. The clocks
// cannot be read at once: of several tries the one with the least between is taken.
func clockOffset() int64 {
	best, offset := int64(1<<62), int64(0)
	for range 8 {
		var before, after unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &before) != nil {
			break
		}
		now := time.Now().UnixNano()
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &after) != nil {
			break
		}
		if d := after.Nano() - before.Nano(); d < best {
			best, offset = d, now-before.Nano()-d/2
		}
	}
	return offset
}
