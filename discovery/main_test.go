// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperVar makes the test binary a process for the tests to look at. It does one thing per line that it
// reads, answers each with a line, and ends at the end of its input.
const helperVar = "BREADCRUMB_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVar) != "" {
		helper()
		return
	}
	goleak.VerifyTestMain(m)
}

func helper() {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	var children []*child
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "listen":
			l, err := net.Listen("tcp", words[1])
			if err != nil {
				panic(err)
			}
			defer l.Close()
			fmt.Println(l.Addr().(*net.TCPAddr).Port)
		case "io_uring":
			params := make([]byte, 256)
			_, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, addressOf(params), 0)
			fmt.Println(errno == 0)
		case "fork": // a child that is another helper
			c, err := startChild(exec.Command(words[1]))
			if err != nil {
				panic(err)
			}
			children = append(children, c)
			fmt.Println(c.Process.Pid)
		case "exec":
			panic(syscall.Exec(words[1], words[1:], os.Environ()))
		}
	}
	for _, c := range children {
		c.end()
	}
}

// child is a helper, or any program that prints a line when it is ready and ends with its input.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd, in, bufio.NewReader(out)}
	_, err = c.out.ReadString('\n')
	return c, err
}

func (c *child) pid() uint32 { return uint32(c.Process.Pid) }

// do sends a line and returns the answer.
func (c *child) do(t testing.TB, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		t.Fatal(err)
	}
	answer, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

func (c *child) number(t testing.TB, line string) int {
	t.Helper()
	n, err := strconv.Atoi(c.do(t, line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *child) end() {
	c.in.Close()
	c.Wait()
}

// run starts a program that prints a line when it is ready, for as long as the test runs.
func run(t testing.TB, cmd *exec.Cmd) *child {
	t.Helper()
	c, err := startChild(cmd)
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	t.Cleanup(c.end)
	return c
}

// runHelper starts a helper.
func runHelper(t testing.TB, env ...string) *child {
	t.Helper()
	cmd := exec.Command(executablePath(t), "an argument")
	cmd.Env = append(append(os.Environ(), helperVar+"=1"), env...)
	return run(t, cmd)
}

func executablePath(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// newInspector is one for the processes of this machine.
func newInspector(t testing.TB) *Inspector {
	t.Helper()
	c := Default()
	c.Env, c.Version = nil, "1.2.3"
	c.Host = []attribute.KeyValue{attribute.String("host.name", "here")}
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// fixture makes of an archive in testdata a proc file system below a directory of the test. A file whose
// name ends in @ is a link. In cmdline and environ, lines stand for strings that end in NUL. $ROOT is
// where the archive lies: links to files that do not exist would show what is on the machine instead.
func fixture(t testing.TB, name string, env ...string) (i *Inspector, root string) {
	t.Helper()
	archive, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	files := strings.Split("\n"+string(archive), "\n-- ") // the form of txtar
	for _, f := range files[1:] {
		name, text, _ := strings.Cut(f+"\n", " --\n")
		file := filepath.Join(root, name)
		if text = strings.TrimRight(text, "\n"); text != "" {
			text += "\n"
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "$ROOT", root)
		if link, ok := strings.CutSuffix(file, "@"); ok {
			err = os.Symlink(strings.TrimSpace(text), link)
		} else {
			if base := filepath.Base(file); base == "cmdline" || base == "environ" {
				text = strings.ReplaceAll(text, "\n", "\x00")
			}
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	i, err = New(Config{Proc: root, Version: "1.2.3", Env: env, Host: []attribute.KeyValue{attribute.String("host.name", "here")}})
	if err != nil {
		t.Fatal(err)
	}
	return i, root
}
