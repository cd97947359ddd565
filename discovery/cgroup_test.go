// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"strings"
	"testing"

	"github.com/prometheus/procfs"
)

const (
	outer = "1111111111111111111111111111111111111111111111111111111111111111"
	inner = "5fbdf4b5d4e5c9aa7e7f3ad5c5c4f6f1b1e3f2f6d1f5d1a9f8e7d6c5b4a39281"
)

func TestContainerIDIsFoundForEachRuntimeAndDriver(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"Docker, cgroupfs", "/docker/" + inner, inner},
		{"Docker, systemd", "/system.slice/docker-" + inner + ".scope", inner},
		{"Docker, rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + inner + ".scope", inner},
		{"Docker, systemd inside", "/system.slice/docker-" + inner + ".scope/init.scope", inner},
		{"Docker, seen from a cgroup namespace", "/../../docker/" + inner, inner},
		{"Docker with a parent", "/acme/batch/" + inner, inner},
		{"Kubernetes, containerd, cgroupfs", "/kubepods/burstable/pod2d4f7c1e-93c5-4b4d-8e26-5d4a2d0fae3b/" + inner, inner},
		{"Kubernetes, containerd, cgroupfs, guaranteed", "/kubepods/pod2d4f7c1e-93c5-4b4d-8e26-5d4a2d0fae3b/" + inner, inner},
		{"Kubernetes, containerd, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2d4f7c1e_93c5_4b4d_8e26_5d4a2d0fae3b.slice/cri-containerd-" + inner + ".scope", inner},
		{"Kubernetes, containerd, mixed drivers", "/system.slice/containerd.service/kubepods-besteffort-pod2d4f7c1e.slice:cri-containerd:" + inner, inner},
		{"Kubernetes, CRI-O, systemd", "/kubepods.slice/kubepods-pod2d4f7c1e.slice/crio-" + inner + ".scope", inner},
		{"Kubernetes, CRI-O, cgroupfs", "/kubepods/besteffort/pod2d4f7c1e/crio-" + inner, inner},
		{"Kubernetes, CRI-O, with a child", "/kubepods.slice/kubepods-pod2d4f7c1e.slice/crio-" + inner + ".scope/container", inner},
		{"Kubernetes, Docker, systemd", "/kubepods.slice/kubepods-pod2d4f7c1e.slice/docker-" + inner + ".scope", inner},
		{"Kubernetes in Docker", "/docker/" + outer + "/kubelet/kubepods/burstable/pod2d4f7c1e/" + inner, inner},
		{"Kubernetes in Docker, systemd", "/system.slice/docker-" + outer + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod2d4f7c1e.slice/cri-containerd-" + inner + ".scope", inner},
		{"a service in a container", "/docker/" + outer + "/system.slice/nginx.service", outer},
		{"Podman, systemd", "/machine.slice/libpod-" + inner + ".scope", inner},
		{"Podman, cgroup2", "/machine.slice/libpod-" + inner + ".scope/container", inner},
		{"Podman, rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + inner + ".scope/container", inner},
		{"Podman, cgroupfs", "/libpod_parent/libpod-" + inner, inner},
		{"Podman, split", "/system.slice/shop.service/libpod-payload-" + inner, inner},
		{"nerdctl, systemd", "/system.slice/nerdctl-" + inner + ".scope", inner},
		{"nerdctl, cgroupfs", "/default/" + inner, inner},
		{"ECS", "/ecs/0123456789abcdef0123456789abcdef/" + inner, inner},

		{"Podman's monitor is not in the container", "/machine.slice/libpod-conmon-" + inner + ".scope", ""},
		{"CRI-O's monitor is not in the container", "/kubepods.slice/crio-conmon-" + inner + ".scope", ""},
		{"the root", "/", ""},
		{"nothing", "", ""},
		{"a service", "/system.slice/nginx.service", ""},
		{"a session", "/user.slice/user-1000.slice/session-2.scope", ""},
		{"a pod without a container", "/kubepods/burstable/pod2d4f7c1e-93c5-4b4d-8e26-5d4a2d0fae3b", ""},
		{"too short", "/docker/" + inner[:32], ""},
		{"too long", "/docker/" + inner + "0", ""},
		{"capitals", "/docker/" + strings.ToUpper(inner), ""},
		{"an unknown prefix", "/system.slice/other-" + inner + ".scope", ""},
	} {
		if got := containerID(tt.path); got != tt.want {
			t.Errorf("%s: %s: got %q, want %q", tt.name, tt.path, got, tt.want)
		}
	}
}

func TestTheCgroupThatSaysMostIsChosen(t *testing.T) {
	v1 := func(id int, controller, path string) procfs.Cgroup {
		return procfs.Cgroup{HierarchyID: id, Controllers: []string{controller}, Path: path}
	}
	v2 := func(path string) procfs.Cgroup { return procfs.Cgroup{Path: path} }
	for _, tt := range []struct {
		name     string
		groups   []procfs.Cgroup
		path, id string
	}{
		{"cgroup2", []procfs.Cgroup{v2("/system.slice/shop.service")}, "/system.slice/shop.service", ""},
		{"cgroup2, the root", []procfs.Cgroup{v2("/")}, "/", ""},
		{"cgroup1", []procfs.Cgroup{v1(3, "cpuset", "/"), v1(2, "name=systemd", "/system.slice/shop.service"), v1(1, "cpu", "/x")}, "/system.slice/shop.service", ""},
		{"hybrid", []procfs.Cgroup{v1(1, "memory", "/shop"), v2("/system.slice/shop.service")}, "/system.slice/shop.service", ""},
		{"hybrid, cgroup2 says nothing", []procfs.Cgroup{v1(1, "memory", "/shop"), v2("/")}, "/shop", ""},
		{"hybrid, cgroup2 names the runtime", []procfs.Cgroup{v1(1, "memory", "/docker/"+inner), v2("/system.slice/docker.service")}, "/docker/" + inner, inner},
		{"none", nil, "", ""},
	} {
		if path, id := chooseCgroup(tt.groups); path != tt.path || id != tt.id {
			t.Errorf("%s: got %q, %q; want %q, %q", tt.name, path, id, tt.path, tt.id)
		}
	}
}

func FuzzContainerID(f *testing.F) {
	f.Add("/docker/" + inner)
	f.Add("/system.slice/x.slice:cri-containerd:" + inner)
	f.Add("//libpod-.scope/" + inner + ".scope")
	f.Fuzz(func(t *testing.T, path string) {
		if id := containerID(path); id != "" && (len(id) != containerIDLen || !strings.Contains(path, id)) {
			t.Errorf("id %q of %q", id, path)
		}
	})
}
