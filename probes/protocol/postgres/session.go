// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"slices"
	"strings"

	"breadcrumb/internal/span"
	"breadcrumb/probes/protocol/sql"
)

const (
	// maxStatements is how many prepared statements a connection is known by. Drivers that cache them keep some hundred, Rails 1000.
	maxStatements = 1024
	// maxStatementBytes bounds what is kept of them.
	maxStatementBytes = 1 << 20
	// maxPortals is how many portals with a name are known. Drivers open one or two at a time.
	maxPortals = 32
	// maxName bounds what is kept of the names of statements and portals.
	maxName = 255
)

// key is as much of a name as the server looks at (NAMEDATALEN in src/include/pg_config_manual.h).
func key(name []byte) []byte { return name[:min(len(name), 63)] }

// asked is a statement that is to be executed, as far as it is known.
type asked struct {
	statement *sql.Statement // nil: it is not known
	cut       bool           // not all of it was captured
	digest    uint64         // of the text, if that is whole
	context   span.Context   // of who prepared it, for the first execution
	drops     string         // the name of a statement that it takes away or replaces
}

// prepared is a prepared statement with a name.
type prepared struct {
	name         string
	what         asked
	closed       bool
	size         int
	newer, elder *prepared
}

// statements are the prepared statements of a connection, those that were used last first. The first and the last are each other's
// neighbours.
type statements struct {
	byName map[string]*prepared
	newest *prepared
	bytes  int
	// reused says that a name was given to another statement. Then, where messages were not seen, any name may have been; else drivers
	// count their statements, or name them by what they are, and a name is believed.
	reused bool
}

func (t *statements) find(name []byte) *prepared {
	p := t.byName[string(key(name))]
	if p == nil || p.closed {
		return nil
	}
	t.unlink(p)
	t.link(p)
	return p
}

// put gives a name to a statement and returns what had it.
func (t *statements) put(p *prepared) (before *prepared) {
	if t.byName == nil {
		t.byName = map[string]*prepared{}
	}
	if before = t.byName[p.name]; before != nil {
		t.drop(before)
	}
	p.size = len(p.name) + 128
	if s := p.what.statement; s != nil {
		p.size += len(s.Text) + len(s.Summary)
	}
	t.byName[p.name] = p
	t.bytes += p.size
	t.link(p)
	for len(t.byName) > maxStatements || t.bytes > maxStatementBytes && len(t.byName) > 1 {
		t.drop(t.newest.newer)
	}
	return before
}

// drop forgets a statement.
func (t *statements) drop(p *prepared) {
	if t.byName[p.name] != p {
		return
	}
	delete(t.byName, p.name)
	t.bytes -= p.size
	t.unlink(p)
}

func (t *statements) clear() {
	clear(t.byName)
	t.newest, t.bytes = nil, 0
}

func (t *statements) link(p *prepared) {
	if n := t.newest; n != nil {
		p.newer, p.elder = n.newer, n
		n.newer.elder, n.newer = p, p
	} else {
		p.newer, p.elder = p, p
	}
	t.newest = p
}

func (t *statements) unlink(p *prepared) {
	if t.newest == p {
		t.newest = p.elder
	}
	if t.newest == p {
		t.newest = nil
	}
	p.newer.elder, p.elder.newer = p.elder, p.newer
	p.newer, p.elder = nil, nil
}

// portal is a statement that parameters are bound to.
type portal struct {
	name string
	what asked
}

// session is what the server keeps for a connection, as far as it matters here.
type session struct {
	statements statements
	unnamed    asked // the statement without a name
	portal     asked // the portal without a name
	portals    []portal
	oldest     int      // of portals, once they are maxPortals
	changes    []change // that are not confirmed, oldest first
	modes      sql.Modes
	wide       bool // not all bytes below 0x80 of a statement are characters of ASCII
}

// change is a Parse or a Close that the server has not confirmed. It is in force before that: what follows relies on it.
type change struct {
	kind   byte
	now    *prepared // by a Parse of a statement with a name
	before *prepared // what had the name, or was closed
}

// parse takes a Parse. what is nil if the name is not known.
func (s *session) parse(name []byte, known bool, what *asked) {
	c := change{kind: parse}
	switch {
	case !known:
		s.missed() // it may have been any
	case len(name) == 0:
		s.unnamed = *what
	default:
		c.now = &prepared{name: string(key(name)), what: *what}
		c.before = s.statements.put(c.now)
		if b := c.before; b != nil && !b.what.same(&c.now.what) {
			s.statements.reused = true
		}
	}
	s.changes = append(s.changes, c)
}

// close takes a Close.
func (s *session) close(b []byte) {
	c := change{kind: closing}
	name, _, ok := text(b[min(1, len(b)):])
	switch {
	case !ok:
		s.missed()
	case b[0] == 'S' && len(name) == 0:
		s.unnamed = asked{}
	case b[0] == 'S':
		if p := s.statements.find(name); p != nil {
			p.closed = true // it is known until then, so that the name is known to be used again
			c.before = p
		}
	default:
		s.bind(name, asked{})
	}
	s.changes = append(s.changes, c)
}

// ofUnnamed says whether it is a Parse of the statement without a name.
func (c change) ofUnnamed() bool { return c.kind == parse && c.now == nil }

// same says whether two statements are known to be the same one.
func (a *asked) same(b *asked) bool {
	return a.statement != nil && b.statement != nil && a.statement.Text == b.statement.Text && !a.cut && !b.cut
}

// find finds what a name stands for, and who prepared it if it was not executed since.
func (s *session) find(name []byte) asked {
	from := &s.unnamed
	if len(name) > 0 {
		p := s.statements.find(name)
		if p == nil {
			return asked{}
		}
		from = &p.what
	}
	what := *from
	from.context = span.Context{}
	return what
}

// bind makes a portal.
func (s *session) bind(name []byte, what asked) {
	name = key(name)
	if len(name) == 0 {
		s.portal = what
		return
	}
	for i := range s.portals {
		if s.portals[i].name == string(name) {
			s.portals[i].what = what
			return
		}
	}
	if what.statement == nil {
		return
	}
	p := portal{string(name), what}
	if len(s.portals) < maxPortals {
		s.portals = append(s.portals, p)
		return
	}
	s.portals[s.oldest] = p
	s.oldest = (s.oldest + 1) % maxPortals
}

// bound finds what a portal is of.
func (s *session) bound(name []byte) asked {
	from := &s.portal
	if name = key(name); len(name) > 0 {
		from = nil
		for i := range s.portals {
			if s.portals[i].name == string(name) {
				from = &s.portals[i].what
			}
		}
		if from == nil {
			return asked{}
		}
	}
	what := *from
	from.context = span.Context{}
	return what
}

func (s *session) forgetPortals() { s.portal, s.portals, s.oldest = asked{}, nil, 0 }

// confirm takes the server's word that the oldest change is made.
func (s *session) confirm(kind byte) bool {
	if len(s.changes) == 0 || s.changes[0].kind != kind {
		return false
	}
	s.forget(1)
	return true
}

func (s *session) forget(n int) {
	left := copy(s.changes, s.changes[n:])
	clear(s.changes[left:])
	s.changes = s.changes[:left]
}

// revert takes the oldest changes back, which the server has not made.
func (s *session) revert(n int) {
	for i := n - 1; i >= 0; i-- {
		c := &s.changes[i]
		switch {
		case c.now == nil && c.before != nil:
			c.before.closed = false
		case c.now == nil:
			if c.kind == parse && !slices.ContainsFunc(s.changes[n:], change.ofUnnamed) {
				s.unnamed = asked{}
			}
		default:
			if later := s.replaced(c.now, n); later != nil {
				later.before = c.before
				break
			}
			s.statements.drop(c.now)
			if c.before != nil {
				s.statements.put(c.before)
			}
		}
	}
	s.forget(n)
}

// replaced finds the change, from the n-th on, by which another statement has got the name of p.
func (s *session) replaced(p *prepared, n int) *change {
	for i := n; i < len(s.changes); i++ {
		if c := &s.changes[i]; c.before == p && c.now != nil {
			return c
		}
	}
	return nil
}

// doubt is called for the oldest changes where it is not known whether the server has made them.
func (s *session) doubt(n int) {
	for i := range n {
		s.doubted(&s.changes[i])
	}
	s.forget(n)
}

// settle is called where all that was asked is answered; ok: the server has made all changes.
func (s *session) settle(ok bool) {
	if ok {
		s.forget(len(s.changes))
	} else {
		s.doubt(len(s.changes))
	}
}

func (s *session) doubted(c *change) {
	switch {
	case c.ofUnnamed():
		s.unnamed = asked{}
	case c.now != nil && c.before != nil && !c.now.what.same(&c.before.what):
		s.statements.drop(c.now)
	}
}

// unsure is called for the newest change, of which the server's word will not be known.
func (s *session) unsure() {
	if n := len(s.changes); n > 0 {
		last := s.changes[n-1]
		s.changes = s.changes[:n-1]
		s.doubted(&last)
	}
}

// missed is called where messages were not seen: any of the names may stand for something else.
func (s *session) missed() {
	s.unnamed = asked{}
	s.forgetPortals()
	if s.statements.reused {
		s.statements.clear()
	}
}

// done takes note of what a statement has done to others.
func (s *session) done(v verb, what *asked) {
	switch v {
	case verbDiscardAll, verbDeallocateAll:
		s.statements.clear()
	case verbDeallocate, verbPrepare:
		if what.drops == "" {
			s.statements.clear()
		} else if p := s.statements.byName[what.drops]; p != nil {
			s.statements.drop(p)
		}
	case verbOther, verbSelect, verbFetch, verbCopy, verbChange:
	}
}

// drops finds the name of the statement that DEALLOCATE takes away, or PREPARE makes; empty: none, or it is not known.
func drops(b []byte) string {
	first, rest := word(b)
	switch {
	case bytes.EqualFold(first, wordDeallocate):
		if next, after := word(rest); bytes.EqualFold(next, wordPrepare) {
			rest = after
		}
	case !bytes.EqualFold(first, wordPrepare):
		return ""
	}
	rest = bytes.TrimLeft(rest, spaces)
	if len(rest) > 0 && rest[0] == '"' {
		quoted, _, ok := bytes.Cut(rest[1:], []byte{'"'})
		if !ok {
			return ""
		}
		return string(key(quoted))
	}
	i := 0
	for i < len(rest) && (letter(rest[i]) || rest[i] >= '0' && rest[i] <= '9' || rest[i] == '$') {
		i++
	}
	if s := strings.ToLower(string(key(rest[:i]))); s != "all" {
		return s
	}
	return ""
}

var wordDeallocate, wordPrepare = []byte("deallocate"), []byte("prepare")

const spaces = " \t\n\r\f\v"

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

// word cuts the first word off a statement.
func word(b []byte) (w, rest []byte) {
	b = bytes.TrimLeft(b, spaces)
	i := 0
	for i < len(b) && letter(b[i]) {
		i++
	}
	return b[:i], b[i:]
}

// parameter takes what the server says of a setting.
func (s *session) parameter(name, value string) {
	switch name {
	case "standard_conforming_strings":
		s.modes = sql.Modes{StandardStringsOff: value == "off"}
	case "client_encoding":
		s.wide = wide[value]
	}
}

// wide are the encodings in which a byte below 0x80 may be a part of another character. The server has none of them, only clients do
// (section "Character Set Support").
var wide = map[string]bool{
	"BIG5": true, "GB18030": true, "GBK": true, "JOHAB": true, "SHIFT_JIS_2004": true, "SJIS": true, "UHC": true,
}
