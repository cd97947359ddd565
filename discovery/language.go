// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMaps bounds how much of /proc/PID/maps is read; a JVM with thousands of mappings has about 1 MB.
const maxMaps = 4 << 20

// detect says in which language a process is written. The file settles most; embedded and dynamically
// loaded runtimes show in the mappings, which at the moment of an exec are not there yet.
func (i *Inspector) detect(dir, exe string, t *Target) error {
	x, err := i.executables.get(dir, exe)
	if err != nil {
		return err
	}
	t.Language, t.Version, t.runtime = x.language, x.version, x.runtime
	if x.bits32 {
		t.Gaps = append(t.Gaps, "is a 32-bit process: its system calls take the compatibility entry, which is not traced")
	}
	full := strings.Count(t.Version, ".") >= 2
	switch t.Language {
	case Go, Rust:
		return nil
	case CPP:
		if path.Base(exe) == "postgres" {
			return nil // PL/Python and PL/Java live in its back ends
		}
	case Java:
		t.Version = releaseVersion(dir, path.Dir(path.Dir(exe)))
		full = t.Version != ""
	case Node:
		if !full {
			t.Version = nodeVersion(dir, path.Dir(path.Dir(exe)))
			full = true
		}
	case PHP:
		full = true
	}
	if full {
		return nil
	}
	lib := mappedRuntime(dir, t.Language)
	if lib == "" {
		return nil
	}
	language, version := byLibrary(lib)
	if t.Language == CPP || t.Language == language {
		t.Language = language
		if len(version) > len(t.Version) {
			t.Version = version
		}
	}
	switch t.Language {
	case Python:
		if v := i.versionOfLibrary(dir, lib); v != "" {
			t.Version = v
		}
	case Java:
		if t.Version == "" { // JAVA_HOME/lib/server/libjvm.so
			t.Version = releaseVersion(dir, path.Dir(path.Dir(path.Dir(lib))))
		}
	}
	return nil
}

// mappedRuntime is the path of the library that makes a process one of the wanted language; for a native
// program, of any. procfs' ProcMaps would make an object of each mapping, thousands in a JVM.
func mappedRuntime(dir string, want Language) string {
	f, err := os.Open(dir + "/maps")
	if err != nil {
		return ""
	}
	defer f.Close()
	found, rank := "", len(libraries)
	s := bufio.NewScanner(io.LimitReader(f, maxMaps))
	for s.Scan() {
		line := s.Bytes()
		slash := bytes.IndexByte(line, '/')
		if slash < 0 {
			continue
		}
		file := bytes.TrimSuffix(line[slash:], []byte(" (deleted)"))
		base := file[bytes.LastIndexByte(file, '/')+1:]
		if !bytes.HasPrefix(base, []byte("lib")) {
			continue
		}
		for n, lib := range libraries[:rank] {
			if (want == CPP || want == lib.language) && bytes.HasPrefix(base, []byte(lib.prefix)) && bytes.Contains(base, []byte(".so")) {
				found, rank = string(file), n
				break
			}
		}
	}
	return found
}

// libraryVersion asks a libpython for its version, once per library.
func (i *Inspector) versionOfLibrary(dir, lib string) string {
	f, err := OpenIn(dir, lib)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	key := fmt.Sprint(lib, st.Size(), st.ModTime().UnixNano())
	i.mu.Lock()
	v, ok := i.versions[key]
	i.mu.Unlock()
	if ok {
		return v
	}
	v = elfPythonVersion(f, st.Size())
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.versions) >= maxExecutables || i.versions == nil {
		i.versions = make(map[string]string)
	}
	i.versions[key] = v
	return v
}

func elfPythonVersion(r io.ReaderAt, size int64) (v string) {
	defer func() {
		_ = recover() // debug/elf on a hostile file
	}()
	f, err := elf.NewFile(io.NewSectionReader(&budgetReader{r, readBudget}, 0, size))
	if err != nil {
		return ""
	}
	return pythonVersion(f)
}

var javaVersion = regexp.MustCompile(`(?m)^JAVA_VERSION="?([^"\n]+)"?`)

// releaseVersion reads the file `release` that every JDK and JRE since 7 has in its home.
func releaseVersion(dir, home string) string {
	for range 2 { // JAVA_HOME/bin/java, or JAVA_HOME/jre/bin/java before 9
		if m := javaVersion.FindSubmatch(readIn(dir, home+"/release")); m != nil {
			return string(m[1])
		}
		home = path.Dir(home)
	}
	return ""
}

var nodeVersionLine = regexp.MustCompile(`(?m)^#define NODE_(?:MAJOR|MINOR|PATCH)_VERSION (\d+)`)

// nodeVersion reads the header that the release archives, their packages and the Docker images have
// beside node. The binary itself has the version too, somewhere in 100 MB.
func nodeVersion(dir, prefix string) string {
	m := nodeVersionLine.FindAllSubmatch(readIn(dir, prefix+"/include/node/node_version.h"), 3)
	if len(m) != 3 {
		return ""
	}
	return fmt.Sprintf("%s.%s.%s", m[0][1], m[1][1], m[2][1])
}

// maxFile is how much of a small text file is read.
const maxFile = 64 << 10

// readIn is the head of a file in the process's own file system, or nil.
func readIn(dir, name string) []byte {
	f, err := OpenIn(dir, name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil
	}
	return data
}

// OpenIn opens a regular file in the file system that a process sees. The path is the process's own and
// not to be trusted: links are followed inside its root only, and nothing but a regular file is
// opened: to open a device can have effects.
func OpenIn(dir, name string) (*os.File, error) {
	root, err := unix.Open(dir+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir + "/root", Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir + "/root" + name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
