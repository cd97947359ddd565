// SPDX-License-Identifier: Apache-2.0

// Package tree prints traces for a person at a terminal, each as a tree with what matters of its spans.
// Spans that are exported together are shown together; a piece that comes later, or whose parent is on
// another machine, is a tree of its own that says which trace it continues.
//
// Nobody reads hundreds of trees a second: beyond a limit they are counted instead, and the count printed.
package tree

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"
)

// Config says what the output can show.
type Config struct {
	Width func() int // columns; nil or a result of 0: as many as are needed
	Color bool
	ASCII bool // nothing but printable ASCII, and colours if Color is set
	// TreesPerSecond is how many trees are printed of those that ended in the same second.
	TreesPerSecond int
}

// Default suits a file or a pipe.
func Default() Config { return Config{ASCII: true, TreesPerSecond: 20} }

// Detect is Default, or what suits the terminal if f is one. NO_COLOR, CLICOLOR_FORCE, TERM=dumb and a
// locale that is not UTF-8 are respected.
// https://no-color.org https://bixense.com/clicolors/
func Detect(f *os.File, getenv func(string) string) Config {
	c := Default()
	if fd := int(f.Fd()); term.IsTerminal(fd) {
		c.Color = getenv("TERM") != "dumb"
		c.ASCII = getenv("TERM") == "dumb" || !utf8Locale(getenv)
		c.Width = func() int {
			width, _, _ := term.GetSize(fd)
			return width
		}
	}
	if force := getenv("CLICOLOR_FORCE"); force != "" && force != "0" {
		c.Color = true
	}
	if getenv("NO_COLOR") != "" {
		c.Color = false
	}
	return c
}

// utf8Locale is true when no locale is set at all: that is so in most containers, and of terminals those
// that are not UTF-8 are the exception.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

// noteAfter is how long a count of trees that were not shown waits for trees that are.
const noteAfter = time.Second

// Exporter is an export.Exporter that prints to an io.Writer, once per batch.
type Exporter struct {
	cfg Config
	w   io.Writer

	mu            sync.Mutex
	out           []byte
	err           error // of the writer; final
	second        int64 // what TreesPerSecond is counted in: Unix time of the spans, so that a replay shows as much
	shown         int   // trees in that second
	hidden        int   // trees since the last note
	note          *time.Timer
	printed, tall bool // there was a tree before; it had more than one row
	groups        [][]*span.Span
	index         map[trace.TraceID]int
}

// New makes an exporter.
func New(w io.Writer, cfg Config) *Exporter {
	return &Exporter{cfg: cfg, w: w, index: make(map[trace.TraceID]int)}
}

// Export prints the spans' traces. An error of the writer is final.
func (e *Exporter) Export(_ context.Context, batch []*span.Span) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	width := 0
	if e.cfg.Width != nil {
		width = e.cfg.Width()
	}
	for _, group := range e.byTrace(batch) {
		if !e.admit(group) {
			continue
		}
		e.print(group, width)
	}
	clear(e.index)
	return e.flush()
}

// Shutdown prints the last count.
func (e *Exporter) Shutdown(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.appendNote()
	return e.flush()
}

// byTrace splits a batch by trace, in the order in which the traces appear.
func (e *Exporter) byTrace(batch []*span.Span) [][]*span.Span {
	groups := e.groups[:0]
	for i, s := range batch {
		if i > 0 && s.TraceID == batch[i-1].TraceID {
			g := e.index[s.TraceID]
			groups[g] = append(groups[g], s)
			continue
		}
		g, ok := e.index[s.TraceID]
		if !ok {
			g = len(groups)
			e.index[s.TraceID] = g
			if g < cap(groups) {
				groups = groups[:g+1]
				groups[g] = groups[g][:0]
			} else {
				groups = append(groups, nil)
			}
		}
		groups[g] = append(groups[g], s)
	}
	e.groups = groups
	return groups
}

// admit says whether a tree is to be printed, and otherwise sees to it that it is counted.
func (e *Exporter) admit(group []*span.Span) bool {
	var end int64
	for _, s := range group {
		end = max(end, s.End)
	}
	if second := end / int64(time.Second); second > e.second {
		e.second, e.shown = second, 0
	}
	if e.shown < e.cfg.TreesPerSecond {
		e.shown++
		e.appendNote()
		return true
	}
	e.hidden++
	if e.note == nil {
		e.note = time.AfterFunc(noteAfter, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.appendNote()
			_ = e.flush() // the next Export returns it
		})
	}
	return false
}

// appendNote says how many trees were not shown since it last did.
func (e *Exporter) appendNote() {
	if e.note != nil {
		e.note.Stop()
		e.note = nil
	}
	if e.hidden == 0 {
		return
	}
	s := "s"
	if e.hidden == 1 {
		s = ""
	}
	line := fmt.Sprintf("%s %s more trace%s not shown, but counted", e.dots(), thousands(e.hidden), s)
	e.out = append(e.paint(e.out, dim, line), '\n')
	e.hidden = 0
}

func (e *Exporter) flush() error {
	if e.err == nil && len(e.out) > 0 {
		_, e.err = e.w.Write(e.out)
	}
	e.out = e.out[:0]
	return e.err
}

// thousands is n in groups of three digits.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s %03d", thousands(n/1000), n%1000)
}

// node is a span in its tree.
type node struct {
	*span.Span
	children []*node
	seen     bool
}

// forest links the spans of one trace and is the list of those whose parent is not among them, in order
// of time. Every span is in it once, whatever ids they claim to have.
func forest(group []*span.Span) []*node {
	nodes := make([]node, len(group))
	byID := make(map[trace.SpanID]*node, len(group))
	for i, s := range group {
		nodes[i].Span = s
		byID[s.ID] = &nodes[i]
	}
	var roots []*node
	for i := range nodes {
		n := &nodes[i]
		if parent := byID[n.Parent]; parent != nil && n.Parent.IsValid() {
			parent.children = append(parent.children, n)
		} else {
			roots = append(roots, n)
		}
	}
	early := func(a, b *node) int {
		if a.Start != b.Start {
			return int(min(max(a.Start-b.Start, -1), 1))
		}
		return 0
	}
	for i := range nodes {
		slices.SortStableFunc(nodes[i].children, early)
	}
	slices.SortStableFunc(roots, early)
	for _, root := range roots {
		mark(root)
	}
	for i := range nodes { // parents in a ring: cut it anywhere
		if n := &nodes[i]; !n.seen {
			mark(n)
			roots = append(roots, n)
		}
	}
	return roots
}

// mark walks a tree and drops the children that lead back into what was walked before.
func mark(n *node) {
	n.seen = true
	n.children = slices.DeleteFunc(n.children, func(c *node) bool {
		if c.seen {
			return true
		}
		mark(c)
		return false
	})
}
