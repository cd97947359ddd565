// SPDX-License-Identifier: Apache-2.0

// Package bpftest says which tests the kernel and the rights here allow.
package bpftest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Require skips the test on a kernel older than version ("6.3"), which is the first to have feature, and
// where there are no rights to load programs. In CI a lack of rights is a failure: the tests that count
// would all be skipped.
func Require(t testing.TB, version, feature string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s needs root", feature)
		}
		t.Skipf("%s needs root", feature)
	}
	if !Has(version) {
		t.Skipf("%s came with Linux %s, this is %s", feature, version, release())
	}
}

// Has says whether this kernel is of that version ("6.3") or a newer one.
func Has(version string) bool { return !older(release(), version) }

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

func older(release, version string) bool {
	have, want := numbers(release), numbers(version)
	return have[0] < want[0] || have[0] == want[0] && have[1] < want[1]
}

func numbers(s string) (n [2]int) {
	for i, part := range strings.SplitN(s, ".", 3) {
		if i == 2 {
			break
		}
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			part = part[:end]
		}
		n[i], _ = strconv.Atoi(part)
	}
	return n
}

// attachmentsEnv names the attachments that the kernel must allow, separated by commas.
const attachmentsEnv = "BREADCRUMB_ATTACHMENTS"

// Allowed says whether the attachment must work here: tracepoints do wherever the kernel has them; trampolines and
// kprobes may be left out of a kernel or forbidden by it, and are expected where the environment says so.
func Allowed(attachment string) bool {
	if list, ok := os.LookupEnv(attachmentsEnv); ok {
		return slices.Contains(strings.Split(list, ","), attachment)
	}
	return attachment == "socket" || attachment == "syscall"
}
