// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"breadcrumb/probes/runtime/uprobe"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

// Entry is the place in a function where a uprobe sees a call.
//
// The kernel emulates a few instructions; all others it runs out of line under a single step, which
// costs another exception and many times as much. The first instruction of a Go function, the
// comparison of SP with the stack's bound, is one of the dear ones, and it runs again after the stack
// has grown. So the place is the first instruction after that check which the kernel emulates, while the
// arguments are still in their registers: on amd64 nearly always PUSHQ BP.
//
// Where there is none (amd64 before Go 1.21 saves BP with a MOV; half of arm64), it is the branch of
// the check itself, and AtCheck is set: when that branch is taken, the stack grows, the function starts
// over, and the call is seen again. Either the program does what may be done twice, or it returns if the
// branch is about to be taken: on amd64 JBE is if CF or ZF is set, on arm64 B.LS is if C is clear or Z set.
type Entry struct {
	Offset   int  // from the start of the function
	Emulated bool // the kernel emulates the instruction
	AtCheck  bool // it is the branch to runtime.morestack
	Checked  bool // the function has a stack check, as every large one has
}

// prologueLimit is how many instructions are looked at for an entry. The longest way to the end of a stack
// check is seven.
const prologueLimit = 24

var errNoCode = errors.New("not the code of a function")

// EntrySite finds the entry of the function whose machine code is given, all of it: a branch back into the
// prologue rules out what lies behind its target.
func EntrySite(code []byte, machine elf.Machine) (Entry, error) {
	var decode func([]byte) (inst, error)
	switch machine {
	case elf.EM_X86_64:
		decode = decodeAMD64
	case elf.EM_AARCH64:
		decode = decodeARM64
	default:
		return Entry{}, fmt.Errorf("instructions of %v are not known", machine)
	}

	prologue, err := decodePrologue(code, decode)
	if err != nil {
		return Entry{}, err
	}
	start := 0 // index of the first instruction that runs once per call
	var check Entry
	for i, in := range prologue {
		if in.loadsGuard {
			if j, ok := checkBranch(prologue[i:]); ok {
				start = i + j + 1
				check = Entry{Offset: prologue[i+j].off, Emulated: true, AtCheck: true, Checked: true}
			}
			break
		}
		if in.kind == branches && !in.overflows {
			break
		}
	}

	loop := firstTarget(code, decode)
	for _, in := range prologue[start:] {
		// The function's first byte is a target of the jump back from runtime.morestack.
		if in.off != 0 && in.off >= loop {
			break
		}
		if in.emulated {
			return Entry{Offset: in.off, Emulated: true, Checked: check.Checked}, nil
		}
		if in.kind != harmless {
			break
		}
	}
	if check.Checked {
		return check, nil
	}
	return Entry{}, nil
}

// inst is what matters of an instruction here.
type inst struct {
	off, len   int
	kind       kind
	emulated   bool
	loadsGuard bool // reads g.stackguard0
	guards     bool // is the branch of the stack check
	overflows  bool // is the branch before it in a function with a huge frame, for SP minus that frame below zero
	target     int  // of a relative branch within the function, from the instruction's start
	jumps      bool // target is set
}

type kind int

const (
	harmless kind = iota // goes on with the next one, and leaves arguments and g in their registers
	branches             // may go elsewhere
	harmful              // may overwrite an argument or g
)

func decodePrologue(code []byte, decode func([]byte) (inst, error)) ([]inst, error) {
	var insts []inst
	for off := 0; off < len(code) && len(insts) < prologueLimit; {
		in, err := decode(code[off:])
		if err != nil {
			if len(insts) == 0 {
				return nil, fmt.Errorf("decode first instruction: %w", err)
			}
			break
		}
		in.off = off
		insts = append(insts, in)
		off += in.len
	}
	if len(insts) == 0 {
		return nil, errNoCode
	}
	return insts, nil
}

// checkBranch returns the index of the branch that follows the load of the stack's bound.
func checkBranch(insts []inst) (int, bool) {
	const within = 8
	for i, in := range insts[:min(len(insts), within)] {
		if in.guards {
			return i, true
		}
	}
	return 0, false
}

// firstTarget returns the lowest offset above zero that a direct branch backwards goes to. Bytes that do
// not decode are skipped one by one: at worst that finds a target that is none.
func firstTarget(code []byte, decode func([]byte) (inst, error)) int {
	first := len(code)
	for off := 0; off < len(code); {
		in, err := decode(code[off:])
		if err != nil {
			off++
			continue
		}
		if in.jumps && in.target <= 0 {
			if t := off + in.target; t > 0 && t < first {
				first = t
			}
		}
		off += in.len
	}
	return first
}

// guardOffset is where g.stackguard0 is, in all versions of Go.
const guardOffset = 16

func decodeAMD64(code []byte) (inst, error) {
	x, err := x86asm.Decode(code, 64)
	if err == nil && x.Op == 0 { // prefixes and no more
		err = errNoCode
	}
	if err != nil {
		return inst{}, err
	}
	in := inst{len: x.Len, kind: harmful, emulated: uprobe.Emulated(code[:x.Len])}
	if rel, ok := x.Args[0].(x86asm.Rel); ok {
		in.kind = branches
		in.target, in.jumps = x.Len+int(rel), x.Op != x86asm.CALL
	}
	switch x.Op {
	case x86asm.CALL, x86asm.JMP, x86asm.RET:
		in.kind = branches
	case x86asm.JBE:
		in.guards = true
	case x86asm.JB:
		in.overflows = true
	case x86asm.CMP:
		mem, ok := x.Args[1].(x86asm.Mem)
		in.loadsGuard = ok && mem.Base == x86asm.R14 && mem.Index == 0 && mem.Disp == guardOffset
		in.kind = harmless
	case x86asm.TEST, x86asm.NOP:
		in.kind = harmless
	case x86asm.PUSH: // moves SP, which the arguments do not depend on
		in.kind = harmless
	case x86asm.MOV, x86asm.LEA, x86asm.SUB, x86asm.ADD, x86asm.MOVUPS, x86asm.XORPS:
		if reg, ok := x.Args[0].(x86asm.Reg); !ok || !carriesAMD64(reg) {
			in.kind = harmless
		}
	}
	return in, nil
}

// carriesAMD64 says whether reg is a part of a register that holds an argument or g. ABIInternal:
// integers in AX, BX, CX, DI, SI, R8 to R11, g in R14; the frame is made with SP, BP, R12 and R13, and
// X15 is zero.
func carriesAMD64(reg x86asm.Reg) bool {
	switch reg {
	case x86asm.RSP, x86asm.RBP, x86asm.R12, x86asm.R13, x86asm.R15, x86asm.X15:
		return false
	}
	return true
}

func decodeARM64(code []byte) (inst, error) {
	x, err := arm64asm.Decode(code)
	if err != nil {
		return inst{}, err
	}
	word := binary.LittleEndian.Uint32(code)
	in := inst{len: 4, kind: harmful, emulated: emulatedARM64(word)}
	for _, arg := range x.Args {
		if rel, ok := arg.(arm64asm.PCRel); ok {
			in.target, in.jumps = int(rel), true
		}
	}
	switch x.Op {
	case arm64asm.B, arm64asm.CBZ, arm64asm.CBNZ, arm64asm.TBZ, arm64asm.TBNZ:
		in.kind = branches
		in.guards = word&0xff00001f == 0x54000009    // B.LS
		in.overflows = word&0xff00001f == 0x54000003 // B.LO
	case arm64asm.BL, arm64asm.BLR, arm64asm.BR, arm64asm.RET:
		in.kind, in.jumps = branches, false
	case arm64asm.CMP, arm64asm.TST, arm64asm.NOP:
		in.kind = harmless
	case arm64asm.STR, arm64asm.STP, arm64asm.STUR:
		in.kind = harmless
	case arm64asm.LDR:
		in.loadsGuard = word&0xffffffe0 == 0xf9400b80 // LDR Xt, [X28, #16]
		fallthrough
	case arm64asm.MOV, arm64asm.SUB, arm64asm.ADD, arm64asm.ADRP, arm64asm.ADR:
		in.jumps = false
		if !carriesARM64(x.Args[0]) {
			in.kind = harmless
		}
	default:
		in.jumps = false
	}
	return in, nil
}

// carriesARM64 is carriesAMD64: integers are in R0 to R15, g in R28; the frame is made with R16, R17, R20,
// R27, R29 and SP.
func carriesARM64(arg arm64asm.Arg) bool {
	if sp, ok := arg.(arm64asm.RegSP); ok {
		arg = arm64asm.Reg(sp)
	}
	switch arg {
	case arm64asm.X16, arm64asm.X17, arm64asm.X20, arm64asm.X27, arm64asm.X29, arm64asm.SP: // XZR is SP here
		return false
	}
	return true
}

// emulatedARM64 says whether a uprobe on the instruction is simulated by every kernel that we run on
// (arch/arm64/kernel/probes/decode-insn.c, arm_probe_decode_insn, Linux 5.10). NOP is since Linux 6.13 only;
// a load of a literal was until 6.12, wrongly, and is refused since.
func emulatedARM64(word uint32) bool {
	switch {
	case word&0x7c000000 == 0x14000000, // B, BL
		word&0xff000010 == 0x54000000, // B.cond
		word&0x7e000000 == 0x34000000, // CBZ, CBNZ
		word&0x7e000000 == 0x36000000, // TBZ, TBNZ
		word&0x1f000000 == 0x10000000, // ADR, ADRP
		word&0xfffffc1f == 0xd61f0000, // BR
		word&0xfffffc1f == 0xd63f0000, // BLR
		word&0xfffffc1f == 0xd65f0000: // RET
		return true
	}
	return false
}
