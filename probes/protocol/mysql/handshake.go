// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"encoding/binary"

	"breadcrumb/probes"
)

// What is said when a connection begins is taken byte by byte, as it may come in pieces, each of which leaves the decoder with its
// secrets zeroed: scrambled passwords, and the random bytes that they were scrambled with.

const (
	maxVersion = 64  // of a server's version that is kept
	maxName    = 256 // of a database's name: MySQL allows 64 characters
)

// greeting is the server's first packet (Protocol::HandshakeV10).
type greeting struct {
	n       int // bytes seen
	version []byte
	named   bool // the version is complete
	after   int  // bytes seen behind it
	caps    uint64
	status  status
}

// Positions behind the version.
const (
	saltAt     = 4
	fillerAt   = 12
	capsAt     = 13
	statusAt   = 16
	capsHighAt = 18
	moreCapsAt = 27 // MariaDB's
	moreSaltAt = 31
)

func (g *greeting) take(b []byte, wipe func([]byte)) {
	for i, c := range b {
		switch {
		case g.n == 0: // the protocol's version
		case !g.named:
			if c == 0 {
				g.named = true
			} else if len(g.version) < maxVersion {
				g.version = append(g.version, c)
			}
		default:
			switch at := g.after; {
			case at >= saltAt && at < fillerAt, at >= moreSaltAt:
				wipe(b[i : i+1])
			case at >= capsAt && at < capsAt+2:
				g.caps |= uint64(c) << (8 * (at - capsAt))
			case at >= statusAt && at < statusAt+2:
				g.status |= status(c) << (8 * (at - statusAt))
			case at >= capsHighAt && at < capsHighAt+2:
				g.caps |= uint64(c) << (16 + 8*(at-capsHighAt))
			case at >= moreCapsAt && at < moreSaltAt && g.caps&clientMySQL == 0:
				g.caps |= uint64(c) << (32 + 8*(at-moreCapsAt))
			}
			g.after++
		}
		g.n++
	}
}

// whole says whether all of it was seen that matters.
func (g *greeting) whole() bool { return g.after >= moreSaltAt }

func (g *greeting) mariaDB() bool { return isMariaDB(g.version) }

// isMariaDB takes a server's version: "10.11.6-MariaDB", which is "5.5.5-10.11.6-MariaDB" where old clients would not believe a version
// from 10 on.
func isMariaDB(version []byte) bool {
	return bytes.Contains(version, []byte("MariaDB")) || bytes.Contains(version, []byte("MARIADB")) || bytes.Contains(version, []byte("mariadb"))
}

// login is what a client says who it is: its answer to a greeting (Protocol::HandshakeResponse41), or COM_CHANGE_USER.
type login struct {
	part   loginPart
	n      int // bytes seen of the part
	left   uint64
	length [3]byte // of the scrambled password, encoded
	caps   uint64
	set    int  // the client's character set
	old    bool // the password ends with NUL
	lenenc bool // its length is of encoded length, else one byte
	named  bool // a database follows
	db     []byte
	long   bool // its name is longer than maxName
}

type loginPart uint8

const (
	loginFixed loginPart = iota
	loginCommand
	loginUser
	loginLength
	loginPassword
	loginDatabase
	loginRest
)

// loginSize is the fixed part of a HandshakeResponse41. A client that goes on with TLS sends just that.
const loginSize = 32

// init prepares for a packet; change: it is COM_CHANGE_USER, of a client with these capabilities.
func (l *login) init(change bool, caps uint64, known bool) {
	*l = login{db: l.db[:0]}
	if change {
		l.part, l.named = loginCommand, true
		l.old = known && caps&clientSecure == 0
	}
}

func (l *login) take(b []byte, server uint64, wipe func([]byte)) {
	for i, c := range b {
		one := b[i : i+1]
		switch l.part {
		case loginFixed:
			switch {
			case l.n < 4:
				l.caps |= uint64(c) << (8 * l.n)
			case l.n == 8:
				l.set = int(c)
			case l.n >= 28 && (l.caps|server)&clientMySQL == 0:
				l.caps |= uint64(c) << (32 + 8*(l.n-28))
			}
			if l.n++; l.n == loginSize {
				l.lenenc = l.caps&clientAuthLenenc != 0
				l.old = l.caps&(clientAuthLenenc|clientSecure) == 0
				l.named = l.caps&clientConnectWithDB != 0
				l.next(loginUser)
			}
		case loginCommand:
			l.next(loginUser)
		case loginUser:
			if c == 0 && l.old {
				l.next(loginPassword)
			} else if c == 0 {
				l.next(loginLength)
			}
		case loginLength:
			l.length[l.n] = c
			l.n++
			v, n := lenenc(l.length[:l.n])
			if !l.lenenc {
				v, n = uint64(c), 1
			}
			if l.n == 1 && c >= headLocalFile && c != 0xfc { // no password is that long
				v, n = 0, 1
			}
			if n > 0 {
				l.left = v
				l.next(loginPassword)
				l.passed()
			}
		case loginPassword:
			switch {
			case !l.old:
				wipe(one)
				l.left--
				l.passed()
			case c == 0:
				l.afterPassword()
			default:
				wipe(one)
				one[0] = 'x' // its end must still be found
			}
		case loginDatabase:
			switch {
			case c == 0:
				l.next(loginRest)
			case len(l.db) < maxName:
				l.db = append(l.db, c)
			default:
				l.long = true
			}
		case loginRest:
			wipe(one)
		}
	}
}

func (l *login) passed() {
	if l.left == 0 {
		l.afterPassword()
	}
}

func (l *login) afterPassword() {
	if l.named {
		l.next(loginDatabase)
	} else {
		l.next(loginRest)
	}
}

func (l *login) next(p loginPart) { l.part, l.n = p, 0 }

// missed is called where bytes were not captured.
func (l *login) missed() {
	if l.part > loginFixed {
		l.part = loginRest
	}
	l.long = true
}

// database is the name of the database, and whether it is known. The packet is over.
func (l *login) database() ([]byte, bool) {
	return l.db, !l.long && (l.part >= loginDatabase)
}

// isGreeting says whether b, which may be cut off, is a server's first packet.
func isGreeting(b []byte) probes.Verdict {
	const most = 512 // greetings have about 100 bytes
	fixed := [...]int{-1, -1, 0, 0, 10}
	for i, want := range fixed[:min(len(b), len(fixed))] {
		if want >= 0 && int(b[i]) != want {
			return probes.No
		}
	}
	if len(b) < 2 {
		return probes.Maybe
	}
	length := int(binary.LittleEndian.Uint16(b))
	if length < moreSaltAt || length > most || len(b) > headerSize+length {
		return probes.No
	}
	if len(b) <= headerSize+1 {
		return probes.Maybe
	}
	version := b[headerSize+1:]
	if version[0] < '0' || version[0] > '9' {
		return probes.No
	}
	for i, c := range version {
		switch {
		case c == 0 && len(version)-i > moreSaltAt:
			if version[i+1+fillerAt] != 0 {
				return probes.No
			}
			return probes.Yes
		case c == 0 && len(b) == headerSize+length:
			return probes.No
		case c == 0:
			return probes.Maybe
		case c < ' ' || c > '~':
			return probes.No
		}
	}
	return probes.Maybe
}
