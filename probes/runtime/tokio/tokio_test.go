// SPDX-License-Identifier: Apache-2.0

package tokio

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"breadcrumb/internal/bpftest"
	"breadcrumb/probes/runtime/uprobe"

	"breadcrumb/bpf"
)

// Functions of release builds by rustc 1.95.
var (
	// tokio 1.54: TaskHooks::spawn and AtomicWaker::wake have no push; each has a branch that every call comes to.
	setTask154 = code("415653504889fb64488b042500000000488d80a8feffff0fb6484883f901742483f902750431c9eb23488d352096ffff4889c74989c6ff15bc2507004c89f041c6464801488b4830488958304889c84883c4085b415ec3")
	wake154    = code("488b47106666662e0f1f8400000000004889c14883c902f0480fb14f1075f14885c07401c3488b0f488b470848c7070000000031d2488757104885c974e64889c7ff6108")
	spawn154   = code("488b074885c0741d488b4f08488b5110488b492848ffca4883e2f0488d3c104883c710ffe1c3")
	bind154    = code("554157415641554154534883ec284989d64889f34989fc")
)

func code(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

func TestEntryIsTheFirstEmulatedInstruction(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want uint64
		ok   bool
	}{
		{"a push", bind154, 0, true},
		{"the branch of a loop", wake154, 0x1d, true},
		{"a branch", spawn154, 6, true},
		{"behind what makes the frame", code("4883ec1850"), 4, true},
		{"the first argument is gone", code("488b3f50"), 0, false},
		{"a part of the second is gone", code("31f650"), 0, false},
		{"it returns before", code("c350"), 0, false},
		{"it goes elsewhere", code("ff610850"), 0, false},
		{"nothing", nil, 0, false},
		{"none", code("48ffc8"), 0, false},
	} {
		if got, ok := entrySite(c.code); got != c.want || ok != c.ok {
			t.Errorf("%s: %#x, %t, want %#x, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestTaskIDIsWhereItIsSet(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want int64
		some bool
		ok   bool
	}{
		{"tokio 1.54", setTask154, -0x158 + 0x30, false, true},
		// mov $-0x158,%r15; mov %rdi,%fs:0x30(%r15); ret
		{"an offset in a register", code("49c7c7a8feffff6449897f30c3"), -0x158 + 0x30, false, true},
		// mov %rdi,0x8(%rsp); call; mov %fs:0,%rcx; mov 0x8(%rsp),%rax; mov %rax,-0x20(%rcx); ret
		{"kept on the stack", code("48897c2408e80000000064488b0c2500000000488b442408488941e0c3"), -0x20, false, true},
		{"tokio 1.32", code("41574156534889f34989fe64488b042500000000488d80b8feffff0fb6485083f901742283f9027502eb2b488d35eef0ffff4889c74989c7ff15fa2b08004c89f841c6475001488b4820488b50284c8970204889582831c04883f902480f45c15b415e415fc3"), -0x148 + 0x28, true, true},
		// mov %fs:0,%rax; mov %rdi,-0x28(%rax); mov %rsi,-0x20(%rax); ret
		{"of two words", code("64488b042500000000488978d8488970e0c3"), -0x20, true, true},
		// the same, with a word between them
		{"of two that are apart", code("64488b042500000000488978d8488970e8c3"), 0, false, false},
		// call; mov %fs:0,%rax; mov %rdi,-0x28(%rax); ret
		{"a call may have overwritten it", code("e80000000064488b042500000000488978d8c3"), 0, false, false},
		// mov %rdi,-0x28(%rax); ret
		{"not in the thread's own memory", code("488978d8c3"), 0, false, false},
		{"stored at two places", code("64488b042500000000488978d8488978e8c3"), 0, false, false},
		{"no code", code("06"), 0, false, false},
	} {
		if got, some, ok := taskID(c.code); got != c.want || some != c.some || ok != c.ok {
			t.Errorf("%s: %#x, %t, %t, want %#x, %t, %t", c.name, got, some, ok, c.want, c.some, c.ok)
		}
	}
}

func TestSymbolsAreKnownHoweverTheyAreMangled(t *testing.T) {
	for name, want := range map[string]symbol{
		"_ZN5tokio7runtime7context19set_current_task_id17hc7e4888b7a71575cE":                                        setTask,
		"_RNvNtNtCs5PEBHEFJCcw_5tokio7runtime7context19set_current_task_id":                                         setTask,
		"_ZN5tokio7runtime4task5waker12WAKER_VTABLE17h15461b6d8f7aba72E":                                            wakerVtable,
		"_ZN5tokio4sync4task12atomic_waker11AtomicWaker4wake17h951216e858b33c66E":                                   atomicWake,
		"_RNvMNtNtNtCs5PEBHEFJCcw_5tokio4sync4task12atomic_wakerNtB2_11AtomicWaker4wake":                            atomicWake,
		"_ZN5tokio4sync4task12atomic_waker11AtomicWaker15register_by_ref17h211e25cf38180856E":                       0,
		"_ZN12atomic_waker11AtomicWaker4wake17h746e3cc28f76f486E":                                                   0,
		"_ZN5tokio7runtime10task_hooks9TaskHooks5spawn17habc6ff008521d57eE":                                         hookSpawn,
		"_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17h7c4fc10b1dd412c0E":                          bindInner,
		"_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17hfe5b7a826453b636E.llvm.1246460735913341612": bindInner,
		"_RNvMNtNtNtCscxvBlU9Teah_5tokio7runtime4task4listINtB2_10OwnedTasksINtNtCslNYArtu3iFV_5alloc4sync3ArcNtNtNtB6_9scheduler14current_thread6HandleEE10bind_innerCs4DHFdwBtC4l_7axumapp.llvm.10619327970417255906": bindInner,
		"_RNvMNtCscxvBlU9Teah_5tokio7runtime10task_hooksNtB2_9TaskHooks5spawn":                                                                        hookSpawn,
		"_RNvMs5_NtNtNtCscxvBlU9Teah_5tokio7runtime8blocking4poolNtB5_7Spawner10spawn_task":                                                           spawnBlocking,
		"_RNCNvMs5_NtNtNtCscxvBlU9Teah_5tokio7runtime8blocking4poolNtB5_7Spawner10spawn_task0":                                                        0,
		"_ZN5tokio7runtime8blocking4pool7Spawner10spawn_task28_$u7b$$u7b$closure$u7d$$u7d$17hda6400af8a75175bE":                                       0,
		"_ZN5tokio7runtime8blocking4pool7Spawner10spawn_task17h18c46a008ad2bf3dE":                                                                     spawnBlocking,
		"_ZN5tokio7runtime8blocking4pool7Spawner14spawn_blocking17h18c46a008ad2bf3dE":                                                                 0,
		"_ZN4core3ptr82drop_in_place$LT$tokio..runtime..context..set_current_task_id$GT$17h0d0197e01783ed1cE":                                         0,
		"_ZN5tokio7runtime9scheduler12multi_thread6handle6Handle13bind_new_task17h7901d6bf3146216cE":                                                  0,
		"_ZN5tokio7runtime7context7CONTEXT29_$u7b$$u7b$constant$u7d$$u7d$28_$u7b$$u7b$closure$u7d$$u7d$23__RUST_STD_INTERNAL_VAL17h8fae68aefbacff8aE": 0,
	} {
		if got := symbolOf(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

// program is an executable: its functions by the address of each, which is where they are in the file too.
type program map[string]function

type function struct {
	address uint64
	code    []byte
}

const (
	nameSet   = "_ZN5tokio7runtime7context19set_current_task_id17hc7e4888b7a71575cE"
	nameTable = "_ZN5tokio7runtime4task5waker12WAKER_VTABLE17h15461b6d8f7aba72E"
	nameWake  = "_ZN5tokio4sync4task12atomic_waker11AtomicWaker4wake17h951216e858b33c66E"
	nameSpawn = "_ZN5tokio7runtime10task_hooks9TaskHooks5spawn17habc6ff008521d57eE"
	nameBind  = "_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17h7c4fc10b1dd412c0E"
	nameBind2 = "_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17hfe5b7a826453b636E"
)

var errNoCode = errors.New("no code")

func TestLayoutIsFoundBySymbols(t *testing.T) {
	whole := program{nameSet: {0x100, setTask154}, nameTable: {0x900, nil}, nameWake: {0x200, wake154}, nameSpawn: {0x300, spawn154},
		nameBind: {0x500, bind154}, nameBind2: {0x400, bind154}}
	for _, c := range []struct {
		name    string
		without []string
		with    program
		want    []site
		err     string
	}{
		{name: "whole", want: []site{{"receiver_woken", 0x21d}, {"task_spawned", 0x306}}},
		{name: "before there were hooks", without: []string{nameSpawn},
			want: []site{{"receiver_woken", 0x21d}, {"task_made", 0x400}, {"task_made", 0x500}}},
		{name: "folded", without: []string{nameSpawn}, with: program{nameBind2: {0x500, bind154}},
			want: []site{{"receiver_woken", 0x21d}, {"task_made", 0x500}}},
		{name: "stripped", without: []string{nameSet, nameTable, nameWake, nameSpawn, nameBind, nameBind2}, err: "stripped"},
		{name: "inlined", without: []string{nameWake}, err: "LTO"},
		{name: "nothing spawns", without: []string{nameSpawn, nameBind, nameBind2}, err: "spawns"},
		{name: "two versions", with: program{strings.Replace(nameSet, "17hc7", "17hc8", 1): {0x700, setTask154}}, err: "two versions"},
		{name: "code that is not known", with: program{nameSet: {0x100, code("c3")}}, err: "does not say"},
		{name: "no place", with: program{nameWake: {0x200, code("c3")}}, err: "no place"},
	} {
		t.Run(c.name, func(t *testing.T) {
			symbols, text := map[string]uprobe.Symbol{}, map[uint64][]byte{}
			for _, p := range []program{whole, c.with} {
				for name, f := range p {
					symbols[name] = uprobe.Symbol{Address: f.address, Size: uint64(len(f.code))}
					text[f.address] = f.code
				}
			}
			for _, name := range c.without {
				delete(symbols, name)
			}
			got, err := findLayout(symbols, func(s uprobe.Symbol) ([]byte, uint64, error) {
				if text[s.Address] == nil {
					return nil, 0, errNoCode
				}
				return text[s.Address], s.Address, nil
			})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if want := (layout{-0x128, false, 0x900, c.want}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	bpftest.Require(t, "5.10", "uprobes beside the core")
	core, err := bpf.Load(bpf.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	r, err := New(core)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n := len(r.Programs()); n != 3 {
		t.Errorf("%d programs, want 3", n)
	}
}
