// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is a safety net: how long something may take that normally takes far less.
const patience = 30 * time.Second

// process is a program that was started here, in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	name string
	done chan struct{} // closed when it has ended and all that it wrote was read

	mu     sync.Mutex
	stderr []string // the last lines
}

// tailLines is how much of a program's errors is kept.
const tailLines = 40

// launch is how a program is started.
type launch struct {
	cpus   []int             // where it may run; nil: everywhere
	env    []string          // added to a small environment
	stdin  io.Reader         // nothing if nil
	stdout io.Writer         // discarded if nil
	line   func(line string) // given each line of standard error
	byTerm bool              // it has children that end only when it is asked to end
	as     *syscall.Credential
}

// start starts a program. It has to be called on the main thread, whose affinity it borrows.
func (b *bench) start(l launch, name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = b.dir
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		"HOME=" + b.dir, "TMPDIR=" + b.dir}, l.env...)
	cmd.Stdin, cmd.Stdout = l.stdin, l.stdout
	// Nothing outlives this program, however it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: l.as}
	if l.byTerm {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := startOn(l.cpus, cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, name: filepath.Base(name), done: make(chan struct{})}
	go func() {
		in := bufio.NewScanner(stderr)
		in.Buffer(nil, 16<<20)
		for in.Scan() {
			p.mu.Lock()
			p.stderr = append(p.stderr, in.Text())
			p.stderr = p.stderr[max(0, len(p.stderr)-tailLines):]
			p.mu.Unlock()
			if l.line != nil {
				l.line(in.Text())
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
		_ = cmd.Wait()
		close(p.done)
	}()
	b.processes = append(b.processes, p)
	return p, nil
}

// startOn starts a command whose threads may run on some CPUs only.
func startOn(cpus []int, cmd *exec.Cmd) error {
	if cpus == nil {
		return cmd.Start()
	}
	var before, during unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	for _, cpu := range cpus {
		during.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &during); err != nil {
		return fmt.Errorf("set affinity: %w", err)
	}
	err := cmd.Start()
	if e := unix.SchedSetaffinity(0, &before); e != nil {
		return fmt.Errorf("restore affinity: %w", e)
	}
	return err
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// wait waits until the process has ended.
func (p *process) wait(ctx context.Context, limit time.Duration) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return fmt.Errorf("%s does not end", p.name)
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %v\n%s", p.name, p.cmd.ProcessState, p.tail())
	}
	return nil
}

// stop ends the process and whatever is left of its group.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.done
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.stderr, "\n")
}

// usedCPU is the CPU time of a process that has ended.
func (p *process) usedCPU() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// until polls, for there is no event that says that another program is ready.
func (p *process) until(ctx context.Context, what string, ready func() bool) error {
	deadline := time.After(patience)
	for !ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s ended before it %s:\n%s", p.name, what, p.tail())
		case <-deadline:
			return fmt.Errorf("%s never %s:\n%s", p.name, what, p.tail())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// cpuTime is the CPU time that live processes have used, exact to the nanosecond: what /proc/PID/stat
// shows in ticks of 10 ms. The clock of another process is made from its number: see the comment at
// CPUCLOCK_PID in the kernel's include/linux/posix-timers.h.
func cpuTime(pids ...int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED
	var sum time.Duration
	for _, pid := range pids {
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid)<<3|schedClock, &ts); err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// familyTime is the CPU time of processes and of those that they have started, those that have ended included: of these in ticks of
// 10 ms.
func familyTime(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		var one time.Duration
		for range 10 { // a child may end in between
			if one, err = cpuTime(append(children(pid), pid)...); err == nil {
				break
			}
		}
		if err != nil {
			return 0, err
		}
		sum += one + reapedTime(pid)
	}
	return sum, nil
}

// reapedTime is the CPU time of what a process has started and waited for, from /proc/PID/stat.
func reapedTime(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ") // the name may be anything, but for those that run here
	f := strings.Fields(after)
	if len(f) < 15 {
		return 0
	}
	const cutime, cstime = 13, 14 // counted from the state
	user, _ := strconv.ParseInt(f[cutime], 10, 64)
	system, _ := strconv.ParseInt(f[cstime], 10, 64)
	return time.Duration(user+system) * tick
}

// residentBytes is VmRSS.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no memory", pid)
}

// tick is what /proc counts CPU time in: USER_HZ is 100 wherever Go runs.
const tick = 10 * time.Millisecond

// busyTime is the CPU time that the machine has spent on anything, from /proc/stat, and what the
// hypervisor gave to others.
func busyTime() (busy, stolen time.Duration) {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, f := range strings.Fields(string(line)) {
		n, _ := strconv.ParseInt(f, 10, 64)
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq; 4 and 5 are idle and iowait
			busy += time.Duration(n) * tick
		case 8:
			stolen = time.Duration(n) * tick
		}
	}
	return busy, stolen
}

func children(pid int) []int {
	var pids []int
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for f := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(f); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// freeAddr finds an address that nobody listens on, below the range from which the kernel takes the
// ports of outgoing connections.
func freeAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(15000+rand.IntN(15000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		return addr, l.Close()
	}
	return "", fmt.Errorf("no port is free")
}

func listening(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// allCPUs are those that this program may run on.
func allCPUs() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return make([]int, runtime.NumCPU())
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
