// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"
)

var (
	pgxKind = kind{name: "pgx", title: "Go with pgx", needs: postgres, path: "/", spans: 2,
		parts: []string{throughput, programRuns}, start: (*bench).startSQL}
	pgbenchKind = kind{name: "pgbench", title: "PostgreSQL", needs: postgres,
		parts: []string{throughput, programRuns}, start: (*bench).startPgbench}
)

// postgres is where Debian has it: not in a folder of PATH.
const postgres = "/usr/lib/postgresql/*/bin/postgres"

// nobody is whom databases run as, which they refuse to do as root.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// program is a program of the newest PostgreSQL.
func program(name string) string {
	list, _ := filepath.Glob(filepath.Join(filepath.Dir(postgres), name))
	if len(list) == 0 {
		return name
	}
	return slices.MaxFunc(list, func(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) })
}

// startPostgres starts a database with pgbench's tables.
func (b *bench) startPostgres(cpus []int) (p *process, addr string, err error) {
	if addr, err = freeAddr(); err != nil {
		return nil, "", err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp(b.dir, "postgres-")
	if err == nil {
		err = os.Chown(dir, int(nobody.Uid), int(nobody.Gid))
	}
	if err != nil {
		return nil, "", fmt.Errorf("start PostgreSQL: %w", err)
	}
	data := filepath.Join(dir, "data")
	run := func(name string, args ...string) error {
		p, err := b.start(launch{as: nobody}, program(name), args...)
		if err != nil {
			return err
		}
		return p.wait(b.ctx, 2*patience)
	}
	if err := run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"); err != nil {
		return nil, "", err
	}
	p, err = b.start(launch{cpus: cpus, as: nobody, byTerm: true}, program("postgres"), "-D", data, "-h", host, "-p", port, "-k", "",
		"-c", "fsync=off", "-c", "shared_buffers=64MB", "-c", "autovacuum=off")
	if err != nil {
		return nil, "", err
	}
	// It listens before it answers.
	err = p.until(b.ctx, "answered", func() bool { return run("pg_isready", "-q", "-h", host, "-p", port) == nil })
	if err != nil {
		return nil, "", err
	}
	return p, addr, run("pgbench", "-i", "-q", "-h", host, "-p", port, "-U", "postgres", "postgres")
}

// startSQL starts a server that asks a database, which is not traced.
func (b *bench) startSQL(cpus []int) (*server, error) {
	database, addr, err := b.startPostgres(nil)
	if err != nil {
		return nil, err
	}
	s, err := b.startServer(cpus, []string{"DATABASE=postgres://postgres@" + addr + "/postgres?sslmode=disable"}, b.sql)
	if err == nil {
		s.behind = []int{database.pid()}
		// What is prepared on a connection that an agent has not seen from its beginning has no text, and costs less than it should.
		s.renew = func() error { return s.process.cmd.Process.Signal(syscall.SIGHUP) }
	}
	return s, err
}

// startPgbench starts a database that is traced.
func (b *bench) startPgbench(cpus []int) (*server, error) {
	p, addr, err := b.startPostgres(cpus)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr, pids: []int{p.pid()}, forks: true}
	s.saturate = func(cpus []int, d time.Duration) (loadResult, error) { return b.saturatePgbench(s, cpus, d) }
	s.total = func() (int64, error) { return s.asked, nil }
	return s, nil
}

// selectOnly is what pgbench -S executes. As a script of its own it has pgbench ask nothing besides.
const selectOnly = `\set aid random(1, 100000)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
`

// saturatePgbench has pgbench make statements, as many as it can with one thread. It waits for the answer to each.
func (b *bench) saturatePgbench(s *server, cpus []int, d time.Duration) (loadResult, error) {
	script := filepath.Join(b.dir, "select.sql")
	if err := os.WriteFile(script, []byte(selectOnly), 0o644); err != nil {
		return loadResult{}, fmt.Errorf("write %s: %w", script, err)
	}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return loadResult{}, err
	}
	var out bytes.Buffer
	p, err := b.start(launch{cpus: cpus, stdout: &out}, program("pgbench"), "-n", "-f", script, "-c", strconv.Itoa(saturationConns), "-j", "1",
		"-T", strconv.Itoa(int(d.Round(time.Second)/time.Second)), "-h", host, "-p", port, "-U", "postgres", "postgres")
	if err != nil {
		return loadResult{}, err
	}
	if err := p.wait(b.ctx, d+patience); err != nil {
		return loadResult{}, err
	}
	res, err := parsePgbench(out.Bytes())
	res.CPU = p.usedCPU()
	s.asked += res.Requests
	return res, err
}

var (
	pgbenchDone   = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	pgbenchFailed = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	pgbenchRate   = regexp.MustCompile(`(?m)^tps = ([\d.]+)`)
)

// parsePgbench reads what pgbench prints.
func parsePgbench(out []byte) (loadResult, error) {
	res := loadResult{Tool: "pgbench"}
	done, rate := pgbenchDone.FindSubmatch(out), pgbenchRate.FindSubmatch(out)
	if done == nil || rate == nil {
		return res, fmt.Errorf("read what pgbench prints: %q", out)
	}
	res.Requests, _ = strconv.ParseInt(string(done[1]), 10, 64)
	res.PerSecond, _ = strconv.ParseFloat(string(rate[1]), 64)
	if res.PerSecond > 0 {
		res.Seconds = float64(res.Requests) / res.PerSecond
	}
	if failed := pgbenchFailed.FindSubmatch(out); failed != nil {
		res.Errors, _ = strconv.ParseInt(string(failed[1]), 10, 64)
	}
	return res, nil
}
