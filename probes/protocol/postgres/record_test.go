// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The recordings in testdata are conversations of the clients in testdata/clients with a real server, and the statements that it has logged:
//
//	go test ./probes/protocol/postgres -run TestRecord -record asyncpg -args python3 -P testdata/clients/asyncpg.py
//
// The command finds the server by PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD.
var record = flag.String("record", "", "record what the command in the arguments says to a server, under this name")

// move is what was read at once.
type move struct {
	answer bool
	data   []byte
}

// talk is a conversation on one connection.
type talk struct {
	moves  []move
	logged []entry
}

// entry is what the server has logged of a statement.
type entry struct {
	text string
	code string // SQLSTATE; empty: it did not fail
}

// write puts conversations into a file: a line a move or an entry.
func write(name string, comment string, talks []*talk) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", comment)
	for _, t := range talks {
		b.WriteString("connection\n")
		for _, m := range t.moves {
			who := "C"
			if m.answer {
				who = "S"
			}
			fmt.Fprintf(&b, "%s %q\n", who, m.data)
		}
		for _, e := range t.logged {
			fmt.Fprintf(&b, "L %q %s\n", e.text, e.code)
		}
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// read is the opposite of write.
func read(name string) ([]*talk, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var talks []*talk
	for line := range strings.Lines(string(b)) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if kind == "#" {
			continue
		}
		if kind == "connection" {
			talks = append(talks, new(talk))
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w: %.40s", name, err, line)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		t := talks[len(talks)-1]
		if kind == "L" {
			t.logged = append(t.logged, entry{text, strings.TrimSpace(rest[len(quoted):])})
		} else {
			t.moves = append(t.moves, move{kind == "S", []byte(text)})
		}
	}
	return talks, nil
}

func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("makes recordings where it is asked to")
	}
	server := startServer(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{server: server.address, talks: map[int]*talk{}}
	go p.serve(listener)
	cmd := exec.CommandContext(t.Context(), flag.Args()[0], flag.Args()[1:]...)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+port, "PGUSER=app", "PGDATABASE=shop", "PGPASSWORD=pa55word-planted")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	listener.Close()
	p.all.Wait()
	server.stop(t)
	for port, list := range server.logged(t) {
		if talk := p.talks[port]; talk != nil {
			talk.logged = list
		}
	}
	var talks []*talk
	for _, port := range p.order {
		talks = append(talks, p.talks[port])
	}
	if err := write(filepath.Join("testdata", *record+".talk"), strings.ReplaceAll(strings.Join(flag.Args(), " "), "\n", " "), talks); err != nil {
		t.Fatal(err)
	}
}

// proxy passes on what is said, and keeps it.
type proxy struct {
	server string
	all    sync.WaitGroup
	mu     sync.Mutex
	talks  map[int]*talk // by the port of its connection to the server
	order  []int
}

func (p *proxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			client.Close()
			continue
		}
		k := new(talk)
		port := server.LocalAddr().(*net.TCPAddr).Port
		p.mu.Lock()
		p.talks[port] = k
		p.order = append(p.order, port)
		p.mu.Unlock()
		var both sync.WaitGroup
		for _, way := range []struct {
			from, to net.Conn
			answer   bool
		}{{client, server, false}, {server, client, true}} {
			p.all.Add(1)
			both.Go(func() {
				defer p.all.Done()
				buf := make([]byte, 64<<10)
				for {
					n, err := way.from.Read(buf)
					if n > 0 {
						p.mu.Lock()
						k.moves = append(k.moves, move{way.answer, bytes.Clone(buf[:n])})
						p.mu.Unlock()
						if _, err := way.to.Write(buf[:n]); err != nil {
							return
						}
					}
					if err != nil {
						_ = way.to.(*net.TCPConn).CloseWrite()
						return
					}
				}
			})
		}
		go func() {
			both.Wait()
			client.Close()
			server.Close()
		}()
	}
}

// server is PostgreSQL's, run as an ordinary user.
type server struct {
	address, dir string
	cmd          *exec.Cmd
	done         chan error
}

func startServer(t *testing.T) *server {
	t.Helper()
	programs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(programs) == 0 {
		t.Fatal("there is no PostgreSQL in /usr/lib/postgresql: install postgresql")
	}
	bin := filepath.Dir(programs[len(programs)-1])
	dir, err := os.MkdirTemp("/tmp", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 { // which the server refuses
		who, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: l.Addr().String(), dir: dir, done: make(chan error, 1)}
	l.Close()
	_, port, _ := net.SplitHostPort(s.address)
	data := filepath.Join(dir, "data")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
		cmd.SysProcAttr, cmd.Dir = attr, dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("initdb", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-h", "127.0.0.1", "-p", port, "-F",
		"-c", "logging_collector=on", "-c", "log_destination=jsonlog", "-c", "log_directory="+dir, "-c", "log_filename=log",
		"-c", "log_statement=all", "-c", "shared_buffers=16MB", "-c", "max_connections=50", "-c", "max_prepared_transactions=4")
	s.cmd.SysProcAttr, s.cmd.Dir = attr, dir
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() { s.stop(t) })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_isready"), "-h", dir, "-p", port)
		if cmd.Run() == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not come up")
		}
	}
	run("psql", "-h", dir, "-p", port, "-U", "postgres", "-q", "-c", "CREATE ROLE app LOGIN PASSWORD 'pa55word-planted'",
		"-c", "CREATE DATABASE shop OWNER app")
	return s
}

func (s *server) stop(t *testing.T) {
	if s.done == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGINT) // "fast": connections are ended
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		t.Error("the server does not go down")
	}
	s.done = nil
}

// logged reads what the server has logged of each connection, by the client's port.
func (s *server) logged(t *testing.T) map[int][]entry {
	f, err := os.Open(filepath.Join(s.dir, "log.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := map[int][]entry{}
	for d := json.NewDecoder(f); ; {
		var line struct {
			Port      int    `json:"remote_port"`
			Severity  string `json:"error_severity"`
			State     string `json:"state_code"`
			Message   string `json:"message"`
			Statement string `json:"statement"`
		}
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		at := list[line.Port]
		kind, text, _ := strings.Cut(line.Message, ": ")
		switch {
		case line.Severity == "LOG" && (kind == "statement" || strings.HasPrefix(kind, "execute ")):
			list[line.Port] = append(at, entry{text: text})
		case line.Severity == "LOG" && kind == "fastpath function call":
			list[line.Port] = append(at, entry{text: callName})
		case line.Severity != "ERROR" && line.Severity != "FATAL":
		case len(at) > 0 && at[len(at)-1].code == "" && (at[len(at)-1].text == line.Statement || line.Statement == ""):
			at[len(at)-1].code = line.State // without its text: as it was committed
		case line.Statement == "": // while the connection was made
		default: // it was not logged before, as it could not be read
			list[line.Port] = append(at, entry{line.Statement, line.State})
		}
	}
}
