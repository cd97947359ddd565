// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func modesOf(n uint8) Modes {
	return Modes{StandardStringsOff: n&1 != 0, NoBackslashEscapes: n&2 != 0, ANSIQuotes: n&4 != 0, Unsure: n&8 != 0}
}

func numberOf(m Modes) (n uint8) { return uint8(m.bits(false) >> 1) }

func addCorpus(f *testing.F) {
	each(func(d Dialect, m Modes, text string, _ []string) {
		if !m.Unsure {
			f.Add([]byte(text), uint8(d), numberOf(m))
		}
	})
}

// Values are made of these where a test looks for them: they are of no keyword.
const (
	letterMark = "zqzq"
	digitMark  = "7777"
)

// FuzzRead asks that no literal is shown, whole or cut, that what is shown says the same when it is read again, and that it is bounded.
func FuzzRead(f *testing.F) {
	addCorpus(f)
	f.Fuzz(func(t *testing.T, text []byte, dialect, modes uint8) {
		d, m := Dialect(dialect%2), modesOf(modes)
		again(t, d, m, text, false)
		again(t, d, m, text, true)
		for version := range 2 {
			shownHasNoLiterals(t, d, m, text, version)
			shownIsNoValue(t, d, m, text, version)
			noPrefixShowsALiteral(t, d, m, text, version)
		}
	})
}

// shownHasNoLiterals reads with the reference what is shown of a text.
func shownHasNoLiterals(t *testing.T, d Dialect, m Modes, text []byte, version int) {
	st := New(d, Sanitised).Read(text, false, m)
	tokens, ok := reference(d, m, []byte(st.Text), version)
	if !ok {
		return // it is not SQL
	}
	for _, l := range literals(tokens) {
		t.Errorf("%d %+v %q (%d): %q in %q", d, m, text, version, st.Text[l.start:l.end], st.Text)
	}
}

// shownIsNoValue looks for all words that are shown of a text among the words and names that the reference finds in it.
func shownIsNoValue(t *testing.T, d Dialect, m Modes, text []byte, version int) {
	st := New(d, Sanitised).Read(text, false, m)
	if st.Withheld || len(text) > 1000 || d == MySQL && version == 1 && inComment.Match(text) {
		return
	}
	tokens, ok := reference(d, m, text, version)
	if !ok {
		t.Errorf("%d %+v %q (%d): read, but no server does: %+v", d, m, text, version, st)
	}
	words := map[string]bool{}
	for _, token := range tokens {
		switch token.kind {
		case wordKind, nameKind:
			for _, w := range wordsOf(string(text[token.start:token.end])) {
				words[w] = true
			}
		}
	}
	for _, w := range wordsOf(shown(st)) {
		if !words[w] && !ownWord[w] {
			t.Errorf("%d %+v %q (%d): %q in %q", d, m, text, version, w, shown(st))
		}
	}
}

// wordsOf are the words of a text. In PostgreSQL one may touch a parameter.
func wordsOf(text string) []string {
	return wordPattern.FindAllString(parameter.ReplaceAllString(text, "$$ "), -1)
}

var parameter = regexp.MustCompile(`\$[0-9]+`)

var inComment = regexp.MustCompile(`/\*M?!`)

// ownWord are the words that need not be in the text as they are shown.
var ownWord = map[string]bool{batch: true}

func init() {
	for _, w := range words {
		ownWord[w] = true
	}
}

// noPrefixShowsALiteral fills the literals of a text with marks, and looks for these in what is shown of each beginning of it.
func noPrefixShowsALiteral(t *testing.T, d Dialect, m Modes, text []byte, version int) {
	if len(text) > 400 {
		return
	}
	tokens, _ := reference(d, m, text, version) // what is broken is so behind the tokens
	list := literals(tokens)
	if n := len(tokens); n > 0 && tokens[n-1].kind == brokenKind {
		return
	}
	marked := slices.Clone(text)
	rest := slices.Clone(text)
	for _, l := range list {
		fill(marked[l.start:l.end], l.kind)
		copy(rest[l.start:l.end], bytes.Repeat([]byte{0}, l.end-l.start))
	}
	if lower := strings.ToLower(string(rest)); strings.Contains(lower, letterMark[:3]) || strings.Contains(lower, digitMark[:3]) {
		return
	}
	if other, _ := reference(d, m, marked, version); !slices.Equal(tokens, other) {
		return // a mark has changed what is read
	}
	r := New(d, Sanitised)
	for i := range len(marked) + 1 {
		st := r.Read(marked[:i], i < len(marked), m)
		all := strings.ToLower(shown(st))
		if strings.Contains(all, letterMark[:3]) || strings.Contains(all, digitMark[:3]) {
			t.Errorf("%d %+v %q (%d), up to %d: %+v", d, m, marked, version, i, st)
		}
	}
}

// fill fills a literal with marks.
func fill(b []byte, k kind) {
	switch {
	case k == numberKind:
		for i, c := range b {
			if c >= '2' && c <= '9' && i > 0 {
				b[i] = '7'
			}
		}
	case k == bitsKind:
	case b[0] == '$':
		tag := bytes.IndexByte(b[1:], '$') + 2
		for i := tag; i < len(b)-tag; i++ {
			if b[i] != '$' {
				b[i] = letterMark[i%2]
			}
		}
	default:
		open := bytes.IndexAny(b, `'"`)
		for i := open + 1; i < len(b)-1; i++ {
			switch c := b[i]; {
			case c == '\\':
				i++
			case c != b[open] && c > ' ' && c != '-': // white space and comments join strings
				b[i] = letterMark[i%2]
			}
		}
	}
}
