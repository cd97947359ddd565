// SPDX-License-Identifier: Apache-2.0

// Package version says which build this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is set by the linker: -ldflags "-X breadcrumb/internal/version.Version=v0.1.0".
var Version = "dev"

// String is the version with the commit it was built from, where the build knows it, and the toolchain.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return describe(Version, info)
}

func describe(version string, info *debug.BuildInfo) string {
	var revision, modified string
	if info != nil {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = "+changes"
			}
		}
	}
	if revision != "" {
		version += " (" + revision + modified + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
