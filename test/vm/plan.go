// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"

	"breadcrumb/test/vm/job"
)

// check is a column of the table: tests of one compiled binary.
type check struct {
	Column string
	Binary string
	Run    string // as -test.run takes it, with ATTACHMENT for the attachment; all if empty
	// Each says that it is made for each attachment, and not once.
	Each bool
	// Small says that it needs no program of the host's.
	Small bool
	// Quick says that -quick makes it too.
	Quick bool
	// Seconds bound it: several times what it takes where everything is emulated and nothing else runs.
	Seconds int
}

var checks = []check{
	{Column: "BPF logic", Binary: "logic", Small: true, Seconds: 120},
	{Column: "objects", Binary: "bpf", Small: true, Seconds: 300},
	{Column: "check", Binary: "inside", Run: "^TestCheck$", Small: true, Seconds: 120},
	{Column: "load", Binary: "inside", Run: "^TestLoad$", Each: true, Small: true, Quick: true, Seconds: 120},
	{Column: "servers", Binary: "inside", Run: "^TestServers$", Each: true, Small: true, Quick: true, Seconds: 240},
	{Column: "Unix socket", Binary: "inside", Run: "^TestUnixSocket$", Each: true, Quick: true, Seconds: 180},
	{Column: "Go client", Binary: "e2e", Run: "^TestGoClient$/^one_caller$", Each: true, Quick: true, Seconds: 240},
	{Column: "gRPC", Binary: "e2e", Run: "^Test(GRPC|UpgradeToHTTP2)$/^(Go_to_Go|curl_-sS_--http2_URL.*)$/^mixed$", Each: true, Seconds: 300},
	{Column: "runtimes", Binary: "accuracy", Run: "^TestParents$/^(Go|asyncio_streams|Node)$/^(pool|gather|timer)$", Each: true, Quick: true, Seconds: 360},
	{Column: "shop", Binary: "inside", Run: "^TestShop$", Each: true, Quick: true, Seconds: 240},
	{Column: "IPv4, IPv6", Binary: "e2e", Run: "^TestAddressFamilies$", Each: true, Small: true, Seconds: 180},
	{Column: "handed over", Binary: "e2e", Run: "^TestConnectionsHandedToAnotherProcess$", Each: true, Seconds: 180},
	{Column: "same spans", Binary: "inside", Run: "^TestSameSpans$", Each: true, Small: true, Seconds: 240},
	{Column: "rights", Binary: "e2e", Run: "^Test(FourCapabilitiesAreEnough|CheckNamesTheMissingCapability)$/^(ATTACHMENT|CAP_.*)$", Each: true, Small: true, Seconds: 180},
	{Column: "splice", Binary: "e2e", Run: "^TestSplicingProxy$/^ATTACHMENT$", Each: true, Seconds: 300},
	{Column: "io_uring", Binary: "e2e", Run: "^TestURing$/^ATTACHMENT$", Each: true, Seconds: 300},
	{Column: "system calls", Binary: "e2e", Run: "^TestEverySyscall$", Each: true, Seconds: 600},
}

// costs is no check, but prints a table for a person; it is made when it is asked for.
var costs = check{Column: "cost", Binary: "inside", Run: "^TestCost$", Small: true, Seconds: 900}

// task is a check with one attachment; that is empty where it makes no difference.
type task struct {
	check      check
	attachment string
}

// tasks are what is done on a kernel.
func (k kernel) tasks(attachments []string) []task {
	var tasks []task
	for _, c := range checks {
		if !c.Each && (c.Small || !k.Small) {
			tasks = append(tasks, task{c, ""})
		}
	}
	for _, a := range attachments {
		for _, c := range checks {
			if c.Each && (c.Small || !k.Small) {
				tasks = append(tasks, task{c, a})
			}
		}
	}
	return tasks
}

// name is the column, and the attachment if there is one.
func (t task) name() string {
	if t.attachment == "" {
		return t.check.Column
	}
	return t.attachment + ": " + t.check.Column
}

// step is what the guest does for it.
func (t task) step(k kernel) job.Step {
	s := job.Step{
		Name: t.check.Column,
		Argv: []string{filepath.Join(job.Built, "bin", t.check.Binary+".test"), "-test.v", "-test.timeout=0"},
		// What the kernel has must work: tests skip the others.
		Env:     []string{"BREADCRUMB_ATTACHMENTS=" + strings.Join(k.Attachments, ",")},
		Seconds: t.check.Seconds,
	}
	if t.check.Run != "" {
		s.Argv = append(s.Argv, "-test.run="+strings.ReplaceAll(t.check.Run, "ATTACHMENT", t.attachment))
	}
	s.Env = append(s.Env, "BREADCRUMB="+filepath.Join(job.Built, "bin", "breadcrumb"))
	if t.attachment != "" {
		servers := "go,python,nginx"
		if k.Small {
			servers = "go"
		}
		s.Env = append(s.Env, "BREADCRUMB_ATTACH="+t.attachment, "BREADCRUMB_SERVERS="+servers,
			"BREADCRUMB="+filepath.Join(job.Built, "as", t.attachment, "breadcrumb"))
	}
	return s
}
