// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"sync"
	"testing"

	"breadcrumb/bpf"
	"breadcrumb/internal/bpftest"
)

// Attachment is a way of getting at the bytes.
type Attachment struct {
	Name    string // for --attach
	Since   string // the first version of Linux that has it
	Feature string // how the agent calls it
	// SeesURing says that it reads what io_uring moves.
	SeesURing bool

	try sync.Once
	err error
}

// Attachments are all, in the order in which the agent tries them.
var Attachments = []*Attachment{
	{Name: "fentry", Since: "5.5", Feature: "fentry", SeesURing: true},
	{Name: "kprobe", Since: "4.1", Feature: "kprobe", SeesURing: true},
	{Name: "socket", Since: "6.3", Feature: "socket tracepoints"},
	{Name: "syscall", Since: "5.5", Feature: "syscall tracepoints"},
}

// refused is why the kernel, which is new enough, does not allow the attachment all the same.
func (a *Attachment) refused() error {
	a.try.Do(func() {
		if a.Name == "fentry" && bpf.Preemptible() {
			a.err = bpf.ErrPreemptible
			return
		}
		cfg := bpf.Default()
		cfg.Attach, cfg.RingBytes = a.Name, 64<<10
		core, err := bpf.Load(cfg)
		if a.err = err; err == nil {
			a.err = core.Close()
		}
	})
	return a.err
}

// Here says whether the agent has the attachment to choose from.
func (a *Attachment) Here() bool {
	return bpftest.Has(a.Since) && (bpftest.Allowed(a.Name) || a.refused() == nil)
}

// Require skips the test where the kernel lacks the attachment, or need not have it and refuses it.
func (a *Attachment) Require(t testing.TB) {
	t.Helper()
	bpftest.Require(t, a.Since, a.Feature)
	if !a.Here() {
		t.Skipf("this kernel does not allow %s: %v", a.Feature, a.refused())
	}
}
