// SPDX-License-Identifier: Apache-2.0

// Package sql reads the text of SQL statements, as clients send it to PostgreSQL, MySQL and MariaDB, and says what a span may show
// of it: the statement without its values, what it does, and to which tables. It does not know protocols, and it checks no syntax:
// it follows the databases' own lexical rules, so that no value is ever taken for something else, and is guided by a few keywords.
//
// Of a text, Sanitised shows
//   - a question mark for each literal: strings of all forms, with their prefix; strings that are joined; numbers, without their sign
//     and with all that is written together with them. TRUE, FALSE, NULL and DEFAULT stay, as do parameters;
//   - of a list behind IN or ARRAY, one of several items in a row that are alike, and one question mark for several values or
//     parameters that are not: IN (?), IN ($1), IN ((?, ?)), IN (lower(?)); of the rows of VALUES, the first;
//   - a question mark for the value of a setting, up to the end of the statement (SET x = ?, ALTER ROLE r SET x TO ?), as it may be a
//     word, and for what stands where a password does;
//   - no comments, but the code in those that MySQL executes; one blank for white space, and none inside parentheses or before commas;
//     no semicolon at the end.
//
// What is shown reads as the same statement again, so it can be shown once more. A text is withheld if it is broken, or if servers of
// different versions would read it in different ways: a string, comment or name in quotes that does not end; a character that is
// none of SQL; a string or name that touches a number, or a word, other than a keyword, that touches a string's end, which is what
// quotes make that were not escaped; code in a comment that would end elsewhere as a comment.
//
// Lexical rules: https://www.postgresql.org/docs/18/sql-syntax-lexical.html and src/backend/parser/scan.l of PostgreSQL,
// https://dev.mysql.com/doc/refman/8.4/en/language-structure.html and sql/sql_lex.cc of MySQL.
// What to say: https://opentelemetry.io/docs/specs/semconv/db/database-spans/.
package sql

import (
	"bytes"
	"hash/maphash"
	"unicode/utf8"
	"unsafe"

	"breadcrumb/internal/span"
)

// Dialect is whose lexical rules a text follows.
type Dialect uint8

const (
	PostgreSQL Dialect = iota
	MySQL              // and MariaDB
)

// Modes are the settings of a session on which it depends how a text is read. The zero value is what servers begin with.
type Modes struct {
	// StandardStringsOff is PostgreSQL's standard_conforming_strings = off: a backslash escapes in every string.
	StandardStringsOff bool
	// NoBackslashEscapes is MySQL's sql_mode NO_BACKSLASH_ESCAPES: a backslash escapes in no string.
	NoBackslashEscapes bool
	// ANSIQuotes is MySQL's sql_mode ANSI_QUOTES: what is in double quotes is a name, not a string.
	ANSIQuotes bool
	// Unsure says that it is not known whether backslashes escape: a text that ends its strings elsewhere if they do, or do not, is
	// withheld.
	Unsure bool
}

// Policy is how much of a text is shown. It does not change what else is told of a statement.
type Policy uint8

const (
	Sanitised Policy = iota // the text without values
	Off                     // nothing
	Raw                     // everything
)

// Statement is what may be said of a text. It is shared, and must not be changed.
type Statement struct {
	// Text is db.query.text, by the reader's policy: at most 4 KiB, valid UTF-8.
	Text string
	// Operation is db.operation.name: the statement's own verb, in capitals, with the kind of object where that belongs to it
	// ("SELECT", "CREATE TABLE", "START TRANSACTION"). It is one of a fixed set, and empty for what is not among that. Of several
	// statements it is "BATCH " and the operation that they have in common, or "BATCH".
	Operation string
	// Collection is db.collection.name: the table, if there is one in the whole text; as it stands there, with schema and quotes, as
	// the conventions have names in summaries. Of a query that is cut it is not known.
	Collection string
	// Procedure is db.stored_procedure.name: what a CALL calls.
	Procedure string
	// Summary is db.query.summary: operations and the names of what they are about, in the order of the text, at most 255 bytes. Of
	// several statements it is "BATCH " and the summary that they have in common, or "BATCH".
	Summary string
	// Context is the trace context in a comment, by https://google.github.io/sqlcommenter/spec/; zero if there is none.
	Context span.Context
	// Statements is how many statements the text holds. A routine's body belongs to its CREATE, in MySQL with all that follows it.
	Statements int
	// Withheld says that the text cannot be read safely: it is broken, or reads in two ways. Then only what cannot be a value is
	// told, an operation.
	Withheld bool
}

// What a reader keeps of what it has read.
const (
	// maxRead bounds how much of a text is read.
	maxRead = 64 << 10
	// maxSeen and maxKnown are how many texts and statements it knows again. They are many more texts where literals are in them.
	maxSeen  = 64
	maxKnown = 64
	// maxBytes bounds the statements that it keeps.
	maxBytes = 64 << 10
)

var seed = maphash.MakeSeed()

// Reader reads texts, and knows those again that it has read. It belongs to one connection, or to one goroutine.
type Reader struct {
	policy  Policy
	scanner scanner
	digest  uint64
	seen    []seen       // by the hash of a text, two for each
	known   []*Statement // by the hash of what is shown, two for each: texts that differ in their values are the same statement
	bytes   int          // in known, and what is no longer there
}

// seen is what came of a text.
type seen struct {
	hash      uint64
	length    int
	statement *Statement
}

// New returns a reader.
func New(d Dialect, p Policy) *Reader {
	return &Reader{policy: p, scanner: scanner{mysql: d == MySQL}}
}

// Read says what may be said of a text. cut: its end was not captured. A token that touches such an end is not shown, as it may be
// the beginning of anything. The text must be in an encoding in which a byte below 0x80 is always an ASCII character, as in UTF-8
// and in the one-byte character sets: of others, pass what comes before the first byte that is not, as cut.
func (r *Reader) Read(text []byte, cut bool, m Modes) *Statement {
	if len(text) > maxRead {
		text, cut = text[:maxRead], true
	}
	if r.seen == nil {
		r.seen, r.known = make([]seen, maxSeen), make([]*Statement, maxKnown)
	}
	r.digest = maphash.Bytes(seed, text)
	h := r.digest ^ m.bits(cut)*0x9e3779b97f4a7c15 // the hash is 64 bits of a secret function: it is the text
	at := r.seen[h%(maxSeen/2)*2:][:2]
	switch {
	case at[0].hash == h && at[0].length == len(text) && at[0].statement != nil:
		return at[0].statement
	case at[1].hash == h && at[1].length == len(text) && at[1].statement != nil:
		at[0], at[1] = at[1], at[0]
		return at[0].statement
	}
	st := r.read(text, cut, m)
	at[1] = at[0]
	at[0] = seen{h, len(text), st}
	return st
}

// Digest is a hash of the text that was read last, with its values: that of the same text is the same in each reader of this run.
func (r *Reader) Digest() uint64 { return r.digest }

// bits puts what else a statement depends on in a number.
func (m Modes) bits(cut bool) (n uint64) {
	for i, b := range [...]bool{cut, m.StandardStringsOff, m.NoBackslashEscapes, m.ANSIQuotes, m.Unsure} {
		if b {
			n |= 1 << i
		}
	}
	return n
}

// draft is a statement before it is known to be a new one. Its slices are those of the scanner.
type draft struct {
	text, collection, procedure, summary []byte
	operation                            string
	statements                           int
	withheld                             bool
}

// read reads a text that is new.
func (r *Reader) read(text []byte, cut bool, m Modes) *Statement {
	s := &r.scanner
	s.modes = m
	d := s.draft(text, cut)
	switch r.policy {
	case Raw:
		d.text, d.withheld = raw(text, cut), false
	case Off:
		d.text = nil
	case Sanitised:
	}
	st := r.share(&d)
	if c := contextIn(s.context); c.TraceID.IsValid() {
		with := *st
		with.Context = c
		st = &with
		r.hold(len(c.TraceState))
	}
	s.text, s.context = nil, nil
	return st
}

// raw is what is shown of a text of which everything may be.
func raw(text []byte, cut bool) []byte {
	if len(text) > maxText {
		text, cut = text[:maxText], true
	}
	if utf8.Valid(text) {
		return text
	}
	if cut {
		for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
			if c := text[len(text)-n]; utf8.RuneStart(c) {
				if !utf8.FullRune(text[len(text)-n:]) {
					text = text[:len(text)-n]
				}
				break
			}
		}
	}
	text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	return bytes.ToValidUTF8(text[:min(len(text), maxText)], nil)
}

// share returns the statement of which d is the draft, which may be that of another text.
func (r *Reader) share(d *draft) *Statement {
	h := maphash.Bytes(seed, d.text) ^ maphash.Bytes(seed, d.summary)
	at := r.known[h%(maxKnown/2)*2:][:2]
	if st := at[0]; st != nil && d.is(st) {
		return st
	}
	if st := at[1]; st != nil && d.is(st) {
		at[0], at[1] = at[1], at[0]
		return st
	}
	st := &Statement{
		Text: string(d.text), Operation: d.operation, Collection: string(d.collection), Procedure: string(d.procedure),
		Summary: string(d.summary), Statements: d.statements, Withheld: d.withheld,
	}
	r.hold(len(d.text) + len(d.collection) + len(d.procedure) + len(d.summary))
	at[0], at[1] = st, at[0]
	return st
}

// is says that a statement is what a draft says.
func (d *draft) is(st *Statement) bool {
	return st.Text == string(d.text) && st.Summary == string(d.summary) && st.Collection == string(d.collection) &&
		st.Procedure == string(d.procedure) && st.Operation == d.operation && st.Statements == d.statements && st.Withheld == d.withheld
}

// hold makes room for a statement with strings of n bytes.
func (r *Reader) hold(n int) {
	if n += int(unsafe.Sizeof(Statement{})); r.bytes+n > maxBytes {
		clear(r.seen)
		clear(r.known)
		r.bytes = 0
	}
	r.bytes += n
}

// draft reads a text.
func (s *scanner) draft(text []byte, cut bool) draft {
	if !s.scan(text, cut) {
		return s.withhold()
	}
	d := draft{text: s.out, statements: s.statements}
	switch {
	case s.statements == 1:
		d.operation, d.summary = operations[s.operation], s.first
	case s.statements > 1:
		d.operation = batch
		if name := batches[s.operation]; !s.mixed && name != "" {
			d.operation = name
		}
		s.summary = append(s.summary[:0], batch...)
		if !s.different && len(s.first) > 0 {
			tell(s, s.first)
		}
		d.summary = s.summary
	}
	if s.tables == 1 && !(cut && s.reading()) {
		d.collection = s.table
	}
	if s.procedures == 1 {
		d.procedure = s.procedure
	}
	return d
}

// reading says that what a statement is of may be told at its end only: there may be another table.
func (s *scanner) reading() bool {
	switch s.operation {
	case operation(kSelect), operation(kExplain), operation(kDeclare), operation(kPrepare), noOperation:
		return true
	}
	return false
}

// withhold tells of a text that cannot be read nothing but the operation: all else may be a part of a value.
func (s *scanner) withhold() draft {
	d := draft{withheld: true, statements: s.statements}
	if !s.fresh {
		d.statements++
	}
	switch {
	case d.statements > 1:
		d.operation = batch
	case s.statements == 1:
		d.operation = operations[s.operation]
	case d.statements == 1:
		d.operation = operations[s.does()]
	}
	s.summary = append(s.summary[:0], d.operation...)
	d.summary = s.summary
	s.context = nil
	return d
}
