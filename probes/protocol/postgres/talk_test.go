// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"
)

// TestEveryStatementThatTheServerLoggedIsASpan holds the spans of recorded conversations to what the server has logged of them.
func TestEveryStatementThatTheServerLoggedIsASpan(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.talk")
	if len(names) < 9 {
		t.Fatal(names)
	}
	for _, name := range names {
		talks, err := read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, talk := range talks {
			for _, server := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%d/%v", filepath.Base(name), i, server), func(t *testing.T) {
					var parts []part
					for _, m := range talk.moves {
						parts = append(parts, part{answer: m.answer, data: string(m.data)})
					}
					acc := new(ledger.Account)
					k, err := play(t, protocol, testConn(acc, server), server, append(chunks(parts, server, whole), chunk{end: ptr(probes.Closed)}))
					if err != nil {
						t.Log(err)
					}
					k.balance(acc)
					var got []string
					for _, s := range k.results() {
						line, _ := s.Attrs["db.query.text"].(string)
						if s.Attrs["db.operation.name"] == callName {
							line = callName
						}
						switch code := s.Attrs["error.type"]; code {
						case nil:
						case "pipeline_aborted": // the server does not tell of it
							continue
						default:
							line += fmt.Sprint(" ", code)
						}
						got = append(got, line)
						if testing.Verbose() {
							fmt.Println(s.Name, s.Message, s.Attrs)
						}
					}
					var want []string
					for _, e := range talk.logged {
						line := e.text
						if e.code != "" {
							line += " " + e.code
						}
						want = append(want, line)
					}
					for i := range max(len(got), len(want)) {
						g, w := "", ""
						if i < len(got) {
							g = got[i]
						}
						if i < len(want) {
							w = want[i]
						}
						if g != w {
							t.Errorf("%d: %q, want %q", i, g, w)
							break
						}
					}
					if len(got) != len(want) {
						t.Errorf("%d spans, %d logged", len(got), len(want))
					}
				})
			}
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestNothingOfWhatIsBoundOrReturnedIsLeft looks for what recorded conversations hold as values and rows, in the bytes that the decoder
// leaves and in sanitised spans.
func TestNothingOfWhatIsBoundOrReturnedIsLeft(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.talk")
	found := 0
	for _, name := range names {
		talks, err := read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, talk := range talks {
			var parts []part
			for _, m := range talk.moves {
				parts = append(parts, part{answer: m.answer, data: string(m.data)})
				found += strings.Count(string(m.data), "planted")
			}
			for _, how := range []splitter{whole, steps(512), steps(7)} {
				events := chunks(parts, true, how)
				k, _ := play(t, New(sql.Sanitised), testConn(nil, true), true, events)
				var left [2]strings.Builder
				for _, ev := range events {
					left[ev.Dir].Write(ev.Head)
				}
				said := left[probes.Ingress].String()
				for len(said) >= headerSize { // but for statements
					n := 1 + int(binary.BigEndian.Uint32([]byte(said[1:])))
					if said[0] == 0 {
						n = int(binary.BigEndian.Uint32([]byte(said)))
					}
					n = min(n, len(said))
					if said[0] != query && said[0] != parse {
						left[probes.Egress].WriteString(said[:n])
					}
					said = said[n:]
				}
				if s := left[probes.Egress].String(); strings.Contains(s, "planted") || strings.Contains(s, "SCRAM") {
					t.Errorf("%s, %d: %.200q", name, i, s[max(0, strings.Index(s, "planted")-50):])
				}
				if s := fmt.Sprint(k.results()); strings.Contains(s, "planted") && strings.Count(s, "planted") != strings.Count(s, "planted FROM nowhere") {
					t.Errorf("%s, %d: %s", name, i, s)
				}
			}
		}
	}
	if found < 1000 {
		t.Errorf("%d secrets", found)
	}
}
