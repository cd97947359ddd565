// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// deflate puts packets into a frame, compressed if they are long enough.
func deflate(packets string, seq int, z bool) string {
	const minSize = 50
	if len(packets) < minSize {
		return le(len(packets), 3) + le(seq, 1) + le(0, 3) + packets
	}
	var b bytes.Buffer
	if z {
		w, _ := zstd.NewWriter(nil)
		b.Write(w.EncodeAll([]byte(packets), nil))
	} else {
		w := zlib.NewWriter(&b)
		_, _ = w.Write([]byte(packets))
		_ = w.Close()
	}
	return le(b.Len(), 3) + le(seq, 1) + le(len(packets), 3) + b.String()
}

// squeezed are the parts of a conversation as the compressed protocol has them.
func squeezed(parts []part, z bool) []part {
	list := slices.Clone(parts)
	for i := range list {
		if p := &list[i]; p.data != "" {
			seq := 0
			if p.answer {
				seq = 1
			}
			p.data = deflate(p.data, seq, z)
		}
	}
	return list
}

// squeezedTalk is a conversation in the compressed protocol.
func squeezedTalk(z bool) []part {
	test := squeezedTest(z)
	return test.parts
}

// squeezedTest is a conversation; its handshake is among its parts.
func squeezedTest(z bool) exchangeTest {
	w := wire{caps: capsNew | clientCompress}
	if z {
		w.caps = capsNew | clientZstd
	}
	const (
		sel = "SELECT name FROM users WHERE id = 'SECRETid' AND this AND that"
		ins = "INSERT INTO users VALUES (1, 2)"
	)
	parts := []part{
		req(query(sel)), rsp(w.set(1, 2, []string{"id", "name"}, row("1", "SECRETa"), row("2", "SECRETb"))),
		req(query(ins)), rsp(packet(1, okay(2))),
		req(query(ins)), rsp(packet(1, fail(1062, "Duplicate entry "+strings.Repeat("SECRET", 30)))),
		req(prepare("SELECT name FROM users WHERE id = ?")), rsp(w.prepared(1, 1, 1)),
		req(execute(1, "SECRET", "SECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRET")), rsp(w.set(1, 2, []string{"id"}, row("SECRET"))),
	}
	return exchangeTest{parts: append(w.hello("shop"), squeezed(parts, z)...), want: []want{
		{text: sel, attrs: rows("shop", 2), part: 3, end: 4},
		{text: ins, attrs: in("shop"), part: 5, end: 6},
		{text: ins, attrs: failure("shop", "1062"), failed: true, part: 7, end: 8},
		{text: "SELECT name FROM users WHERE id = ?", attrs: rows("shop", 1), part: 11, end: 12},
	}}
}

// results of which the handshake is among the parts.
func (test *exchangeTest) squeezedResults(server bool) []result {
	list := test.results(server, true)
	for i := range list {
		list[i].Attrs["db.namespace"] = "shop"
	}
	return list
}

func TestCompressed(t *testing.T) {
	for _, z := range []bool{false, true} {
		test := squeezedTest(z)
		for _, server := range []bool{false, true} {
			splits := map[string]splitter{"whole": whole}
			for _, n := range []int{1, 2, 3, 7, 100} {
				splits[fmt.Sprint("steps of ", n)] = steps(n)
			}
			for i, p := range test.parts {
				for n := 1; n < len(p.data); n++ {
					splits[fmt.Sprintf("part %d at %d", i, n)] = splitAt(i, n)
				}
			}
			for how, split := range splits {
				acc := new(ledger.Account)
				events := append(chunks(test.parts, server, split), chunk{end: new(probes.Closed)})
				k, d, err := playOn(protocol.New(testConn(acc, server), server), t, events)
				if err != nil || d.squeezed != is {
					t.Fatalf("%s: %v, squeezed %v", how, err, d.squeezed)
				}
				if diff := cmp.Diff(test.squeezedResults(server), k.results()); diff != "" {
					t.Fatalf("%s: (-want +got)\n%s", how, diff)
				}
				k.balance(acc, 0)
				for _, ev := range events {
					f := ev.Head
					if len(f) < frameSize || ev.Dir == d.in && bytes.Contains(f, []byte("app\x00")) {
						continue
					}
					length, _, size := parseFrame(f)
					if size == 0 || len(f) != frameSize+length {
						if s := strings.ReplaceAll(string(f), test.want[0].text, ""); strings.Contains(s, "SECRET") {
							t.Errorf("%s: left in a chunk: %q", how, f)
						}
						continue
					}
					if b := new(inflater).inflate(f[frameSize:], size); bytes.Contains(bytes.ReplaceAll(b, []byte(test.want[0].text), nil), []byte("SECRET")) {
						t.Errorf("%s: left in a chunk, inflated: %q", how, b)
					}
				}
			}
		}
	}
}

func TestCompressedFromTheMiddle(t *testing.T) {
	test := squeezedTest(false)
	parts := test.parts[3:]
	for _, server := range []bool{false, true} {
		conn := testConn(new(ledger.Account), server)
		conn.Established = true
		if v, requests := protocol.Detect(probes.Ingress, []byte(parts[0].data)); v != probes.Yes || !requests {
			t.Errorf("detected: %v %v", v, requests)
		}
		k, err := play(t, conn, server, chunks(parts, server, whole))
		if err != nil {
			t.Fatal(err)
		}
		want := timeless(test.results(server, true))
		if diff := cmp.Diff(want, timeless(k.results())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// TestFramesThatAreNotCaptured: of a frame that is not captured as a whole, nothing is known but its length.
func TestFramesThatAreNotCaptured(t *testing.T) {
	w := wire{caps: capsNew | clientCompress}
	const text = "SELECT name FROM users WHERE this AND that AND another AND 1"
	big := deflate(w.set(1, 2, []string{"id", "name"}, slices.Repeat([]string{row("some", "value")}, 200)...), 1, false)
	for _, test := range []struct {
		name    string
		answer  part
		more    []part
		results []any // truncated
	}{
		{"an answer", rsp(big).captured(40, 10), nil, []any{true, nil}},
		{"an answer that nothing is seen of", rsp(big).captured(0, 0), nil, []any{true, nil}},
		{"an answer of two frames", rsp(big+deflate(w.eof(202, 2), 2, false)).captured(40, 18), nil, []any{true, nil}},
	} {
		for _, server := range []bool{false, true} {
			acc := new(ledger.Account)
			parts := append(w.hello("shop"), req(deflate(query(text), 0, false)), test.answer)
			parts = append(parts, test.more...)
			parts = append(parts, req(deflate(query(text), 0, false)), rsp(deflate(packet(1, okay(2)), 1, false)), end(probes.Closed))
			k, err := play(t, testConn(acc, server), server, chunks(parts, server, whole))
			if err != nil {
				t.Fatal(err)
			}
			k.balance(acc, 0)
			var got []any
			for _, r := range k.results() {
				got = append(got, r.Attrs["breadcrumb.truncated"])
				if r.Attrs["db.response.returned_rows"] != nil {
					t.Errorf("%s: rows", test.name)
				}
			}
			if diff := cmp.Diff(test.results, got); diff != "" {
				t.Errorf("%s: server %v: (-want +got)\n%s\n%v", test.name, server, diff, acc.Counts())
			}
		}
	}
}

func TestInflate(t *testing.T) {
	i := new(inflater)
	long := strings.Repeat("some text ", 10000)
	for _, z := range []bool{false, true, false, true} {
		frame := []byte(deflate(long, 0, z))
		payload := frame[frameSize:]
		if got := i.inflate(payload, len(long)); string(got) != long {
			t.Errorf("zstd %v: %d bytes", z, len(got))
		}
		for name, b := range map[string][]byte{"cut off": payload[:len(payload)-1], "empty": nil, "nonsense": []byte("\x78\x9cnonsense"), "no magic": payload[2:]} {
			if got := i.inflate(b, len(long)); got != nil {
				t.Errorf("zstd %v, %s: %d bytes", z, name, len(got))
			}
		}
		for _, size := range []int{0, 10, len(long) - 1, len(long) + 1, maxInflated + 1, 1 << 23} {
			if got := i.inflate(payload, size); got != nil {
				t.Errorf("zstd %v: %d bytes of %d", z, len(got), size)
			}
		}
	}
	bomb := strings.Repeat("\x00", 100<<20)
	for _, z := range []bool{false, true} {
		payload := []byte(deflate(bomb, 0, z))[frameSize:]
		if got := i.inflate(payload, 1000); got != nil || cap(i.out) > maxInflated+(1<<20) {
			t.Errorf("zstd %v: %d bytes, room for %d", z, len(got), cap(i.out))
		}
	}
}
