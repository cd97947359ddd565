// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"fmt"
	"path/filepath"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
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
