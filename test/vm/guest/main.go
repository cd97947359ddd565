// SPDX-License-Identifier: Apache-2.0

// Guest is the first process of a virtual machine: it prepares the machine, runs the programs of the plan
// that it finds in a folder shared with the host, and turns the machine off.
//
// By the name under which it is called it is two other things in there: a go command that knows only how to
// build what the host has built already, for compiling in an emulated machine takes minutes; and a
// breadcrumb that attaches in the way that the folder of its name says.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"breadcrumb/test/vm/job"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "go":
		exit(build(os.Args[1:]))
	case "breadcrumb":
		exit(agent(os.Args))
	}
	if os.Getpid() != 1 {
		exit(run())
	}
	if err := boot(); err != nil {
		fmt.Println("guest:", err)
	}
	unix.Sync()
	// The host's emulator ends where a machine would start again.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// boot prepares the machine and waits for the process that runs the plan.
func boot() error {
	if err := prepare(); err != nil {
		return err
	}
	// A process of its own: this one has to wait for whatever loses its parent.
	cmd := exec.Command(filepath.Join(job.Built, "bin", "guest"), "run")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{
		"PATH=" + filepath.Join(job.Built, "go") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TMPDIR=/tmp", "CI=vm",
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the plan: %w", err)
	}
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == cmd.Process.Pid {
			return err
		}
	}
}
