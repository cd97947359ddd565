// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// TestSplicingProxy traces a proxy that moves bytes from socket to socket by splice, and the server behind it.
func TestSplicingProxy(t *testing.T) {
	for _, attach := range Attachments {
		t.Run(attach.Name, func(t *testing.T) {
			attach.Require(t)
			t.Run("bodies", func(t *testing.T) { spliceBodies(t, attach) })
			t.Run("all", func(t *testing.T) { spliceAll(t, attach, "all") })
			t.Run("all but the first head", func(t *testing.T) { spliceAll(t, attach, "first") })
		})
	}
}

func loadSpliced(t *testing.T, s *servers.Server, requests int) []drive.Exchange {
	t.Helper()
	truth, err := drive.Plan{Addr: s.Addr, Requests: requests, Connections: 8, Request: func(i int) drive.Request {
		switch i % 4 {
		case 1:
			return drive.Request{Target: fmt.Sprintf("/large/%d/%d", 1000*i, i)}
		case 2:
			return drive.Request{Method: "POST", Target: fmt.Sprint("/upload/", i), Body: make([]byte, 1000*i)}
		case 3:
			return drive.Request{Target: fmt.Sprint("/status/204/", i)}
		}
		return drive.Request{Target: fmt.Sprint("/item/", i)}
	}}.Run()
	if err != nil {
		t.Fatal(err)
	}
	return truth
}

// spliceBodies has the proxy read and write heads as ever: it has all its spans, and they are right.
func spliceBodies(t *testing.T, attach *Attachment) {
	const requests = 400
	s := servers.SpliceProxy(t, servers.Options{}, "bodies")
	agent := TraceBy(t, attach, s, s.Behind)
	truth := loadSpliced(t, s, requests)
	agent.WaitSpans(3 * requests)
	spans, summary := agent.Stop()
	NothingLost(t, summary, 3*requests)
	front, calls := Select(spans, "splice_proxy", "server"), Select(spans, "splice_proxy", "client")
	back := Select(spans, "goserver", "server")
	if err := Compare(front, truth, Want{}); err != nil {
		t.Errorf("the proxy's server spans: %v", err)
	}
	if err := Compare(calls, truth, Want{Kind: "client", Foreign: true, Late: true}); err != nil {
		t.Errorf("the proxy's client spans: %v", err)
	}
	if err := Compare(back, truth, Want{Foreign: true}); err != nil {
		t.Errorf("the server spans behind: %v", err)
	}
	if err := Joined(calls, front); err != nil {
		t.Errorf("client spans under the proxy's server spans: %v", err)
	}
	if err := Joined(back, calls); err != nil {
		t.Errorf("server spans behind under the proxy's client spans: %v", err)
	}
	var m Mismatches
	for _, s := range append(front, calls...) {
		if s.Text("error.type") != "" {
			m.add("an error that is none", "%s", s)
		}
	}
	if err := m.Err(); err != nil {
		t.Error(err)
	}
}

// spliceAll has it pass everything on unseen, or all but the first head: what is behind is right, and nothing is
// made up for what is not seen.
func spliceAll(t *testing.T, attach *Attachment, mode string) {
	const requests = 200
	s := servers.SpliceProxy(t, servers.Options{}, mode)
	agent := TraceBy(t, attach, s, s.Behind)
	truth := loadSpliced(t, s, requests)
	behind := func(s *Span) bool { return s.Service() == "goserver" }
	done := 0
	agent.WaitSpan(fmt.Sprintf("all %d behind", requests), func(s *Span) bool {
		if behind(s) {
			done++
		}
		return done == requests
	})
	spans, summary := agent.Stop()
	t.Logf("the ledger says %v", summary.Total)
	if err := Compare(Select(spans, "goserver", ""), truth, Want{Foreign: true}); err != nil {
		t.Errorf("the server spans behind: %v", err)
	}
	// What is seen of the proxy all the same must be right: the kernel's functions see what splice sends, from 6.5 on. A
	// span may end without an answer, which is no error.
	for kind, want := range map[string]Want{"server": {}, "client": {Kind: "client", Foreign: true, Late: true}} {
		answered := slices.DeleteFunc(slices.Clone(Select(spans, "splice_proxy", kind)), func(s *Span) bool {
			return s.Number("http.response.status_code") == 0 && s.Text("error.type") == ""
		})
		byPath := ByPath(answered)
		own, have := seen(byPath, truth)
		if err := Compare(own, have, want); err != nil {
			t.Errorf("the proxy's %s spans: %v", kind, err)
		}
		for _, list := range byPath {
			t.Errorf("made up: %s", list[0])
		}
	}
}
