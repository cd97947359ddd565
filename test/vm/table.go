// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The generated part of a document is between these lines.
const (
	tableBegin = "<!-- make test-vm: begin -->"
	tableEnd   = "<!-- make test-vm: end -->"
)

// row is a line of the table: a kernel and an attachment, and a cell for each check.
type row struct {
	kernel, release, attachment string
	cells                       []string
}

// rows are a kernel's.
func (r results) rows(attachments []string) []row {
	var rows []row
	for _, a := range attachments {
		line := row{kernel: r.Kernel, release: r.Release, attachment: a}
		for _, c := range checks {
			cell := ""
			for _, one := range r.Checks {
				if one.Column == c.Column && (one.Attachment == "" || one.Attachment == a) {
					cell = map[string]string{passed: "yes", failed: "**no**", skipped: "–"}[one.State]
				}
			}
			line.cells = append(line.cells, cell)
		}
		rows = append(rows, line)
	}
	return rows
}

// markdown is the table.
func markdown(rows []row) string {
	var b strings.Builder
	header := []string{"kernel", "release", "attachment"}
	for _, c := range checks {
		header = append(header, c.Column)
	}
	write := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	write(header)
	write(slices.Repeat([]string{"---"}, len(header)))
	for _, r := range rows {
		write(append([]string{r.kernel, r.release, r.attachment}, r.cells...))
	}
	return b.String()
}

// parseRows reads the rows of a table that markdown made; one with other columns has none that count.
func parseRows(text string) []row {
	var rows []row
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 3+len(checks) || cells[0] == "---" {
			continue
		}
		if cells[0] == "kernel" {
			for i, c := range checks {
				if cells[3+i] != c.Column {
					return nil
				}
			}
			continue
		}
		rows = append(rows, row{cells[0], cells[1], cells[2], cells[3:]})
	}
	return rows
}

// merge replaces the rows of the kernels that were tried, and orders all as the table of kernels does.
func merge(old, tried []row) []row {
	names := map[string]bool{}
	for _, r := range tried {
		names[r.kernel] = true
	}
	merged := slices.DeleteFunc(slices.Clone(old), func(r row) bool { return names[r.kernel] })
	merged = append(merged, tried...)
	place := func(r row) int { return slices.IndexFunc(kernels, func(k kernel) bool { return k.Name == r.kernel }) }
	merged = slices.DeleteFunc(merged, func(r row) bool { return place(r) < 0 })
	slices.SortStableFunc(merged, func(a, b row) int { return place(a) - place(b) })
	return merged
}

// section is the generated part of a document, without its lines of begin and end.
func section(document string) (before, within, after string, err error) {
	before, rest, ok := strings.Cut(document, tableBegin+"\n")
	if ok {
		within, after, ok = strings.Cut(rest, tableEnd+"\n")
	}
	if !ok {
		return "", "", "", fmt.Errorf("the document lacks the line %s, or %s after it", tableBegin, tableEnd)
	}
	return before, within, after, nil
}

// update writes the rows of what was tried into the document.
func update(path string, tried []row) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, within, after, err := section(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	table := markdown(merge(parseRows(within), tried))
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+table+tableEnd+"\n"+after), 0o644)
}
