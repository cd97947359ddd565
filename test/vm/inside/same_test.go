// SPDX-License-Identifier: Apache-2.0

package inside

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"breadcrumb/test/e2e"
	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
	"breadcrumb/test/vm/job"

	"github.com/google/go-cmp/cmp"
)

// changing are the attributes that differ from run to run, whatever the attachment.
var changing = []string{"client.port", "network.peer.port", "server.port", "url.full", "network.peer.address", "http.request.header.traceparent"}

// TestSameSpans makes the same requests with each attachment of the kernel and compares the spans with those of the
// attachments before: but for ids, times and ports they must be the same, attribute for attribute.
func TestSameSpans(t *testing.T) {
	proxies := []*servers.Server{servers.GoProxy(t, servers.Options{})}
	if strings.Contains(os.Getenv("BREADCRUMB_SERVERS"), "nginx") {
		proxies = append(proxies, servers.NginxUnix(t, servers.Options{}))
	}
	var all []*servers.Server
	for _, s := range proxies {
		all = append(all, s, s.Behind)
	}
	agent := e2e.TraceBy(t, attachment, all...)
	want := 0
	for p, s := range proxies {
		truth, err := drive.Plan{
			Addr: s.Addr, Requests: 40, Connections: 1, Trace: true,
			Request: func(i int) drive.Request {
				path := fmt.Sprintf("%d-%d", p, i)
				switch i % 4 {
				case 1:
					return drive.Request{Method: "POST", Target: "/upload/" + path, Body: make([]byte, 1000*i)}
				case 2:
					return drive.Request{Target: "/status/503/" + path}
				case 3:
					return drive.Request{Target: fmt.Sprintf("/large/%d/%s", 3000*i, path)}
				}
				return drive.Request{Target: "/item/" + path + "?token=secret"}
			},
		}.Run()
		if err != nil {
			t.Fatal(err)
		}
		want += 3 * len(truth)
	}
	agent.WaitSpans(want)
	spans, summary := agent.Stop()
	e2e.NothingLost(t, summary, want)
	got := unchanging(t, spans)

	out := filepath.Join(job.Dir, "out")
	if err := job.Write(filepath.Join(out, "spans-"+attachment.Name+".json"), got); err != nil {
		t.Fatal(err)
	}
	others, err := filepath.Glob(filepath.Join(out, "spans-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range others {
		var other []string
		if err := job.Read(path, &other); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(other, got); diff != "" {
			t.Errorf("%s differs from %s:\n%s", attachment.Name, filepath.Base(path), diff)
		}
	}
	t.Logf("%d spans, compared with those of %d attachments", len(got), len(others)-1)
}

// unchanging describes each span, and its parent, by what is the same in every run.
func unchanging(t *testing.T, spans []*e2e.Span) []string {
	t.Helper()
	byID := map[string]*e2e.Span{}
	for _, s := range spans {
		byID[s.SpanID] = s
	}
	name := func(s *e2e.Span) string { return fmt.Sprintf("%s %s %s", s.Service(), s.Kind, s.Path()) }
	var all []string
	for _, s := range spans {
		attributes := maps.Clone(s.Attributes)
		for _, key := range changing {
			delete(attributes, key)
		}
		parent := "none"
		if p := byID[s.ParentID]; p != nil {
			parent = name(p)
		} else if s.ParentID != "" {
			parent = "the driver's"
		}
		b, err := json.Marshal(map[string]any{
			"span": name(s), "name": s.Name, "parent": parent, "status": s.Status, "attributes": attributes,
			"events": s.Events, "links": s.Links, "language": s.Resource["telemetry.sdk.language"],
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	slices.Sort(all)
	return all
}
