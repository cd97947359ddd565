// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/sql"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
)

var update = flag.Bool("update", false, "rewrite the spans of the recorded conversations")

// load reads a recorded conversation: a line for each call, of what the client (">") or the server ("<") has sent, and one ("=") for
// each statement that the server has logged; of one that was prepared it logs the values, which are not there. The conversations are
// of MariaDB 10.11 with its command line client, with mysql2 3.24 and the MariaDB connector for Node, and with PyMySQL 1.2.
func load(t testing.TB, name string) (parts []part, logged []string) {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		data, err := strconv.Unquote(line[2:])
		switch {
		case err != nil:
			t.Fatal(err)
		case line[0] == '=':
			logged = append(logged, data)
		default:
			parts = append(parts, part{answer: line[0] == '<', data: data})
		}
	}
	return parts, logged
}

// asTheKernel makes events of parts as the kernel side does.
func asTheKernel(parts []part, server bool) []chunk {
	k := &kernel{requests: probes.Egress, event: 448, tails: true}
	if server {
		k.requests = probes.Ingress
	}
	var list []chunk
	for i, p := range parts {
		dir := k.requests
		if p.answer {
			dir = dir.Other()
		}
		now := int64(i+1) * 1000
		list = append(list, k.move(dir, p.data, now, now+int64(len(p.data)))...)
	}
	e := probes.Closed
	return append(list, chunk{end: &e, Chunk: probes.Chunk{End: int64(len(parts)+1) * 1000}})
}

// text is what a recorded conversation's spans are compared by. What the reader of statements makes of their texts is its own concern.
func (r *result) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", r.Attrs["db.query.text"])
	fmt.Fprintf(&b, "\n\t%d to %d, %v", r.Start, r.End, r.Status)
	for _, k := range []string{"db.system.name", "db.namespace", "db.response.returned_rows", "db.response.status_code", "error.type", "db.operation.batch.size", "breadcrumb.truncated"} {
		if v, ok := r.Attrs[k]; ok {
			fmt.Fprintf(&b, ", %s %v", k, v)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// TestRecordedConversations: each statement that the server has logged, and no other, has its span. Only what cannot be prepared is in no
// log.
func TestRecordedConversations(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, file := range names {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".spans")
			parts, logged := load(t, file)
			for _, server := range []bool{false, true} {
				for how, events := range [][]chunk{
					append(chunks(parts, server, whole), chunk{end: new(probes.Closed)}), append(chunks(parts, server, steps(5)), chunk{end: new(probes.Closed)}),
					asTheKernel(parts, server),
				} {
					how := []string{"whole", "in steps", "as the kernel side tells"}[how]
					acc := new(ledger.Account)
					k, _, err := playOn(New(sql.Raw).New(testConn(acc, server), server), t, events)
					if err != nil {
						t.Fatalf("%s: %v", how, err)
					}
					k.balance(acc, 0)
					log := logged
					for _, r := range k.results() {
						text, _ := r.Attrs["db.query.text"].(string)
						switch {
						case len(log) > 0 && (log[0] == "" || strings.HasPrefix(log[0], text)):
							log = log[1:]
						case r.Status == codes.Error && strings.Contains(name, "mysql2"): // it cannot be prepared
						default:
							t.Errorf("%s: %q is not logged", how, text)
						}
					}
					if len(log) > 0 || acc.Counts().Lost() > 0 {
						t.Errorf("%s: not seen: %q, lost %v", how, log, acc.Counts())
					}
					var all strings.Builder
					for _, r := range k.results() {
						all.WriteString(r.text())
					}
					if *update && how == "whole" && !server {
						if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
							t.Fatal(err)
						}
					}
					want, err := os.ReadFile(golden)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(all.String(), "\n")); diff != "" {
						t.Errorf("%s, server %v: (-want +got)\n%s", how, server, diff)
					}
				}
			}
		})
	}
}
