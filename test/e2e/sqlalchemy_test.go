// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"breadcrumb/probes/protocol/sql"
	"breadcrumb/test/e2e/servers"
)

var suites = flag.Bool("suites", false, "run what takes minutes: SQLAlchemy's tests of databases")

// TestSQLAlchemy has SQLAlchemy's tests of databases ask, by drivers of C, of Python and C, and of Python alone.
func TestSQLAlchemy(t *testing.T) {
	if !*suites {
		t.Skip("it takes minutes: make test-suites")
	}
	for _, test := range []struct {
		driver string
		names  sql.Dialect
	}{{"postgresql+psycopg2", sql.PostgreSQL}, {"postgresql+psycopg", sql.PostgreSQL}, {"mariadb+pymysql", sql.MySQL}} {
		t.Run(test.driver, func(t *testing.T) {
			k := newTalk(t, test.names)
			k.trace()
			user := "root"
			if test.names == sql.PostgreSQL {
				user = "postgres"
				k.succeed("psql", "-X", "-c", "CREATE DATABASE suite", "-c", "\\c suite", "-c", "CREATE SCHEMA test_schema")
			} else {
				k.succeed("mariadb", append(k.mariadb("tcp"), "-e", "CREATE DATABASE suite; CREATE DATABASE test_schema")...)
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(servers.ModuleRoot(), "test/e2e/testdata/sqlalchemy"))); err != nil {
				t.Fatal(err)
			}
			// Some fail, as they are for what SQLAlchemy's own servers are set up with.
			p := servers.Run(t, servers.Options{Cgroup: k.cgroup, Env: append(k.env, servers.PythonPath()), Dir: dir}, "/usr/bin/python3",
				"-m", "pytest", "-q", "-p", "no:cacheprovider", "--dburi", test.driver+"://"+user+"@"+k.db.Addr+"/suite")
			<-p.Done()
			k.endSuite(9000)
		})
	}
}
