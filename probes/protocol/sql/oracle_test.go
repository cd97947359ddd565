// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"regexp"
	"testing"

	sqllexer "github.com/DataDog/go-sqllexer"
)

// difference is a reason for which a text reads otherwise to the library: where it is wrong, or shows more on purpose.
type difference struct {
	why   string
	where *regexp.Regexp // in the text
}

func differences(list ...string) (d []difference) {
	for i := 0; i < len(list); i += 2 {
		d = append(d, difference{list[i], regexp.MustCompile(list[i+1])})
	}
	return d
}

// The library takes for values or comments what is shown here.
var shownHere = [2][]difference{
	PostgreSQL: differences(
		"a dollar sign in a word, or alone, begins no string", `\$`,
		"a comment of PostgreSQL ends with a carriage return", `--[^\n]*\r`,
		"a comment may be in another", `(?s)/\*.*/\*`,
		"what ends a comment does not begin one", `\*/\*`,
		"a comment may touch what is before or behind it", `\S/\*|\*/\S|\S--`,
		"in an operator, a backtick is nothing special", "`",
		"a name in quotes may touch a word", `\w"|"\w`,
		"a string joined by a new line goes on as it began", `'\s*(--.*)?[\r\n]`,
		"words of letters other than ASCII", `[^\x00-\x7f]`,
		"a form feed or a vertical tab is white space", `[\f\v]`,
		"a sign and a point are no number, and an exponent has digits", `[+-]\.|[0-9.][eE]`,
		"an E is a prefix though a word of other letters ends before it", `(?i)e'`,
	),
	MySQL: differences(
		"the code in a comment is code", `/\*M?!`,
		"what ends a comment does not begin one", `\*/\*`,
		"a comment may touch what is before or behind it", `\S/\*|\*/\S`,
		"quotes may touch a word", "\\w[\"'`]|[\"'`]\\w",
		"two dashes begin a comment only before white space", `--`,
		"the escape for NULL", `\\N`,
		"a dollar sign in a word, or at its beginning, begins no string", `\$`,
		"words of letters other than ASCII", `[^\x00-\x7f]`,
		"a form feed or a vertical tab is white space", `[\f\v]`,
		"a sign and a point are no number, and an exponent has digits", `[+-]\.|[0-9.][eE]`,
	),
}

// The library shows what is a value or a comment here.
var hiddenHere = [2][]difference{
	PostgreSQL: differences(
		"a string's prefix belongs to it", `(?i)(\b[bnxe]|\bu&)'`,
		"an E is a prefix whatever is before", `(?i)e'`,
		"a string joined by a new line goes on as it began", `'\s*(--.*)?[\r\n]`,
		"a dollar quote may be of letters other than ASCII, and after other things", `\$`,
		"a comment may be in another, or in an operator", `/\*|--`,
		"a name in quotes may touch a word or a string", "\\w\"|\"['\\w]",
	),
	MySQL: differences(
		"a string's prefix belongs to it", `(?i)(\b[bnx]|\b_\w*)['"]`,
		"a string may touch a word", `\w"`,
		"a name may follow two dashes", `--`,
		"comments end with a new line only, or are in code", `#|/\*`,
		"a dollar sign may be in a name", `\$`,
		"strings are joined", `['"]\s*['"]`,
	),
}

// Both have in common what is hidden on purpose, or is written together.
var hidden = differences(
	"a number, and what is written together with it", `[0-9.][0-9A-Za-z_.$\x{80}-\x{10ffff}]`,
	"a number behind a sign, which the library takes for a part of that", `[^\w\s]\s*[0-9]`,
	"the value of a setting", `(?i)\bset\b`,
	"a password", `(?i)\bpassword\b|\bby\b`,
	"the further rows of VALUES", `(?i)\bvalues?\b`,
	"the further items of a list", `(?i)\b(in|array)\b`,
	"parameters are alike in a list", `\$[0-9]`,
	"a name that is too long for one", `[^\s]{200}`,
	"the escape for NULL", `\\N`,
	"signs in a row", `--`,
)

var wordPattern = regexp.MustCompile(`[A-Za-z0-9_]+`)

// library is what the library takes for neither value nor comment.
func library(d Dialect, text string) (words map[string]bool) {
	name := sqllexer.DBMSPostgres
	if d == MySQL {
		name = sqllexer.DBMSMySQL
	}
	l := sqllexer.New(text, sqllexer.WithDBMS(name))
	words = map[string]bool{}
	for range len(text) + 1 {
		switch token := l.Scan(); token.Type {
		case sqllexer.EOF:
			return words
		case sqllexer.STRING, sqllexer.INCOMPLETE_STRING, sqllexer.NUMBER, sqllexer.COMMENT, sqllexer.MULTILINE_COMMENT,
			sqllexer.DOLLAR_QUOTED_STRING, sqllexer.DOLLAR_QUOTED_FUNCTION:
		default:
			for _, w := range wordPattern.FindAllString(token.Value, -1) {
				words[w] = true
			}
		}
	}
	return words
}

// FuzzLibrary compares what is shown with what go-sqllexer takes for neither a value nor a comment. Where they differ, the reference
// decides, and the difference must be a known one.
func FuzzLibrary(f *testing.F) {
	addCorpus(f)
	f.Fuzz(func(t *testing.T, text []byte, dialect, modes uint8) {
		d, m := Dialect(dialect%2), Modes{}
		if len(text) > 1000 || bytes.IndexByte(text, 0) >= 0 {
			return
		}
		st := New(d, Sanitised).Read(text, false, m)
		if st.Withheld {
			return
		}
		theirs := library(d, string(text))
		ours := map[string]bool{}
		values := valuesIn(d, m, text)
		for _, w := range wordPattern.FindAllString(st.Text, -1) {
			ours[w] = true
			if !theirs[w] && !explained(text, shownHere[d]) {
				t.Errorf("%d %q: %q is shown in %q", d, text, w, st.Text)
			}
		}
		for w := range theirs {
			if !ours[w] && !values[w] && !explained(text, hidden) {
				t.Errorf("%d %q: %q is not shown in %q", d, text, w, st.Text)
			}
			if !ours[w] && values[w] && !explained(text, hiddenHere[d]) && !explained(text, hidden) {
				t.Errorf("%d %q: the library shows %q", d, text, w)
			}
		}
	})
}

func explained(text []byte, list []difference) bool {
	for _, d := range list {
		if d.where.Match(text) {
			return true
		}
	}
	return false
}

// valuesIn are the words in literals and comments.
func valuesIn(d Dialect, m Modes, text []byte) map[string]bool {
	words := map[string]bool{}
	for version := range 2 {
		tokens, _ := reference(d, m, text, version)
		for _, token := range tokens {
			switch token.kind {
			case stringKind, bitsKind, numberKind, blankKind:
				for _, w := range wordPattern.FindAllString(string(text[token.start:token.end]), -1) {
					words[w] = true
				}
			}
		}
	}
	return words
}
