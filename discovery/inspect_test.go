// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// attributes are a resource as a map, without what differs from machine to machine.
func attributes(t *testing.T, target *Target) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, kv := range target.Resource {
		if _, ok := m[string(kv.Key)]; ok {
			t.Errorf("%s is there twice", kv.Key)
		}
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}

func TestInspectReadsWhatProcSays(t *testing.T) {
	i, root := fixture(t, "shop.txtar")
	ignore := cmp.Options{
		cmpopts.IgnoreUnexported(Target{}),
		cmpopts.IgnoreFields(Target{}, "Target.Resource", "Target.Account"),
		cmpopts.EquateEmpty(),
	}
	pid := func(pid uint32, t Target) Target { t.PID = pid; return t }
	for _, want := range []Target{
		pid(10, Target{Start: 100, Parent: 1, Exe: root + "/files/usr/sbin/sshd", Args: []string{"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"},
			Language: CPP, Ports: []uint16{22}, Cgroup: "/system.slice/ssh.service", Service: "sshd"}),
		pid(12, Target{Start: 200, Parent: 1, Exe: root + "/files/usr/bin/python3.11", Args: []string{"/usr/bin/python3", "/usr/bin/gunicorn", "-w", "2", "stock.wsgi:app"},
			Language: Python, Version: "3.11", Ports: []uint16{8000}, Cgroup: "/docker/" + inner, ContainerID: inner, Service: "stock"}),
		pid(13, Target{Start: 210, Parent: 12, Exe: root + "/files/usr/bin/python3.11", Args: []string{"gunicorn: worker [stock.wsgi:app]"},
			Language: Python, Version: "3.11", Ports: []uint16{8000}, Cgroup: "/", Service: "stock"}),
		pid(14, Target{Start: 300, Parent: 1, Exe: root + "/files/usr/bin/node", Args: []string{"node", "/srv/gateway/server.js"},
			Language: Node, Version: "20.20.2", Ports: []uint16{8080, 8081}, Cgroup: "/user.slice/user-1000.slice/session-2.scope", Service: "gate_way", Gaps: []string{ioUringGap}}),
		pid(15, Target{Start: 400, Parent: 1, Exe: root + "/files/jdk/bin/java", Args: []string{"java", "-Ddb.password=hunter2", "-jar", "/srv/orders-1.2.jar"},
			Language: Java, Version: "17.0.15", Cgroup: "/", Service: "orders"}),
		pid(16, Target{Start: 400, Parent: 1, Exe: root + "/files/usr/share/dotnet/dotnet", Args: []string{"dotnet", "Shop.Billing.dll"},
			Language: DotNet, Version: "8.0.11", Cgroup: "/", Service: "Shop.Billing"}),
		pid(17, Target{Start: 500, Parent: 1, Exe: root + "/files/srv/vanished/orders", Args: []string{"evil"},
			Language: Ruby, Version: "3.1.7", Cgroup: "/", Service: "evil_[2J"}),
	} {
		got, err := i.Inspect(want.PID)
		if err != nil {
			t.Errorf("pid %d: %v", want.PID, err)
			continue
		}
		if diff := cmp.Diff(want, *got, ignore); diff != "" {
			t.Errorf("pid %d: (-want +got)\n%s", want.PID, diff)
		}
	}
	for pid, want := range map[uint32]error{2: ErrKernelThread, 3: ErrGone, 99: ErrGone} {
		if _, err := i.Inspect(pid); !errors.Is(err, want) {
			t.Errorf("pid %d: %v, want %v", pid, err, want)
		}
	}
}

func TestResourceFollowsTheConventions(t *testing.T) {
	i, root := fixture(t, "shop.txtar")
	target, err := i.Inspect(12)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"container.id":                inner,
		"deployment.environment.name": "prod",
		"host.name":                   "here",
		"process.executable.name":     "python3.11",
		"process.executable.path":     root + "/files/usr/bin/python3.11",
		"process.pid":                 "12",
		"process.runtime.name":        "cpython",
		"process.runtime.version":     "3.11",
		"service.instance.id":         "23efa1ad-6db4-5a80-94a0-ba107f70a036",
		"service.name":                "stock",
		"service.namespace":           "shop",
		"service.version":             "1,2",
		"telemetry.sdk.language":      "python",
		"telemetry.sdk.name":          "breadcrumb",
		"telemetry.sdk.version":       "1.2.3",
	}
	if diff := cmp.Diff(want, attributes(t, target)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if target.ServiceName() != target.Service {
		t.Errorf("the resource says %s", target.ServiceName())
	}
	for _, pid := range []uint32{12, 15} { // neither a variable nor an option may show
		target, err := i.Inspect(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range target.Resource {
			if strings.Contains(kv.Value.String(), "hunter2") {
				t.Errorf("%s shows a secret", kv.Key)
			}
		}
	}
}

func TestTheAgentsEnvironmentIsAddedToEveryResource(t *testing.T) {
	const attrs = "OTEL_RESOURCE_ATTRIBUTES=service.namespace=ours,team=blue,service.instance.id=agent"
	i, _ := fixture(t, "shop.txtar", attrs)
	target, err := i.Inspect(12)
	if err != nil {
		t.Fatal(err)
	}
	got := attributes(t, target)
	if got["service.namespace"] != "shop" || got["team"] != "blue" || got["service.instance.id"] == "agent" || got["service.name"] != "stock" {
		t.Errorf("%v", got)
	}
	i, _ = fixture(t, "shop.txtar", attrs, "OTEL_SERVICE_NAME=all")
	for _, pid := range []uint32{12, 14} {
		target, err := i.Inspect(pid)
		if err != nil {
			t.Fatal(err)
		}
		if got := attributes(t, target); got["service.name"] != "all" || target.Service != "all" {
			t.Errorf("%v", got)
		}
	}
}

func TestAttributesFromTheEnvironment(t *testing.T) {
	got := parseAttributes(" a = b , c=d%20e,f,=g,h=%zz,i=\x1b,j=")
	want := []keyValue{{"a", "b"}, {"c", "d e"}, {"h", "%zz"}, {"i", "_"}, {"j", ""}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(keyValue{})); diff != "" {
		t.Error(diff)
	}
	if got := parseAttributes(strings.Repeat("a=b,", 1000)); len(got) != maxAttributes {
		t.Errorf("%d attributes", len(got))
	}
}

func TestMissingRightsAreNamed(t *testing.T) {
	i, root := fixture(t, "shop.txtar")
	err := failed(root+"/12/exe", fs.ErrPermission)
	if os.Geteuid() != 0 && err.Error() != "cannot read "+root+"/12/exe: run as root or with CAP_SYS_PTRACE" {
		t.Error(err)
	}
	if !errors.As(err, new(*AccessError)) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%T", err)
	}
	target, err := i.identify(12)
	if err != nil {
		t.Fatal(err)
	}
	// What Inspect does when the link may not be read.
	target.Exe = ""
	if err := i.complete(target, descriptors{}, failed("fd", fs.ErrPermission), nil); err != nil {
		t.Fatal(err)
	}
	if target.Service != "stock" || target.Language != Python {
		t.Errorf("%s, %s", target.Service, target.Language)
	}
}

// installed is the path of a program, or empty. A version manager's stand-in does not count, but what it
// stands for does.
func installed(name string) string {
	home, _ := os.UserHomeDir()
	managed, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/*/bin", name))
	if len(managed) > 0 {
		return managed[0]
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return program
}

func TestRealProcesses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("stock.py", "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")
	write("gateway.js", "console.log('ready'); process.stdin.resume()\n")
	write("stock.rb", "puts 'ready'; $stdout.flush; $stdin.read\n")
	write("stock.php", "<?php echo \"ready\\n\"; stream_get_contents(STDIN);\n")
	write("Orders.java", "class Orders { public static void main(String[] a) throws Exception { System.out.println(\"ready\"); System.in.read(); } }\n")
	write("entry.sh", "echo ready; read x\n")
	i := newInspector(t)
	for _, tt := range []struct {
		program, version string // the version as a pattern
		args             []string
		language         Language
		service, runtime string
	}{
		{"/usr/bin/python3", `\d\.\d+(\.\d+)?`, []string{"stock.py"}, Python, "stock", "cpython"},
		{"python3.12", `3\.12\.\d+`, []string{"stock.py"}, Python, "stock", "cpython"},
		{"python3.9", `3\.9(\.\d+)?`, []string{"stock.py"}, Python, "stock", "cpython"},
		{"node", `\d+\.\d+\.\d+|`, []string{"gateway.js"}, Node, "gateway", "nodejs"},
		{"ruby", `\d\.\d+(\.\d+)?`, []string{"stock.rb"}, Ruby, "stock", "ruby"},
		{"php", `\d\.\d+`, []string{"stock.php"}, PHP, "stock", "php"},
		{"java", `\d+(\.\d+)*`, []string{"Orders.java"}, Java, "Orders", "OpenJDK Runtime Environment"},
		{"/bin/sh", ``, []string{"entry.sh"}, CPP, "entry", ""},
	} {
		program := installed(tt.program)
		if program == "" {
			t.Logf("%s is not installed", tt.program)
			continue
		}
		t.Run(filepath.Base(tt.program), func(t *testing.T) {
			cmd := exec.Command(program, tt.args...)
			cmd.Dir = dir
			c := run(t, cmd)
			got, err := i.Inspect(c.pid())
			if err != nil {
				t.Fatal(err)
			}
			if got.Language != tt.language || got.Service != tt.service || !regexp.MustCompile("^(?:"+tt.version+")$").MatchString(got.Version) {
				t.Errorf("%s: %s %q, service %s", got.Exe, got.Language, got.Version, got.Service)
			}
			t.Logf("%s is %s %s", got.Exe, got.Language, got.Version)
			if name := attributes(t, got)["process.runtime.name"]; name != tt.runtime {
				t.Errorf("runtime %s", name)
			}
			if len(got.Gaps) != 0 {
				t.Errorf("gaps %q", got.Gaps)
			}
		})
	}
}

func TestGoProcessIsReadFromItsBuildInfo(t *testing.T) {
	i := newInspector(t)
	c := runHelper(t, "OTEL_SERVICE_NAME=helper", "OTEL_RESOURCE_ATTRIBUTES=service.version=7")
	got, err := i.Inspect(c.pid())
	if err != nil {
		t.Fatal(err)
	}
	if got.Language != Go || got.Version != goVersion(runtime.Version()) || got.Service != "helper" || got.Exe != executablePath(t) || len(got.Ports) != 0 {
		t.Errorf("%+v", got)
	}
	if got.Parent != uint32(os.Getpid()) || got.Start == 0 || got.Start > ticks() {
		t.Errorf("parent %d, start %d", got.Parent, got.Start)
	}
	if attrs := attributes(t, got); attrs["service.version"] != "7" || attrs["process.runtime.name"] != "go" {
		t.Errorf("%v", attrs)
	}

	// A deployment replaces the file while the process runs.
	file := filepath.Join(t.TempDir(), "orders")
	data, err := os.ReadFile(executablePath(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), helperVar+"=1")
	c = run(t, cmd)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	got, err = i.Inspect(c.pid())
	if err != nil {
		t.Fatal(err)
	}
	if got.Language != Go || got.Exe != file || got.Service != "orders" {
		t.Errorf("%s %s %s", got.Language, got.Exe, got.Service)
	}
}

func TestListeningPortsAndRingsAreSeen(t *testing.T) {
	i := newInspector(t)
	c := runHelper(t)
	ports := []uint16{uint16(c.number(t, "listen 127.0.0.1:0")), uint16(c.number(t, "listen 127.0.0.1:0"))}
	if c6, err := os.Stat("/proc/self/net/tcp6"); err == nil && c6 != nil {
		ports = append(ports, uint16(c.number(t, "listen [::]:0")))
	}
	slices.Sort(ports)
	for _, inspect := range []func() (*Target, error){
		func() (*Target, error) { return i.Inspect(c.pid()) },
		func() (*Target, error) { return i.inspect(c.pid(), make(networks)) },
	} {
		got, err := inspect()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Ports, ports) || len(got.Gaps) != 0 {
			t.Errorf("ports %v, want %v; gaps %q", got.Ports, ports, got.Gaps)
		}
	}
	if c.do(t, "io_uring") != "true" {
		t.Skip("the kernel has no io_uring, or refuses it")
	}
	if got, err := i.Inspect(c.pid()); err != nil || !slices.Contains(got.Gaps, ioUringGap) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestListenersAreReadNoFurtherThanTheyGo(t *testing.T) {
	l := make(listeners)
	parseListeners(strings.NewReader(`heading
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1
   x: zz 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1
   2: 0100007F:D2F0 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 14 1
   3: 00000000:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15 1
`), l)
	if diff := cmp.Diff(listeners{11: 8080, 13: 80}, l); diff != "" {
		t.Error(diff)
	}
}

func TestFilesAreOnlyOpenedInsideTheProcesssRoot(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"root", "outside"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	file("outside/secret", "secret")
	file("root/release", "inside")
	link("../outside/secret", "root/up")
	link(filepath.Join(dir, "outside/secret"), "root/absolute")
	link("/release", "root/link")
	if err := os.Mkdir(filepath.Join(dir, "root/directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/release": "inside", "/link": "inside", "/../release": "inside",
		"/up": "", "/absolute": "", "/../outside/secret": "", "/directory": "", "/none": "",
	} {
		if got := string(readIn(dir, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	i := newInspector(b)
	for _, tt := range []struct {
		name string
		cmd  *exec.Cmd
	}{
		{"python", exec.Command("/usr/bin/python3", "-c", "import sys\nprint(1, flush=True)\nsys.stdin.read()")},
		{"cat", exec.Command("/bin/sh", "-c", "echo; read x")},
		{"go", func() *exec.Cmd {
			cmd := exec.Command(executablePath(b))
			cmd.Env = append(os.Environ(), helperVar+"=1")
			return cmd
		}()},
	} {
		b.Run(tt.name, func(b *testing.B) {
			if _, err := exec.LookPath(tt.cmd.Path); err != nil {
				b.Skip(err)
			}
			c := run(b, tt.cmd)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i.Inspect(c.pid()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExamine is what a file costs that was not seen before.
func BenchmarkExamine(b *testing.B) {
	for _, name := range []string{"/proc/self/exe", "/usr/bin/python3", "/usr/bin/node", "/bin/bash"} {
		b.Run(filepath.Base(name), func(b *testing.B) {
			f, err := os.Open(name)
			if err != nil {
				b.Skip(err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				examine(f, st.Size(), name)
			}
		})
	}
}
