// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}}
	dirty := append(commit[:1:1], debug.BuildSetting{Key: "vcs.modified", Value: "true"})
	for _, tc := range []struct {
		name, want string
		info       *debug.BuildInfo
	}{
		{"without build info", "v1 go", nil},
		{"from a commit", "v1 (0123456789ab) go", &debug.BuildInfo{Settings: commit}},
		{"from a changed tree", "v1 (0123456789ab+changes) go", &debug.BuildInfo{Settings: dirty}},
	} {
		if got := describe("v1", tc.info); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q does not begin with %q", tc.name, got, tc.want)
		}
	}
}
