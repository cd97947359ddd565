// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"breadcrumb/test/vm/job"
)

// mountAt mounts a file system at a path, which is made.
func mountAt(source, path, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, path, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, path, err)
	}
	return nil
}

// shared are the options of a folder that is shared with the host.
const shared = "trans=virtio,version=9p2000.L,msize=512000"

// prepare makes of a machine that has just started one in which servers and their tracer can run.
func prepare() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := mountAt(m[0], m[1], m[0], 0, ""); err != nil {
			return err
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mountAt(job.Tag, job.Dir, "9p", 0, shared); err != nil {
		return err
	}
	if err := mountAt(job.BuiltTag, job.Built, "9p", unix.MS_RDONLY, shared+",cache=loose"); err != nil {
		return err
	}
	var plan job.Plan
	if err := job.Read(job.PlanFile(job.Dir), &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if plan.Root {
		if err := switchRoot(); err != nil {
			return err
		}
	}
	for _, m := range []struct{ kind, path, options string }{
		{"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "mode=1777"}, {"tmpfs", "/dev/shm", "mode=1777"},
		{"devpts", "/dev/pts", ""}, {"cgroup2", "/sys/fs/cgroup", ""}, {"bpf", "/sys/fs/bpf", ""},
		{"tracefs", "/sys/kernel/tracing", ""}, {"securityfs", "/sys/kernel/security", ""},
	} {
		if err := mountAt(m.kind, m.path, m.kind, 0, m.options); err != nil {
			return err
		}
	}
	if plan.ModuleRoot != "" {
		if err := mountAt(filepath.Join(job.Built, "module"), plan.ModuleRoot, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// As service managers have it: the kernel's own limit is lower than what agents and servers count on.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1 << 19}); err != nil {
		return fmt.Errorf("raise the limit of files: %w", err)
	}
	return loopbackUp()
}

func loadModules(dir string) error {
	modules, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	for _, path := range modules {
		object, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := unix.InitModule(object, ""); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(path), err)
		}
		os.Remove(path)
	}
	return nil
}

// switchRoot makes the host's root file system, below a layer in memory, the root of this process.
func switchRoot() error {
	if err := mountAt(job.RootTag, "/lower", "9p", unix.MS_RDONLY, shared+",cache=loose"); err != nil {
		return err
	}
	if err := mountAt("tmpfs", "/upper", "tmpfs", 0, "size=50%"); err != nil {
		return err
	}
	for _, dir := range []string{"/upper/files", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mountAt("overlay", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"); err != nil {
		return err
	}
	for _, path := range []string{"/proc", "/sys", "/dev", job.Dir, job.Built} {
		if err := mountAt(path, "/new"+path, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := unix.Chdir("/new"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return unix.Chdir("/")
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return nil
}
