// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestTextOfABodyIsNoRequest sends parts of bodies that begin like a request line, by calls of their own and
// named by the kernel side, where the place in the stream is not known: at the first bytes that are seen of a
// connection, and in a chunked body of which some was not captured.
func TestTextOfABodyIsNoRequest(t *testing.T) {
	const (
		upload   = "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
		download = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	)
	post := attrs{"http.request.method": "POST"}
	for _, text := range []string{"hello world", "x", "Dear Sir", "POST office hours", "GET ready", "get /away", "PUT *it", "X /"} {
		for _, test := range []struct {
			name        string
			parts       []part
			established bool
			want        []result
		}{
			{"at first sight", []part{in(text).name(1), out(ok0)}, true, nil},
			{"after an interim response at first sight", []part{out("HTTP/1.1 100 Continue\r\n\r\n"), in(text).name(1), out(ok0),
				in(get).name(2), out(ok0)}, true,
				[]result{{Name: "GET", ID: named(2).String(), Start: 4000, End: 5038, Attrs: serverAttrs(size(0))}}},
			{"in a body both ways", []part{in(upload).name(1), in("400\r\n"), hole(probes.Ingress, 0x400), out(download),
				in(text).name(2), out("5\r\nhello\r\n"), in(text).name(3), out("0\r\n\r\n")}, false,
				[]result{{Name: "POST", ID: named(1).String(), Start: 1000, End: 8005, Attrs: serverAttrs(merge(size(5), post))}}},
			{"in a body both ways, neither captured", []part{in(upload).name(1), in("400\r\n"), hole(probes.Ingress, 0x400), out(download),
				hole(probes.Egress, 0x400), in(text).name(2), out("\r\n5\r\nhello\r\n"), in(text).name(3), out("0\r\n\r\n")}, false,
				[]result{{Name: "POST", ID: named(1).String(), Start: 1000, End: 9005, Attrs: serverAttrs(post)}}},
		} {
			acc := new(ledger.Account)
			conn := testConn(acc)
			conn.Established = test.established
			k, err := play(t, conn, true, chunks(test.parts, whole))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, k.results(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%q %s: (-want +got)\n%s", text, test.name, diff)
			}
			k.balance(acc)
			if n := acc.Counts()[ledger.Seen]; n != uint64(len(test.want)) {
				t.Errorf("%q %s: %d requests seen, want %d", text, test.name, n, len(test.want))
			}
		}
	}
}

// TestRequestInPiecesAtFirstSight is the other side: what begins like a common request is one.
func TestRequestInPiecesAtFirstSight(t *testing.T) {
	for _, line := range []string{"GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n", "CONNECT db:443 HTTP/1.1\r\n", "GET http://x/ HTTP/1.1\r\n", "PUT HTTPS://x/ HTTP/1.1\r\n"} {
		for n := 1; n < len(line); n++ {
			conn := testConn(nil)
			conn.Established = true
			k, err := play(t, conn, true, chunks([]part{in(line[:n]).name(1), in(line[n:] + "\r\n")}, whole))
			if err != nil {
				t.Fatal(err)
			}
			if len(k.opened) != 1 || k.opened[0].ID != named(1) {
				t.Errorf("%q: %d requests", line[:n], len(k.opened))
			}
		}
	}
}
