// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"breadcrumb/bpf"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/recording"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.uber.org/zap"
)

type replayCmd struct {
	File   string `arg:"" type:"existingfile" help:"A recording that breadcrumb record has written."`
	common `embed:""`
}

// noKernel is behind a replay: nothing is there to be told.
type noKernel struct{}

func (noKernel) Verdict(uint64, bpf.VerdictKind) error { return nil }
func (noKernel) Forget(uint64)                         {}

func (c *replayCmd) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	log, err := newLogger(cfg.LogLevel)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	r, err := recording.NewReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	defer r.Close()
	if cfg.Output == "" && !cfg.OTLP.Configured(os.Getenv) {
		cfg.Output = "tree"
	}
	// A file comes faster than any exporter takes it: nothing of it may be dropped.
	queue, closeOutput, err := newQueue(ctx, cfg, log)
	if err != nil {
		return err
	}
	most := max(1, cfg.Queue.MaxQueueSize/2)
	err = replay(ctx, r, protocols(&cfg), cfg.InferParents, func(spans []*span.Span) {
		for part := range slices.Chunk(spans, most) {
			queue.Add(part)
			if queue.Len() >= most {
				_ = queue.Flush(ctx)
			}
		}
	})
	if errors.Is(err, recording.ErrCut) {
		log.Warn("what came after the cut is missing", zap.Error(err))
		err = nil
	}
	end, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return errors.Join(err, queue.Shutdown(end), closeOutput(end))
}

// replay feeds a recording through a pipeline of its own. Of one that was cut, what was under way at the cut
// is ended there, and the error is recording.ErrCut.
func replay(ctx context.Context, r *recording.Reader, protocols []probes.Protocol, infer bool, emit func([]*span.Span)) error {
	targets := map[uint32]*span.Target{}
	var p *pipeline
	var now int64
	for ctx.Err() == nil {
		kind, data, err := r.Next()
		if err != nil {
			if p != nil {
				p.stop(now)
			}
			if errors.Is(err, io.EOF) {
				return recording.ErrCut // its last record is missing
			}
			return err
		}
		if (p == nil) != (kind == recording.Meta) {
			return fmt.Errorf("%w: it does not begin with what it is about, and only there", recording.ErrFormat)
		}
		switch kind {
		case recording.Meta:
			var meta struct {
				Seed uint64 `json:"seed"`
			}
			if err := json.Unmarshal(data, &meta); err != nil {
				return fmt.Errorf("%w: %w", recording.ErrFormat, err)
			}
			p = newPipeline(protocols, noKernel{}, func(pid uint32) *span.Target { return targets[pid] }, emit, correlation(infer, meta.Seed))
		case recording.Target:
			var t recordedTarget
			if err := json.Unmarshal(data, &t); err != nil {
				return fmt.Errorf("%w: %w", recording.ErrFormat, err)
			}
			targets[t.PID] = &span.Target{PID: t.PID, Resource: t.resource(), Account: new(ledger.Account)}
		case recording.Gone:
			if len(data) != 4 {
				return fmt.Errorf("%w: a process id of %d bytes", recording.ErrFormat, len(data))
			}
			delete(targets, binary.LittleEndian.Uint32(data))
		default:
			if kind == recording.Batch {
				now, _ = recording.Time(data)
			}
			if err := p.replay(kind, data); err != nil {
				return err
			}
			if kind == recording.Stop {
				return nil
			}
		}
	}
	return nil
}
