// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestUprobesCannotBePreempted holds every uprobe of both builds to what preempt.h says: its first call is that of
// bpf_preempt_disable. That every way out passes the opposite, the kernel's verifier sees to.
func TestUprobesCannotBePreempted(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"new": loadGolang, "old": loadGolangOld} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		uprobes := 0
		for _, p := range spec.Programs {
			if p.Type != ebpf.Kprobe {
				continue
			}
			uprobes++
			for _, ins := range p.Instructions {
				if ins.OpCode.JumpOp() != asm.Call {
					continue
				}
				if ins.Reference() != "bpf_preempt_disable" {
					t.Errorf("%s, %s calls %v first", name, p.Name, ins)
				}
				break
			}
		}
		if uprobes == 0 {
			t.Errorf("%s: no uprobes", name)
		}
	}
}
