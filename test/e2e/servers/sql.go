// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// owner is whom databases run as, which they refuse to do as root: a user, and a group, of every Debian that owns nothing.
var owner = &syscall.Credential{Uid: 65534, Gid: 65534}

// Secret is the password of the user alice of either database, and of no other.
const Secret = "hunter2-moonbeam"

// Database is a server of SQL that logs every statement.
type Database struct {
	*Server
	// Socket is the path of its Unix socket, Dir the folder of that.
	Socket, Dir string
	log         string
	read        func(log string) ([]Statement, error)
	// start starts it, and returns when it answers.
	start func()
	// fast is the signal that has it end though there are clients.
	fast syscall.Signal
}

// Restart ends the server in the middle of what it does, and starts it again.
func (d *Database) Restart(t testing.TB) {
	t.Helper()
	if err := d.Process.Cmd.Process.Signal(d.fast); err != nil {
		t.Fatal(err)
	}
	<-d.Process.Done()
	d.start()
}

// Statement is what a database says that it was asked.
type Statement struct {
	// Session is the process of PostgreSQL that answers, or the number of MariaDB's connection.
	Session int
	Text    string
	// Kind is how it was asked, in the log's words.
	Kind string
	// Failed says that it did; with the SQLSTATE in Code, if the log says that.
	Failed bool
	Code   string
}

// Statements ends the server and returns what it has logged.
func (d *Database) Statements(t testing.TB) []Statement {
	t.Helper()
	d.Process.Stop()
	list, err := d.read(d.log)
	if err != nil {
		t.Fatalf("read %s: %v", d.log, err)
	}
	return list
}

// Logged says whether the server has logged a text by now.
func (d *Database) Logged(t testing.TB, text string) bool { return d.times(t, text) > 0 }

// times is how often it has.
func (d *Database) times(t testing.TB, text string) int {
	t.Helper()
	log, err := os.ReadFile(d.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// copyOf is a copy of a folder of once, which the databases' owner owns.
func copyOf(t testing.TB, folder string) string {
	t.Helper()
	// The names of a test's own folders are too long for the path of a socket, and others may not look into them.
	dir, err := os.MkdirTemp("", "breadcrumb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", folder, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", folder, err, out)
	}
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asOwner runs a program that makes the folder "data" within dir.
func asOwner(dir, name string, args ...string) error {
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		return err
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// newest is the last of the files that a pattern matches.
func newest(t testing.TB, pattern, what string) string {
	t.Helper()
	list, _ := filepath.Glob(pattern)
	if len(list) == 0 {
		t.Fatalf("%s is needed for this test and not installed", what)
	}
	return slices.Max(list)
}

// hba has alice prove who she is, over TCP, and believes everyone else.
const hba = `local all all trust
host all alice 127.0.0.1/32 password
host all bob 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
`

// PostgreSQL starts Debian's PostgreSQL with the superuser postgres.
func PostgreSQL(t testing.TB, o Options) *Database {
	t.Helper()
	exe := newest(t, "/usr/lib/postgresql/*/bin/postgres", "postgres")
	made := once(t, "postgresql", func(dir string) error {
		err := asOwner(dir, filepath.Join(filepath.Dir(exe), "initdb"), "--pgdata", filepath.Join(dir, "data"), "--username", "postgres", "--auth", "trust",
			"--encoding", "UTF8", "--locale", "C", "--no-sync")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "data", "pg_hba.conf"), []byte(hba), 0o644)
	})
	dir, port := copyOf(t, filepath.Join(made, "data")), FreePort(t)
	args := []string{"-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-k", dir}
	for _, set := range []string{"listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=32MB", "log_statement=all", "log_destination=csvlog",
		"logging_collector=on", "log_directory=" + dir, "log_filename=log", "log_rotation_age=0", "log_rotation_size=0", "autovacuum=off"} {
		args = append(args, "-c", set)
	}
	o.As, o.ByTerm, o.Dir = owner, true, dir
	d := &Database{Dir: dir, Socket: filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port)), log: filepath.Join(dir, "log.csv"), read: readCSV, fast: syscall.SIGINT}
	starts := 0
	d.start = func() {
		p := Run(t, o, exe, args...)
		d.Server = Listening(t, p, port)
		d.PIDs = []int{p.PID()} // it has a process for each connection, which may be gone
		starts++
		p.WaitFor(t, "come up", func() bool { return d.times(t, "database system is ready to accept connections") == starts })
	}
	d.start()
	return d
}

// Columns of PostgreSQL's log (https://www.postgresql.org/docs/15/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-CSVLOG).
const (
	csvPID      = 3
	csvCommand  = 7
	csvSeverity = 11
	csvCode     = 12
	csvMessage  = 13
	csvQuery    = 19
)

// constraint is the class of codes of what violates one.
const constraint = "23"

// logged is the message of log_statement.
var logged = regexp.MustCompile(`(?s)^(statement|fastpath function call|execute (?:fetch from )?[^:]*): (.*)$`)

// readCSV reads PostgreSQL's log. What cannot be parsed is only in the error that it makes.
func readCSV(path string) (list []Statement, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	in := csv.NewReader(file)
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	if err != nil {
		return nil, err
	}
	latest := map[int]int{} // of each session, if it has not failed
	for _, row := range rows {
		pid, _ := strconv.Atoi(row[csvPID])
		switch severity := row[csvSeverity]; severity {
		case "LOG":
			if m := logged.FindStringSubmatch(row[csvMessage]); m != nil {
				latest[pid] = len(list)
				list = append(list, Statement{Session: pid, Kind: m[1], Text: m[2]})
			}
		case "ERROR", "FATAL", "PANIC":
			text, early := row[csvQuery], row[csvCommand] == "PARSE" || row[csvCommand] == "BIND"
			i, ok := latest[pid]
			if text == "" && (!ok || !strings.HasPrefix(row[csvCode], constraint)) {
				continue // it is not about a statement of which the text is known
			}
			// What fails before it is executed has not been logged. Of what fails as it is committed there is no text.
			if !ok || early || text != "" && list[i].Text != text {
				i = len(list)
				list = append(list, Statement{Session: pid, Kind: severity, Text: text})
			}
			list[i].Failed, list[i].Code = true, row[csvCode]
			delete(latest, pid)
		}
	}
	return list, nil
}

// MariaDB starts Debian's MariaDB with the user root, who needs no password.
func MariaDB(t testing.TB, o Options) *Database {
	t.Helper()
	made := once(t, "mariadb", func(dir string) error {
		return asOwner(dir, "mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
			"--datadir="+filepath.Join(dir, "data"), "--innodb-log-file-size=4M")
	})
	dir, port := copyOf(t, filepath.Join(made, "data")), FreePort(t)
	d := &Database{Dir: dir, Socket: filepath.Join(dir, "mariadb.sock"), log: filepath.Join(dir, "log"), read: readGeneral, fast: syscall.SIGTERM}
	o.As, o.ByTerm, o.Dir = owner, true, dir
	args := []string{"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--port=" + strconv.Itoa(port), "--bind-address=127.0.0.1",
		"--socket=" + d.Socket, "--pid-file=" + filepath.Join(dir, "pid"), "--general-log", "--general-log-file=" + d.log, "--local-infile",
		"--plugin-load-add=sql_errlog", "--sql-error-log-filename=" + d.log + ".errors", "--sql-error-log-with-db-and-thread-info",
		"--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--skip-name-resolve"}
	d.start = func() {
		p := Run(t, o, "mariadbd", args...)
		d.Server = Listening(t, p, port)
		p.WaitFor(t, "a socket", func() bool { _, err := os.Stat(d.Socket); return err == nil })
	}
	d.start()
	return d
}

// general is the beginning of an entry of MariaDB's general log.
var general = regexp.MustCompile(`^(?:\d{6} [ \d]\d:\d\d:\d\d|\t)\t *(\d+) ([A-Z][A-Za-z ]*)\t(.*)$`)

// failure is the beginning of an entry of what MariaDB's plugin SQL_ERROR_LOG writes, with the number of the error.
var failure = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d +\d+:\d\d:\d\d (\d+) .* ERROR (\d+): .* : (.*)$`)

// readGeneral reads MariaDB's log, in which a statement takes as many lines as it has, and the one of errors. It does not know which of
// several with the same text has failed.
func readGeneral(path string) (list []Statement, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	failures, err := os.ReadFile(path + ".errors")
	if err != nil {
		return nil, err
	}
	open := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch m := general.FindStringSubmatch(line); {
		case m != nil:
			id, _ := strconv.Atoi(m[1])
			list = append(list, Statement{Session: id, Kind: m[2], Text: m[3]})
			open = true
		case strings.HasSuffix(line, "started with:"): // and two lines of the same kind
			open = false
		case open:
			list[len(list)-1].Text += "\n" + line
		}
	}
	for _, m := range failure.FindAllStringSubmatch(string(failures), -1) {
		id, _ := strconv.Atoi(m[1])
		first := func(match func(text string) bool) int {
			return slices.IndexFunc(list, func(s Statement) bool { return s.Session == id && !s.Failed && match(s.Text) })
		}
		// Of several statements at once, the error comes with those that are left.
		i := first(func(text string) bool { return strings.HasSuffix(text, strings.TrimSpace(m[3])) })
		if i < 0 { // what a procedure does is not in the log
			i = first(func(text string) bool { return strings.HasPrefix(text, "CALL ") })
		}
		if i >= 0 {
			list[i].Failed, list[i].Code = true, m[2]
		}
	}
	return list, nil
}

// PgBouncer starts Debian's PgBouncer before a PostgreSQL, to which it has that many connections: whoever executes a transaction gets
// one of them.
func PgBouncer(t testing.TB, o Options, behind *Database, connections int) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "breadcrumb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := FreePort(t)
	// https://www.pgbouncer.org/config.html
	config := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
`, behind.Port, port, connections)
	path := filepath.Join(dir, "pgbouncer.ini")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte(config), 0o644)); err != nil {
		t.Fatal(err)
	}
	o.As, o.Dir = owner, dir
	s := Listening(t, Run(t, o, "pgbouncer", path), port)
	s.Behind = behind.Server
	return s
}
