// SPDX-License-Identifier: Apache-2.0

package uprobe

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestUprobesCannotBePreempted holds every uprobe of every runtime to what preempt.h says: its first call is that of
// bpf_preempt_disable. That every way out passes the opposite, the kernel's verifier sees to.
func TestUprobesCannotBePreempted(t *testing.T) {
	objects, err := filepath.Glob("../*/*_bpfel.o")
	if err != nil || len(objects) < 8 {
		t.Fatalf("objects: %q, %v", objects, err)
	}
	for _, path := range objects {
		spec, err := ebpf.LoadCollectionSpec(path)
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
					t.Errorf("%s, %s calls %v first", path, p.Name, ins)
				}
				break
			}
		}
		if uprobes == 0 {
			t.Errorf("%s: no uprobes", path)
		}
	}
}
