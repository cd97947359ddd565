// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// keyring holds the keys of Debian's archive (package debian-archive-keyring).
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// errNoMirror is for systems whose own apt knows no mirror of Debian's, as Ubuntu's.
var errNoMirror = errors.New("the kernels are Debian's, and this system's apt knows no mirror of Debian's: DEBIAN_MIRROR=URL names one")

// debian is a suite of the archive for one architecture, as an apt with lists and a state of its own sees
// it: the system's are untouched, its proxies and other settings hold.
type debian struct {
	suite, arch string // arch as Debian calls it, which is as Go does
	dir         string
}

// archive opens suites, each once, and forgets what apt has fetched of them with close.
type archive struct {
	dir    string
	mirror string
	opened map[string]*debian
}

func openArchive(ctx context.Context, cache string) (*archive, error) {
	dir, err := os.MkdirTemp(cache, "apt-")
	if err != nil {
		return nil, fmt.Errorf("make apt's state: %w", err)
	}
	return &archive{dir: dir, mirror: findMirror(ctx), opened: map[string]*debian{}}, nil
}

func (a *archive) close() error { return os.RemoveAll(a.dir) }

func (a *archive) open(ctx context.Context, suite, arch string) (*debian, error) {
	d := &debian{suite: suite, arch: arch, dir: filepath.Join(a.dir, arch, suite)}
	if opened := a.opened[d.dir]; opened != nil {
		return opened, nil
	}
	if a.mirror == "" {
		return nil, errNoMirror
	}
	for _, sub := range []string{"lists/partial", "archives/partial", "state"} {
		if err := os.MkdirAll(filepath.Join(d.dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make apt's state: %w", err)
		}
	}
	source := fmt.Sprintf("deb [signed-by=%s arch=%s] %s %s main\n", keyring, arch, a.mirror, suite)
	for name, text := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("make apt's state: %w", err)
		}
	}
	if _, err := d.apt(ctx, "", "apt-get", "update", "-q"); err != nil {
		return nil, err
	}
	a.opened[d.dir] = d
	return d, nil
}

// apt runs one of apt's commands on the suite.
func (d *debian) apt(ctx context.Context, dir, command string, args ...string) (string, error) {
	at := func(name string) string { return filepath.Join(d.dir, name) }
	options := []string{
		"-o", "Dir::Etc::sourcelist=" + at("sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State=" + at("state"), "-o", "Dir::State::Lists=" + at("lists"), "-o", "Dir::State::status=" + at("status"),
		"-o", "Dir::Cache=" + d.dir, "-o", "Dir::Cache::archives=" + at("archives"),
		"-o", "APT::Architecture=" + d.arch, "-o", "APT::Architectures=" + d.arch,
		// The sandbox's user could not write to a cache below a home directory.
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
	}
	cmd := exec.CommandContext(ctx, command, append(options, args...)...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s for %s: %w\n%s", command, args[0], d.suite, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// packages are the names of all packages that begin with the prefix.
func (d *debian) packages(ctx context.Context, prefix string) ([]string, error) {
	out, err := d.apt(ctx, "", "apt-cache", "pkgnames", prefix)
	return strings.Fields(out), err
}

// download fetches packages, whose signatures apt has checked, and unpacks them into a folder.
func (d *debian) download(ctx context.Context, names []string, to string) error {
	debs, err := os.MkdirTemp(d.dir, "debs-")
	if err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	defer os.RemoveAll(debs)
	if _, err := d.apt(ctx, debs, "apt-get", append([]string{"download", "-q"}, names...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(names) {
		return errors.Join(err, fmt.Errorf("download %s: got %d files", strings.Join(names, " "), len(files)))
	}
	for _, file := range files {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "--extract", file, to).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(file), err, out)
		}
	}
	return nil
}

// findMirror returns the mirror of Debian's archive that the system's apt uses; empty: none.
func findMirror(ctx context.Context) string {
	if mirror := os.Getenv("DEBIAN_MIRROR"); mirror != "" {
		return mirror
	}
	out, _ := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").Output()
	return mirrorOf(string(out))
}

// mirrorOf picks the archive's mirror from lines of a repository and a release each.
func mirrorOf(targets string) string {
	suites := []string{"bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) == 2 && slices.Contains(suites, f[1]) {
			return strings.TrimSuffix(f[0], "/")
		}
	}
	return ""
}

// newest is the last of the names in the order of their versions.
func newest(names []string) string {
	return slices.MaxFunc(names, compareVersions)
}

// compareVersions orders names that differ in numbers: 6.9 is before 6.12, 6.12.1 before 6.12.1+deb13.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		i, j := digits(a), digits(b)
		if i > 0 && j > 0 {
			m, _ := strconv.Atoi(a[:i])
			n, _ := strconv.Atoi(b[:j])
			if m != n {
				return m - n
			}
			a, b = a[i:], b[j:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsDigit(r) }); i >= 0 {
		return i
	}
	return len(s)
}
