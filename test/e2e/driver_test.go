// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
)

// TestDriverAgainstServers holds the driver and the servers to each other, without an agent: what fails
// here says nothing of breadcrumb.
func TestDriverAgainstServers(t *testing.T) {
	for _, kind := range servers.Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			s := kind.Start(t, servers.Options{})

			n := 0
			plan := drive.Plan{Network: s.Network, Addr: s.Addr, Requests: 400, Connections: 16}
			truth, err := plan.Run()
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, x := range truth {
				if x.Status != 200 || x.Err != nil || seen[x.Path] || x.Before == 0 || x.After <= x.Before || x.Received == 0 {
					t.Fatalf("%+v", x)
				}
				seen[x.Path] = true
				n++
			}
			if n != 400 {
				t.Fatalf("%d exchanges", n)
			}

			for _, x := range answers(t, s, kind) {
				if x.got != x.want {
					t.Errorf("%s %s: status %d, want %d", x.Method, x.Target, x.got, x.want)
				}
			}

			plan.Requests, plan.Connections, plan.Fresh, plan.Trace = 20, 2, true, true
			if _, err := plan.Run(); err != nil {
				t.Errorf("a connection for each: %v", err)
			}
			plan.Fresh, plan.Split = false, 1
			// PHP's built-in server refuses requests that come in small pieces.
			if _, err := plan.Run(); err != nil && kind.Name != "php" {
				t.Errorf("in pieces of a byte: %v", err)
			}
			if kind.Name == "go" || kind.Name == "node" || kind.Name == "nginx" {
				plan.Split, plan.Depth = 0, 5
				if _, err := plan.Run(); err != nil {
					t.Errorf("pipelined: %v", err)
				}
			}
		})
	}
}

type answer struct {
	drive.Exchange
	got, want int
}

// answers makes one request for each ability of a server, on a connection of its own.
func answers(t *testing.T, s *servers.Server, kind servers.Kind) []answer {
	t.Helper()
	var list []answer
	do := func(r drive.Request, want int) {
		conn, err := drive.Dial(s.Network, s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		x := conn.Do(r)
		if x.Err != nil {
			t.Errorf("%s %s: %v", x.Method, x.Target, x.Err)
		}
		list = append(list, answer{x, x.Status, want})
	}
	if kind.Does&servers.Upload != 0 {
		do(drive.Request{Method: "POST", Target: "/upload/u", Body: make([]byte, 300_000)}, 200)
	}
	if kind.Does&servers.Chunked != 0 {
		do(drive.Request{Target: "/chunked/5/c"}, 200)
	}
	if kind.Does&servers.Status != 0 {
		for _, code := range []int{204, 304, 404, 500} {
			do(drive.Request{Target: fmt.Sprintf("/status/%d/s", code)}, code)
		}
	}
	if kind.Does&servers.Sleep != 0 {
		do(drive.Request{Target: "/sleep/5/s"}, 200)
	}
	do(drive.Request{Method: "HEAD", Target: "/item/h"}, 200)
	return list
}

func TestClientsAgainstServer(t *testing.T) {
	s := servers.Go(t, servers.Options{})
	for _, args := range [][]string{{}, {"-fresh"}, {"-c", "4"}} {
		cmd := exec.Command(servers.GoClient(t), append(args, "-n", "50", "-url", "http://"+s.Addr+"/item/")...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(out)) {
			var r struct {
				Status int
				Error  string
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Status != 200 || r.Error != "" {
				t.Errorf("%v: %s %v", args, line, err)
			}
			n++
		}
		if n != 50 {
			t.Errorf("%v: %d results", args, n)
		}
	}
}

// TestJunkAgainstServers sees that servers survive what a test sends them.
func TestJunkAgainstServers(t *testing.T) {
	for _, name := range []string{"go", "node", "python"} {
		t.Run(name, func(t *testing.T) {
			s := servers.Find(t, name).Start(t, servers.Options{})
			junk(t, s.Addr, 1, 1000)
			if _, err := (drive.Plan{Addr: s.Addr, Requests: 100, Connections: 4}).Run(); err != nil {
				t.Error(err)
			}
		})
	}
}
