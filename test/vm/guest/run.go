// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"breadcrumb/test/vm/job"
)

// run does the steps of the plan one after the other.
func run() error {
	var plan job.Plan
	if err := job.Read(job.PlanFile(job.Dir), &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	for i, s := range plan.Steps {
		log, err := os.Create(job.LogFile(job.Dir, i))
		if err != nil {
			return err
		}
		outcome := runStep(s, log)
		if err := errors.Join(log.Close(), job.Write(job.OutcomeFile(job.Dir, i), outcome)); err != nil {
			return err
		}
	}
	return nil
}

func runStep(s job.Step, log *os.File) job.Outcome {
	start := time.Now()
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir = "/tmp"
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return job.Outcome{Exit: -1, Error: err.Error()}
	}
	stop := time.AfterFunc(time.Duration(s.Seconds)*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	outcome := job.Outcome{Exit: cmd.ProcessState.ExitCode(), Seconds: time.Since(start).Seconds()}
	if !stop.Stop() {
		outcome.Error = fmt.Sprintf("it took more than %d seconds", s.Seconds)
	} else if err != nil {
		outcome.Error = err.Error()
	}
	return outcome
}

// build is go build: it copies what the host has built.
func build(args []string) error {
	if len(args) < 6 || args[0] != "build" || args[1] != "-C" || args[3] != "-o" || args[len(args)-1] != "." {
		return fmt.Errorf("%s: there is no Go here, but for what the host has built", strings.Join(args, " "))
	}
	folder, flags := args[2], args[5:len(args)-1]
	in, err := os.Open(job.Program(job.Built, folder, flags))
	if err != nil {
		return fmt.Errorf("%s %v is not among the programs that the host builds (test/vm/build.go): %w", folder, flags, err)
	}
	defer in.Close()
	out, err := os.OpenFile(args[4], os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// agent becomes the real breadcrumb, which attaches, if it does, as the folder of its name is called.
func agent(args []string) error {
	exe := filepath.Join(job.Built, "bin", "breadcrumb")
	if len(args) > 1 && (args[1] == "run" || args[1] == "record") && !slices.Contains(args, "--attach") {
		args = append(args, "--attach", filepath.Base(filepath.Dir(args[0])))
	}
	return syscall.Exec(exe, append([]string{exe}, args[1:]...), os.Environ())
}
