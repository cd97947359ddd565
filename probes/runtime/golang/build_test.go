// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// goBuild is one way to build a program of testdata/.
type goBuild struct {
	program   string // folder in testdata/, "client" if empty
	toolchain string // "go1.21.13", the one that runs the test if empty
	arch      string // the machine's own if empty
	cgo       bool
	flags     []string
}

func (b goBuild) String() string {
	parts := []string{b.toolchain, b.arch}
	if b.toolchain == "" {
		parts[0] = runtime.Version()
	}
	if b.arch == "" {
		parts[1] = runtime.GOARCH
	}
	if b.cgo {
		parts = append(parts, "cgo")
	}
	return strings.Join(append(parts, b.flags...), " ")
}

// builds holds what was built in this run of the tests, by how. TestMain removes the folder.
var builds struct {
	dir  string
	mu   sync.Mutex
	once map[string]*sync.Once
}

// build returns the path of the program so built. Toolchains that are not here are fetched as Go modules.
func (b goBuild) build(t testing.TB) string {
	t.Helper()
	if b.cgo {
		if _, err := exec.LookPath("gcc"); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip("no C compiler")
		}
	}
	key := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%#v", b)))[:16]
	path := filepath.Join(builds.dir, key)

	builds.mu.Lock()
	once := builds.once[key]
	if once == nil {
		once = new(sync.Once)
		builds.once[key] = once
	}
	builds.mu.Unlock()
	var failure string
	once.Do(func() {
		program := "client"
		if b.program != "" {
			program = b.program
		}
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", path}, append(b.flags, ".")...)...)
		cmd.Dir = filepath.Join("testdata", program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
		if b.cgo {
			cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
		}
		if b.toolchain != "" {
			cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+b.toolchain)
		}
		if b.arch != "" {
			cmd.Env = append(cmd.Env, "GOARCH="+b.arch)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			failure = fmt.Sprintf("%v\n%s", err, out)
		}
	})
	if failure != "" {
		t.Fatalf("build %s: %s", b, failure)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("build %s failed before", b)
	}
	return path
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "golang")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir = dir
	builds.once = make(map[string]*sync.Once)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// toolchains are what the tables are compared with: in every run the first release with each layout and the
// toolchain at hand; with GO_TOOLCHAINS=all the first and the last release of every minor version.
func toolchains(t *testing.T) []string {
	switch v := os.Getenv("GO_TOOLCHAINS"); v {
	case "all":
		return []string{
			"go1.19", "go1.19.13", "go1.20", "go1.20.14", "go1.21.0", "go1.21.13", "go1.22.0", "go1.22.12",
			"go1.23.0", "go1.23.12", "go1.24.0", "go1.24.13", "go1.25.0", "go1.25.14", "go1.26.0", "go1.26.11",
			"go1.27.0", "go1.27.4", "",
		}
	case "":
		return []string{"go1.19.13", "go1.21.13", "go1.23.12", "go1.25.14", ""}
	default:
		t.Fatalf("GO_TOOLCHAINS is %q, want all or nothing", v)
		return nil
	}
}

// versions calls f with a client built by each of the toolchains.
func versions(t *testing.T, f func(t *testing.T, b goBuild, path string)) {
	if testing.Short() {
		t.Skip("toolchains are fetched and take minutes to build with")
	}
	for _, toolchain := range toolchains(t) {
		for _, arch := range []string{"amd64", "arm64"} {
			b := goBuild{toolchain: toolchain, arch: arch}
			if arch != runtime.GOARCH && toolchain != "" && os.Getenv("GO_TOOLCHAINS") == "" {
				continue
			}
			t.Run(b.String(), func(t *testing.T) {
				f(t, b, b.build(t))
			})
		}
	}
}
