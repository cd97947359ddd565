// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// TestTwentyThousandKeepAlive loads each server over 32 connections and asks for exactly one span per
// request, and for a ledger that knows of no loss.
func TestTwentyThousandKeepAlive(t *testing.T) {
	for _, kind := range servers.Kinds {
		t.Run(kind.Name, func(t *testing.T) { keepAlive(t, nil, kind, 20_000) })
	}
}

func keepAlive(t *testing.T, attach *Attachment, kind servers.Kind, requests int) {
	s := kind.Start(t, servers.Options{})
	agent := TraceBy(t, attach, s)
	truth, err := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: requests, Connections: 32}.Run()
	if err != nil {
		t.Fatal(err)
	}
	want := requests
	if kind.Proxy {
		want *= 2
	}
	agent.WaitSpans(want)
	spans, summary := agent.Stop()
	NothingLost(t, summary, want)
	if len(spans) != want {
		t.Errorf("%d spans, want %d", len(spans), want)
	}
	if err := Compare(Select(spans, "", "server"), truth, Want{Service: kind.Service}); err != nil {
		t.Errorf("server spans: %v", err)
	}
	if kind.Proxy {
		err := Compare(Select(spans, "", "client"), truth, Want{Service: kind.Service, Kind: "client", Foreign: true})
		if err != nil {
			t.Errorf("client spans: %v", err)
		}
	}
}
