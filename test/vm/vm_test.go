// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"breadcrumb/test/vm/job"

	"github.com/google/go-cmp/cmp"
)

func TestKernelsAreFoundByName(t *testing.T) {
	names := func(list []kernel) (names []string) {
		for _, k := range list {
			names = append(names, k.Name)
		}
		return names
	}
	for in, want := range map[string][]string{
		"6.1":         {"6.1"},
		"newest,5.10": {"5.10", "newest"},
		"all":         names(kernels),
	} {
		got, err := find(in)
		if err != nil || !slices.Equal(names(got), want) {
			t.Errorf("%s: %v, %v; want %v", in, names(got), err, want)
		}
	}
	if _, err := find("6.1,2.4"); err == nil || !strings.Contains(err.Error(), `"2.4"`) || !strings.Contains(err.Error(), "newest") {
		t.Errorf("an unknown kernel: %v", err)
	}
}

func TestPackagesMatchTheirKernelOnly(t *testing.T) {
	packages := []string{
		"linux-image-5.10.0-9-amd64", "linux-image-5.10.0-32-amd64", "linux-image-5.10.0-32-cloud-amd64",
		"linux-image-5.10.0-32-amd64-dbg", "linux-image-5.10.0-32-amd64-unsigned", "linux-image-5.10.0-32-rt-amd64",
		"linux-image-6.1.0-50-amd64", "linux-image-6.12.9+deb13-amd64", "linux-image-6.12.107+deb13-amd64",
		"linux-image-6.18.15+deb13-amd64", "linux-image-7.2.13+deb14-amd64", "linux-image-7.3.4+deb13-amd64",
		"linux-image-amd64", "linux-image-7.3.4+deb13-rt-amd64", "linux-image-6.12.107+deb13-arm64",
	}
	want := map[string]string{
		"5.10": "linux-image-5.10.0-32-amd64", "6.1": "linux-image-6.1.0-50-amd64", "6.12": "linux-image-6.12.107+deb13-amd64",
		"6.18": "linux-image-6.18.15+deb13-amd64", "newest": "linux-image-7.3.4+deb13-amd64",
		"arm64": "linux-image-6.12.107+deb13-arm64",
	}
	got := map[string]string{}
	for _, k := range kernels {
		got[k.Name] = newest(slices.DeleteFunc(slices.Clone(packages), func(n string) bool { return !k.Image.MatchString(n) }))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestVersionsAreOrderedByTheirNumbers(t *testing.T) {
	ordered := []string{"5.10.0-9", "5.10.0-32", "6.9.1", "6.12.1", "6.12.1+deb13", "6.12.10", "7.0.1"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
}

func TestMirrorIsTheOneOfTheSystem(t *testing.T) {
	for in, want := range map[string]string{
		"http://a.example/debian-security/ bookworm-security\nhttp://b.example/debian/ bookworm\n": "http://b.example/debian",
		"http://c.example/ubuntu/ noble\n": "",
		"":                                 "",
	} {
		if got := mirrorOf(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// kernelLog is what a test binary prints.
const kernelLog = `=== RUN   TestLoad
=== RUN   TestLoad/kprobe
    core_test.go:56: sys_enter: 1010 instructions verified
=== RUN   TestLoad/socket
    core_test.go:33: socket came with Linux 6.3, this is 6.1.0-50-amd64
=== RUN   TestLoad/fentry
    core_test.go:45: load: permission denied
        at an odd place
--- FAIL: TestLoad (8.45s)
    --- PASS: TestLoad/kprobe (0.05s)
    --- SKIP: TestLoad/socket (0.00s)
    --- FAIL: TestLoad/fentry (1.00s)
=== RUN   TestOther
--- PASS: TestOther (0.00s)
FAIL
`

func TestResultsAreReadFromWhatATestPrints(t *testing.T) {
	want := []test{
		{Name: "TestLoad", State: failed},
		{Name: "TestLoad/kprobe", State: passed},
		{Name: "TestLoad/socket", State: skipped, Reason: "core_test.go:33: socket came with Linux 6.3, this is 6.1.0-50-amd64"},
		{Name: "TestLoad/fentry", State: failed, Reason: "core_test.go:45: load: permission denied\nat an odd place"},
		{Name: "TestOther", State: passed},
	}
	if diff := cmp.Diff(want, parseTests(kernelLog)); diff != "" {
		t.Error(diff)
	}
}

func TestASkipIsAFailureUnlessTheKernelCannot(t *testing.T) {
	const (
		pass   = "=== RUN   TestA\n--- PASS: TestA (0.00s)\n"
		socket = "=== RUN   TestB\n    b_test.go:1: socket tracepoints came with Linux 6.3, this is 6.1.0\n--- SKIP: TestB (0.00s)\n"
		fentry = "=== RUN   TestC\n    c_test.go:1: fentry came with Linux 5.5, this is 6.1.0\n--- SKIP: TestC (0.00s)\n"
		other  = "=== RUN   TestD\n    d_test.go:1: io_uring_setup: function not implemented\n--- SKIP: TestD (0.00s)\n"
	)
	k := kernel{Lacks: []string{"socket tracepoints"}}
	for _, c := range []struct {
		name, log string
		outcome   *job.Outcome
		want      string
	}{
		{"passed", pass, &job.Outcome{}, passed},
		{"passed but for what the kernel lacks", pass + socket, &job.Outcome{}, passed},
		{"nothing but what the kernel lacks", socket, &job.Outcome{}, skipped},
		{"skipped for what the kernel has", pass + fentry, &job.Outcome{}, failed},
		{"skipped for another reason", pass + other, &job.Outcome{}, failed},
		{"no test", "PASS\n", &job.Outcome{}, failed},
		{"passed, and the process failed", pass, &job.Outcome{Exit: 1}, failed},
		{"the machine died", pass, nil, failed},
	} {
		r := k.judge(task{}, c.outcome, c.log)
		if r.State != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, r.State, r.Why, c.want)
		}
		if (r.Why == "") == (r.State == failed) {
			t.Errorf("%s: %s because of %q", c.name, r.State, r.Why)
		}
	}
}

// tableOf is a table in which a kernel's cells all say the same.
func tableOf(cells map[string]string) []row {
	var rows []row
	for _, k := range kernels {
		if text, ok := cells[k.Name]; ok {
			rows = append(rows, row{k.Name, "release", kprobe, slices.Repeat([]string{text}, len(checks))})
		}
	}
	return rows
}

func TestATriedKernelReplacesItsRows(t *testing.T) {
	old := append(tableOf(map[string]string{"5.10": "yes", "6.1": "yes", "newest": "–"}), row{kernel: "4.4"})
	got := merge(old, tableOf(map[string]string{"6.1": "**no**", "6.12": ""}))
	want := tableOf(map[string]string{"5.10": "yes", "6.1": "**no**", "6.12": "", "newest": "–"})
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Error(diff)
	}
}

func TestDocumentKeepsWhatIsAroundTheTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernels.md")
	if err := os.WriteFile(path, []byte("before\n"+tableBegin+"\nold\n"+tableEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, rows := range [][]row{tableOf(map[string]string{"6.1": "yes"}), tableOf(map[string]string{"5.10": "–", "arm64": ""})} {
		if err := update(path, rows); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, table, after, err := section(string(text))
	if err != nil || before != "before\n" || after != "after\n" {
		t.Errorf("%q, %q, %v", before, after, err)
	}
	want := tableOf(map[string]string{"5.10": "–", "6.1": "yes", "arm64": ""})
	if diff := cmp.Diff(want, parseRows(table), cmp.AllowUnexported(row{})); diff != "" {
		t.Error(diff)
	}
	if err := update(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a document that is not there was written")
	}
}

func TestATableWithOtherColumnsCountsForNothing(t *testing.T) {
	table := strings.Replace(markdown(tableOf(map[string]string{"6.1": "yes"})), checks[0].Column, "renamed", 1)
	if rows := parseRows(table); len(rows) > 0 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestEveryCheckIsATaskOnce(t *testing.T) {
	for _, k := range kernels {
		seen := map[string]bool{}
		for _, task := range k.tasks(k.Attachments) {
			key := task.attachment + "/" + task.check.Column
			if seen[key] {
				t.Errorf("%s: %s twice", k.Name, key)
			}
			seen[key] = true
			if k.Small && !task.check.Small {
				t.Errorf("%s: %s needs programs of the host's", k.Name, key)
			}
		}
		if len(seen) == 0 {
			t.Errorf("%s: nothing to do", k.Name)
		}
	}
	for _, c := range checks {
		if _, err := regexp.Compile(c.Run); err != nil || testBinaries[c.Binary] == "" || c.Seconds == 0 {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestModulesAreNamedAsTheKernelDoes(t *testing.T) {
	for in, want := range map[string]string{
		"kernel/fs/overlayfs/overlay.ko":            "overlay",
		"/x/kernel/drivers/virtio/virtio-pci.ko.xz": "virtio_pci",
	} {
		if got := moduleName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestInitramfsEntriesAreAligned(t *testing.T) {
	var b bytes.Buffer
	writeEntry(&b, "init", 0o100755, []byte("12345"))
	writeEntry(&b, "TRAILER!!!", 0, nil)
	const want = "070701" + "00000000" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "init\x00\x00" + "12345\x00\x00\x00"
	if got := b.String(); !strings.HasPrefix(got, want) || len(got)%4 != 0 {
		t.Errorf("%q", got)
	}
}
