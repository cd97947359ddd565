// SPDX-License-Identifier: Apache-2.0

package tokio

import (
	"slices"

	"breadcrumb/probes/runtime/uprobe"

	"golang.org/x/arch/x86/x86asm"
)

// prologue is how many instructions are looked at for a place where a probe is cheap.
const prologue = 16

// entrySite finds the first instruction of a function that the kernel emulates, from its start; ok is false if the first two arguments
// may have been overwritten by then, or it may not be reached. Where it is the branch of a loop, it is seen again.
func entrySite(code []byte) (offset uint64, ok bool) {
	for range prologue {
		x, err := x86asm.Decode(code[offset:], 64)
		if err != nil || x.Op == 0 {
			return 0, false
		}
		if uprobe.Emulated(code[offset : offset+uint64(x.Len)]) {
			return offset, true
		}
		if !keepsArguments(x) {
			return 0, false
		}
		offset += uint64(x.Len)
	}
	return 0, false
}

// keepsArguments says that an instruction goes on with the next one, and writes to neither RDI nor RSI.
func keepsArguments(x x86asm.Inst) bool {
	switch x.Op {
	case x86asm.NOP, x86asm.CMP, x86asm.TEST, x86asm.PUSH:
		return true
	case x86asm.MOV, x86asm.MOVZX, x86asm.LEA, x86asm.SUB, x86asm.ADD, x86asm.OR, x86asm.AND, x86asm.XOR, x86asm.CMPXCHG, x86asm.MOVUPS, x86asm.XORPS:
		reg, isReg := x.Args[0].(x86asm.Reg)
		return !isReg || !slices.Contains([]x86asm.Reg{x86asm.RDI, x86asm.EDI, x86asm.DI, x86asm.DIB, x86asm.RSI, x86asm.ESI, x86asm.SI, x86asm.SIB}, reg)
	}
	return false
}

// value is what of a register, or of a word on the stack, is known.
type value struct {
	kind kind
	at   int64 // constant: the number; local: from the thread pointer on
}

type kind int

const (
	unknown kind = iota
	constant
	local  // the address of something in thread-local memory
	first  // the function's first argument
	second // its second
)

// clobbered are the registers that a call may overwrite.
var clobbered = []x86asm.Reg{x86asm.RAX, x86asm.RCX, x86asm.RDX, x86asm.RSI, x86asm.RDI, x86asm.R8, x86asm.R9, x86asm.R10, x86asm.R11}

// machine follows a function's words.
type machine struct {
	regs  map[x86asm.Reg]value
	stack map[int64]value // by offset from RSP
	// Where in thread-local memory the arguments are stored.
	firsts, seconds map[int64]bool
}

// taskID finds where tokio::runtime::context::set_current_task_id keeps the id, from the thread pointer on. Where the word before it
// says whether there is one, some is set: the argument is an Option<u64> of two words, later an Option<NonZeroU64> of one.
func taskID(code []byte) (offset int64, some, ok bool) {
	m := machine{
		regs:  map[x86asm.Reg]value{x86asm.RDI: {kind: first}, x86asm.RSI: {kind: second}},
		stack: map[int64]value{}, firsts: map[int64]bool{}, seconds: map[int64]bool{},
	}
	for at := 0; at < len(code); {
		x, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			return 0, false, false
		}
		m.step(x)
		at += x.Len
	}
	if len(m.firsts) != 1 || len(m.seconds) > 1 {
		return 0, false, false
	}
	for offset = range m.firsts {
	}
	for id := range m.seconds {
		if id != offset+8 {
			return 0, false, false
		}
		return id, true, true
	}
	return offset, false, true
}

// step takes instructions in the order in which they stand: what a branch passes over is followed as well.
func (m *machine) step(x x86asm.Inst) {
	to, _ := x.Args[0].(x86asm.Reg)
	switch x.Op {
	case x86asm.CALL:
		for _, r := range clobbered {
			delete(m.regs, r)
		}
	case x86asm.MOV:
		if mem, isMem := x.Args[0].(x86asm.Mem); isMem {
			m.store(mem, m.value(x.Args[1]))
			return
		}
		m.set(to, m.value(x.Args[1]))
	case x86asm.LEA:
		mem, _ := x.Args[1].(x86asm.Mem)
		at, _ := m.address(mem)
		m.set(to, at)
	case x86asm.ADD, x86asm.SUB:
		n, isImm := x.Args[1].(x86asm.Imm)
		if x.Op == x86asm.SUB {
			n = -n
		}
		v := m.regs[to]
		if v.at += int64(int32(n)); !isImm || v.kind != local && v.kind != constant {
			v = value{}
		}
		m.set(to, v)
	case x86asm.CMP, x86asm.TEST, x86asm.PUSH:
	default:
		m.set(to, value{})
	}
}

// set sets a register; what is written to a part of one is not known.
func (m *machine) set(r x86asm.Reg, v value) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		m.regs[r] = v
	case r >= x86asm.EAX && r <= x86asm.R15L:
		delete(m.regs, r-x86asm.EAX+x86asm.RAX)
	case r >= x86asm.AX && r <= x86asm.R15W:
		delete(m.regs, r-x86asm.AX+x86asm.RAX)
	case r >= x86asm.AL && r <= x86asm.BL:
		delete(m.regs, r-x86asm.AL+x86asm.RAX)
	case r >= x86asm.SPB && r <= x86asm.R15B:
		delete(m.regs, r-x86asm.SPB+x86asm.RSP)
	}
}

// address is what an operand refers to; ok is false where that is neither known nor on the stack.
func (m *machine) address(mem x86asm.Mem) (v value, stack bool) {
	disp := int64(int32(mem.Disp)) // some are decoded without their sign
	switch {
	case mem.Index != 0:
		return value{}, false
	case mem.Segment == x86asm.FS && mem.Base == 0:
		return value{local, disp}, false
	case mem.Base == x86asm.RSP:
		return value{unknown, disp}, true
	}
	v = m.regs[mem.Base]
	v.at += disp
	switch {
	case mem.Segment == x86asm.FS && v.kind == constant:
		v.kind = local
	case v.kind != local || mem.Segment != 0 && mem.Segment != x86asm.DS && mem.Segment != x86asm.SS:
		return value{}, false
	}
	return v, false
}

func (m *machine) value(a x86asm.Arg) value {
	switch a := a.(type) {
	case x86asm.Imm:
		return value{constant, int64(int32(a))}
	case x86asm.Reg:
		return m.regs[a]
	case x86asm.Mem:
		at, stack := m.address(a)
		if stack {
			return m.stack[at.at]
		}
		if a.Segment == x86asm.FS && at == (value{local, 0}) {
			return at // the thread pointer points to itself
		}
	}
	return value{}
}

func (m *machine) store(mem x86asm.Mem, v value) {
	at, stack := m.address(mem)
	switch {
	case stack:
		m.stack[at.at] = v
	case at.kind != local:
	case v.kind == first:
		m.firsts[at.at] = true
	case v.kind == second:
		m.seconds[at.at] = true
	}
}
