// SPDX-License-Identifier: Apache-2.0

// Bench measures what tracing costs the programs that are traced, and the machine. It runs real servers
// under load with and without the agent, one right after the other, and compares only within such pairs.
//
//	go run ./test/bench            the whole table, in a quarter of an hour
//	go run ./test/bench -quick     a smoke run, in some two minutes: its figures mean little
//	go run ./test/bench -hooks     what the hooks cost programs that are not traced
//
// The table goes to standard output as Markdown, progress to standard error. All traffic is on the
// loopback interface, and the agent traces only servers that were started here. It needs root, as the
// agent does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds   int
	duration time.Duration
	only     string
	json     string
	agent    string
	quiet    time.Duration
	quick    bool
	hooks    bool
}

// maxTime ends a run in which something hangs.
const maxTime = 30 * time.Minute

func init() {
	// Children are sent a signal when the thread that started them ends: it has to be one that does not.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) > 1 {
		// The load generator, the sink and the caller of hooks are processes of their own, with their
		// own CPU time and affinity, but the same binary.
		if helper, ok := helpers[os.Args[1]]; ok {
			if err := helper(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "pairs of runs, without and with the agent, for each figure")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "of each run under load; latency is measured for three fifths of it")
	flag.StringVar(&o.only, "only", "", "parts to run, separated by commas: PART, SERVER or PART/SERVER;\nparts: "+
		strings.Join(parts, ", ")+"; servers: go, sdk, python, nginx, grpc, pgx, pgbench")
	flag.StringVar(&o.json, "json", "", "write all that was measured to this `file`")
	flag.StringVar(&o.agent, "agent", "", "measure this breadcrumb `binary`; default: the one built from this tree")
	flag.DurationVar(&o.quiet, "quiet", 0, "wait up to this long before each pair until other programs leave the machine alone")
	flag.BoolVar(&o.quick, "quick", false, "a smoke run: one pair of short runs for each figure")
	flag.BoolVar(&o.hooks, "hooks", false, "measure instead what the hooks cost programs that are not traced")
	flag.Parse()
	if o.quick {
		o.rounds, o.duration = 1, time.Second
	}
	if o.rounds < 1 || o.duration < time.Second || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: at least one round, of at least a second, and no arguments")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	err := run(ctx, o)
	cancel()
	stop()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("it took more than %v: %w", maxTime, err)
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// helpers are the other things this binary can be.
var helpers = map[string]func(args []string) error{
	"helper-sink":  sinkMain,
	"helper-load":  loadMain,
	"helper-grpc":  grpcMain,
	"helper-calls": callsMain,
}

// wants is whether -only leaves a part in for a server.
func (o options) wants(part, server string) bool {
	if o.only == "" {
		return true
	}
	for item := range strings.SplitSeq(o.only, ",") {
		if item == part || item == server || item == path.Join(part, server) {
			return true
		}
	}
	return false
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the agent needs root")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if o.hooks {
		err = b.hooks()
	} else {
		err = b.all()
	}
	if b.report.empty() {
		return err
	}
	if o.json != "" {
		err = errors.Join(err, b.report.writeJSON(o.json))
	}
	fmt.Print(b.report.markdown())
	return err
}
