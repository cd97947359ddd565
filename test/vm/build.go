// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"breadcrumb/test/vm/job"
)

// testBinaries are the compiled tests by the name of their files.
var testBinaries = map[string]string{
	"bpf":    "bpf",
	"logic":  "bpf/test",
	"inside": "test/vm/inside",
	"e2e":    "test/e2e",

	"accuracy": "test/accuracy",
}

// programs are what the tests compile with flags of their own, for there is no compiler in a machine.
var programs = []struct {
	folder string
	flags  []string
}{
	{folder: "test/e2e/servers/testdata/goserver"},
	{folder: "test/e2e/servers/testdata/goserver", flags: []string{"-ldflags=-s -w"}},
	{folder: "test/e2e/servers/testdata/goproxy"},
	{folder: "test/e2e/servers/testdata/goclient"},
	{folder: "test/e2e/servers/testdata/grpcserver"},
	{folder: "test/e2e/servers/testdata/grpcclient"},
	{folder: "test/e2e/servers/testdata/h2cserver"},
	{folder: "test/shop/orders"},
	{folder: "test/accuracy/testdata/goapp"},
}

// data are the folders whose files the tests read.
var data = []string{"test/shop"}

// builder builds what runs in the machines, once for each architecture.
type builder struct {
	root string // of the module
	work string

	mu   sync.Mutex
	done map[string]bool
}

// built returns the folder of what was built for an architecture.
func (b *builder) built(ctx context.Context, arch string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := filepath.Join(b.work, "built-"+arch)
	if b.done[arch] {
		return dir, nil
	}
	progress("building for %s", arch)
	for _, sub := range []string{"bin", "programs", "go"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	type build struct {
		out, folder string
		args        []string // of go; the first is the command
	}
	builds := []build{
		{filepath.Join(dir, "bin", "guest"), "test/vm/guest", []string{"build"}},
		{filepath.Join(dir, "bin", "breadcrumb"), "cmd/agent", []string{"build"}},
	}
	for name, folder := range testBinaries {
		builds = append(builds, build{filepath.Join(dir, "bin", name+".test"), folder, []string{"test", "-c"}})
	}
	for _, p := range programs {
		builds = append(builds, build{job.Program(dir, p.folder, p.flags), p.folder, append([]string{"build"}, p.flags...)})
	}
	for _, one := range builds {
		// Some are modules of their own.
		args := slices.Concat([]string{one.args[0], "-C", one.folder, "-o", one.out}, one.args[1:], []string{"."})
		cmd := command(ctx, "go", args...)
		cmd.Dir = b.root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, folder := range data {
		if err := os.CopyFS(filepath.Join(dir, "module", folder), os.DirFS(filepath.Join(b.root, folder))); err != nil {
			return "", fmt.Errorf("copy %s: %w", folder, err)
		}
	}
	if err := os.Symlink("../bin/guest", filepath.Join(dir, "go", "go")); err != nil {
		return "", err
	}
	for _, a := range attachments {
		as := filepath.Join(dir, "as", a)
		if err := errors.Join(os.MkdirAll(as, 0o755), os.Symlink("../../bin/guest", filepath.Join(as, "breadcrumb"))); err != nil {
			return "", err
		}
	}
	b.done[arch] = true
	return dir, nil
}

// moduleRoot is the folder of the module's go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
