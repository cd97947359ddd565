// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"slices"
	"strings"

	"breadcrumb/probes/protocol/sql"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// session is what the commands of a connection have in common, as far as it was seen. What is lost may have changed any of it; then it
// is not known any more.
type session struct {
	namespace attribute.KeyValue // not set where the database is not known, or there is none
	pending   string             // the database that the client has asked for when it said who it is
	modes     sql.Modes
	mariaDB   bool     // whose status tells of ANSI_QUOTES
	wide      tristate // a character of the client's may hold an ASCII byte: a backslash need not be one
	initial   tristate // wide, as the connection began
	prepared  prepared
}

// use notes the database that is in use; "" is none.
func (n *session) use(database string) {
	switch {
	case database == "":
		n.namespace = attribute.KeyValue{}
	case n.namespace.Key == "" || n.namespace.Value.AsString() != database:
		n.namespace = semconv.DBNamespace(valid(database))
	}
}

// forget is called where commands may have passed unseen. A prepared statement's id may be another's by now: pools between client and
// server use them again.
func (n *session) forget() {
	n.namespace = attribute.KeyValue{}
	n.quotes(false)
	n.modes.Unsure = true
	n.wide = unknown
	n.prepared.clear()
}

// wideSets are the character sets, by number, in which a backslash, or a quote's neighbour, may be the second byte of a character:
// big5, sjis, gbk, cp932, gb18030, and their binary collations.
var wideSets = []int{1, 13, 28, 84, 87, 88, 95, 96, 248, 249, 250}

// wideNames are the same by name.
var wideNames = []string{"big5", "sjis", "gbk", "cp932", "gb18030"}

func isWide(name string) bool { return slices.Contains(wideNames, strings.ToLower(name)) }

// set notes the character set with which a client begins.
func (n *session) set(number int) {
	n.initial = whether(slices.Contains(wideSets, number))
	n.wide = n.initial
}

// status notes what a server's flags say of how it reads texts.
func (n *session) status(st status) {
	n.modes.NoBackslashEscapes = st&statusNoBackslashEscapes != 0
	n.modes.Unsure = false
	if n.mariaDB {
		n.modes.ANSIQuotes = st&statusAnsiQuotes != 0
	}
}

// quotes notes what else tells whether a double quote is that of an identifier.
func (n *session) quotes(ansi bool) {
	if !n.mariaDB {
		n.modes.ANSIQuotes = ansi
	}
}

// changed notes what an OK packet says that has changed.
func (n *session) changed(kind byte, data []byte) {
	switch kind {
	case trackSchema:
		if name, _, ok := lenencText(data); ok {
			n.use(string(name))
		}
	case trackVariables:
		for len(data) > 0 {
			name, rest, ok := lenencText(data)
			if !ok {
				return
			}
			value, rest, ok := lenencText(rest)
			if !ok {
				return
			}
			switch string(name) {
			case "character_set_client":
				n.wide = whether(isWide(string(value)))
			case "sql_mode":
				n.quotes(isANSI(string(value)))
			}
			data = rest
		}
	}
}

// isANSI says whether a value of sql_mode makes a double quote that of an identifier: ANSI_QUOTES, or a mode that stands for it and
// others.
func isANSI(value string) bool {
	for m := range strings.SplitSeq(value, ",") {
		switch strings.ToUpper(strings.TrimSpace(m)) {
		case "ANSI_QUOTES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL":
			return true
		}
	}
	return false
}

// change is what a command does to the session if it succeeds.
type change struct {
	database string
	uses     bool // database is in use from then on
	unknown  bool // another may be
	drops    bool // database is gone
	resets   bool // all but the database is as it was when the connection began
	ansi     tristate
	wide     tristate
	initial  bool // the client's character set is the one with which it began
}

// apply does it.
func (n *session) apply(c *change) {
	if c == nil {
		return
	}
	if c.resets {
		n.prepared.clear()
		n.quotes(false)
		n.wide = n.initial
	}
	switch {
	case c.unknown:
		n.namespace = attribute.KeyValue{}
	case c.uses:
		n.use(c.database)
	case c.drops && n.namespace.Key != "" && n.namespace.Value.AsString() == c.database:
		n.namespace = attribute.KeyValue{}
	}
	if c.ansi != unknown {
		n.quotes(c.ansi == is)
	}
	if c.wide != unknown {
		n.wide = c.wide
	}
	if c.initial {
		n.wide = n.initial
	}
}

// changeOf says what a statement does to the session; nil: nothing. What it cannot read it takes for the worst: the database is
// not known any more, double quotes are those of texts, the character set is wide.
func changeOf(text []byte, st *sql.Statement, cut bool) *change {
	w := words{text}
	first := w.next()
	switch {
	case st == nil || st.Statements > 1:
		return severalChanges(text, false)
	case cut: // a long one; they do not do this
		return nil
	case fold(first, "USE"):
		if name, ok := w.name(); ok && w.over() {
			return &change{database: name, uses: true}
		}
		return &change{unknown: true}
	case fold(first, "DROP"):
		if kind := w.next(); !fold(kind, "DATABASE") && !fold(kind, "SCHEMA") {
			return nil
		}
		name, ok := w.name()
		if ok && strings.EqualFold(name, "IF") && fold(w.next(), "EXISTS") {
			name, ok = w.name()
		}
		if ok && w.over() {
			return &change{database: name, drops: true}
		}
		return &change{unknown: true}
	case fold(first, "SET"):
		return setChange(&w, text)
	}
	return nil
}

// setChange is what a SET does.
func setChange(w *words, text []byte) *change {
	rest := *w
	name := rest.next()
	switch {
	case fold(name, "NAMES"):
	case fold(name, "CHARACTER") && fold(rest.next(), "SET"), fold(name, "CHARSET"):
	default:
		return severalChanges(text, true)
	}
	value, ok := rest.name()
	if !rest.over() {
		return severalChanges(text, true)
	}
	if ok && strings.EqualFold(value, "DEFAULT") {
		return &change{initial: true}
	}
	return &change{wide: whether(!ok || isWide(value))}
}

// severalChanges looks at a text that is not read in earnest. set: it is one SET.
func severalChanges(text []byte, set bool) *change {
	var c change
	some := false
	var before []byte
	for w := (words{text}); len(w.text) > 0; {
		word := w.next()
		switch {
		case len(word) == 0:
			if len(w.text) > 0 {
				w.text = w.text[1:]
			}
			continue
		case fold(word, "USE") && !set:
			c.unknown, some = true, true
		case fold(word, "sql_mode"):
			c.ansi, some = isNot, true
			mode, ok := w.mode()
			if ok && set && !fold(before, "GLOBAL") && !fold(before, "PERSIST") && !fold(before, "PERSIST_ONLY") {
				c.ansi = whether(isANSI(mode))
			}
		case fold(word, "character_set_client"), fold(word, "NAMES"):
			c.wide, some = is, true
			w.equals()
			if name, ok := w.name(); ok {
				c.wide = whether(isWide(name))
			}
		}
		before = word
	}
	if !some {
		return nil
	}
	return &c
}

// words reads the words of a statement.
type words struct{ text []byte }

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// space passes over blanks and comments.
func (w *words) space() {
	for len(w.text) > 0 {
		b := w.text
		switch {
		case b[0] <= ' ':
			w.text = b[1:]
		case begins(b, "/*") && (len(b) < 3 || b[2] != '!' && b[2] != 'M'):
			i := bytes.Index(b[2:], []byte("*/"))
			if i < 0 {
				w.text = nil
				return
			}
			w.text = b[i+4:]
		case b[0] == '#', begins(b, "-- "), begins(b, "--\n"):
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				w.text = nil
				return
			}
			w.text = b[i+1:]
		default:
			return
		}
	}
}

// next is the next word, empty if there is none.
func (w *words) next() []byte {
	w.space()
	n := 0
	for n < len(w.text) && isWord(w.text[n]) {
		n++
	}
	word := w.text[:n]
	w.text = w.text[n:]
	return word
}

// name is the next word, or the next text in quotes.
func (w *words) name() (string, bool) {
	w.space()
	if len(w.text) == 0 {
		return "", false
	}
	q := w.text[0]
	if q != '`' && q != '\'' && q != '"' {
		word := w.next()
		return string(word), len(word) > 0
	}
	for i := 1; i < len(w.text); i++ {
		switch {
		case w.text[i] == '\\' && q != '`':
			return "", false // whether it escapes what follows is not known
		case w.text[i] != q:
		case i+1 < len(w.text) && w.text[i+1] == q:
			i++
		default:
			name := strings.ReplaceAll(string(w.text[1:i]), string([]byte{q, q}), string(q))
			w.text = w.text[i+1:]
			return name, true
		}
	}
	return "", false
}

// equals passes over an assignment's sign.
func (w *words) equals() {
	w.space()
	w.pass(':')
	w.pass('=')
}

// mode is the value of an assignment to sql_mode.
func (w *words) mode() (string, bool) {
	w.equals()
	value, ok := w.name()
	return value, ok && w.over()
}

// over says whether the statement ends here.
func (w *words) over() bool {
	w.space()
	w.pass(';')
	w.space()
	return len(w.text) == 0
}

// pass passes over a character, if it is next.
func (w *words) pass(c byte) {
	if len(w.text) > 0 && w.text[0] == c {
		w.text = w.text[1:]
	}
}

func begins(b []byte, with string) bool { return len(b) >= len(with) && string(b[:len(with)]) == with }

func fold(word []byte, to string) bool {
	return len(word) == len(to) && strings.EqualFold(string(word), to)
}

// prepared are the statements that a connection has prepared, in the order of their ids, which is that in which they were.
type prepared struct {
	list  []statement
	bytes int       // that they take
	last  statement // the one that the client has asked for last
}

type statement struct {
	id        uint32
	params    int
	statement *sql.Statement
	cut       bool    // its text is not whole
	digest    uint64  // of the text, if that is whole
	executed  bool    // it was, since it was prepared
	change    *change // what it does to the session
	types     []byte  // of what was bound to it by COM_STMT_BULK_EXECUTE
}

// size is about what a statement takes.
func (s *statement) size() int {
	const fixed = 256
	if s.statement == nil {
		return fixed
	}
	return fixed + maxBulkTypes + len(s.statement.Text) + len(s.statement.Summary)
}

func (p *prepared) search(id uint32) (int, bool) {
	return slices.BinarySearchFunc(p.list, id, func(s statement, id uint32) int {
		switch {
		case s.id < id:
			return -1
		case s.id > id:
			return 1
		}
		return 0
	})
}

func (p *prepared) find(id uint32) *statement {
	if i, ok := p.search(id); ok {
		return &p.list[i]
	}
	return nil
}

// add notes a statement, and forgets the oldest ones if there is no room for it.
func (p *prepared) add(s statement) {
	p.remove(s.id)
	size := s.size()
	n := 0
	for n < len(p.list) && (len(p.list)-n >= maxStatements || p.bytes+size > maxStatementBytes) {
		p.bytes -= p.list[n].size()
		n++
	}
	p.list = slices.Delete(p.list, 0, n)
	i, _ := p.search(s.id)
	p.list = slices.Insert(p.list, i, s)
	p.bytes += size
}

func (p *prepared) remove(id uint32) {
	if i, ok := p.search(id); ok {
		p.bytes -= p.list[i].size()
		p.list = slices.Delete(p.list, i, i+1)
	}
}

func (p *prepared) clear() { *p = prepared{} }
