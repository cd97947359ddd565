// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable is what a file says of the programs that run it. It is found once per file.
type executable struct {
	language Language
	version  string
	runtime  string // where it is not the language's usual one
	bits32   bool
	// settled says that the file itself settles the language; else mapped libraries may.
	settled bool
}

// executableID names a file's contents. The path would not: containers have their own /app/server, and a
// deployment replaces it.
type executableID struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec
}

// maxExecutables bounds the cache; an entry is about 150 bytes.
const maxExecutables = 2048

// executables remembers what files say. The oldest entry goes first.
type executables struct {
	mu    sync.Mutex
	known map[executableID]executable
	order []executableID
}

// get reads the executable of the process in dir, through the exe link, so that deleted files and those
// of other mount namespaces are found too. The exe path only helps to name the language.
func (c *executables) get(dir, exe string) (executable, error) {
	f, err := os.Open(dir + "/exe")
	if err != nil {
		return executable{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return executable{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return executable{}, fmt.Errorf("%s/exe is not a regular file", dir)
	}
	id := executableID{uint64(st.Dev), st.Ino, st.Size, st.Mtim}

	c.mu.Lock()
	x, ok := c.known[id]
	c.mu.Unlock()
	if ok {
		return x, nil
	}

	x = examine(f, st.Size, exe)
	c.add(id, x)
	return x, nil
}

// Executable says what a file is that may be executed later, and which file that is.
func (i *Inspector) Executable(path string) (language Language, version string, dev, inode uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Unknown, "", 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Unknown, "", 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return Unknown, "", 0, 0, fmt.Errorf("%s is not an executable file", path)
	}
	x := examine(f, info.Size(), path)
	return x.language, x.version, st.Dev, st.Ino, nil
}

func (c *executables) add(id executableID, x executable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[id]; ok {
		return
	}
	if c.known == nil {
		c.known = make(map[executableID]executable)
	}
	if len(c.order) >= maxExecutables {
		delete(c.known, c.order[0])
		c.order = c.order[1:]
	}
	c.known[id] = x
	c.order = append(c.order, id)
}

// readBudget is how much of one file is read at most. debug/elf and debug/buildinfo are not hardened
// against hostile files; what they can be made to do is bounded by what they can be made to read.
const readBudget = 24 << 20

var errBudget = errors.New("file makes its reader read too much")

// budgetReader fails when too much was read.
type budgetReader struct {
	r    io.ReaderAt
	left int64
}

func (b *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	b.left -= int64(len(p))
	if b.left < 0 {
		return 0, errBudget
	}
	return b.r.ReadAt(p, off)
}

// examine says what a file is. It never fails: what is not understood is native.
func examine(r io.ReaderAt, size int64, exe string) (x executable) {
	x = executable{language: CPP}
	defer func() {
		_ = recover() // debug/elf on a hostile file; what is known by then is kept
	}()
	in := io.NewSectionReader(&budgetReader{r, readBudget}, 0, size)
	x.language, x.version, x.runtime = byName(exe)
	x.settled = x.language != Unknown
	if !x.settled {
		x.language = CPP
	}
	f, err := elf.NewFile(in)
	if err != nil {
		return x
	}
	x.bits32 = f.Class == elf.ELFCLASS32
	switch {
	case x.language == Python:
		if v := pythonVersion(f); v != "" {
			x.version = v
		}
	case x.settled:
	case len(f.Sections) == 0 || f.Section(".go.buildinfo") != nil || f.Section(".note.go.buildid") != nil:
		if info, err := buildinfo.Read(in); err == nil {
			x.language, x.version, x.settled = Go, goVersion(info.GoVersion), true
		} else if f.Section(".gopclntab") != nil || f.Section(".note.go.buildid") != nil {
			x.language, x.settled = Go, true
		}
	default:
		if v, ok := rustVersion(f); ok {
			x.language, x.version, x.settled = Rust, v, true
			break
		}
		libs, _ := f.ImportedLibraries()
		for _, lib := range libs {
			if l, v := byLibrary(lib); l != Unknown {
				x.language, x.version = l, v
				break
			}
		}
	}
	return x
}

// goVersion is "1.26.8" of "go1.26.8" or of "go1.26.8 X:nodwarf5"; of "devel go1.27-abcdef" it is
// "1.27-abcdef".
func goVersion(s string) string {
	for word := range strings.FieldsSeq(s) {
		if v, ok := strings.CutPrefix(word, "go"); ok {
			return v
		}
	}
	return s
}

// maxRodata is how much of a native program's constants is searched for traces of rustc.
const maxRodata = 4 << 20

// rustVersion finds the compiler's ident in .comment, which rustc writes since 1.75; before that, the
// source paths in the panic messages of the standard library show that Rust was there.
func rustVersion(f *elf.File) (version string, ok bool) {
	const ident, paths = "rustc version ", "/rustc/"
	if s := f.Section(".comment"); s != nil {
		comment := make([]byte, min(s.Size, 4096))
		n, _ := s.ReadAt(comment, 0)
		if _, v, ok := bytes.Cut(comment[:n], []byte(ident)); ok {
			return string(v[:versionLen(v)]), true
		}
	}
	s := f.Section(".rodata")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return "", false
	}
	const step = 256 << 10
	buf := make([]byte, min(s.Size, step))
	for off := uint64(0); off < min(s.Size, maxRodata); off += step - uint64(len(paths)) {
		n, err := s.ReadAt(buf, int64(off))
		if bytes.Contains(buf[:n], []byte(paths)) {
			return "", true
		}
		if err != nil || n < len(buf) {
			break
		}
	}
	return "", false
}

// versionLen is how much of b looks like 1.2.3.
func versionLen(b []byte) int {
	for i, c := range b {
		if c != '.' && (c < '0' || c > '9') {
			return i
		}
	}
	return len(b)
}

// pythonVersion reads Py_Version, which CPython exports since 3.11
// (https://docs.python.org/3/c-api/apiabiversion.html).
func pythonVersion(f *elf.File) string {
	if f.ByteOrder == nil {
		return ""
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return ""
	}
	for _, s := range symbols {
		if s.Name != "Py_Version" || int(s.Section) >= len(f.Sections) {
			continue
		}
		section := f.Sections[s.Section]
		var b [4]byte
		if section.Type == elf.SHT_NOBITS || s.Value < section.Addr {
			return ""
		}
		if _, err := section.ReadAt(b[:], int64(s.Value-section.Addr)); err != nil {
			return ""
		}
		v := f.ByteOrder.Uint32(b[:]) // an unsigned long; its low half is first on little-endian machines
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%d.%d.%d", v>>24, v>>16&0xff, v>>8&0xff)
	}
	return ""
}

var (
	// Interpreters may carry their version in their name, and a build letter as python3.13t.
	pythonName = regexp.MustCompile(`^python(\d(?:\.\d+)?)?[a-z]?$`)
	pypyName   = regexp.MustCompile(`^pypy(?:\d(?:\.\d+)?)?(?:-c)?$`)
	rubyName   = regexp.MustCompile(`^ruby-?(\d+(?:\.\d+)*)?$`)
	phpName    = regexp.MustCompile(`^php(?:-fpm|-cgi|-cli)?-?(\d+(?:\.\d+)*)?$`)
	// Version managers and release archives put the version into a directory's name.
	versionDir = regexp.MustCompile(`(?:^|[-_v@])v?(\d+\.\d+(?:\.\d+)*)(?:[-_+].*)?$`)
)

// byName knows interpreters by the name of their executable.
func byName(exe string) (l Language, version, runtime string) {
	base := path.Base(exe)
	switch {
	case base == "node" || base == "nodejs":
		return Node, versionInPath(exe), ""
	case base == "java":
		return Java, "", ""
	case base == "dotnet" || base == "mono" || base == "mono-sgen":
		if base != "dotnet" {
			runtime = "mono"
		}
		return DotNet, "", runtime
	}
	if m := pythonName.FindStringSubmatch(base); m != nil {
		l, version = Python, m[1]
	} else if pypyName.MatchString(base) {
		// PyPy numbers its own releases, not those of the language.
		return Python, "", "pypy"
	} else if m := rubyName.FindStringSubmatch(base); m != nil {
		l, version = Ruby, m[1]
	} else if m := phpName.FindStringSubmatch(base); m != nil {
		l, version = PHP, m[1]
	} else {
		return Unknown, "", ""
	}
	if v := versionInPath(exe); len(v) > len(version) {
		version = v
	}
	if !strings.Contains(version, ".") {
		version = "" // python3 says nothing
	}
	return l, version, ""
}

// versionInPath finds 20.11.1 in /root/.nvm/versions/node/v20.11.1/bin/node.
func versionInPath(file string) string {
	dir := path.Dir(file)
	for range 3 {
		if m := versionDir.FindStringSubmatch(path.Base(dir)); m != nil {
			return m[1]
		}
		dir = path.Dir(dir)
	}
	return ""
}

// libraries are the shared objects that make a process one of a language. Of several the first counts: a
// Python process may map a JVM, but then its executable has settled it.
var libraries = []struct {
	prefix   string
	version  *regexp.Regexp
	language Language
}{
	{"libjvm.so", nil, Java},
	{"libjli.so", nil, Java},
	{"libcoreclr.so", nil, DotNet},
	{"libpython", regexp.MustCompile(`^libpython(\d\.\d+)`), Python},
	{"libpypy", nil, Python},
	{"libruby", regexp.MustCompile(`(\d+\.\d+\.\d+)$`), Ruby},
	{"libphp", regexp.MustCompile(`^libphp(\d\.\d+)`), PHP},
	{"libnode.so", nil, Node},
}

// byLibrary knows runtimes by a library's path.
func byLibrary(file string) (Language, string) {
	base := path.Base(file)
	for _, lib := range libraries {
		if !strings.HasPrefix(base, lib.prefix) {
			continue
		}
		switch {
		case lib.language == DotNet:
			return DotNet, versionInPath(file) // shared/Microsoft.NETCore.App/8.0.1/libcoreclr.so
		case lib.version == nil:
			return lib.language, ""
		}
		if m := lib.version.FindStringSubmatch(base); m != nil {
			return lib.language, m[1]
		}
		return lib.language, ""
	}
	return Unknown, ""
}
