// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"breadcrumb/test/e2e/servers"
)

// The databases are part of the test and not traced, like what the other scenarios call.

// onPostgres has a program ask PostgreSQL.
func onPostgres(driver string, app func(testing.TB, servers.Options) *servers.Server) func(testing.TB, servers.Options) *servers.Server {
	return asking(driver, postgres, app)
}

// postgres is PostgreSQL when it answers: it listens before it does.
func postgres(t testing.TB, o servers.Options) *servers.Database {
	t.Helper()
	d := servers.PostgreSQL(t, o)
	d.Process.WaitFor(t, "answered", func() bool {
		return exec.Command("pg_isready", "--quiet", "--host", "127.0.0.1", "--port", strconv.Itoa(d.Port)).Run() == nil
	})
	return d
}

// onMariaDB has it ask MariaDB.
func onMariaDB(driver string, app func(testing.TB, servers.Options) *servers.Server) func(testing.TB, servers.Options) *servers.Server {
	return asking(driver, servers.MariaDB, app)
}

func asking(driver string, database func(testing.TB, servers.Options) *servers.Database, app func(testing.TB, servers.Options) *servers.Server) func(testing.TB, servers.Options) *servers.Server {
	return func(t testing.TB, o servers.Options) *servers.Server {
		t.Helper()
		o.Env = append([]string{"DRIVER=" + driver, "DATABASE=" + database(t, servers.Options{}).Addr}, o.Env...)
		return app(t, o)
	}
}

// sqlapp is a module of its own: the agent has nothing to do with what it asks with.
func sqlapp(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "sqlapp")
	build := exec.Command("go", "build", "-o", exe, ".")
	build.Dir = filepath.Join(servers.ModuleRoot(), "test/accuracy/testdata/sqlapp")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sqlapp: %v\n%s", err, out)
	}
	return listening(t, o, exe)
}

func sqlNode(t testing.TB, o servers.Options) *servers.Server {
	t.Helper()
	o.Env = append([]string{servers.NodePath()}, o.Env...)
	return listening(t, o, "node", unpack(t, "app_sql.js"))
}

func sqlPuma(t testing.TB, o servers.Options) *servers.Server { return runPuma(t, o, "app_sql.ru") }

func sqlPHP(t testing.TB, o servers.Options) *servers.Server { return runPHP(t, o, "app_sql.php") }
