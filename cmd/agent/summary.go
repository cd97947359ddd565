// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"breadcrumb/discovery"
	"breadcrumb/internal/ledger"

	"go.uber.org/zap"
)

// summaryRows bounds the table for people; the line for scripts has every process.
const summaryRows = 20

// summary prints what became of every message: a table for people, and a line of JSON for scripts.
func (a *agent) summary(w io.Writer) {
	tallies := a.table.Accounts()
	var total ledger.Counts
	for _, t := range tallies {
		total = total.Plus(t.Counts)
	}
	fmt.Fprintf(w, "\n%d messages seen, %d spans exported, %d lost\n", total[ledger.Seen], total[ledger.Exported], total.Lost())
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "PID\tSERVICE\tSEEN\tEXPORTED\tLOST\t\n")
	shown, hidden := 0, 0
	for _, t := range tallies {
		if t.Counts[ledger.Seen] == 0 {
			continue
		}
		if shown == summaryRows {
			hidden++
			continue
		}
		shown++
		pid := "-"
		if t.PID != 0 {
			pid = fmt.Sprint(t.PID)
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t\n", pid, discovery.Escape(t.Service), t.Counts[ledger.Seen],
			t.Counts[ledger.Exported], t.Counts.Lost())
	}
	if shown > 0 {
		_ = tw.Flush()
	}
	if hidden > 0 {
		fmt.Fprintf(w, "and %d more processes\n", hidden)
	}
	for e := ledger.FirstLoss; e < ledger.Entries; e++ {
		if total[e] > 0 {
			fmt.Fprintf(w, "lost, %s: %d\n", lossText[e], total[e])
		}
	}
	if n := a.pipeline.stats.Load().partial; n > 0 {
		fmt.Fprintf(w, "spans of which not all fields are known (breadcrumb.unknown_fields): %d\n", n)
	}
	for _, line := range a.kernelTrouble() {
		fmt.Fprintln(w, line)
	}
	a.mu.Lock()
	for n, pid := range slices.Sorted(maps.Keys(a.rings)) {
		if n == summaryRows {
			fmt.Fprintf(w, "and %d more processes use io_uring\n", len(a.rings)-n)
			break
		}
		fmt.Fprintf(w, "not in these sums: what %s (%d) moved over sockets by io_uring\n", discovery.Escape(a.rings[pid]), pid)
	}
	a.mu.Unlock()
	if open := total.Open(); open != 0 {
		a.log.Error("the ledger does not add up: this is a bug of breadcrumb", zap.Int64("difference", open))
	}
	fmt.Fprintf(w, "ledger %s\n", ledgerJSON(total, tallies))
}

// kernelTrouble is what the kernel side could not do, beside what is in the ledger: calls whose bytes passed unseen, which
// the ledger has only where something was seen of the message.
func (a *agent) kernelTrouble() []string {
	var lines []string
	if stats, err := a.core.Stats(); err == nil {
		for _, name := range []string{"threads_full", "goroutines_full", "tasks_full", "conns_full", "targets_full", "missed_returns", "process_ring_full", "frames_lost"} {
			if n := stats[name]; n > 0 {
				lines = append(lines, fmt.Sprintf("kernel side, %s: %d", troubleText[name], n))
			}
		}
	}
	programs := a.core.Programs()
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		if s, err := programs[name].Stats(); err == nil && s.RecursionMisses > 0 {
			lines = append(lines, fmt.Sprintf("kernel side, calls for which %s was not run, because it ran already: %d", name, s.RecursionMisses))
		}
	}
	return lines
}

// troubleText says in words what counters of enum stat mean.
var troubleText = map[string]string{
	"threads_full":      "calls of threads for which there was no memory",
	"tasks_full":        "requests of tasks for which there was no room",
	"goroutines_full":   "requests of goroutines for which there was no room",
	"conns_full":        "calls on connections for which there was no room (kernel.max_connections)",
	"targets_full":      "processes for which there was no room (kernel.max_processes)",
	"missed_returns":    "calls whose return was not seen, for the kernel had no room for their kretprobe",
	"frames_lost":       "times that the next frame of HTTP/2 was not found: calls that were under way are among those lost in bytes that are not captured, and fields of later ones are unknown",
	"process_ring_full": "starts of processes that were seen late, for want of room",
}

// lossText says in words what each cause of loss is, and what helps.
var lossText = map[ledger.Entry]string{
	ledger.RingFull:      "no room in the ring buffer (kernel.ring_bytes)",
	ledger.MapFull:       "no room in a table of the kernel side (kernel.max_connections)",
	ledger.Unreadable:    "the process's memory was not readable",
	ledger.Truncated:     "in bytes that are not captured, or of which it was not known what they are",
	ledger.Unparsed:      "not what it seemed to be",
	ledger.Muted:         "on connections of a protocol that is not known, or moved by io_uring",
	ledger.QueueFull:     "the endpoint was away or too slow (queue.max_queue_size)",
	ledger.ExportRefused: "refused by the endpoint",
}

func ledgerJSON(total ledger.Counts, tallies []discovery.Tally) []byte {
	entries := func(c ledger.Counts, m map[string]any) map[string]any {
		for e := ledger.Seen; e < ledger.Entries; e++ {
			m[e.String()] = c[e]
		}
		return m
	}
	processes := []map[string]any{}
	for _, t := range tallies {
		if t.Counts != (ledger.Counts{}) {
			processes = append(processes, entries(t.Counts, map[string]any{"pid": t.PID, "service": t.Service}))
		}
	}
	b, err := json.Marshal(map[string]any{"total": entries(total, map[string]any{}), "processes": processes})
	if err != nil {
		return fmt.Appendf(nil, "{\"error\":%q}", err)
	}
	return b
}
