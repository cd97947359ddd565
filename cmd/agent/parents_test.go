// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/recording"
)

// TestParentsInRecordings replays what happened in servers of each runtime (test/accuracy -record): the parent of each call
// is held to the id in its path, as there. parents.json has how many are right.
func TestParentsInRecordings(t *testing.T) {
	const folder = "testdata/parents"
	text, err := os.ReadFile(filepath.Join(folder, "parents.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]int
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.recording"))
	if err != nil || len(files) == 0 || len(files) != len(want) && !*update {
		t.Fatalf("%d recordings, want %d: %v", len(files), len(want), err)
	}
	got := map[string]int{}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".recording")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := recording.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			out := &lines{t: t}
			if err := replay(context.Background(), r, builtIn(), false, out.emit); err != nil {
				t.Fatal(err)
			}
			right, wrong := judgeParents(t, out.buf.Bytes())
			got[name] = right
			if wrong > 0 {
				t.Errorf("%d parents are wrong", wrong)
			}
			if right != want[name] && !*update {
				t.Errorf("%d parents are right, want %d", right, want[name])
			}
		})
	}
	if *update {
		text, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "parents.json"), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// judgeParents compares the parents of calls, in lines of JSON, with the ids in the paths: "/shape/id" of a request, "/call/id/n"
// of a call. A parent that was never exported is wrong.
func judgeParents(t *testing.T, text []byte) (right, wrong int) {
	t.Helper()
	type line struct {
		SpanID     string         `json:"span_id"`
		Parent     string         `json:"parent_span_id"`
		Trace      string         `json:"trace_id"`
		Kind       string         `json:"kind"`
		Attributes map[string]any `json:"attributes"`
	}
	spans := map[string]line{}
	for l := range bytes.Lines(text) {
		var s line
		if err := json.Unmarshal(l, &s); err != nil {
			t.Fatal(err)
		}
		spans[s.SpanID] = s
	}
	id := func(s line) string {
		path, _ := s.Attributes["url.path"].(string)
		if path == "" {
			full, _ := s.Attributes["url.full"].(string)
			_, path, _ = strings.Cut(strings.TrimPrefix(full, "http://"), "/")
			path = "/" + path
		}
		if parts := strings.Split(path, "/"); len(parts) > 2 {
			return parts[2]
		}
		return ""
	}
	for _, s := range spans {
		if s.Parent == "" {
			continue
		}
		p, ok := spans[s.Parent]
		if ok && p.Trace == s.Trace && id(p) == id(s) && id(s) != "" {
			right++
		} else {
			wrong++
		}
	}
	return right, wrong
}

// TestParentsInDamagedRecordings drops, repeats and swaps events of the recordings: what is left must not lead to a parent
// that is wrong.
func TestParentsInDamagedRecordings(t *testing.T) {
	files, err := filepath.Glob("testdata/parents/*.recording")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	type record struct {
		kind recording.Kind
		data []byte
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".recording"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := recording.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var records []record
			for {
				kind, data, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				records = append(records, record{kind, bytes.Clone(data)})
			}
			for seed := range seeds {
				rng := rand.New(rand.NewPCG(seed, 7))
				var file bytes.Buffer
				w, err := recording.NewWriter(&file)
				if err != nil {
					t.Fatal(err)
				}
				damaged := slices.Clone(records)
				for i := range damaged[1:] {
					a, b := &damaged[i], &damaged[i+1]
					if a.kind == recording.Event && b.kind == recording.Event && rng.IntN(100) == 0 {
						*a, *b = *b, *a
					}
				}
				for _, rec := range damaged {
					times := 1
					if rec.kind == recording.Event {
						switch rng.IntN(100) {
						case 0, 1:
							times = 0
						case 2:
							times = 2
						}
					}
					for range times {
						w.Write(rec.kind, rec.data)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				damagedReader, err := recording.NewReader(&file)
				if err != nil {
					t.Fatal(err)
				}
				out := &lines{t: t}
				if err := replay(context.Background(), damagedReader, builtIn(), false, out.emit); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				damagedReader.Close()
				if _, wrong := judgeParents(t, out.buf.Bytes()); wrong > 0 {
					t.Errorf("seed %d: %d parents are wrong", seed, wrong)
				}
			}
		})
	}
}
