// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files and the recording anew")

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"breadcrumb": main})
}

// tests runs the tests and then looks for goroutines that they left.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := t.M.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// TestCommands runs the commands as their users do; none of the scripts needs a right.
func TestCommands(t *testing.T) {
	golden, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GOLDEN", golden)
			return nil
		},
	})
}
