// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
)

//go:embed testdata/*.c testdata/*.py testdata/*.js testdata/*.java testdata/*.ru testdata/*.rb testdata/*.php testdata/nginx.conf
var programs embed.FS

// Server is a server that runs and accepts connections.
type Server struct {
	// Network and Addr are as for net.Dial.
	Network, Addr string
	Port          int
	// PIDs are the processes that may answer, and the one that started them.
	PIDs []int
	// Process is the one that was started.
	Process *Process
	// Speaks is what it is to be asked in.
	Speaks Language
	// Behind is the server that a proxy forwards to.
	Behind *Server
}

// Language is a protocol of servers.
type Language uint8

const (
	OverHTTP1 Language = iota
	OverHTTP2          // HTTP/2 with prior knowledge
	OverGRPC
)

// Kind is a kind of server and what it can do beyond GET /item/<id>.
type Kind struct {
	Name string
	// Service is the service.name that its spans must have.
	Service string
	Start   func(t testing.TB, o Options) *Server
	Proxy   bool // it forwards to another server, which answers
	// Does lists which of the paths below it answers as all others do.
	Does Ability
}

// Ability is a set of paths that a server answers.
type Ability uint8

const (
	Upload    Ability = 1 << iota // POST /upload/<id>: the size of the body
	Chunked                       // GET /chunked/<n>/<id>: a body of n chunks
	Status                        // GET /status/<code>/<id>
	Sleep                         // GET /sleep/<ms>/<id>
	KeepAlive                     // more than one request on a connection

	all = Upload | Chunked | Status | Sleep | KeepAlive
)

// Kinds are all servers.
var Kinds = []Kind{
	{Name: "go", Service: "goserver", Start: Go, Does: all},
	{Name: "go-stripped", Service: "goserver", Start: GoStripped, Does: all},
	{Name: "go-proxy", Service: "goproxy", Start: GoProxy, Proxy: true, Does: all},
	{Name: "python", Service: "threading_server", Start: Python, Does: all},
	{Name: "gunicorn-sync", Service: "wsgi_app", Start: GunicornSync, Does: all &^ KeepAlive},
	{Name: "gunicorn-gthread", Service: "wsgi_app", Start: GunicornThreads, Does: all},
	{Name: "node", Service: "node_server", Start: Node, Does: all},
	{Name: "nginx", Service: "nginx", Start: Nginx, Does: KeepAlive},
	{Name: "nginx-proxy", Service: "nginx", Start: NginxProxy, Proxy: true, Does: all},
	{Name: "nginx-unix", Service: "nginx", Start: NginxUnix, Proxy: true, Does: all},
	{Name: "java", Service: "ItemServer", Start: Java, Does: all},
	{Name: "puma", Service: "rackshop", Start: Puma, Does: all},
	{Name: "webrick", Service: "webrick_server", Start: WEBrick, Does: all},
	{Name: "php", Service: "item_router", Start: PHP, Does: Upload | Chunked | Status | Sleep},
}

// Find returns the kind of that name.
func Find(t testing.TB, name string) Kind {
	t.Helper()
	for _, k := range Kinds {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("no server is called %s", name)
	return Kind{}
}

// unpack writes one of the embedded programs to a folder of the test.
func unpack(t testing.TB, name string) string {
	t.Helper()
	text, err := programs.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	buildMu  sync.Mutex
	buildDir string // made with the first build, removed by Clean
	built    = map[string]error{}
)

// once runs build for a key the first time that it is asked for, in the folder of that key.
func once(t testing.TB, key string, build func(dir string) error) string {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if buildDir == "" {
		dir, err := os.MkdirTemp("", "breadcrumb-e2e-")
		if err != nil {
			t.Fatal(err)
		}
		// Some tests run what is in it as another user.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		buildDir = dir
	}
	dir := filepath.Join(buildDir, key)
	err, done := built[key]
	if !done {
		if err = os.Mkdir(dir, 0o755); err == nil {
			err = build(dir)
		}
		built[key] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Clean removes what was built. TestMain calls it.
func Clean() {
	buildMu.Lock()
	defer buildMu.Unlock()
	os.RemoveAll(buildDir)
	buildDir, built = "", map[string]error{}
}

// ModuleRoot is the folder of the module's go.mod.
func ModuleRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Build compiles a program of this module or of one within it, given by its folder, once for all tests
// and returns the executable.
func Build(t testing.TB, folder string, flags ...string) string {
	t.Helper()
	name := filepath.Base(folder)
	key := strings.NewReplacer("/", "_", " ", "").Replace(folder + strings.Join(flags, ""))
	dir := once(t, key, func(dir string) error {
		args := append([]string{"build", "-C", folder, "-o", filepath.Join(dir, name)}, flags...)
		cmd := exec.Command("go", append(args, ".")...)
		cmd.Dir = ModuleRoot()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", folder, err, out)
		}
		return nil
	})
	return filepath.Join(dir, name)
}

// GoClient is the executable of a program that gets URLs by net/http.
func GoClient(t testing.TB) string { return Build(t, "test/e2e/servers/testdata/goclient") }

// Listening waits until the program accepts connections on a port of the loopback address.
func Listening(t testing.TB, p *Process, port int) *Server {
	t.Helper()
	s := ListeningAt(t, p, "tcp", Loopback(port))
	s.Port = port
	return s
}

// ListeningAt waits until a program listens at an address, as for net.Dial.
func ListeningAt(t testing.TB, p *Process, network, addr string) *Server {
	t.Helper()
	p.waitListening(t, network, addr)
	return &Server{Network: network, Addr: addr, Process: p, PIDs: append([]int{p.PID()}, Children(p.PID())...)}
}

// withPort adds PORT to the environment.
func (o Options) withPort(port int) Options {
	o.Env = append([]string{"PORT=" + strconv.Itoa(port)}, o.Env...)
	return o
}

// Go starts a net/http server.
func Go(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o, Build(t, "test/e2e/servers/testdata/goserver"), "-listen", Loopback(port)), port)
}

// GoStripped starts the same server without a symbol table and without DWARF.
func GoStripped(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	exe := Build(t, "test/e2e/servers/testdata/goserver", "-ldflags=-s -w")
	return Listening(t, Run(t, o, exe, "-listen", Loopback(port)), port)
}

// GoProxy starts an httputil.ReverseProxy before a Go server.
func GoProxy(t testing.TB, o Options) *Server {
	t.Helper()
	behind := Go(t, o)
	port := FreePort(t)
	exe := Build(t, "test/e2e/servers/testdata/goproxy")
	s := Listening(t, Run(t, o, exe, "-listen", Loopback(port), "-target", "http://"+behind.Addr), port)
	s.Behind = behind
	return s
}

// GoDual starts a net/http server on all addresses of both families.
func GoDual(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	exe := Build(t, "test/e2e/servers/testdata/goserver")
	return Listening(t, Run(t, o, exe, "-listen", "[::]:"+strconv.Itoa(port)), port)
}

// Syscalls starts a server that receives and sends by the system calls that it is told.
func Syscalls(t testing.TB, o Options, receive, send string) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o.withPort(port), "/usr/bin/python3", unpack(t, "syscall_server.py"), receive, send), port)
}

// compiled is the executable of a C program of testdata, compiled once for all tests.
func compiled(t testing.TB, name string) string {
	t.Helper()
	program := strings.TrimSuffix(name, ".c")
	dir := once(t, program, func(dir string) error {
		text, err := programs.ReadFile("testdata/" + name)
		if err != nil {
			return err
		}
		source := filepath.Join(dir, name)
		if err := os.WriteFile(source, text, 0o644); err != nil {
			return err
		}
		out, err := exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", filepath.Join(dir, program), source).CombinedOutput()
		if err != nil {
			return fmt.Errorf("compile %s: %w\n%s", name, err, out)
		}
		return nil
	})
	return filepath.Join(dir, program)
}

// URing starts a server that serves one port by io_uring, in a way that uring_server.c describes, and another
// by ordinary system calls.
func URing(t testing.TB, o Options, mode string) (ring, plain *Server) {
	t.Helper()
	port, plainPort := FreePort(t), FreePort(t)
	o.Env = append([]string{"PORT=" + strconv.Itoa(port), "PLAIN_PORT=" + strconv.Itoa(plainPort)}, o.Env...)
	p := Run(t, o, compiled(t, "uring_server.c"), mode)
	return Listening(t, p, port), Listening(t, p, plainPort)
}

// SpliceProxy starts a proxy before a Go server that splices what splice_proxy.c says for the mode.
func SpliceProxy(t testing.TB, o Options, mode string) *Server {
	t.Helper()
	behind := Go(t, o)
	port := FreePort(t)
	o.Env = append([]string{"PORT=" + strconv.Itoa(port), "TARGET=" + strconv.Itoa(behind.Port)}, o.Env...)
	s := Listening(t, Run(t, o, compiled(t, "splice_proxy.c"), mode), port)
	s.Behind = behind
	return s
}

// ExecClient is the path of a program that makes calls, and then becomes another program.
func ExecClient(t testing.TB) string { return unpack(t, "exec_client.py") }

// FDPassing starts a server whose first process accepts connections and hands them to another.
func FDPassing(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	p := Run(t, o.withPort(port), "/usr/bin/python3", unpack(t, "fd_passing_server.py"))
	p.waitChildren(t, 1)
	return Listening(t, p, port)
}

// Python starts http.server.ThreadingHTTPServer.
func Python(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o.withPort(port), "/usr/bin/python3", unpack(t, "threading_server.py")), port)
}

// PythonForking starts http.server with a process for each connection.
func PythonForking(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o.withPort(port), "/usr/bin/python3", unpack(t, "threading_server.py"), "--fork"), port)
}

// GunicornWorkers is how many worker processes a gunicorn has.
const GunicornWorkers = 2

func gunicorn(t testing.TB, o Options, bind string, args ...string) *Process {
	t.Helper()
	o.ByTerm = true
	app := unpack(t, "wsgi_app.py")
	args = append([]string{"--chdir", filepath.Dir(app), "--bind", bind, "--workers", strconv.Itoa(GunicornWorkers),
		"--worker-tmp-dir", t.TempDir(), "--log-level", "warning"}, args...)
	return Run(t, o, "/usr/bin/gunicorn", append(args, "wsgi_app:app")...)
}

func gunicornTCP(t testing.TB, o Options, args ...string) *Server {
	t.Helper()
	port := FreePort(t)
	p := gunicorn(t, o, Loopback(port), args...)
	p.waitChildren(t, GunicornWorkers)
	return Listening(t, p, port)
}

// GunicornSync starts gunicorn with workers that serve one connection at a time and close it.
func GunicornSync(t testing.TB, o Options) *Server {
	t.Helper()
	return gunicornTCP(t, o, "--worker-class", "sync")
}

// GunicornThreads starts gunicorn with workers that hand connections to a pool of threads.
func GunicornThreads(t testing.TB, o Options) *Server {
	t.Helper()
	return gunicornTCP(t, o, "--worker-class", "gthread", "--threads", "16", "--keep-alive", "30")
}

// GunicornSocket starts gunicorn on a Unix socket.
func GunicornSocket(t testing.TB, o Options) *Server {
	t.Helper()
	// The name of a test may be longer than the path of a socket can be.
	dir, err := os.MkdirTemp("", "breadcrumb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Network: "unix", Addr: filepath.Join(dir, "gunicorn.sock")}
	s.Process = gunicorn(t, o, "unix:"+s.Addr, "--worker-class", "sync")
	s.Process.waitChildren(t, GunicornWorkers)
	s.Process.waitListening(t, s.Network, s.Addr)
	s.PIDs = append([]int{s.Process.PID()}, Children(s.Process.PID())...)
	return s
}

// Node starts a node:http server.
func Node(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o.withPort(port), "node", unpack(t, "node_server.js")), port)
}

// nginxWorkers is as in nginx.conf.
const nginxWorkers = 2

// NginxHTTP2 starts an nginx that speaks HTTP/2 without TLS, and nothing else.
func NginxHTTP2(t testing.TB, o Options) *Server {
	t.Helper()
	return startNginx(t, o, "", true)
}

func nginx(t testing.TB, o Options, upstream string) *Server {
	t.Helper()
	return startNginx(t, o, upstream, false)
}

func startNginx(t testing.TB, o Options, upstream string, http2 bool) *Server {
	t.Helper()
	text, err := programs.ReadFile("testdata/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	port, dir := FreePort(t), t.TempDir()
	for name, size := range map[string]int{"item.txt": 24, "large.bin": 3 << 20} {
		path := filepath.Join(dir, "html", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("\n", size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "nginx.conf")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = template.Must(template.New("").Parse(string(text))).Execute(file, struct {
		Dir, Upstream string
		Port          int
		HTTP2         bool
	}{dir, upstream, port, http2})
	if err != nil {
		t.Fatal(err)
	}
	o.ByTerm = true
	p := Run(t, o, "nginx", "-p", dir, "-c", path, "-e", filepath.Join(dir, "error.log"))
	p.waitChildren(t, nginxWorkers)
	return Listening(t, p, port)
}

// Nginx starts nginx with static files, sent by sendfile.
func Nginx(t testing.TB, o Options) *Server {
	t.Helper()
	return nginx(t, o, "")
}

// NginxProxy starts nginx before a Node server, over TCP with connections that are kept.
func NginxProxy(t testing.TB, o Options) *Server {
	t.Helper()
	behind := Node(t, o)
	s := nginx(t, o, behind.Addr)
	s.Behind = behind
	return s
}

// NginxUnix starts nginx before a gunicorn, over a Unix socket.
func NginxUnix(t testing.TB, o Options) *Server {
	t.Helper()
	behind := GunicornSocket(t, o)
	s := nginx(t, o, "unix:"+behind.Addr)
	s.Behind = behind
	return s
}

// Java starts a jdk.httpserver with a pool of threads.
func Java(t testing.TB, o Options) *Server {
	t.Helper()
	classes := once(t, "java", func(dir string) error {
		text, err := programs.ReadFile("testdata/ItemServer.java")
		if err != nil {
			return err
		}
		source := filepath.Join(dir, "ItemServer.java")
		if err := os.WriteFile(source, text, 0o644); err != nil {
			return err
		}
		if out, err := exec.Command("javac", "-d", dir, source).CombinedOutput(); err != nil {
			return fmt.Errorf("compile ItemServer.java: %w\n%s", err, out)
		}
		return nil
	})
	port := FreePort(t)
	// Without nodelay each answer after the first waits for the client's delayed acknowledgement.
	return Listening(t, Run(t, o.withPort(port), "java", "-Xmx256m", "-Dsun.net.httpserver.nodelay=true",
		"-cp", classes, "ItemServer"), port)
}

// Puma starts a Rack application by puma, with threads.
func Puma(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	// Puma calls its process after its working directory.
	o.Dir = filepath.Join(t.TempDir(), "rackshop")
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return Listening(t, Run(t, o, "/usr/bin/puma", "--bind", "tcp://"+Loopback(port), "--threads", "8:8",
		"--quiet", "--environment", "production", "--config", "-", unpack(t, "config.ru")), port)
}

// WEBrick starts Ruby's own server: a thread for each connection.
func WEBrick(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o.withPort(port), "ruby", unpack(t, "webrick_server.rb")), port)
}

// PHP starts PHP's built-in server, which closes each connection after one answer.
func PHP(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o, "php", "-q", "-S", Loopback(port), unpack(t, "item_router.php")), port)
}
