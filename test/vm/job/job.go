// SPDX-License-Identifier: Apache-2.0

// Package job is what the host and the guest of a virtual machine tell each other, by files in folders that they
// share.
package job

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Where the guest has the shared folders: its plan and what comes of it, and what the host has built.
const (
	Dir   = "/job"
	Built = "/built"
)

// The tags of the shared folders; that of the root file system has no fixed place.
const (
	Tag      = "job"
	BuiltTag = "built"
	RootTag  = "root"
)

// Plan is what the guest is to do.
type Plan struct {
	// Root puts the host's root file system, and a layer in memory for what is written, below everything.
	Root bool
	// ModuleRoot is the path at which the tests look for the files of this module.
	ModuleRoot string
	Steps      []Step
}

// Step is a program to run.
type Step struct {
	Name    string
	Argv    []string
	Env     []string
	Seconds int // after which it is killed
}

// Outcome is what became of a step.
type Outcome struct {
	Exit    int // -1: it could not be started or was killed
	Seconds float64
	Error   string
}

// PlanFile is the plan in the shared folder.
func PlanFile(dir string) string { return filepath.Join(dir, "plan.json") }

// OutcomeFile appears when a step is over.
func OutcomeFile(dir string, step int) string {
	return filepath.Join(dir, "out", fmt.Sprintf("%02d.json", step))
}

// CheckFile is what breadcrumb check says, in the folder of the outcomes.
const CheckFile = "check.txt"

// LogFile is what a step writes.
func LogFile(dir string, step int) string {
	return filepath.Join(dir, "out", fmt.Sprintf("%02d.log", step))
}

// Program is the file, below the folder of what was built, of the program that go build would make of a folder with
// flags.
func Program(dir, folder string, flags []string) string {
	return filepath.Join(dir, "programs", strings.NewReplacer("/", "_", " ", "", "=", "").Replace(folder+strings.Join(flags, "")))
}

// Write writes v as JSON, in a file that appears as a whole.
func Write(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".part", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// Read reads what Write wrote.
func Read(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
