// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what is in testdata")

var dialects = []struct {
	name    string
	dialect Dialect
	samples []sample
}{
	{"postgresql", PostgreSQL, append(append([]sample(nil), common...), postgresql...)},
	{"mysql", MySQL, append(append([]sample(nil), common...), mysqlOnly...)},
}

// each calls f for each sample, in each dialect and mode that it may be read in.
func each(f func(d Dialect, m Modes, text string, secrets []string)) {
	for _, d := range dialects {
		for _, s := range d.samples {
			text, secrets := s.text()
			for _, m := range s.in(d.dialect) {
				f(d.dialect, m, text, secrets)
			}
		}
	}
}

// shown is all that a span may show.
func shown(st *Statement) string {
	return strings.Join([]string{st.Text, st.Operation, st.Collection, st.Procedure, st.Summary}, "\n")
}

// leak finds three characters of a secret that are shown, and that are not in the rest of the text.
func leak(st *Statement, text string, secrets []string) string {
	all := strings.ToLower(shown(st))
	rest := strings.ToLower(text)
	for _, s := range secrets {
		rest = strings.ReplaceAll(rest, strings.ToLower(s), "\x00")
	}
	for _, s := range secrets {
		s = strings.ToLower(s)
		for i := 0; i+3 <= len(s); i++ {
			if part := s[i : i+3]; strings.Contains(all, part) && !strings.Contains(rest, part) {
				return part
			}
		}
	}
	return ""
}

func TestNoSecretIsShown(t *testing.T) {
	n := 0
	each(func(d Dialect, m Modes, text string, secrets []string) {
		n++
		r := New(d, Sanitised)
		if part := leak(r.Read([]byte(text), false, m), text, secrets); part != "" {
			t.Errorf("%d %+v %q: %q is shown: %q", d, m, text, part, shown(r.Read([]byte(text), false, m)))
		}
		for i := range len(text) {
			if part := leak(r.Read([]byte(text[:i]), true, m), text, secrets); part != "" {
				t.Errorf("%d %+v %q, cut: %q is shown: %q", d, m, text[:i], part, shown(r.Read([]byte(text[:i]), true, m)))
			}
		}
	})
	t.Logf("%d samples", n)
}

// TestNorBetweenOtherThings puts each sample where others are before and behind it.
func TestNorBetweenOtherThings(t *testing.T) {
	each(func(d Dialect, m Modes, text string, secrets []string) {
		around := [][2]string{{"SELECT a FROM t; ", ""}, {"/* x */ ", " "}, {"; ;", ";;"}, {"EXPLAIN ", ""}}
		if strings.HasPrefix(text, "SELECT ") {
			around = append(around, [][2]string{{"SELECT f(", ")"}, {"(", ") UNION SELECT 1"}, {"WITH x AS (", ") SELECT 1 FROM x"}, {"SELECT 1 IN (", ")"}, {"INSERT INTO t ", ""}}...)
		}
		for _, a := range around {
			text := a[0] + text + a[1]
			st := New(d, Sanitised).Read([]byte(text), false, m)
			if part := leak(st, text, secrets); part != "" {
				t.Errorf("%d %+v %q: %q is shown: %q", d, m, text, part, shown(st))
			}
		}
	})
}

// TestStatements compares all that is told of the samples with what is in testdata.
func TestStatements(t *testing.T) {
	for _, d := range dialects {
		var b strings.Builder
		for _, s := range d.samples {
			text, _ := s.text()
			var first *Statement
			for _, m := range s.in(d.dialect) {
				st := New(d.dialect, Sanitised).Read([]byte(text), false, m)
				if first == nil {
					first = st
					fmt.Fprintf(&b, "%s\n", visible(text))
					if s.modes != nil {
						fmt.Fprintf(&b, "  modes      %+v\n", m)
					}
					describe(&b, st)
				} else if *st != *first {
					t.Errorf("%q: %+v in mode %+v, or %+v", text, st, m, first)
				}
			}
		}
		golden(t, d.name+".txt", b.String())
	}
}

func describe(b *strings.Builder, st *Statement) {
	if st.Withheld {
		fmt.Fprintf(b, "  withheld\n")
	}
	for _, f := range []struct{ name, value string }{
		{"text", st.Text}, {"operation", st.Operation}, {"collection", st.Collection}, {"procedure", st.Procedure}, {"summary", st.Summary},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "  %-10s %s\n", f.name, visible(f.value))
		}
	}
	if st.Statements != 1 {
		fmt.Fprintf(b, "  statements %d\n", st.Statements)
	}
}

// visible quotes what does not fit on a line.
func visible(s string) string {
	q := fmt.Sprintf("%q", s)
	if strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `\\`, `\`), `\"`, `"`) == s && s != "" {
		return s
	}
	return q
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it)\n%s", path, diff)
	}
}

// TestSanitisedIsSanitised reads again what came of the samples.
func TestSanitisedIsSanitised(t *testing.T) {
	each(func(d Dialect, m Modes, text string, _ []string) { again(t, d, m, []byte(text), false) })
	each(func(d Dialect, m Modes, text string, _ []string) {
		for i := range len(text) {
			again(t, d, m, []byte(text[:i]), true)
		}
	})
}

// again checks that a text that is shown says the same, read again.
func again(t *testing.T, d Dialect, m Modes, text []byte, cut bool) {
	t.Helper()
	r := New(d, Sanitised)
	st := r.Read(text, cut, m)
	if st.Withheld {
		if st.Text != "" || st.Collection != "" || st.Procedure != "" || st.Summary != st.Operation {
			t.Errorf("%d %+v %q: withheld, but %+v", d, m, text, st)
		}
		return
	}
	if len(st.Text) > maxText || len(st.Summary) > maxSummary || !utf8.ValidString(shown(st)) {
		t.Errorf("%d %+v %q: %+v", d, m, text, st)
	}
	second := r.Read([]byte(st.Text), false, m)
	if second.Text != st.Text {
		t.Errorf("%d %+v %q:\nfirst  %q\nsecond %q", d, m, text, st.Text, second.Text)
	}
	// A longer text is about more than is shown of it; a cut one may end in the middle of a name. Signs at the end are not shown that
	// would begin a comment there.
	if !cut && len(st.Text)+maxName < maxText && !bytes.Contains(text, []byte("--")) && (second.Operation != st.Operation || second.Summary != st.Summary ||
		second.Collection != st.Collection || second.Procedure != st.Procedure || second.Statements != st.Statements) {
		t.Errorf("%d %+v %q:\nfirst  %+v\nsecond %+v", d, m, text, st, second)
	}
}

func TestPolicies(t *testing.T) {
	text := []byte("SELECT a FROM t WHERE b = 'x' -- y")
	want := Statement{Operation: "SELECT", Collection: "t", Summary: "SELECT t", Statements: 1}
	for p, shown := range map[Policy]string{Sanitised: "SELECT a FROM t WHERE b = ?", Off: "", Raw: string(text)} {
		want.Text = shown
		if diff := cmp.Diff(want, *New(PostgreSQL, p).Read(text, false, Modes{})); diff != "" {
			t.Errorf("%d (-want +got)\n%s", p, diff)
		}
	}
}

func TestRawTextIsValid(t *testing.T) {
	for _, test := range []struct {
		text string
		cut  bool
		want string
	}{
		{"SELECT 'a", false, "SELECT 'a"},
		{"SELECT '\xff'", false, "SELECT '\uFFFD'"},
		{"SELECT 'é"[:9], true, "SELECT '"},
		{"SELECT 'é"[:9], false, "SELECT '\uFFFD"},
		{strings.Repeat("é", maxText), false, strings.Repeat("é", maxText/2)},
		{"a" + strings.Repeat("é", maxText), false, "a" + strings.Repeat("é", maxText/2-1)},
	} {
		st := New(PostgreSQL, Raw).Read([]byte(test.text), test.cut, Modes{})
		if st.Text != test.want || st.Withheld {
			t.Errorf("%q: %q", test.text, st.Text)
		}
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct{ text, want, collection string }{
		{"SELECT a FROM t WHERE b = 'x", "SELECT a FROM t WHERE b =", ""},
		{"SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b =", ""},
		{"SELECT a FROM t WHERE b = 'x' ", "SELECT a FROM t WHERE b = ?", ""},
		{"SELECT a FROM t WHERE b = 12", "SELECT a FROM t WHERE b =", ""},
		{"SELECT a FROM t WHERE b", "SELECT a FROM t WHERE", ""},
		{"SELECT a, b, ", "SELECT a, b", ""},
		{"SELECT a FROM t WHERE b IN (1, 2", "SELECT a FROM t WHERE b IN (?", ""},
		{"SELECT a FROM t WHERE b IN (1, 2, lower('x", "SELECT a FROM t WHERE b IN (?", ""},
		{"INSERT INTO t (a) VALUES (1), (2), (3", "INSERT INTO t (a) VALUES (?)", "t"},
		{"INSERT INTO t (a) VALUES (1, 'x", "INSERT INTO t (a) VALUES (?", "t"},
		{"UPDATE t SET a = 'x", "UPDATE t SET a =", "t"},
		{"SET a = ", "SET a =", ""},
		{"SET a = b", "SET a =", ""},
		{"SET a = b c", "SET a = ?", ""},
		{"SELECT 1 /* x", "SELECT ?", ""},
		{"SELECT 1 -- x", "SELECT ?", ""},
		{"SELECT $$x", "SELECT", ""},
		{"SELECT \"x", "SELECT", ""},
		{"SELECT 1; SEL", "SELECT ?", ""},
		{"SELECT \"x\"", "SELECT", ""},
		{"SEL", "", ""},
	} {
		st := New(PostgreSQL, Sanitised).Read([]byte(test.text), true, Modes{})
		if st.Text != test.want || st.Collection != test.collection || st.Withheld {
			t.Errorf("%q: %+v", test.text, st)
		}
	}
}

func TestLongTexts(t *testing.T) {
	for _, d := range []Dialect{PostgreSQL, MySQL} {
		for name, text := range map[string]string{
			"columns":     "SELECT " + strings.Repeat("some_column, ", 1000) + "x FROM t WHERE a = 's3cr3t'",
			"names":       "SELECT 1 FROM " + strings.Repeat("another_table, ", 1000) + "t",
			"list":        "SELECT 1 FROM t WHERE a IN (" + strings.Repeat("'s3cr3t', ", 1000) + "1)",
			"rows":        "INSERT INTO t VALUES " + strings.Repeat("('s3cr3t'), ", 1000) + "(1)",
			"statements":  strings.Repeat("INSERT INTO t VALUES ('s3cr3t'); ", 1000),
			"name":        "SELECT 1 FROM " + strings.Repeat("long", 100),
			"quoted":      `SELECT 1 FROM "` + strings.Repeat("long", 100) + `"`,
			"nested":      "SELECT " + strings.Repeat("(", 1000) + "'s3cr3t'" + strings.Repeat(")", 1000) + " FROM t",
			"lists":       "SELECT 1 FROM t WHERE a " + strings.Repeat("IN (('s3cr3t', ", 1000) + strings.Repeat("1), 2)", 1000),
			"expressions": "WITH " + strings.Repeat("a AS (SELECT 1), ", 1000) + "b AS (SELECT 2) SELECT * FROM t",
			"beyond":      "SELECT '" + strings.Repeat("s3cr3t", maxRead) + "'",
			"comments":    strings.Repeat("/* x */", 5000) + "SELECT 1 FROM t",
		} {
			st := New(d, Sanitised).Read([]byte(text), false, Modes{})
			if len(st.Text) > maxText || len(st.Summary) > maxSummary || strings.Contains(shown(st), "s3c") || st.Withheld {
				t.Errorf("%s: %+v", name, st)
			}
			if name != "expressions" {
				again(t, d, Modes{}, []byte(text), false)
			}
		}
	}
}

func TestSummaryEndsWithAName(t *testing.T) {
	st := New(PostgreSQL, Sanitised).Read([]byte("SELECT 1 FROM "+strings.Repeat("seventeen_letters, ", 20)+"t"), false, Modes{})
	if want := "SELECT" + strings.Repeat(" seventeen_letters", 13); st.Summary != want {
		t.Errorf("%q", st.Summary)
	}
}

func TestContext(t *testing.T) {
	const parent = "traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'"
	for _, test := range []struct {
		text, want, state string
	}{
		{"SELECT 1 /*" + parent + "*/", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""},
		{"/* " + parent + " */ SELECT 1", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""},
		{"SELECT 1 /*action='%2Fa',framework='x'," + parent + ",tracestate='congo%3Dt61rcWkgMzE%2Crojo%3D00f067aa0ba902b7'*/;", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"},
		{"SELECT 1 /*tracestate='a%3Db'," + parent + "*/", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b"},
		{"SELECT 1 /*traceparent='00%2D0af7651916cd43dd8448eb211c80319c%2Db7ad6b7169203331%2D00'*/", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", ""},
		{"SELECT '/*" + parent + "*/'", "", ""},
		{"SELECT 1 -- " + parent, "", ""},
		{"SELECT 1 /*x" + parent + "*/", "", ""},
		{"SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01*/", "", ""},
		{"SELECT 1 /*traceparent='00-00000000000000000000000000000000-b7ad6b7169203331-01'*/", "", ""},
		{"SELECT 1 /*traceparent='%0'*/", "", ""},
		{"SELECT 1 /*traceparent='%zz'*/", "", ""},
		{"SELECT 1 /*traceparent=*/", "", ""},
		{"SELECT 'x /*" + parent + "*/", "", ""},
	} {
		for _, d := range []Dialect{PostgreSQL, MySQL} {
			c := New(d, Sanitised).Read([]byte(test.text), false, Modes{}).Context
			got := ""
			if c.TraceID.IsValid() {
				got = fmt.Sprintf("%s-%s-%s", c.TraceID, c.SpanID, c.Flags)
			}
			if got != test.want || c.TraceState != test.state {
				t.Errorf("%s: %q %q", test.text, got, c.TraceState)
			}
		}
	}
}

// Statements of which nothing but the values and the context differ are one statement, and texts that come again are known.
func TestStatementsAreShared(t *testing.T) {
	r := New(PostgreSQL, Sanitised)
	read := func(text string, cut bool, m Modes) *Statement { return r.Read([]byte(text), cut, m) }
	a := read("SELECT a FROM t WHERE b = 1", false, Modes{})
	if read("SELECT a FROM t WHERE b = 1", false, Modes{}) != a || read("SELECT a FROM t WHERE b = 'x' ", false, Modes{}) != a {
		t.Error("not shared")
	}
	if read("SELECT a FROM t WHERE b = 1", true, Modes{}).Text == a.Text {
		t.Error("cut, but the same")
	}
	if st := read(`SELECT a FROM t WHERE b = 'x\' AND c = 'y'`, false, Modes{StandardStringsOff: true}); !st.Withheld {
		t.Errorf("%+v", st)
	}
	if st := read(`SELECT a FROM t WHERE b = 'x\' AND c = 'y'`, false, Modes{}); st.Text != "SELECT a FROM t WHERE b = ? AND c = ?" {
		t.Errorf("%+v", st)
	}
	with := read("SELECT a FROM t WHERE b = 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/", false, Modes{})
	if !with.Context.TraceID.IsValid() || read("SELECT a FROM t WHERE b = 2", false, Modes{}) != a || a.Context.TraceID.IsValid() {
		t.Error("context is shared")
	}
}

func TestReadersForget(t *testing.T) {
	r := New(PostgreSQL, Sanitised)
	for i := range 10_000 {
		text := fmt.Sprintf("SELECT a%d, %sb FROM t%d", i, strings.Repeat("x, ", i%1000), i)
		if st := r.Read([]byte(text), false, Modes{}); !strings.HasSuffix(st.Text, fmt.Sprintf("t%d", i)) {
			t.Fatalf("%q: %+v", text, st)
		}
		kept := 0
		for _, st := range r.known {
			if st != nil {
				kept += len(st.Text) + len(st.Summary) + len(st.Collection)
			}
		}
		if len(r.seen) != maxSeen || len(r.known) != maxKnown || kept > maxBytes || r.bytes > maxBytes {
			t.Fatalf("%d bytes, %d counted", kept, r.bytes)
		}
	}
	if cap(r.scanner.out) > 2*maxText {
		t.Errorf("%d bytes", cap(r.scanner.out))
	}
}

func TestNothingIsAllocatedForWhatIsKnown(t *testing.T) {
	r := New(MySQL, Sanitised)
	text := []byte("SELECT a FROM t WHERE b = 1000 AND c IN ('x', 'y')")
	at := bytes.Index(text, []byte("1000"))
	r.Read(text, false, Modes{})
	if n := testing.AllocsPerRun(100, func() { r.Read(text, false, Modes{}) }); n != 0 {
		t.Errorf("%v allocations for a known text", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		for i := at; ; i++ {
			if text[i]++; text[i] <= '9' {
				break
			}
			text[i] = '0'
		}
		r.Read(text, false, Modes{})
	}); n != 0 {
		t.Errorf("%v allocations for a known statement", n)
	}
}

func TestReadersKeepNoText(t *testing.T) {
	r := New(PostgreSQL, Sanitised)
	text := []byte("SELECT a FROM t WHERE b = 1")
	st := r.Read(text, false, Modes{})
	clear(text)
	if st.Text != "SELECT a FROM t WHERE b = ?" || st.Collection != "t" || r.scanner.text != nil || r.scanner.context != nil {
		t.Errorf("%+v", st)
	}
}
