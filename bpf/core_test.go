// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"strings"
	"testing"

	"breadcrumb/internal/bpftest"
)

// needs are the kernels that have an attachment at all; it may be forbidden, or not compiled in, on newer ones too.
var needs = map[string]string{"fentry": "5.5", "kprobe": "4.1", "socket": "6.3", "syscall": "5.5"}

// loadCore loads and attaches the kernel side; no process is watched.
func loadCore(t *testing.T, attach string, old bool) *Core {
	t.Helper()
	cfg := Default()
	cfg.RingBytes = 1 << 20
	return loadCoreAs(t, attach, old, cfg)
}

func loadCoreAs(t *testing.T, attach string, old bool, cfg Config) *Core {
	t.Helper()
	bpftest.Require(t, needs[attach], attach)
	cfg.Attach = attach
	core, err := loadBuild(cfg, old)
	if err != nil {
		if bpftest.Allowed(attach) {
			t.Fatalf("%+v", err)
		}
		t.Skipf("this kernel does not allow %s: %v", attach, err)
	}
	t.Cleanup(func() {
		if err := core.Close(); err != nil {
			t.Error(err)
		}
	})
	return core
}

// TestLoad loads both builds of the programs by each attachment, and prints how much the verifier had to do.
func TestLoad(t *testing.T) {
	for _, old := range []bool{false, true} {
		for _, attach := range Attachments {
			if attach == "tracepoint" || old && attach == "socket" || !old && isOld() {
				continue
			}
			t.Run(attach+map[bool]string{true: " old"}[old], func(t *testing.T) {
				core := loadCore(t, attach, old)
				if !strings.HasPrefix(core.Attachment, attach) {
					t.Errorf("attached by %s, want %s", core.Attachment, attach)
				}
				for name, p := range core.Programs() {
					info, err := p.Info()
					if err != nil {
						t.Fatal(err)
					}
					n, ok := info.VerifiedInstructions()
					if ok {
						t.Logf("%s: %d instructions verified", name, n)
					}
					if n > maxVerified {
						t.Errorf("%s: the verifier looked at %d instructions, more than %d", name, n, maxVerified)
					}
				}
			})
		}
	}
}

// TestIdleMapsAreSmall holds all maps, as the agent makes them by default, to what a node can spare.
func TestIdleMapsAreSmall(t *testing.T) {
	const most = 40 << 20
	for _, attach := range Attachments {
		if attach == "tracepoint" {
			continue
		}
		t.Run(attach, func(t *testing.T) {
			core := loadCoreAs(t, attach, isOld(), Default())
			sizes, err := core.MapBytes()
			if err != nil {
				t.Fatal(err)
			}
			sum := uint64(0)
			for name, n := range sizes {
				t.Logf("%s: %d bytes", name, n)
				sum += n
			}
			if sum < uint64(Default().RingBytes) || sum > most || len(sizes) != len(core.Maps()) {
				t.Errorf("%d maps of %d have %d bytes, want at most %d", len(sizes), len(core.Maps()), sum, most)
			}
		})
	}
}

// maxVerified leaves room to the verifier's limit of a million.
const maxVerified = 500_000

func TestVerdictReachesItsConnectionOnly(t *testing.T) {
	core := loadCore(t, "syscall", isOld())
	const conn = 7<<16 | 50
	if err := core.Verdict(conn, VerdictHTTPServer); err != nil {
		t.Fatal(err)
	}
	for slot := range uint32(200) {
		var got uint64
		if err := core.objects.Verdicts.Lookup(slot, &got); err != nil {
			t.Fatal(err)
		}
		want := uint64(0)
		if slot == conn&0xffff {
			want = conn>>16<<8 | uint64(VerdictHTTPServer)
		}
		if got != want {
			t.Errorf("slot %d holds %#x, want %#x", slot, got, want)
		}
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"ring_bytes":  func(c *Config) { c.RingBytes = 100 },
		"head_bytes":  func(c *Config) { c.HeadBytes = 1 << 20 },
		"attach":      func(c *Config) { c.Attach = "magic" },
		"batch_delay": func(c *Config) { c.BatchDelay = -1 },
	} {
		c := Default()
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}
