// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

var benchmarks = []struct {
	name    string
	dialect Dialect
	text    string
}{
	{"select", PostgreSQL, `SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer WHERE o.state = 'open' AND o.total > 100.5`},
	{"update", PostgreSQL, `UPDATE accounts SET balance = balance - 17.5 WHERE id = 8675309 RETURNING balance`},
	{"select MySQL", MySQL, "SELECT `o`.`id`, `o`.`total`, `c`.`name` FROM `orders` `o` JOIN `customers` `c` ON `c`.`id` = `o`.`customer` WHERE `o`.`state` = \"open\""},
	{"long list", PostgreSQL, "SELECT * FROM t WHERE id IN (" + strings.Repeat("12345, ", 500) + "1)"},
	{"many rows", MySQL, "INSERT INTO t (a, b, c) VALUES " + strings.Repeat("(1, 'some text of a row', 'more of it'), ", 400) + "(1, 2, 3)"},
}

// BenchmarkNew reads texts that the reader does not know.
func BenchmarkNew(b *testing.B) {
	for _, bench := range benchmarks {
		b.Run(bench.name, func(b *testing.B) {
			r := New(bench.dialect, Sanitised)
			r.Read(nil, false, Modes{})
			text := []byte(bench.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				d := r.scanner.draft(text, false)
				r.share(&d)
			}
		})
	}
}

// BenchmarkKnown reads a text that the reader knows.
func BenchmarkKnown(b *testing.B) {
	for _, bench := range benchmarks {
		b.Run(bench.name, func(b *testing.B) {
			r := New(bench.dialect, Sanitised)
			text := []byte(bench.text)
			r.Read(text, false, Modes{})
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r.Read(text, false, Modes{})
			}
		})
	}
}

// BenchmarkValues reads a statement with other values each time.
func BenchmarkValues(b *testing.B) {
	const format = "SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer WHERE o.state = 'open' AND o.total > %08d"
	r := New(PostgreSQL, Sanitised)
	text := fmt.Appendf(nil, format, 0)
	at := bytes.LastIndexByte(text, ' ') + 1
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		for i, v := len(text)-1, n; i >= at; i, v = i-1, v/10 {
			text[i] = '0' + byte(v%10)
		}
		r.Read(text, false, Modes{})
	}
}
