// SPDX-License-Identifier: Apache-2.0

package bpf

import "testing"

func TestPreemptibleKernelsAreKnown(t *testing.T) {
	for _, test := range []struct {
		version, release, cmdline string
		want                      bool
	}{
		{"#1 SMP Debian 5.10.223-1 (2024-08-10)", "5.10.0-32-amd64", "quiet", false},
		{"#1 SMP PREEMPT_DYNAMIC Debian 6.1.128-1 (2025-02-07)", "6.1.0-31-amd64", "quiet", false},
		{"#1 SMP PREEMPT_DYNAMIC Debian 6.1.128-1 (2025-02-07)", "6.1.0-31-amd64", "quiet preempt=full", true},
		{"#1 SMP PREEMPT_DYNAMIC Debian 6.12.38-1 (2025-07-16)", "6.12.38+deb13-amd64", "", false},
		{"#1 SMP PREEMPT_DYNAMIC Debian 6.18.15-1", "6.18.15+deb13-amd64", "", true},
		{"#1 SMP PREEMPT_DYNAMIC Debian 6.18.15-1", "6.18.15+deb13-amd64", "preempt=none", false},
		{"#1 SMP PREEMPT Ubuntu", "5.15.0-100-lowlatency", "", true},
		{"#1 SMP PREEMPT_RT Debian", "6.1.0-31-rt-amd64", "", true},
		{"#5 SMP Thu Nov 1", "6.18.44", "", false},
	} {
		if got := preemptible(test.version, test.release, test.cmdline); got != test.want {
			t.Errorf("%s, %s, %q: %v", test.version, test.release, test.cmdline, got)
		}
	}
}
