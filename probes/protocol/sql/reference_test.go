// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"regexp"
	"testing"
)

// The reference is the servers' lexers once more, slow and plain, as lists of the patterns that are in scan.l of PostgreSQL and in
// the manual of MySQL. Tests check the scanner against it.

// kind is what a token of the reference is.
type kind uint8

const (
	blankKind  kind = iota // white space and comments
	stringKind             // with quotes of any kind
	bitsKind               // x'..' and b'..'
	numberKind             // and what begins like one
	nameKind               // in quotes
	wordKind               // and parameters
	signKind
	brokenKind // what no server reads
)

type refToken struct {
	kind       kind
	start, end int
}

type pattern struct {
	kind kind
	re   *regexp.Regexp
}

func patterns(list ...any) (p []pattern) {
	for i := 0; i < len(list); i += 2 {
		re := regexp.MustCompile(`^(?s:` + list[i+1].(string) + `)`)
		re.Longest()
		p = append(p, pattern{list[i].(kind), re})
	}
	return p
}

const (
	pgNewline = `(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*` // white space with a new line
	pgWord    = `[A-Za-z_\x{80}-\x{ff}][A-Za-z_\x{80}-\x{ff}0-9$]*`
	pgExp     = `(?:[eE][+-]?[0-9]+)?`
)

// pgString is a string with a prefix, the pattern of its contents, and what it goes on with on another line.
func pgString(prefix, contents string) string {
	return prefix + `'` + contents + `'(?:` + pgNewline + `'` + contents + `')*`
}

const (
	standard = `(?:[^']|'')*`
	extended = `(?:[^'\\]|''|\\.)*`
)

// pgPatterns are those of PostgreSQL. old: of before numbers had underscores, and before a name behind a number was an error (16, 15).
func pgPatterns(off, old bool) []pattern {
	plain := standard
	if off {
		plain = extended
	}
	integer := `[0-9](?:_?[0-9])*`
	special := `|0[xX](?:_?[0-9A-Fa-f])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+`
	if old {
		integer, special = `[0-9]+`, ``
	}
	return patterns(
		blankKind, `[ \t\n\r\f\v]+`,
		blankKind, `--[^\n\r]*`,
		stringKind, pgString(`[eE]`, extended),
		stringKind, pgString(`[nN]?`, plain),
		stringKind, pgString(`[uU]&`, standard),
		bitsKind, pgString(`[xXbB]`, `[^']*`),
		nameKind, `(?:[uU]&)?"(?:[^"]|"")*"`,
		numberKind, `(?:`+integer+`(?:\.(?:`+integer+`)?)?|\.`+integer+`)`+pgExp+special,
		wordKind, `\$[0-9]+`,
		wordKind, pgWord,
		signKind, "[-!#%&*+./:;<=>?@^`|~,()\\[\\]{}$]",
	)
}

const myWord = `[A-Za-z_$\x{80}-\x{ff}][A-Za-z_$\x{80}-\x{ff}0-9]*`

// myPatterns are those of MySQL.
func myPatterns(m Modes) []pattern {
	contents := func(quote string) string {
		if m.NoBackslashEscapes {
			return quote + `(?:[^` + quote + `]|` + quote + quote + `)*` + quote
		}
		return quote + `(?:[^` + quote + `\\]|` + quote + quote + `|\\.)*` + quote
	}
	double := stringKind
	doubled := contents(`"`)
	if m.ANSIQuotes {
		double, doubled = nameKind, `"(?:[^"]|"")*"`
	}
	return patterns(
		blankKind, `[ \t\n\r\f\v]+`,
		blankKind, `#[^\n\x00]*`,
		blankKind, `--(?:\n|[\x01-\x09\x0b-\x20\x7f][^\n\x00]*)`,
		stringKind, `[nN]?`+contents(`'`),
		bitsKind, `[xX]'[0-9A-Fa-f]*'|[bB]'[01]*'`,
		double, doubled,
		nameKind, "`(?:[^`]|``)*`",
		// A name may begin with a digit.
		numberKind, `\.?[0-9](?:[A-Za-z_$0-9.\x{80}-\x{ff}]|[eE][+-][0-9])*`,
		wordKind, `\\N`,
		wordKind, myWord,
		signKind, "[-!%&*+./:;<=>?@^|~,()\\[\\]{}]",
	)
}

var referencePatterns = map[Dialect]map[Modes][][]pattern{}

func init() {
	referencePatterns[PostgreSQL] = map[Modes][][]pattern{}
	referencePatterns[MySQL] = map[Modes][][]pattern{}
	for n := range 16 {
		m := Modes{StandardStringsOff: n&1 != 0, NoBackslashEscapes: n&2 != 0, ANSIQuotes: n&4 != 0, Unsure: n&8 != 0}
		referencePatterns[PostgreSQL][m] = [][]pattern{pgPatterns(m.StandardStringsOff, false), pgPatterns(m.StandardStringsOff, true)}
		p := myPatterns(m)
		referencePatterns[MySQL][m] = [][]pattern{p, p}
	}
}

// widen makes a rune of each byte, as the patterns are of bytes.
func widen(text []byte) string {
	r := make([]rune, len(text))
	for i, c := range text {
		r[i] = rune(c)
	}
	return string(r)
}

// reference reads a text. Servers differ: version is which of two is meant, in PostgreSQL an older one, in MySQL one that does not
// execute the code in comments. It reports false if the server does not read the text either.
func reference(d Dialect, m Modes, text []byte, version int) (tokens []refToken, ok bool) {
	list := referencePatterns[d][m][version]
	code := false // in a comment
	for i := 0; i < len(text); {
		rest := text[i:]
		if end, found := special(d, rest, version, &code); found {
			if end < 0 {
				return append(tokens, refToken{brokenKind, i, len(text)}), false
			}
			k := blankKind
			if rest[0] == '$' {
				k = stringKind
			}
			tokens = append(tokens, refToken{k, i, i + end})
			i += end
			continue
		}
		wide := widen(rest)
		best := refToken{brokenKind, i, i}
		for _, p := range list {
			if loc := p.re.FindStringIndex(wide); loc != nil {
				if n := len([]rune(wide[:loc[1]])); n > best.end-i {
					best = refToken{p.kind, i, i + n}
				}
			}
		}
		if best.kind == brokenKind {
			return append(tokens, refToken{brokenKind, i, len(text)}), false
		}
		tokens = append(tokens, best)
		i = best.end
	}
	return tokens, !code
}

// special reads what is not regular: comments in comments, and strings with their own delimiter. It returns where that ends, or -1.
func special(d Dialect, rest []byte, version int, code *bool) (end int, found bool) {
	switch {
	case d == MySQL && *code && bytes.HasPrefix(rest, []byte("*/")):
		*code = false
		return 2, true
	case d == MySQL && string(rest) == "--":
		return 2, true
	case d == MySQL && executed.Match(rest) && version == 0:
		if *code {
			return -1, true
		}
		*code = true
		return len(executed.Find(rest)), true
	case bytes.HasPrefix(rest, []byte("/*")):
		nested := d == PostgreSQL
		deepest := 1 << 20
		if d == MySQL && executed.Match(rest) {
			nested, deepest = true, 2
		}
		depth := 1
		for i := 2; i+1 < len(rest); i++ {
			switch pair := string(rest[i : i+2]); {
			case pair == "/*" && nested && depth < deepest:
				depth++
				i++
			case pair == "*/":
				i++
				if depth--; depth == 0 {
					return i + 1, true
				}
			}
		}
		return -1, true
	case d == PostgreSQL && delimiter.Match(rest):
		tag := delimiter.Find(rest)
		n := bytes.Index(rest[len(tag):], tag)
		if n < 0 {
			return -1, true
		}
		return len(tag) + n + len(tag), true
	}
	return 0, false
}

var (
	executed  = regexp.MustCompile(`^/\*M?!(?:[0-9]{5,6})?`)
	delimiter = regexp.MustCompile(`^\$(?:(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z_0-9]|[^\x00-\x7f])*)?\$`)
)

// literals are the tokens that may hold a value.
func literals(tokens []refToken) (list []refToken) {
	for _, t := range tokens {
		switch t.kind {
		case stringKind, bitsKind, numberKind:
			list = append(list, t)
		}
	}
	return list
}

// bare says that a sample may have values that are words.
var bare = regexp.MustCompile(`(?i)\bset\b|\bpassword\b|\bidentified\b`)

// TestSecretsAreLiterals checks that the servers themselves take the secrets of the samples for literals or comments.
func TestSecretsAreLiterals(t *testing.T) {
	for _, d := range dialects {
		for _, s := range d.samples {
			text, spans := s.spans()
			for _, m := range s.in(d.dialect) {
				if New(d.dialect, Sanitised).Read([]byte(text), false, m).Withheld || m.Unsure {
					continue
				}
				for version := range 2 {
					tokens, ok := reference(d.dialect, m, []byte(text), version)
					if !ok {
						t.Errorf("%s %+v %q (%d): %v", d.name, m, text, version, tokens)
					}
					for _, at := range spans {
						if !bare.MatchString(text) && !hides(tokens, at) {
							t.Errorf("%s %+v %q (%d): %q is no literal: %v", d.name, m, text, version, text[at[0]:at[1]], tokens)
						}
					}
				}
			}
		}
	}
}

// hides says that the tokens at some place are values or comments. What is written together with a number counts as a part of it, and
// a parameter that there cannot be as one.
func hides(tokens []refToken, at [2]int) bool {
	for i, token := range tokens {
		if token.start >= at[1] || token.end <= at[0] {
			continue
		}
		switch token.kind {
		case nameKind:
			return false
		case wordKind:
			if token.start == at[0]-1 && token.end-token.start > 1+maxParam || i > 0 && tokens[i-1].kind == numberKind && token.start > at[0] {
				continue
			}
			return false
		}
	}
	return true
}
