// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"strings"

	"github.com/prometheus/procfs"
)

// containerPatterns are the names that container runtimes give to a container's cgroup. The id stands
// between prefix and suffix. Of several containers around a process the innermost is its own, so a path
// is read from its end.
var containerPatterns = []struct{ prefix, suffix string }{
	{"", ""},                      // cgroupfs driver: /docker/ID, /kubepods/burstable/podUID/ID, /ecs/TASK/ID
	{"docker-", ".scope"},         // systemd driver of each runtime
	{"cri-dockerd-", ".scope"},    // Kubernetes over Docker
	{"cri-containerd-", ".scope"}, // containerd under Kubernetes
	{"containerd-", ".scope"},     // containerd
	{"nerdctl-", ".scope"},        // nerdctl
	{"crio-", ".scope"},           // CRI-O
	{"crio-", ""},                 // CRI-O, cgroupfs driver
	{"libpod-", ".scope"},         // Podman; with cgroup2 the process is in a child of it, /container
	{"libpod-", ""},               // Podman, cgroupfs driver
	{"libpod-payload-", ""},       // Podman, split cgroups
	{"buildah-", ".scope"},        // Buildah
}

const containerIDLen = 64

// containerID is the id of the container that a cgroup path belongs to, or empty.
func containerID(path string) string {
	for path != "" {
		i := strings.LastIndexByte(path, '/')
		if id := idOf(path[i+1:]); id != "" {
			return id
		}
		path = path[:max(i, 0)]
	}
	return ""
}

// idOf is the container id in one component of a cgroup path.
func idOf(name string) string {
	// PARENT:PREFIX:ID is what systemd-style paths become when the runtime's cgroupfs driver gets them.
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name = name[i+1:]
	}
	for _, p := range containerPatterns {
		id, ok := strings.CutPrefix(name, p.prefix)
		if !ok {
			continue
		}
		if id, ok = strings.CutSuffix(id, p.suffix); ok && isContainerID(id) {
			return id
		}
	}
	return ""
}

func isContainerID(s string) bool {
	if len(s) != containerIDLen {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// chooseCgroup picks of a process's places in all hierarchies the one that says most. On hybrid systems
// the cgroup2 path of a container is often that of its runtime's service, or "/".
func chooseCgroup(groups []procfs.Cgroup) (path, id string) {
	var v1, v2 string
	for _, g := range groups {
		if id := containerID(g.Path); id != "" {
			return g.Path, id
		}
		switch {
		case g.Path == "/" || g.Path == "":
		case g.HierarchyID == 0:
			v2 = g.Path
		case v1 == "":
			v1 = g.Path
		}
	}
	switch {
	case v2 != "":
		return v2, ""
	case v1 != "":
		return v1, ""
	case len(groups) > 0:
		return "/", ""
	}
	return "", ""
}
