// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"os"
	"path/filepath"
	"testing"
)

// The servers and clients of grpc.testing.TestService speak HTTP/2 without TLS. Any of the clients can call any of the
// servers; main.go of the Go client says which kinds of call there are.

// Cache is where .ci/deps puts packages of other ecosystems.
func Cache() string {
	dir, _ := os.UserCacheDir()
	return filepath.Join(dir, "breadcrumb")
}

// PythonPath is the variable by which Python finds packages of PyPI.
func PythonPath() string { return "PYTHONPATH=" + filepath.Join(Cache(), "python") }

// UvloopPath is PythonPath with an older uvloop before the newest.
func UvloopPath(version string) string {
	return "PYTHONPATH=" + filepath.Join(Cache(), "uvloop", version) + ":" + filepath.Join(Cache(), "python")
}

// NodePath is the variable by which Node finds packages of npm.
func NodePath() string { return "NODE_PATH=" + filepath.Join(Cache(), "node", "node_modules") }

// GRPC starts a grpc-go server.
func GRPC(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o, Build(t, "test/e2e/servers/testdata/grpcserver"), "-listen", Loopback(port)), port)
}

// H2C starts a server to which connections may be upgraded to HTTP/2.
func H2C(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	return Listening(t, Run(t, o, Build(t, "test/e2e/servers/testdata/h2cserver"), "-listen", Loopback(port)), port)
}

// GRPCPython starts a grpcio server, with a pool of threads or, if asyncio is the argument, on that.
func GRPCPython(t testing.TB, o Options, args ...string) *Server {
	t.Helper()
	port := FreePort(t)
	o.Env = append([]string{PythonPath()}, o.Env...)
	return Listening(t, Run(t, o.withPort(port), "/usr/bin/python3", append([]string{unpack(t, "grpc_server.py")}, args...)...), port)
}

// GRPCNode starts a server of @grpc/grpc-js.
func GRPCNode(t testing.TB, o Options) *Server {
	t.Helper()
	port := FreePort(t)
	o.Env = append([]string{NodePath()}, o.Env...)
	return Listening(t, Run(t, o.withPort(port), "node", unpack(t, "grpc_server.js")), port)
}

// GRPCClient is the executable of a program that makes calls with grpc-go.
func GRPCClient(t testing.TB) string { return Build(t, "test/e2e/servers/testdata/grpcclient") }

// GRPCClientPython is the path of a program that makes calls with grpcio. It needs PythonPath.
func GRPCClientPython(t testing.TB) string { return unpack(t, "grpc_client.py") }

// GRPCClientNode is the path of a program that makes calls with @grpc/grpc-js. It needs NodePath.
func GRPCClientNode(t testing.TB) string { return unpack(t, "grpc_client.js") }

// Etcd starts Debian's etcd.
func Etcd(t testing.TB, o Options) *Server {
	t.Helper()
	client, peer := FreePort(t), FreePort(t)
	mine, others := "http://"+Loopback(client), "http://"+Loopback(peer)
	return Listening(t, Run(t, o, "etcd", "--data-dir", t.TempDir(), "--listen-client-urls", mine, "--advertise-client-urls", mine,
		"--listen-peer-urls", others, "--initial-advertise-peer-urls", others, "--initial-cluster", "default="+others), client)
}
