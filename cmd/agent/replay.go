// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"breadcrumb/bpf"
	"breadcrumb/internal/ledger"
	"breadcrumb/internal/recording"
	"breadcrumb/internal/span"

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
	err = replay(ctx, r, queue.Len, cfg.Queue.MaxQueueSize/2, func() { _ = queue.Flush(ctx) }, func(seed uint64, target func(uint32) *span.Target) *pipeline {
		return newPipeline(noKernel{}, target, queue, seed)
	})
	if errors.Is(err, recording.ErrCut) {
		log.Warn("what came after the cut is missing", zap.Error(err))
		err = nil
	}
	end, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return errors.Join(err, queue.Shutdown(end), closeOutput(end))
}

func replay(ctx context.Context, r *recording.Reader, queued func() int, most int, flush func(),
	build func(seed uint64, target func(uint32) *span.Target) *pipeline) error {
	targets := map[uint32]*span.Target{}
	var p *pipeline
	for {
		kind, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case kind == recording.Meta:
			var meta struct {
				Seed uint64 `json:"seed"`
			}
			if err := json.Unmarshal(data, &meta); err != nil {
				return fmt.Errorf("%w: %w", recording.ErrFormat, err)
			}
			p = build(meta.Seed, func(pid uint32) *span.Target { return targets[pid] })
		case kind == recording.Target:
			var t recordedTarget
			if err := json.Unmarshal(data, &t); err != nil {
				return fmt.Errorf("%w: %w", recording.ErrFormat, err)
			}
			targets[t.PID] = &span.Target{PID: t.PID, Resource: t.resource(), Account: new(ledger.Account)}
		case p == nil:
			return fmt.Errorf("%w: it does not begin with what it is about", recording.ErrFormat)
		default:
			if err := p.replay(kind, data); err != nil {
				return err
			}
			if kind == recording.Batch && queued() > most {
				flush()
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}
