// SPDX-License-Identifier: Apache-2.0

// Package servers starts the real, unmodified servers that the end-to-end tests and the benchmarks
// trace, and stops them again with everything that they started. It knows nothing of spans.
package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is a safety net: how long a server may take until it accepts connections. A JVM on a
// busy machine takes seconds.
const startTimeout = 60 * time.Second

// Cgroup is a cgroup of the version 2 hierarchy that a test made, to start processes in and to select
// them by.
type Cgroup struct {
	// Path is as /proc/PID/cgroup shows it.
	Path string
	dir  *os.File
}

// NewCgroup makes a cgroup that ends with the test. It fails the test where the rights are missing.
func NewCgroup(t testing.TB) *Cgroup {
	t.Helper()
	root := cgroup2Root()
	if root == "" {
		t.Fatal("no cgroup2 hierarchy is mounted")
	}
	return newCgroup(t, root, root)
}

// Below makes a cgroup within this one.
func (c *Cgroup) Below(t testing.TB) *Cgroup {
	t.Helper()
	return newCgroup(t, cgroup2Root(), c.Dir())
}

// Dir is the folder of the cgroup.
func (c *Cgroup) Dir() string { return c.dir.Name() }

// FD is a descriptor of it, for syscall.SysProcAttr.CgroupFD.
func (c *Cgroup) FD() int { return int(c.dir.Fd()) }

func newCgroup(t testing.TB, root, in string) *Cgroup {
	t.Helper()
	path, err := os.MkdirTemp(in, "breadcrumb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A cgroup is busy for a moment after its last process was reaped.
		for range 100 {
			err = syscall.Rmdir(path)
			if err != syscall.EBUSY {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("remove cgroup %s: %v", path, err)
		}
	})
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return &Cgroup{Path: strings.TrimPrefix(path, root), dir: dir}
}

func cgroup2Root() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

// Process is a program that a test started, in a process group of its own.
type Process struct {
	Cmd *exec.Cmd
	// Output is the file that holds what it wrote.
	Output string
	done   chan struct{}
	stop   sync.Once
}

// Options change how a program is started.
type Options struct {
	// Cgroup to start it in, or nil.
	Cgroup *Cgroup
	// Env is added to a small environment of the test's own.
	Env []string
	// Dir is the working directory, the test's own if empty.
	Dir string
	// ByTerm says that the program has children that end only when it is asked to end: should the test
	// die, it is sent SIGTERM in place of SIGKILL.
	ByTerm bool
	// Stdin is what it reads; nil: nothing.
	Stdin *os.File
	// As is whom it runs as; nil: the test's own user.
	As *syscall.Credential
}

// Run starts a program that is stopped when the test ends.
func Run(t testing.TB, o Options, name string, args ...string) *Process {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed for this test and not installed: %v", name, err)
	}
	out, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	cmd := exec.Command(path, args...)
	cmd.Dir = o.Dir
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8", "HOME=" + os.TempDir()}, o.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	if o.Stdin != nil {
		cmd.Stdin = o.Stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.SysProcAttr.Credential = o.As
	if o.ByTerm {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	if o.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = o.Cgroup.FD()
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &Process{Cmd: cmd, Output: out.Name(), done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, p.Tail())
		}
	})
	return p
}

// PID is the program's process.
func (p *Process) PID() int { return p.Cmd.Process.Pid }

// Done is closed when the program's first process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the program and whatever is left of its process group, and waits for it.
func (p *Process) Stop() {
	p.stop.Do(func() {
		p.Cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
		}
		syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.done
	})
}

// Whole is what the program wrote.
func (p *Process) Whole() string {
	out, err := os.ReadFile(p.Output)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// Tail is the end of what the program wrote.
func (p *Process) Tail() string {
	out := p.Whole()
	return out[max(0, len(out)-4000):]
}

// Children are the processes that pid started and that still run.
func Children(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		list, _ := os.ReadFile(task)
		for f := range strings.FieldsSeq(string(list)) {
			child, _ := strconv.Atoi(f)
			pids = append(pids, child)
		}
	}
	return pids
}

// WaitFor polls until ready, for there is no event that says that another program listens.
func (p *Process) WaitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); ; {
		is := ready()
		select {
		case <-p.done: // another one may be what is ready
			t.Fatalf("%s ended before it had %s; it wrote:\n%s", p.Cmd.Path, what, p.Tail())
		default:
		}
		if is {
			return
		}
		time.Sleep(5 * time.Millisecond)
		if time.Now().After(deadline) {
			t.Fatalf("%s has not %s; it wrote:\n%s", p.Cmd.Path, what, p.Tail())
		}
	}
}

// waitListening waits until a connection to the server is accepted.
func (p *Process) waitListening(t testing.TB, network, addr string) {
	t.Helper()
	p.WaitFor(t, "listened on "+addr, func() bool {
		conn, err := net.Dial(network, addr)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// waitChildren waits until the program has n children, and returns them.
func (p *Process) waitChildren(t testing.TB, n int) []int {
	t.Helper()
	var pids []int
	p.WaitFor(t, fmt.Sprint(n, " children"), func() bool {
		pids = Children(p.PID())
		return len(pids) >= n
	})
	return pids
}

// given are the ports that FreePort has given away.
var given sync.Map

// FreePort finds a port that nobody uses, and never gives one twice. It stays below the range from which the kernel takes the
// ports of outgoing connections, so that none of these takes it before the server does.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 15000 + rand.IntN(15000)
		listener, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			continue
		}
		listener.Close()
		if _, twice := given.LoadOrStore(port, true); !twice {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Loopback is the address of a port of this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
