// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The beginnings of real functions.
const (
	// net/http.(*persistConn).roundTrip, Go 1.26.8
	amd64Push = `
		4c 8d a4 24 58 fe ff ff     lea -0x1a8(%rsp),%r12
		4d 3b 66 10                 cmp 0x10(%r14),%r12
		0f 86 68 0e 00 00           jbe morestack
		55                          push %rbp
		48 89 e5                    mov %rsp,%rbp
		48 81 ec 20 02 00 00        sub $0x220,%rsp
		48 89 84 24 30 02 00 00     mov %rax,0x230(%rsp)`
	// the same, Go 1.19.13
	amd64Mov = `
		4c 8d a4 24 d0 fd ff ff     lea -0x230(%rsp),%r12
		4d 3b 66 10                 cmp 0x10(%r14),%r12
		0f 86 c3 0e 00 00           jbe morestack
		48 81 ec b0 02 00 00        sub $0x2b0,%rsp
		48 89 ac 24 a8 02 00 00     mov %rbp,0x2a8(%rsp)
		48 8d ac 24 a8 02 00 00     lea 0x2a8(%rsp),%rbp
		48 89 9c 24 c0 02 00 00     mov %rbx,0x2c0(%rsp)
		44 0f 11 bc 24 28 02 00 00  movups %xmm15,0x228(%rsp)
		48 8b 48 18                 mov 0x18(%rax),%rcx
		e8 00 00 00 00              call`
	// a function with an array of 70 000 bytes, Go 1.26.8
	amd64Huge = `
		49 89 e4                    mov %rsp,%r12
		49 81 ec f8 10 01 00        sub $0x110f8,%r12
		0f 82 b6 00 00 00           jb morestack
		4d 3b 66 10                 cmp 0x10(%r14),%r12
		0f 86 ac 00 00 00           jbe morestack
		55                          push %rbp
		48 89 e5                    mov %rsp,%rbp`
	arm64Huge = `
		90 0b 40 f9                 ldr x16, [x28, #16]
		1b 20 82 d2                 mov x27, #4352
		3b 00 a0 f2                 movk x27, #1, lsl #16
		f1 63 3b eb                 subs x17, sp, x27
		c3 07 00 54                 b.lo morestack
		3f 02 10 eb                 cmp x17, x16
		89 07 00 54                 b.ls morestack
		f4 03 06 d1                 sub x20, sp, #384
		94 46 40 d1                 sub x20, x20, #17, lsl #12
		9d fa 3f a9                 stp x29, x30, [x20, #-8]
		9f 02 00 91                 mov sp, x20
		fd 23 00 d1                 sub x29, sp, #8
		e2 23 00 91                 add x2, sp, #8`
	// net/http.(*persistConn).roundTrip, Go 1.26.8
	arm64Adrp = `
		90 0b 40 f9                 ldr x16, [x28, #16]
		f1 03 07 d1                 sub x17, sp, #448
		3f 02 10 eb                 cmp x17, x16
		09 5b 00 54                 b.ls morestack
		f4 03 09 d1                 sub x20, sp, #576
		9d fa 3f a9                 stp x29, x30, [x20, #-8]
		9f 02 00 91                 mov sp, x20
		fd 23 00 d1                 sub x29, sp, #8
		e0 27 01 f9                 str x0, [sp, #584]
		e1 2b 01 f9                 str x1, [sp, #592]
		ff 67 00 f9                 str xzr, [sp, #200]
		ff 7f 10 a9                 stp xzr, xzr, [sp, #256]
		fb 19 00 90                 adrp x27`
)

func TestEntrySite(t *testing.T) {
	for _, tt := range []struct {
		name    string
		machine elf.Machine
		code    string
		want    Entry
	}{
		{
			"push after the check", elf.EM_X86_64, amd64Push,
			Entry{Offset: 18, Emulated: true, Checked: true},
		},
		{
			"no push: branch of the check", elf.EM_X86_64, amd64Mov,
			Entry{Offset: 12, Emulated: true, AtCheck: true, Checked: true},
		},
		{
			"huge frame has two branches", elf.EM_X86_64, amd64Huge,
			Entry{Offset: 26, Emulated: true, Checked: true},
		},
		{
			"arm64, huge frame", elf.EM_AARCH64, arm64Huge,
			Entry{Offset: 24, Emulated: true, AtCheck: true, Checked: true},
		},
		{
			"small frame", elf.EM_X86_64, `
				49 3b 66 10  cmp 0x10(%r14),%rsp
				76 3c        jbe morestack
				55           push %rbp`,
			Entry{Offset: 6, Emulated: true, Checked: true},
		},
		{
			"no check", elf.EM_X86_64, `
				55        push %rbp
				48 89 e5  mov %rsp,%rbp`,
			Entry{Offset: 0, Emulated: true},
		},
		{
			"no check, first emulated is a branch", elf.EM_X86_64, `
				48 83 f8 05  cmp $5,%rax
				74 08        je
				55           push %rbp`,
			Entry{Offset: 4, Emulated: true},
		},
		{
			"no check, argument overwritten", elf.EM_X86_64, `
				48 8b 00  mov (%rax),%rax
				55        push %rbp`,
			Entry{},
		},
		{
			"no check, part of an argument overwritten", elf.EM_X86_64, `
				89 c3  mov %eax,%ebx
				55     push %rbp`,
			Entry{},
		},
		{
			"no check, g overwritten", elf.EM_X86_64, `
				64 4c 8b 34 25 f8 ff ff ff  mov %fs:-8,%r14
				55                          push %rbp`,
			Entry{},
		},
		{
			"comparison with something else than the bound", elf.EM_X86_64, `
				49 3b 66 18  cmp 0x18(%r14),%rsp
				90           nop
				55           push %rbp`,
			Entry{Offset: 4, Emulated: true},
		},
		{
			"loop begins before the push", elf.EM_X86_64, `
				49 3b 66 10  cmp 0x10(%r14),%rsp
				76 3c        jbe morestack
				48 85 c0     test %rax,%rax
				90           nop
				eb fa        jmp to the test`,
			Entry{Offset: 4, Emulated: true, AtCheck: true, Checked: true},
		},
		{
			"loop begins after the push", elf.EM_X86_64, `
				49 3b 66 10  cmp 0x10(%r14),%rsp
				76 3c        jbe morestack
				55           push %rbp
				90           nop
				eb fd        jmp to the nop`,
			Entry{Offset: 6, Emulated: true, Checked: true},
		},
		{
			"jump back from morestack", elf.EM_X86_64, `
				49 3b 66 10  cmp 0x10(%r14),%rsp
				76 01        jbe morestack
				55           push %rbp
				eb f7        jmp to the start`,
			Entry{Offset: 6, Emulated: true, Checked: true},
		},
		{
			"long nop is emulated by new kernels only", elf.EM_X86_64, `
				0f 1f 40 00  nopl 0(%rax)
				41 54        push %r12`,
			Entry{Offset: 4, Emulated: true},
		},
		{
			"adrp after the check", elf.EM_AARCH64, arm64Adrp,
			Entry{Offset: 48, Emulated: true, Checked: true},
		},
		{
			"arm64, argument overwritten after the check", elf.EM_AARCH64, `
				90 0b 40 f9  ldr x16, [x28, #16]
				ff 63 30 eb  cmp sp, x16
				09 02 00 54  b.ls morestack
				fe 0f 1d f8  str x30, [sp, #-48]!
				fd 83 1f f8  stur x29, [sp, #-8]
				fd 23 00 d1  sub x29, sp, #8
				02 04 40 f9  ldr x2, [x0, #8]
				1f 20 03 d5  nop
				fb 19 00 90  adrp x27`,
			Entry{Offset: 8, Emulated: true, AtCheck: true, Checked: true},
		},
		{
			"arm64, no check", elf.EM_AARCH64, `
				02 04 40 f9  ldr x2, [x0, #8]
				c0 03 5f d6  ret`,
			Entry{},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := EntrySite(unhex(t, tt.code), tt.machine)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEntrySiteOfNoCode(t *testing.T) {
	for _, code := range [][]byte{nil, {0x0f}, {0x06}} {
		for _, machine := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64, elf.EM_RISCV} {
			if e, err := EntrySite(code, machine); err == nil {
				t.Errorf("% x on %v: %+v", code, machine, e)
			}
		}
	}
}

// unhex reads the hexadecimal column of a listing, which ends at two spaces.
func unhex(t testing.TB, listing string) []byte {
	t.Helper()
	var code []byte
	for line := range strings.Lines(listing) {
		column, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(column, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, b...)
	}
	return code
}

// Every function of a whole program is looked at: whatever their shape, nearly all have a cheap entry.
func TestEntrySitesOfWholeProgram(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			path := goBuild{arch: arch}.build(t)
			im, err := openImage(bytes.NewReader(readFile(t, path)))
			if err != nil {
				t.Fatal(err)
			}
			var funcs, checked, atCheck, once, dear int
			for _, f := range oracle(t, path) {
				if strings.HasPrefix(f.Name, "go:") { // a mark of the linker's, not a function
					continue
				}
				code := make([]byte, f.End-f.Entry)
				if _, err := im.ReadAt(code, int64(f.Entry)); err != nil {
					t.Fatalf("%s: %v", f.Name, err)
				}
				e, err := EntrySite(code, im.machine)
				if err != nil {
					t.Errorf("%s: %v", f.Name, err)
					continue
				}
				funcs++
				switch {
				case !e.Emulated:
					dear++
				case e.AtCheck:
					atCheck++
				default:
					once++
				}
				if e.Checked {
					checked++
					if !e.Emulated {
						t.Errorf("%s has a stack check but no cheap entry", f.Name)
					}
					if arch == "amd64" && e.AtCheck {
						t.Logf("%s: at the check", f.Name)
					}
				}
			}
			t.Logf("%d functions, %d with a stack check: %d behind it or without one, %d at it, %d dear", funcs, checked, once, atCheck, dear)
			if checked < funcs/2 {
				t.Errorf("%d of %d functions have a stack check", checked, funcs)
			}
		})
	}
}
