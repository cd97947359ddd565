// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"go/version"
	"strings"
)

// Offsets says where a Go program keeps what the kernel side reads, in bytes from the start of the
// struct named. A zero that cannot be an offset means that the field is not there. They are the same on
// amd64 and arm64. Those that never changed are listed too: the kernel side has them built in, and
// TestOffsetsMatchToolchains is what finds the version in which they change.
//
// Reading is guessing until it is checked: the program may have been built by a toolchain that the table
// does not know, may have changed its runtime, or may use a net.Conn of its own. So the kernel side
// believes
//
//   - that a register holds g only if g.stack.lo < SP <= g.stack.hi, with SP of the same moment: in code
//     that is not Go's the register holds anything, or a g that is not running;
//   - that it is a goroutine's only if goid is not 0: that is a stack of the scheduler's own (g0, gsignal),
//     and m.curg the goroutine, if any;
//   - that a net.Conn's data word leads to a socket (a *net.TCPConn or *net.UnixConn → fd → netFD) only
//     if netFD.family is AF_UNIX, AF_INET or AF_INET6, netFD.sotype is SOCK_STREAM, and Sysfd is a socket
//     of the process. Where it does not, it may lead to a struct that begins with a net.Conn: *tls.Conn is
//     one, and so are most wrappers that people write. The data word of that inner one is then tried in
//     its place, a few times at the most. A Conn of another shape yields nothing, never a wrong socket.
type Offsets struct {
	// runtime.g
	StackLo    uint16 // stack.lo
	StackHi    uint16 // stack.hi
	M          uint16
	Goid       uint16
	ParentGoid uint16 // from Go 1.21; 0 before

	// runtime.m
	Curg uint16

	// runtime.hchan: recvq.first, the first sudog of those who wait to receive
	Receivers uint16

	// net/http.persistConn: conn, an interface; its data word is 8 further
	PersistConnConn uint16

	// crypto/tls.Conn: conn, an interface
	TLSConn uint16

	// net.TCPConn, net.UnixConn: conn.fd, a *net.netFD
	ConnFD uint16

	// net.netFD
	Sysfd  uint16 // pfd.Sysfd
	Family uint16
	Sotype uint16
}

// offsetTable has a row for each version of Go that brought a layout of its own, oldest first, and for
// the newest that was compared. From a row on, its offsets hold until the next row.
//
// All were read from the DWARF of a net/http program built by the first and the last release of each
// minor version (1.19 to 1.27, for amd64 and arm64). TestOffsetsMatchToolchains does it again.
var offsetTable = []struct {
	since   string // go/version language version
	offsets Offsets
}{
	{"go1.19", Offsets{
		StackLo: 0, StackHi: 8, M: 48, Goid: 152, ParentGoid: 0,
		Receivers: 56, Curg: 192,
		PersistConnConn: 80, TLSConn: 0, ConnFD: 0, Sysfd: 16, Family: 56, Sotype: 64,
	}},
	{"go1.21", Offsets{ // g.parentGoid came
		StackLo: 0, StackHi: 8, M: 48, Goid: 152, ParentGoid: 272,
		Receivers: 56, Curg: 192,
		PersistConnConn: 80, TLSConn: 0, ConnFD: 0, Sysfd: 16, Family: 56, Sotype: 64,
	}},
	{"go1.23", Offsets{ // g.syscallbp came
		StackLo: 0, StackHi: 8, M: 48, Goid: 160, ParentGoid: 280,
		Receivers: 64, Curg: 192,
		PersistConnConn: 80, TLSConn: 0, ConnFD: 0, Sysfd: 16, Family: 56, Sotype: 64,
	}},
	{"go1.25", Offsets{ // gobuf.ret went
		StackLo: 0, StackHi: 8, M: 48, Goid: 152, ParentGoid: 272,
		Receivers: 64, Curg: 184,
		PersistConnConn: 80, TLSConn: 0, ConnFD: 0, Sysfd: 16, Family: 56, Sotype: 64,
	}},
	{"go1.26", Offsets{ // g.secret came
		StackLo: 0, StackHi: 8, M: 48, Goid: 152, ParentGoid: 280,
		Receivers: 64, Curg: 184,
		PersistConnConn: 80, TLSConn: 0, ConnFD: 0, Sysfd: 16, Family: 56, Sotype: 64,
	}},
}

// newestCompared is the last version that was found to have the last row's layout.
const newestCompared = "go1.27"

// Lookup returns the offsets for a program built by the given version of Go, as its build information has
// it ("go1.26.8", "go1.21.0 X:boringcrypto", "devel go1.27-3f2a9c1 …"). They are exact for a release that
// was compared; for a newer one, a pre-release, or a version that cannot be read they are those of the
// nearest lower version (of the newest, if there is nothing to go by). For versions before 1.19 there are
// none: StackHi is zero.
func Lookup(goVersion string) (o Offsets, exact bool) {
	lang, release := parseVersion(goVersion)
	if lang == "" {
		return offsetTable[len(offsetTable)-1].offsets, false
	}
	for _, row := range offsetTable {
		if version.Compare(row.since, lang) > 0 {
			break
		}
		o = row.offsets
	}
	return o, release && o.StackHi != 0 && version.Compare(lang, newestCompared) <= 0
}

// parseVersion finds the language version ("go1.26") in a toolchain's name for itself, and whether it is
// one of its releases and not something on the way to it. A vendor's suffix ("go1.24.4-fips",
// "go1.22.9 (Red Hat 1.22.9-1)") does not make it less of a release.
func parseVersion(s string) (lang string, release bool) {
	s, devel := strings.CutPrefix(s, "devel ")
	s, _, _ = strings.Cut(s, " ")
	if i := strings.IndexAny(s, "-+"); i >= 0 {
		// A development build between releases: "go1.27-devel_3f2a9c1", as written since Go 1.25.
		devel = devel || strings.HasPrefix(s[i:], "-devel")
		s = s[:i]
	}
	if !version.IsValid(s) {
		return "", false
	}
	return version.Lang(s), !devel && !strings.Contains(s, "rc") && !strings.Contains(s, "beta")
}
