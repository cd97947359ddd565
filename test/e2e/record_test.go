// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
	"breadcrumb/test/shop"
)

// TestReplayGivesTheSameSpans records a busy shop and odd connections, and feeds the recording through
// everything behind the ring buffer again: the spans are the same, byte for byte.
func TestReplayGivesTheSameSpans(t *testing.T) { replayGivesTheSame(t, nil) }

func replayGivesTheSame(t *testing.T, attach *Attachment) {
	s := shop.Start(t, servers.Options{})
	web := servers.Node(t, servers.Options{})
	file := filepath.Join(t.TempDir(), "recording")
	agent := StartAgent(t, AgentOptions{
		Command: []string{"record", file},
		Select:  PIDs(append(s.All(), web)...),
		Attach:  attach,
	})
	const secret = "what-is-in-a-body-stays-there"
	truth, err := drive.Plan{
		Addr: s.Gateway.Addr, Requests: 300, Connections: 16, Trace: true,
		Request: func(i int) drive.Request { return drive.Request{Target: shop.Path(i)} },
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	spans := 0
	for i := range truth {
		spans += shop.Spans(i, true)
	}
	conn, err := drive.Dial("tcp", web.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, r := range []drive.Request{
		{Method: "POST", Target: "/upload/1", Body: []byte(secret)},
		{Target: "/chunked/3/2"}, {Method: "HEAD", Target: "/item/3"}, {Target: "/large/1000000/4"}, {Target: "/cut/body/5"},
	} {
		if x := conn.Do(r); x.Status == 0 {
			t.Fatal(x.Err)
		}
		spans++
	}
	junk(t, web.Addr, 1, 50)
	agent.WaitSpans(spans)
	live, _ := agent.Stop()

	out, err := exec.Command(Binary(t), "replay", file, "--output", "json").Output()
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	var recorded, replayed []string
	for _, span := range live {
		recorded = append(recorded, span.Line)
	}
	for line := range strings.Lines(string(out)) {
		replayed = append(replayed, strings.TrimSuffix(line, "\n"))
	}
	slices.Sort(recorded)
	slices.Sort(replayed)
	if !slices.Equal(recorded, replayed) {
		var m Mismatches
		for _, line := range recorded {
			if _, ok := slices.BinarySearch(replayed, line); !ok {
				m.add("printed live only", "%s", line)
			}
		}
		for _, line := range replayed {
			if _, ok := slices.BinarySearch(recorded, line); !ok {
				m.add("replayed only", "%s", line)
			}
		}
		t.Errorf("%d spans live, %d replayed: %v", len(recorded), len(replayed), m.Err())
	}

	// Whoever sends in a recording must not send what their users sent.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), secret) {
		t.Error("the recording holds a body")
	}
}
