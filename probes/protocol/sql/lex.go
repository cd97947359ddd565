// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"unicode/utf8"
)

const (
	// maxText bounds what is shown of a text, which ends with a whole token before that.
	maxText = 4 << 10
	// maxName bounds a name that is shown. The servers know none of more than 64 characters.
	maxName = 256
	// maxParam is the number of digits of the highest parameter of a statement, 65535.
	maxParam = 5
)

// class is what a byte may begin.
type class uint8

const (
	bad class = iota
	space
	wordy
	digit
	quote       // '
	doubleQuote // "
	backtick    // a name of MySQL
	dollar
	minus
	slash
	hashSign // a comment of MySQL
	dot
	opening
	closing
	comma
	semicolon
	escaping // \
	operator
)

var (
	classes  [2][256]class // by dialect
	wordByte [256]bool     // what a word goes on with
)

func init() {
	for d := range classes {
		t := &classes[d]
		for c := byte('!'); c <= '~'; c++ {
			t[c] = operator
		}
		for _, c := range " \t\n\r\f\v" {
			t[c] = space
		}
		for c := range 0x100 {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= 0x80:
				t[c] = wordy
				wordByte[c] = true
			case c >= '0' && c <= '9':
				t[c] = digit
				wordByte[c] = true
			case c == '$':
				t[c] = dollar
				wordByte[c] = true
			}
		}
		t['\''], t['"'], t['-'], t['/'], t['.'], t[','], t[';'], t['\\'] = quote, doubleQuote, minus, slash, dot, comma, semicolon, escaping
		t['('], t['['], t[')'], t[']'] = opening, opening, closing, closing
	}
	classes[MySQL]['`'], classes[MySQL]['#'] = backtick, hashSign
}

// scanner passes over a text once, and makes of it what a Statement holds. Its slices are used again for the next text.
type scanner struct {
	mysql bool
	modes Modes
	text  []byte
	cut   bool

	out    []byte // the text without values
	sep    byte   // a comma or a semicolon that comes next in it, if something comes after that
	blank  bool   // white space comes next
	quiet  quiet
	joined bool // the token before is a string: another one only goes on with it
	marked bool // it is a literal

	outline
}

// quiet says why tokens are not shown.
type quiet uint8

const (
	quietFull quiet = 1 << iota // the text is as long as it may be
	quietSet                    // they are the value of a setting
	quietRow                    // they are a further row of VALUES
)

// scan reads a text. It reports false if that cannot be read safely: then only the operation of the first statement holds.
func (s *scanner) scan(text []byte, cut bool) bool {
	s.text, s.cut = text, cut
	s.out, s.sep, s.blank, s.quiet, s.joined, s.marked = s.out[:0], 0, false, 0, false, false
	s.outline.reset()
	table := &classes[PostgreSQL]
	if s.mysql {
		table = &classes[MySQL]
	}
	end := len(text) // or where the code in a comment ends
scan:
	for i := 0; ; {
		if i >= end {
			if end == len(text) {
				break scan
			}
			if i > end {
				return false // whether it is code or a comment depends on the server's version, and so where it ends
			}
			i, end, s.blank = i+len("*/"), len(text), true
			continue
		}
		next := i + 1
		switch c := text[i]; table[c] {
		case space:
			s.blank = true
		case wordy:
			next = s.scanWord(i)
		case operator:
			s.sign(i)
		case comma:
			s.comma()
		case dot:
			switch {
			case next < len(text) && table[text[next]] == digit && (i == 0 || !wordByte[text[i-1]] && text[i-1] != '"' && text[i-1] != '`'):
				next = s.scanNumber(i)
			default:
				s.sign(i)
			}
		case digit:
			next = s.scanNumber(i)
		case quote:
			next = s.scanString(next, '\'', s.escapes())
		case opening:
			s.open(i)
		case closing:
			s.close(i)
		case doubleQuote:
			if s.mysql && !s.modes.ANSIQuotes {
				next = s.scanString(next, '"', s.escapes())
			} else {
				next = s.scanName(i, next)
			}
		case backtick:
			next = s.scanName(i, next)
		case dollar:
			next = s.scanDollar(i)
		case semicolon:
			s.semicolon()
		case minus:
			if next == len(text) || text[next] != '-' || s.mysql && i+2 < len(text) && table[text[i+2]] != space && table[text[i+2]] != bad {
				s.sign(i)
				break
			}
			next = s.lineEnd(i + 2)
		case hashSign:
			next = s.lineEnd(next)
		case slash:
			switch {
			case next == len(text) || text[next] != '*':
				s.sign(i)
			case s.mysql:
				if code := codeIn(text, i); code > 0 {
					if end < len(text) {
						return false // there are no comments in comments
					}
					length := bytes.Index(text[code:], []byte("*/"))
					if length < 0 {
						next = s.stop()
						break
					}
					if bytes.Contains(text[code:code+length], []byte("/*")) {
						return false
					}
					next, end, s.blank = code, code+length, true
					break
				}
				next = s.commentEnd(i)
			default:
				next = s.nestedEnd(i)
			}
		case escaping:
			if !s.mysql || next < len(text) && text[next] != 'N' {
				return false
			}
			if next == len(text) {
				next = s.stop()
				break
			}
			next++
			s.token(i, next) // NULL
		default:
			return false
		}
		switch next {
		case stopped:
			break scan
		case broken:
			return false
		}
		i = next
	}
	s.end()
	return true
}

// What scanning a token returns if there is no next one.
const (
	stopped = 0  // the end of a cut text may be in the token
	broken  = -1 // the text cannot be read safely
)

// stop is for a token that has no end.
func (s *scanner) stop() int {
	if s.cut {
		return stopped
	}
	return broken
}

// escapes says whether a backslash escapes in strings.
func (s *scanner) escapes() bool {
	if s.mysql {
		return !s.modes.NoBackslashEscapes
	}
	return s.modes.StandardStringsOff
}

// scanWord takes a word, and the string of which it is the prefix.
func (s *scanner) scanWord(i int) int {
	text := s.text
	j, all := i+1, text[i]
	for j < len(text) && wordByte[text[j]] {
		all |= text[j]
		j++
	}
	if j == len(text) {
		if s.cut {
			return stopped
		}
	} else if c := text[j]; c == '\'' || c == '"' || c == '&' {
		if next := s.scanPrefixed(i, j); next != 0 {
			return next
		}
	}
	if j-i > maxName {
		return s.literal(j)
	}
	k := no
	if all >= utf8.RuneSelf {
		if !utf8.Valid(text[i:j]) {
			return broken
		}
	} else {
		k = lookup(text[i:j])
	}
	s.word(k, i, j)
	return j
}

// scanPrefixed takes a string with a prefix, of which the quote, or the &, is at j. It returns 0 if there is none.
func (s *scanner) scanPrefixed(i, j int) int {
	text := s.text
	first := text[i] | 0x20
	switch {
	case text[j] == '&':
		if s.mysql || j != i+1 || first != 'u' || j+1 == len(text) {
			return 0
		}
		switch text[j+1] {
		case '\'':
			if s.modes.StandardStringsOff {
				return broken // the server refuses it
			}
			return s.scanString(j+2, '\'', false)
		case '"':
			return s.scanName(i, j+2)
		}
		return 0
	case text[j] == '"':
		if s.mysql && !s.modes.ANSIQuotes && text[i] == '_' && j > i+1 {
			return s.scanString(j+1, '"', s.escapes())
		}
		return 0
	case s.mysql && text[i] == '_' && j > i+1:
		return s.scanString(j+1, '\'', s.escapes())
	case j != i+1:
		return 0
	case first == 'n':
		return s.scanString(j+1, '\'', s.escapes())
	case first == 'b', first == 'x':
		return s.scanBits(j+1, first == 'x')
	case first == 'e' && !s.mysql:
		return s.scanString(j+1, '\'', true)
	}
	return 0
}

// scanString takes a string, whose contents begin at i.
func (s *scanner) scanString(i int, q byte, escapes bool) int {
	text := s.text
	// A string of PostgreSQL with E says for itself that a backslash escapes.
	unsure := s.modes.Unsure && (s.mysql || escapes == s.modes.StandardStringsOff)
	for {
		if !escapes && !unsure {
			n := bytes.IndexByte(text[i:], q)
			if n < 0 {
				return s.stop()
			}
			i += n
		} else {
			for i < len(text) && text[i] != q {
				if text[i] == '\\' {
					i++
					if unsure && i < len(text) && text[i] == q {
						return broken
					}
				}
				i++
			}
			if i >= len(text) {
				return s.stop()
			}
		}
		if i++; i == len(text) {
			if s.cut {
				return stopped // the next byte may be another quote, which would not end it
			}
			break
		}
		if text[i] == q {
			i++
			continue
		}
		next := s.continued(i)
		if next == 0 {
			break
		}
		i = next
	}
	return s.stringEnd(i)
}

// scanBits takes a string of bits or hexadecimal digits, whose contents begin at i. There are no quotes in it.
func (s *scanner) scanBits(i int, hexadecimal bool) int {
	for {
		n := bytes.IndexByte(s.text[i:], '\'')
		if n < 0 {
			return s.stop()
		}
		if s.mysql {
			for _, c := range s.text[i : i+n] {
				if !(c == '0' || c == '1' || hexadecimal && hexValue(c) >= 0) {
					return broken // the server refuses it
				}
			}
		}
		i += n + 1
		if i == len(s.text) && s.cut {
			return stopped
		}
		next := s.continued(i)
		if next == 0 {
			break
		}
		i = next
	}
	return s.stringEnd(i)
}

// continued finds out whether a string that has ended before i goes on: PostgreSQL joins strings with a new line between them, and
// what escapes in the first escapes in all. It returns where the contents go on, or 0.
func (s *scanner) continued(i int) int {
	if s.mysql {
		return 0
	}
	lines := false
	for text := s.text; i < len(text); {
		switch c := text[i]; {
		case c == '\n' || c == '\r':
			lines = true
		case c == '\'' && lines:
			return i + 1
		case c == '-' && i+1 < len(text) && text[i+1] == '-':
			for i < len(text) && text[i] != '\n' && text[i] != '\r' {
				i++
			}
			continue
		case classes[PostgreSQL][c] != space:
			return 0
		}
		i++
	}
	return 0
}

// stringEnd is called behind a string. What touches it may be the rest of it, if something has ended it too early: a quote that its
// author has not escaped, or an escape that was none. Only a keyword is believed to be none of that.
func (s *scanner) stringEnd(i int) int {
	if text := s.text; i < len(text) {
		switch c := text[i]; {
		case wordByte[c]:
			j := i
			for j < len(text) && wordByte[text[j]] {
				j++
			}
			if (j < len(text) || !s.cut) && lookup(text[i:j]) == no {
				return broken
			}
		case c == '"' && !(s.mysql && !s.modes.ANSIQuotes), c == '`' && s.mysql:
			return broken
		}
	}
	if s.joined {
		s.blank = false
		return i
	}
	s.literal(i)
	s.joined = true
	return i
}

// scanNumber takes a number, and with it all that is written together with it: a server that knows that form of number takes it for
// one, another one for a number and a name, or for a name that begins with a digit.
func (s *scanner) scanNumber(i int) int {
	text := s.text
	i++
	for i < len(text) {
		c := text[i]
		switch {
		case c == '$' && !s.mysql:
			return broken // a string may begin here
		case wordByte[c] || c == '.':
			i++
			continue
		case (c == '+' || c == '-') && text[i-1]|0x20 == 'e' && i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9':
			i += 2
			continue
		case c == '\'' || c == '"' || c == '`':
			return broken // whether the letters before it are a string's prefix depends on the server's version
		}
		return s.literal(i)
	}
	if s.cut {
		return stopped
	}
	return s.literal(i)
}

// scanName takes a name in quotes, of which the token begins at from and the contents at i.
func (s *scanner) scanName(from, i int) int {
	text := s.text
	q := text[i-1]
	for {
		n := bytes.IndexByte(text[i:], q)
		if n < 0 {
			return s.stop()
		}
		if i += n + 1; i == len(text) {
			if s.cut {
				return stopped
			}
			break
		}
		if text[i] != q {
			break
		}
		i++
	}
	name := text[from:i]
	switch {
	case bytes.IndexByte(name, 0) >= 0 || !utf8.Valid(name):
		return broken
	case len(name) > maxName:
		return s.literal(i)
	}
	s.quoted(from, i)
	return i
}

// scanDollar takes what begins with a dollar sign: a parameter or a string of PostgreSQL, a name of MySQL.
func (s *scanner) scanDollar(i int) int {
	text := s.text
	j := i + 1
	if s.mysql {
		for j < len(text) && wordByte[text[j]] {
			j++
		}
		word := text[i:j]
		switch {
		case bytes.IndexByte(word[1:], '$') >= 0:
			return broken // a string since 9.0 (https://dev.mysql.com/doc/refman/9.0/en/string-literals.html), a name before
		case j == len(text) && s.cut:
			return stopped
		case !utf8.Valid(word):
			return broken
		case len(word) > maxName || len(word) > 1+maxParam && classes[MySQL][word[1]] == digit:
			return s.literal(j)
		}
		s.word(no, i, j)
		return j
	}
	if j < len(text) && classes[PostgreSQL][text[j]] == digit {
		for j < len(text) && classes[PostgreSQL][text[j]] == digit {
			j++
		}
		switch {
		case j == len(text) && s.cut:
			return stopped
		case j-i > 1+maxParam:
			return s.literal(j)
		}
		s.token(i, j)
		return j
	}
	for j < len(text) && wordByte[text[j]] && text[j] != '$' {
		j++
	}
	switch {
	case j == len(text) && s.cut:
		return stopped
	case j == len(text) || text[j] != '$':
		s.sign(i)
		return i + 1
	}
	j++
	delimiter := text[i:j]
	n := bytes.Index(text[j:], delimiter)
	if n < 0 {
		return s.stop()
	}
	return s.literal(j + n + len(delimiter))
}

// lineEnd passes over a comment that goes on to the end of the line.
func (s *scanner) lineEnd(i int) int {
	s.blank = true
	rest := s.text[i:]
	n := bytes.IndexByte(rest, '\n')
	if s.mysql {
		if n >= 0 {
			rest = rest[:n]
		}
		if bytes.IndexByte(rest, 0) >= 0 {
			return broken // the server goes on behind it
		}
	} else if r := bytes.IndexByte(rest, '\r'); r >= 0 && (n < 0 || r < n) {
		n = r
	}
	if n >= 0 {
		return i + n + 1
	}
	if s.cut {
		return stopped
	}
	return len(s.text)
}

// nestedEnd passes over a comment of PostgreSQL, in which there may be others.
func (s *scanner) nestedEnd(i int) int {
	text := s.text
	s.blank = true
	from, depth := i+2, 1
	for i += 2; i+1 < len(text); i++ {
		switch {
		case text[i] == '/' && text[i+1] == '*':
			depth++
			i++
		case text[i] == '*' && text[i+1] == '/':
			i++
			if depth--; depth == 0 {
				s.comment(text[from : i-1])
				return i + 1
			}
		}
	}
	return s.stop()
}

// commentEnd passes over a comment of MySQL. One with hints for the optimizer ends where the server finds the end of it as such a
// comment, and where it does otherwise; should that be at two places, it cannot be read.
func (s *scanner) commentEnd(i int) int {
	text := s.text
	s.blank = true
	from := i + len("/*")
	n := bytes.Index(text[from:], []byte("*/"))
	if n < 0 {
		return s.stop()
	}
	inside := text[from : from+n]
	if len(inside) > 0 && inside[0] == '+' && !balanced(inside) {
		return broken
	}
	s.comment(inside)
	return from + n + len("*/")
}

// balanced says that no quote is open at the end, whether a backslash escapes or not.
func balanced(b []byte) bool {
	open := byte(0)
	for _, c := range b {
		switch {
		case c == '\\':
			return false
		case open == 0 && (c == '\'' || c == '"' || c == '`'):
			open = c
		case c == open:
			open = 0
		}
	}
	return open == 0
}

// codeIn finds the code in a comment that servers execute, from some version on: /*!50000 of MySQL, /*M!100000 of MariaDB. It returns
// 0 if there is none.
func codeIn(text []byte, i int) int {
	i += len("/*")
	if i < len(text) && text[i] == 'M' {
		i++
	}
	if i >= len(text) || text[i] != '!' {
		return 0
	}
	for i++; i < len(text) && classes[MySQL][text[i]] == digit; i++ {
	}
	return i
}
