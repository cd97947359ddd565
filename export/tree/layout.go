// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"breadcrumb/internal/span"

	"github.com/mattn/go-runewidth"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxRows bounds what is printed of one tree.
	maxRows = 100
	// The column of labels is this wide if it can be, so that the columns of small trees are in line.
	usualLabel = 40
	leastLabel = 16
	// maxField bounds the other texts of a row.
	maxField = 24
	// The last column shows the trace id in the first row of a tree and below it when each span ran.
	// Its width, by the width of the terminal: the id in full, its head, nothing.
	fullID, shortID       = len("continues ") + 32, len("continues ") + 9
	wideEnough, notNarrow = 110, 72
	gap                   = "  "
)

// paint is a colour, as the parameters of an SGR sequence.
type paint string

const (
	plain  paint = ""
	dim    paint = "2"
	red    paint = "31"
	yellow paint = "33"
	cyan   paint = "36"
)

func (e *Exporter) paint(b []byte, p paint, s string) []byte {
	if !e.cfg.Color || p == plain || s == "" {
		return append(b, s...)
	}
	b = append(b, "\x1b["...)
	b = append(b, p...)
	b = append(b, 'm')
	b = append(b, s...)
	return append(b, "\x1b[0m"...)
}

// row is one line of a tree.
type row struct {
	*node
	root            *node
	end             int64  // of the last span in the tree
	branch          string // the lines that lead to it
	label           string
	service, status string
	color           paint // of status
	duration        string
}

// print appends the trees of one trace.
func (e *Exporter) print(group []*span.Span, width int) {
	var rows []row
	for _, root := range forest(group) {
		rows = e.rows(rows, root, root, root.extent(), "", "")
	}
	more := max(0, len(rows)-maxRows)
	rows = rows[:len(rows)-more]

	label, service, status, duration := 0, 0, 0, len("12.4 ms")
	for _, r := range rows {
		label = max(label, columns(r.branch)+columns(r.label))
		service = max(service, columns(r.service))
		status = max(status, columns(r.status))
		duration = max(duration, columns(r.duration))
	}
	last := fullID
	switch {
	case width == 0 || width >= wideEnough:
	case width >= notNarrow:
		last = shortID
	default:
		last = 0
	}
	label = max(label, usualLabel)
	if width > 0 {
		room := width - service - status - duration - last - 3*len(gap)
		if last > 0 {
			room -= len(gap)
		}
		label = min(label, max(room, leastLabel))
	}

	tall := len(rows) > 1
	if (tall || e.tall) && e.printed {
		e.out = append(e.out, '\n')
	}
	e.tall, e.printed = tall, true
	for _, r := range rows {
		e.row(r, label, service, status, duration, last)
	}
	if more > 0 {
		e.out = append(e.paint(e.out, dim, fmt.Sprintf("   %s %s more spans of this trace", e.dots(), thousands(more))), '\n')
	}
}

// rows appends n and all below it.
func (e *Exporter) rows(rows []row, root, n *node, end int64, branch, below string) []row {
	r := row{node: n, root: root, end: end, branch: branch, label: e.clean(label(n.Span)), duration: e.duration(n.End - n.Start)}
	if n.Kind == trace.SpanKindClient || n.Kind == trace.SpanKindProducer {
		r.label = e.arrow() + " " + r.label
	}
	if n.Target != nil {
		r.service = e.clip(e.clean(n.Target.ServiceName()), maxField)
	}
	status, color := status(n.Span)
	r.status, r.color = e.clip(e.clean(status), maxField), color
	rows = append(rows, r)

	tee, line, corner, blank := "├─ ", "│  ", "└─ ", "   "
	if e.cfg.ASCII {
		tee, line, corner = "|- ", "|  ", "`- "
	}
	for i, child := range n.children {
		if i+1 < len(n.children) {
			rows = e.rows(rows, root, child, end, below+tee, below+line)
		} else {
			rows = e.rows(rows, root, child, end, below+corner, below+blank)
		}
	}
	return rows
}

func (e *Exporter) row(r row, label, service, status, duration, last int) {
	branch := e.clip(r.branch, max(0, label-leastLabel/2))
	text := e.clip(r.label, label-columns(branch))
	b := e.paint(e.out, dim, branch)
	b = append(b, text...)
	b = pad(b, label-columns(branch)-columns(text)+len(gap))
	b = e.paint(b, cyan, r.service)
	b = pad(b, service-columns(r.service)+len(gap))
	b = e.paint(b, r.color, r.status)
	b = pad(b, status-columns(r.status)+len(gap)+duration-columns(r.duration))
	b = append(b, r.duration...)
	if last > 0 {
		b = append(b, gap...)
		if r.node == r.root {
			b = e.paint(b, dim, e.traceID(r.Span, last))
		} else {
			b = e.bar(b, r, last)
		}
	}
	e.out = append(b, '\n')
}

// traceID names the trace, and says whether this is its beginning.
func (e *Exporter) traceID(s *span.Span, width int) string {
	what, id := "trace ", s.TraceID.String()
	if s.Parent.IsValid() {
		what = "continues "
	}
	if width < fullID {
		id = id[:8] + e.dots()
	}
	return what + id
}

// bar shows when a span ran, in the time from the first start to the last end of its tree.
func (e *Exporter) bar(b []byte, r row, width int) []byte {
	from, to := r.root.Start, r.end
	if to <= from {
		return b
	}
	cell := func(t int64) int {
		return int(float64(min(max(t, from), to)-from) / float64(to-from) * float64(width))
	}
	first := min(cell(r.Start), width-1)
	n := max(cell(r.End)-first, 1)
	full := "━"
	if e.cfg.ASCII {
		full = "="
	}
	color := plain
	switch {
	case r.Status == codes.Error:
		color = red
	case r.Kind == trace.SpanKindClient:
		color = dim
	}
	b = pad(b, first)
	return e.paint(b, color, strings.Repeat(full, n))
}

// extent is the last end in the tree below n.
func (n *node) extent() int64 {
	end := n.End
	for _, c := range n.children {
		end = max(end, c.extent())
	}
	return end
}

// label is what a person calls the exchange. The name of a span leaves the path out, to be of few kinds;
// here it is what one looks for.
func label(s *span.Span) string {
	method, original := get(s, "http.request.method"), get(s, "http.request.method_original")
	if original != "" {
		method = original
	}
	path := get(s, "url.full")
	if _, rest, ok := strings.Cut(path, "://"); ok {
		path = rest
	} else {
		path = get(s, "url.path")
	}
	path, _, _ = strings.Cut(path, "?")
	if method != "" && path != "" {
		return method + " " + path
	}
	return s.Name
}

// status is the outcome in the protocol's own terms, and what went wrong if those do not say it.
func status(s *span.Span) (string, paint) {
	var text, errorType string
	color := plain
	for _, kv := range s.Attrs {
		switch {
		case strings.HasSuffix(string(kv.Key), ".response.status_code"):
			if text = kv.Value.AsString(); text == "" {
				text = strconv.FormatInt(kv.Value.AsInt64(), 10)
				if kv.Value.AsInt64() >= 400 {
					color = yellow
				}
			}
		case kv.Key == "error.type":
			errorType = kv.Value.AsString()
		}
	}
	if errorType != "" && errorType != text {
		text = strings.TrimSpace(text + " " + errorType)
	}
	if s.Status == codes.Error {
		color = red
		if text == "" {
			text = "error"
		}
	}
	return text, color
}

// get is the value of a string attribute.
func get(s *span.Span, key string) string {
	for _, kv := range s.Attrs {
		if string(kv.Key) == key {
			return kv.Value.AsString()
		}
	}
	return ""
}

// duration is d in three digits or so.
func (e *Exporter) duration(ns int64) string {
	d := time.Duration(ns)
	ms, sec := d.Seconds()*1000, d.Seconds()
	switch {
	case d < time.Millisecond && e.cfg.ASCII:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", ms)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", ms)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", ms)
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", sec)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", sec)
	}
	return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(sec)%60)
}

// clean makes text from elsewhere harmless: what is not printable is shown as an escape, so that nothing
// in a URL can move the cursor, hide a part or end the line.
func (e *Exporter) clean(s string) string {
	harmless := func(r rune) bool { return r >= ' ' && r < 0x7f || r > 0x7f && !e.cfg.ASCII && unicode.IsPrint(r) }
	ok := utf8.ValidString(s)
	for _, r := range s {
		ok = ok && harmless(r)
	}
	if ok {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

func (e *Exporter) dots() string {
	if e.cfg.ASCII {
		return "..."
	}
	return "…"
}

func (e *Exporter) arrow() string {
	if e.cfg.ASCII {
		return "->"
	}
	return "→"
}

// clip cuts s to a number of columns.
func (e *Exporter) clip(s string, width int) string {
	return cells.Truncate(s, width, e.dots())
}

// cells measures without a look at the locale: the lines that are drawn here are one column wide.
var cells = &runewidth.Condition{}

func columns(s string) int { return cells.StringWidth(s) }

func pad(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}
