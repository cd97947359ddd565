// SPDX-License-Identifier: Apache-2.0

package inside

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"breadcrumb/internal/bpftest"
	"breadcrumb/test/e2e"
	"breadcrumb/test/vm/job"
)

// TestCheck holds what breadcrumb check says to what the kernel is known for: it chooses the first attachment that works,
// and names the others that do. The host keeps its text.
func TestCheck(t *testing.T) {
	out, err := exec.Command(e2e.Binary(t), "check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(job.Dir, "out", job.CheckFile), out, 0o644); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		for _, a := range e2e.Attachments {
			if rest, ok := strings.CutPrefix(line, a.Feature+" "); ok {
				said[a.Feature] = strings.TrimSpace(rest)
			}
		}
	}
	chosen := ""
	for _, a := range e2e.Attachments {
		works := strings.HasPrefix(said[a.Feature], "yes ")
		if works && chosen == "" {
			chosen = a.Feature
		}
		if !works && !strings.HasPrefix(said[a.Feature], "no ") || works != bpftest.Allowed(a.Name) {
			t.Errorf("of %s it says %q; it works here: %v", a.Feature, said[a.Feature], bpftest.Allowed(a.Name))
		}
	}
	if !strings.Contains(string(out), "\nTracing works, by "+chosen+".\n") {
		t.Errorf("it does not choose %s:\n%s", chosen, out)
	}
}
