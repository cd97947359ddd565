// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"breadcrumb/internal/bpftest"
)

// load loads and attaches the kernel side; no process is watched.
func loadCore(t *testing.T, attach string) *Core {
	t.Helper()
	bpftest.Require(t, map[string]string{"socket": "6.3", "syscall": "5.15"}[attach], attach+" tracepoints")
	cfg := Default()
	cfg.Attach = attach
	cfg.RingBytes = 1 << 20
	core, err := Load(cfg)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := core.Close(); err != nil {
			t.Error(err)
		}
	})
	return core
}

func TestLoad(t *testing.T) {
	for _, attach := range []string{"socket", "syscall"} {
		t.Run(attach, func(t *testing.T) {
			core := loadCore(t, attach)
			if want := attach + " tracepoints"; core.Attachment != want {
				t.Errorf("attached by %s, want %s", core.Attachment, want)
			}
		})
	}
}

func TestVerdictReachesItsConnectionOnly(t *testing.T) {
	core := loadCore(t, "socket")
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
