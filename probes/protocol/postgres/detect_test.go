// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"
)

func TestDetect(t *testing.T) {
	long := "SELECT '" + strings.Repeat("x", 5000) + "'"
	for _, test := range []struct {
		name   string
		data   string
		want   probes.Verdict
		asks   bool
		prefix int // of so many bytes it is known
	}{
		{"start", startup("user", "app", "database", "shop"), probes.Yes, true, 8},
		{"start, version 3.2", strings.Replace(startup("user", "app"), "\x00\x03\x00\x00", "\x00\x03\x00\x02", 1), probes.Yes, true, 8},
		{"TLS", int32s(8) + int32s(codeTLS), probes.Yes, true, 8},
		{"GSS", int32s(8) + int32s(codeGSS), probes.Yes, true, 8},
		{"cancellation", int32s(16) + int32s(codeCancel) + "12345678", probes.Yes, true, 8},
		{"version 2", int32s(296) + int32s(2<<16) + strings.Repeat("\x00", 288), probes.No, false, 0},
		{"a start that is too long", int32s(70000) + int32s(codeVersion3) + "user\x00", probes.No, false, 0},

		{"query", q("SELECT 1"), probes.Yes, true, 0},
		{"query in lower case, with a comment before", q("/* x */ select 1"), probes.Yes, true, 0},
		{"query that is cut off", q(long)[:1024], probes.Yes, true, 0},
		{"several", p("", "SELECT 1") + b("", "", "x") + dP("") + e("", 0) + sy, probes.Yes, true, 0},
		{"prepared", b("", "s1", "\x00\x01\x02") + e("", 0) + sy, probes.Yes, true, 0},
		{"prepared, with Flush", b("", "s1", "\x00\x01\x02") + e("", 0) + fl, probes.Yes, true, 0},
		{"prepared, cut off", b("", "s1", strings.Repeat("\x00", 5000))[:1024], probes.Maybe, true, 0},
		{"again", e("c", 10) + sy, probes.Yes, true, 0},
		{"close", cS("s1") + sy, probes.Yes, true, 0},
		{"Sync", sy, probes.Maybe, true, 0},
		{"data", msg(copyData, "1\t2\n"), probes.Maybe, false, 0}, // of either side
		{"the end", bye, probes.No, true, 0},
		{"a password", msg(password, "x\x00"), probes.No, true, 0},
		{"a query that does not end", q("SELECT 1")[:headerSize+8] + "x", probes.No, false, 0},
		{"a query of bytes", q("\x01\x02\x03"), probes.No, false, 0},

		{"rows", rowsOf("a") + row("1") + tagged("SELECT 1") + idleZ, probes.Yes, false, 0},
		{"rows that are cut off", (rowsOf("a") + big(100))[:416], probes.Yes, false, 0},
		{"rows of what was prepared, cut off", (okBind + big(100))[:416], probes.Yes, false, 0},
		{"a result", tagged("INSERT 0 1") + idleZ, probes.Yes, false, 0},
		{"an error", failing("ERROR", "42P01", "x") + idleZ, probes.Yes, false, 0},
		{"what was prepared", okParse + oids + rowsOf("a"), probes.Yes, false, 0},
		{"rows only", big(100)[:416], probes.Maybe, false, 0},
		{"a greeting", greeted, probes.Yes, false, 0},

		{"HTTP", "POST /Query HTTP/1.1\r\nHost: x\r\n\r\n", probes.No, false, 0},
		{"HTTP", "DELETE / HTTP/1.1\r\n\r\n", probes.No, false, 0},
		{"HTTP", "HTTP/1.1 200 OK\r\n\r\n", probes.No, false, 0},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", probes.No, false, 0},
		{"FastCGI", "\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", probes.No, false, 0},
		{"TLS itself", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", probes.No, false, 0},
		{"Redis", "*1\r\n$4\r\nPING\r\n", probes.No, false, 0},
		{"memcached", "stats\r\n", probes.No, false, 0},
		{"SMTP", "QUIT\r\n", probes.No, false, 0},
		{"Kafka", "\x00\x00\x00\x23\x00\x12\x00\x04\x00\x00\x00\x01\x00\x07console", probes.No, false, 0},
		{"MySQL's greeting", "S\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00", probes.No, false, 0},
		{"MySQL's query", "Q\x00\x00\x00\x03" + strings.Repeat("SELECT 1;", 9)[:80], probes.No, false, 0},
		{"MySQL's Prepare", "Q\x00\x00\x00\x16" + strings.Repeat("SELECT 1;", 9)[:80], probes.No, false, 0},
		{"MySQL's Execute", "P\x00\x00\x00\x17\x01\x00\x00\x00\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 70), probes.No, false, 0},
		{"MySQL's column", "D\x00\x00\x02\x03def\x04shop\x05items\x05items\x02id\x02id\x0c\x3f\x00\x0b\x00\x00\x00\x03\x03\x50\x00\x00\x00", probes.Maybe, false, 0},
	} {
		v, asks := detect(probes.Ingress, []byte(test.data))
		if v != test.want || v == probes.Yes && asks != test.asks {
			t.Errorf("%s: %v, %v", test.name, v, asks)
		}
		for n := 1; n < len(test.data); n++ {
			v, asks := detect(probes.Egress, []byte(test.data[:n]))
			switch {
			case v == probes.Yes && (test.want != probes.Yes || asks != test.asks && n > 20):
				t.Errorf("%s: of %d bytes %v, %v", test.name, n, v, asks)
			case v == probes.No && test.want == probes.Yes, v != probes.Yes && test.prefix > 0 && n >= test.prefix:
				t.Errorf("%s: of %d bytes %v, %v", test.name, n, v, asks)
			}
		}
	}
}

// TestDetectDoesNotMistakeWhoAsks looks at each call of recorded conversations, before it is decoded and after.
func TestDetectDoesNotMistakeWhoAsks(t *testing.T) {
	names, _ := filepath.Glob("testdata/*.talk")
	known, all := 0, 0
	for _, name := range names {
		talks, err := read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, talk := range talks {
			var before []bool
			for j, m := range talk.moves {
				data := m.data[:min(len(m.data), 1024)]
				v, asks := detect(probes.Ingress, data)
				if v == probes.Yes && asks == m.answer {
					t.Errorf("%s, %d, %d: asks %v: %.60q", name, i, j, asks, m.data)
				}
				before = append(before, v == probes.Yes)
				if all++; v == probes.Yes {
					known++
				}
			}
			d := protocol.New(testConn(new(ledger.Account), true), true)
			var pos [2]uint64
			k := newSink(t)
			for j, m := range talk.moves {
				c := probes.Chunk{Pos: pos[0], Total: uint64(len(m.data)), Head: m.data}
				if m.answer {
					c.Dir, c.Pos = probes.Egress, pos[1]
				}
				pos[c.Dir] += c.Total
				if d.Decode(&c, k) != nil {
					break
				}
				if v, _ := detect(probes.Ingress, m.data[:min(len(m.data), 1024)]); (v == probes.Yes) != before[j] {
					t.Errorf("%s, %d, %d: %v, and %v of what is left: %.60q", name, i, j, before[j], v, m.data)
				}
			}
		}
	}
	if known < all*3/4 {
		t.Errorf("%d of %d calls show what they are", known, all)
	}
}

func TestDetectOfNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 64)
	claimed := 0
	for range 200000 {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if rng.IntN(2) == 0 { // the beginning of a short message, or what looks like it
			b[0] = "QPBDECSHFdcf123tTnZANRKGWIsV"[rng.IntN(28)]
			b[1], b[2], b[3] = 0, 0, 0
		}
		if v, _ := detect(probes.Ingress, b); v == probes.Yes {
			claimed++
		}
	}
	if claimed > 2 {
		t.Errorf("%d claimed", claimed)
	}
}
