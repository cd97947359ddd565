// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"breadcrumb/internal/ledger"

	"github.com/prometheus/procfs"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Config says how processes are looked at.
type Config struct {
	// Proc is where the proc file system is mounted.
	Proc string
	// Version is the agent's version, for telemetry.sdk.version.
	Version string
	// Env is the agent's own environment. Its OTEL_RESOURCE_ATTRIBUTES are added to every resource (what
	// the target's environment says wins); its OTEL_SERVICE_NAME, when set, names every target.
	Env []string
	// Host are the attributes of the machine; nil asks the machine.
	Host []attribute.KeyValue
}

// Default is the configuration for the processes of this machine.
func Default() Config {
	return Config{Proc: procfs.DefaultMountPoint, Env: os.Environ()}
}

// Inspector looks at processes. Its methods may be called from any goroutine.
type Inspector struct {
	root        string
	fs          procfs.FS
	agent       environment
	host        []attribute.KeyValue
	version     string
	boot        string
	executables executables

	mu       sync.Mutex
	versions map[string]string // of libraries, see libraryVersion
}

// New returns an Inspector.
func New(c Config) (*Inspector, error) {
	fsys, err := procfs.NewFS(c.Proc)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Proc, err)
	}
	if c.Host == nil {
		c.Host = hostAttributes()
	}
	agent := parseEnvironment(c.Env)
	agent.attributes = slices.DeleteFunc(agent.attributes, func(kv keyValue) bool {
		return kv.key == string(semconv.ServiceInstanceIDKey) // that one is the agent's alone
	})
	boot, _ := os.ReadFile(path.Join(c.Proc, "sys/kernel/random/boot_id")) // without it instance ids are less unique
	return &Inspector{
		root:    c.Proc,
		fs:      fsys,
		agent:   agent,
		host:    c.Host,
		version: c.Version,
		boot:    strings.TrimSpace(string(boot)),
	}, nil
}

// Inspect reads all there is to know of a process. It fails with ErrGone or ErrKernelThread; what may not
// be read is left out, and Gaps says so.
func (i *Inspector) Inspect(pid uint32) (*Target, error) { return i.inspect(pid, nil) }

func (i *Inspector) inspect(pid uint32, nets networks) (*Target, error) {
	t, err := i.identify(pid)
	if err != nil {
		return nil, err
	}
	d, err := i.descriptors(pid)
	if errors.Is(err, ErrGone) {
		return nil, err
	}
	if err := i.complete(t, d, err, nets); err != nil {
		return nil, err
	}
	return t, nil
}

func (i *Inspector) dir(pid uint32) string {
	return i.root + "/" + strconv.FormatUint(uint64(pid), 10)
}

// failed sorts the errors of /proc: the process is gone, or it may not be looked at.
func failed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return ErrGone
	case errors.Is(err, fs.ErrPermission):
		return &AccessError{Path: name, Err: err}
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// identify reads what selection needs, but for the ports: who the process is, its executable and its
// cgroup. An executable that may not be read is left empty, and Gaps says so.
func (i *Inspector) identify(pid uint32) (*Target, error) {
	dir := i.dir(pid)
	p, err := i.fs.Proc(int(pid))
	if err != nil {
		return nil, failed(dir, err)
	}
	stat, err := p.Stat()
	if err != nil {
		return nil, failed(dir+"/stat", err)
	}
	if stat.Flags&kernelThread != 0 {
		return nil, ErrKernelThread
	}
	t := &Target{Start: stat.Starttime, Parent: uint32(max(stat.PPID, 0))}
	t.PID = pid
	exe, err := os.Readlink(dir + "/exe")
	switch err = failed(dir+"/exe", err); {
	case errors.As(err, new(*AccessError)):
		t.Gaps = append(t.Gaps, err.Error())
	case err != nil:
		return nil, err // a zombie has no executable either
	}
	t.Exe = strings.TrimSuffix(exe, " (deleted)")
	groups, err := p.Cgroups()
	if err = failed(dir+"/cgroup", err); errors.Is(err, ErrGone) {
		return nil, err
	}
	t.Cgroup, t.ContainerID = chooseCgroup(groups)
	return t, nil
}

// descriptors reads a process's open files.
func (i *Inspector) descriptors(pid uint32) (descriptors, error) {
	dir := i.dir(pid) + "/fd"
	d, err := readDescriptors(dir)
	return d, failed(dir, err)
}

// maxArgs is how much of a command line is kept; class paths are long.
const maxArgs = 8 << 10

// complete adds the rest to what identify found.
func (i *Inspector) complete(t *Target, d descriptors, denied error, nets networks) error {
	dir := i.dir(t.PID)
	p, err := i.fs.Proc(int(t.PID))
	if err != nil {
		return failed(dir, err)
	}
	args, err := p.CmdLine()
	if err = failed(dir+"/cmdline", err); errors.Is(err, ErrGone) {
		return err
	}
	if err := failed(dir+"/exe", i.detect(dir, t.Exe, t)); errors.Is(err, ErrGone) {
		return err
	}
	if t.Exe == "" && len(args) > 0 { // the best guess without rights
		t.Language, t.Version, t.runtime = byName(args[0])
	}
	t.fixed = slices.Clip(t.Gaps)
	i.connect(t, d, denied, nets)

	own, err := readEnvironment(dir + "/environ")
	if err = failed(dir+"/environ", err); errors.Is(err, ErrGone) {
		return err
	}
	t.Service = i.agent.service
	if t.Service == "" {
		t.Service = own.service
	}
	if t.Service == "" {
		t.Service = command{
			exe:  t.Exe,
			args: args,
			lang: t.Language,
			env:  own,
			cwd:  func() string { cwd, _ := os.Readlink(dir + "/cwd"); return strings.TrimSuffix(cwd, " (deleted)") },
			read: func(name string) []byte { return readIn(dir, name) },
		}.service()
	}
	t.Args = keepArgs(args)
	t.extra = merge(i.agent.attributes, own.attributes)
	t.Account = new(ledger.Account)
	t.Resource = i.resource(t)
	return nil
}

const (
	ioUringGap = "has an io_uring open: what it moves over sockets by it is seen by fentry and kprobe only"
	portsGap   = ", so its ports are not known"
)

// UsesURing says that the process had an io_uring open when it was looked at.
func (t *Target) UsesURing() bool { return slices.Contains(t.Gaps, ioUringGap) }

// connect sets what follows from the open files.
func (i *Inspector) connect(t *Target, d descriptors, denied error, nets networks) {
	t.Ports, t.Gaps = nil, t.fixed
	if len(d.sockets) > 0 {
		t.Ports = nets.listeners(i.dir(t.PID)).of(d.sockets)
	}
	if d.ioUring {
		t.Gaps = append(t.Gaps, ioUringGap)
	}
	if denied != nil && t.Exe != "" { // else the gap is known already
		t.Gaps = append(t.Gaps, denied.Error()+portsGap)
	}
}

// keepArgs bounds what is remembered of a command line.
func keepArgs(args []string) []string {
	size := 0
	for n, a := range args {
		if size += len(a); size > maxArgs {
			return slices.Clone(args[:n])
		}
	}
	return args
}

// environment is what is taken from a process's environment.
type environment struct {
	service    string
	attributes []keyValue
	flaskApp   string
}

type keyValue struct{ key, value string }

// maxEnviron bounds how much of an environment is looked through.
const maxEnviron = 1 << 20

// readEnvironment takes the few variables that are wanted and forgets the rest: environments hold
// secrets. procfs would make a string of each variable.
func readEnvironment(name string) (environment, error) {
	f, err := os.Open(name)
	if err != nil {
		return environment{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	defer clear(data)
	if err != nil {
		return environment{}, err
	}
	var wanted []string
	for v := range bytes.SplitSeq(data, []byte{0}) {
		if bytes.HasPrefix(v, []byte("OTEL_")) || bytes.HasPrefix(v, []byte("FLASK_APP=")) {
			wanted = append(wanted, string(v))
		}
	}
	return parseEnvironment(wanted), nil
}
