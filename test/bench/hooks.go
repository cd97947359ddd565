// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// callKinds are what a process that is not traced does while the hooks are there.
var callKinds = []struct {
	name, title string
	prepare     func() (once func() error, err error)
}{
	{"getppid", "`getppid`: the bare cost of a system call", func() (func() error, error) {
		return func() error {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			return nil
		}, nil
	}},
	{"write", "`write` of a byte to `/dev/null`", func() (func() error, error) {
		f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		fd, b := int(f.Fd()), make([]byte, 1)
		return func() error {
			defer runtime.KeepAlive(f)
			_, err := rawWrite(fd, b)
			return err
		}, nil
	}},
	{"unix", "a byte there and back over a Unix socket", func() (func() error, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return pingPong(fds[0], fds[1]), nil
	}},
	{"tcp", "a byte there and back over loopback TCP", func() (func() error, error) {
		here, there, err := tcpPair()
		if err != nil {
			return nil, err
		}
		return pingPong(here, there), nil
	}},
}

// pingPong answers each byte on a thread of its own.
func pingPong(here, there int) func() error {
	go func() {
		runtime.LockOSThread()
		b := make([]byte, 1)
		for {
			if n, err := rawRead(there, b); err != nil || n == 0 {
				return
			}
			if _, err := rawWrite(there, b); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1)
	return func() error {
		if _, err := rawWrite(here, b); err != nil {
			return err
		}
		n, err := rawRead(here, b)
		if err == nil && n == 0 {
			err = errors.New("the other side has gone")
		}
		return err
	}
}

// tcpPair is a connection of this process to itself, as two blocking descriptors.
func tcpPair() (here, there int, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	c, err := newCaller(plan{addr: l.Addr().String()})
	if err != nil {
		return 0, 0, err
	}
	accepted, err := l.Accept()
	if err != nil {
		return 0, 0, err
	}
	defer accepted.Close()
	f, err := accepted.(*net.TCPConn).File()
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	there, err = unix.Dup(int(f.Fd())) // Fd makes it blocking
	return c.fd, there, err
}

// callTime is how long each kind of call is repeated.
const callTime = 400 * time.Millisecond

// callsMain repeats each kind of call and prints the nanoseconds that one takes.
func callsMain([]string) error {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(len(callKinds) + 2)
	result := map[string]float64{}
	for _, kind := range callKinds {
		once, err := kind.prepare()
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		const batch = 256
		var n int
		var took []float64
		for start := time.Now(); time.Since(start) < callTime; n += batch {
			began := time.Now()
			for range batch {
				if err := once(); err != nil {
					return fmt.Errorf("%s: %w", kind.name, err)
				}
			}
			took = append(took, float64(time.Since(began))/batch)
		}
		// A batch in which somebody else had the CPU says nothing of hooks, and on a busy machine that may be most.
		slices.Sort(took)
		result[kind.name] = percentile(took, 10)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// callsRow is what the calls of a process that is not traced take, in nanoseconds by kind.
type callsRow struct {
	Without map[string]float64 `json:"without"`
	With    map[string]float64 `json:"with"`
	Tracers int                `json:"tracers"` // BPF programs of others
}

// hooks measures what the hooks cost a process that is not traced, while the agent traces another that
// has nothing to do.
func (b *bench) hooks() (err error) {
	cpus := allCPUs()
	callers, rest := cpus[len(cpus)-1:], cpus[:max(1, len(cpus)-1)]
	if b.sink, err = b.startSink(rest); err != nil {
		return err
	}
	s, err := goKind.start(b, rest)
	if err != nil {
		return err
	}
	for round := range b.o.rounds {
		if err := b.waitForQuiet(); err != nil {
			return err
		}
		row := callsRow{Tracers: tracingPrograms()}
		for turn := range 2 {
			if (round+turn)%2 == 0 {
				row.Without, err = b.calls(callers)
			} else {
				var a *agent
				if a, err = b.startAgent(s, rest); err != nil {
					return err
				}
				if row.With, err = b.calls(callers); err != nil {
					return err
				}
				_, err = a.stop(b)
			}
			if err != nil {
				return err
			}
		}
		b.report.Calls = append(b.report.Calls, row)
		b.progress("hooks %d/%d: %.0f → %.0f ns for getppid", round+1, b.o.rounds, row.Without["getppid"], row.With["getppid"])
	}
	return nil
}

func (b *bench) calls(cpus []int) (map[string]float64, error) {
	var out bytes.Buffer
	p, err := b.start(launch{cpus: cpus, stdout: &out, env: []string{"GODEBUG=asyncpreemptoff=1"}}, b.self, "helper-calls")
	if err != nil {
		return nil, err
	}
	if err := p.wait(b.ctx, patience); err != nil {
		return nil, err
	}
	b.processes = slices.DeleteFunc(b.processes, func(q *process) bool { return q == p })
	var result map[string]float64
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		return nil, fmt.Errorf("read what the calls took: %w: %q", err, out.Bytes())
	}
	return result, nil
}
