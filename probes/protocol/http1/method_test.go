// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
)

func TestKnownMethodsFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		value string
		want  []string
		bad   bool
	}{
		{"", Default().KnownMethods, false},
		{"GET", []string{"GET"}, false},
		{"GET,PROPFIND, get ,,M-SEARCH", []string{"GET", "PROPFIND", "get", "M-SEARCH"}, false},
		{" , ", nil, false}, // none is known
		{"GET,a b", Default().KnownMethods, true},
		{"GÉT", Default().KnownMethods, true},
		{"GET," + strings.Repeat("A", maxMethod+1), Default().KnownMethods, true},
	} {
		got := Default()
		err := got.FromEnv(func(name string) string {
			if name != "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS" {
				t.Errorf("%s is read", name)
			}
			return tc.value
		})
		if (err != nil) != tc.bad || !slices.Equal(got.KnownMethods, tc.want) {
			t.Errorf("%q: %q, %v", tc.value, got.KnownMethods, err)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// TestKnownMethodsAreAWholeList gives a list that lacks methods that have a meaning: that they keep.
func TestKnownMethodsAreAWholeList(t *testing.T) {
	tests := []struct{ method, name, attr, original string }{
		{"PROPFIND", "PROPFIND", "PROPFIND", ""},
		{"POST", "POST", "POST", ""},
		{"get", "get", "get", ""},
		{"GET", "HTTP", "_OTHER", "GET"},
		{"HEAD", "HTTP", "_OTHER", "HEAD"}, // its response has no body, whatever it is called
		{"MKCOL", "HTTP", "_OTHER", "MKCOL"},
	}
	var parts []part
	for _, tc := range tests {
		body := "12345"
		if tc.method == "HEAD" {
			body = ""
		}
		parts = append(parts, in(tc.method+" / HTTP/1.1\r\nHost: x\r\n\r\n"), out("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+body))
	}
	d := New(Config{KnownMethods: []string{"PROPFIND", "get", "POST"}}).New(testConn(new(ledger.Account)), true)
	k := newSink(t)
	for _, c := range chunks(parts, whole) {
		if err := d.Decode(&c.Chunk, k); err != nil {
			t.Fatal(err)
		}
	}
	got := k.results()
	if len(got) != len(tests) {
		t.Fatalf("%d spans, want %d", len(got), len(tests))
	}
	for i, tc := range tests {
		original, _ := got[i].Attrs["http.request.method_original"].(string)
		if got[i].Name != tc.name || got[i].Attrs["http.request.method"] != tc.attr || original != tc.original {
			t.Errorf("%s: %+v", tc.method, got[i])
		}
	}
}
