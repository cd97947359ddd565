// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the agent on real programs and compares the spans that come out with what the
// driver knows that it did. The programs are in servers, the driver is in drive; here are the agent as a
// test sees it, a collector, and the comparison.
package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strings"

	"breadcrumb/test/e2e/drive"
)

// Span is a span as the agent prints it, or as a collector receives it.
type Span struct {
	TraceID    string         `json:"trace_id"`
	SpanID     string         `json:"span_id"`
	ParentID   string         `json:"parent_span_id"`
	TraceState string         `json:"trace_state"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	Start      int64          `json:"start_unix_nano"`
	End        int64          `json:"end_unix_nano"`
	Status     Status         `json:"status"`
	Attributes map[string]any `json:"attributes"`
	Events     []any          `json:"events"`
	Links      []any          `json:"links"`
	Resource   map[string]any `json:"resource"`
	Scope      Scope          `json:"scope"`

	// Line is the line that the agent printed.
	Line string `json:"-"`
}

// Status is a span's status.
type Status struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Scope is a span's instrumentation scope.
type Scope struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// parseSpan reads a line of --output json.
func parseSpan(line string) (*Span, error) {
	s := &Span{Line: line}
	if err := json.Unmarshal([]byte(line), s); err != nil {
		return nil, fmt.Errorf("not a span: %w: %s", err, line)
	}
	return s, nil
}

// Text is a string attribute, or empty.
func (s *Span) Text(key string) string {
	text, _ := s.Attributes[key].(string)
	return text
}

// Number is a numeric attribute, or 0.
func (s *Span) Number(key string) int {
	switch n := s.Attributes[key].(type) {
	case float64:
		return int(n)
	case int64:
		return int(n)
	}
	return 0
}

// Service is the resource's service.name.
func (s *Span) Service() string {
	name, _ := s.Resource["service.name"].(string)
	return name
}

// asked finds what a statement is for, in the name of a column.
var asked = regexp.MustCompile(`\bcall_([0-9a-z]+)_([0-9]+)\b`)

// Path is the path of the request: servers have it in url.path, clients in url.full. That of a statement with a column call_ID_N is
// /call/ID/N.
func (s *Span) Path() string {
	if method := s.Text("rpc.method"); method != "" {
		return "/" + method
	}
	if path := s.Text("url.path"); path != "" {
		return path
	}
	if text := s.Text("db.query.text"); text != "" {
		if column := asked.FindStringSubmatch(text); column != nil {
			return "/call/" + column[1] + "/" + column[2]
		}
		return ""
	}
	full, err := url.Parse(s.Text("url.full"))
	if err != nil {
		return ""
	}
	return full.Path
}

// String is what a reader of a failed test needs.
func (s *Span) String() string {
	if s == nil {
		return "no span"
	}
	attrs, _ := json.Marshal(s.Attributes)
	return fmt.Sprintf("%s %s %q of %v: trace %s span %s parent %q, %d+%d ns, %s, %s", s.Service(), s.Kind, s.Name,
		s.Resource["process.pid"], s.TraceID, s.SpanID, s.ParentID, s.Start, s.End-s.Start, s.Status.Code, attrs)
}

// Select returns the spans of a service and a kind; an empty string is any.
func Select(spans []*Span, service, kind string) []*Span {
	var selected []*Span
	for _, s := range spans {
		if (service == "" || s.Service() == service) && (kind == "" || s.Kind == kind) {
			selected = append(selected, s)
		}
	}
	return selected
}

// ByPath groups spans by the path of their request.
func ByPath(spans []*Span) map[string][]*Span {
	m := make(map[string][]*Span, len(spans))
	for _, s := range spans {
		m[s.Path()] = append(m[s.Path()], s)
	}
	return m
}

// Mismatches is what a comparison found, the first few in words.
type Mismatches struct {
	counts map[string]int
	lines  []string
}

const maxLines = 8

func (m *Mismatches) add(what, format string, args ...any) {
	if m.counts == nil {
		m.counts = map[string]int{}
	}
	m.counts[what]++
	// One kind of mismatch must not hide the others.
	if m.counts[what] <= maxLines/2 && len(m.lines) < 3*maxLines {
		m.lines = append(m.lines, what+": "+fmt.Sprintf(format, args...))
	}
}

// Err is nil if nothing was found.
func (m *Mismatches) Err() error {
	if len(m.counts) == 0 {
		return nil
	}
	var kinds []string
	for what, n := range m.counts {
		kinds = append(kinds, fmt.Sprintf("%d × %s", n, what))
	}
	sort.Strings(kinds)
	return fmt.Errorf("%s\n\t%s", strings.Join(kinds, ", "), strings.Join(m.lines, "\n\t"))
}

// Want says what Compare expects beyond what the driver recorded.
type Want struct {
	Service string // service.name
	Kind    string // "server" if empty
	// Foreign says that the spans are of requests that another program made because of the driver's:
	// their times lie within, and their parents are not the driver's own.
	Foreign bool
	// Cut says that the agent may have missed how an exchange ended, where it says so itself by
	// breadcrumb.unfinished: the status and the end of such a span are not compared.
	Cut bool
	// Late says that the last bytes may have passed unseen, so that the end is only an estimate.
	Late bool
}

// Compare holds spans to the driver's exchanges: exactly one span for each, found by its path, with the
// method, the status, the service and the parent that it must have, within the driver's own times.
func Compare(spans []*Span, truth []drive.Exchange, want Want) error {
	var m Mismatches
	if want.Kind == "" {
		want.Kind = "server"
	}
	ids := make(map[string]*Span, len(spans))
	for _, s := range spans {
		if !isHex(s.SpanID, 16) || !isHex(s.TraceID, 32) {
			m.add("bad id", "%s", s)
		}
		if first := ids[s.SpanID]; first != nil {
			m.add("span id twice", "%s\n\t\tand %s", first, s)
		}
		ids[s.SpanID] = s
	}
	byPath := ByPath(spans)
	latest := latestEnds(truth)
	for i := range truth {
		x := &truth[i]
		list := byPath[x.Path]
		delete(byPath, x.Path)
		if len(list) == 0 {
			m.add("missing", "%s %s over %s, number %d of %d", x.Method, x.Path, x.Local, i, len(truth))
			continue
		}
		if len(list) > 1 {
			m.add("several for one request", "%s\n\t\tand %s", list[0], list[1])
		}
		s := list[0]
		if s.Kind != want.Kind {
			m.add("kind", "want %s: %s", want.Kind, s)
		}
		if want.Service != "" && s.Service() != want.Service {
			m.add("service.name", "%q, want %q: %s", s.Service(), want.Service, s)
		}
		if got := s.Text("http.request.method"); got != x.Method {
			m.add("method", "%q, want %q: %s", got, x.Method, s)
		}
		cut := want.Cut && s.Attributes["breadcrumb.unfinished"] == true
		if got := s.Number("http.response.status_code"); got != x.Status && !cut {
			m.add("status code", "%d, want %d: %s", got, x.Status, s)
		}
		if s.Start < x.Before {
			m.add("starts too early", "by %d ns: %s", x.Before-s.Start, s)
		}
		if s.End > latest[i] && !cut && !want.Late {
			m.add("ends too late", "by %d ns: %s", s.End-latest[i], s)
		}
		if s.End < s.Start {
			m.add("ends before it starts", "%s", s)
		}
		if want.Foreign {
			continue
		}
		if x.TraceID != "" {
			if s.TraceID != x.TraceID || s.ParentID != x.SpanID || s.TraceState != x.TraceState {
				m.add("context", "want trace %s parent %s state %q: %s", x.TraceID, x.SpanID, x.TraceState, s)
			} else if got := s.Text("breadcrumb.parent.source"); got != "header" {
				m.add("parent source", "%q, want header: %s", got, s)
			}
		} else if s.ParentID != "" {
			m.add("parent from nowhere", "%s", s)
		}
	}
	for _, list := range byPath {
		for _, s := range list {
			m.add("not of any request", "%s", s)
		}
	}
	return m.Err()
}

// latestEnds is when each exchange was over at the latest. A call that sends more than the socket takes at once
// is over when it returns, which may be after the driver has the last byte; but then the server has not yet read
// the next request on that connection.
func latestEnds(truth []drive.Exchange) []int64 {
	const blocks = 64 << 10
	order := make([]int, len(truth))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(truth[a].Before, truth[b].Before) })
	latest := make([]int64, len(truth))
	next := map[string]*drive.Exchange{} // of each connection
	for _, i := range slices.Backward(order) {
		x := &truth[i]
		latest[i] = x.After
		if x.Received > blocks {
			latest[i] = math.MaxInt64
			if y := next[x.Local]; y != nil {
				latest[i] = y.After
			}
		}
		if strings.Contains(x.Local, ":") { // a Unix socket has no name of its own
			next[x.Local] = x
		}
	}
	return latest
}

func isHex(s string, n int) bool {
	if len(s) != n || strings.Trim(s, "0") == "" {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// Joined holds each of children to the parent that it has in parents, the spans of the same path at
// the other side of a call: its trace and its parent are that span's.
func Joined(children, parents []*Span) error {
	var m Mismatches
	byPath := ByPath(parents)
	for _, c := range children {
		list := byPath[c.Path()]
		if len(list) != 1 {
			m.add("no single parent to expect", "%d spans of %s", len(list), c.Path())
			continue
		}
		p := list[0]
		switch {
		case c.ParentID == "":
			m.add("no parent", "%s\n\t\tshould be under %s", c, p)
		case c.ParentID != p.SpanID:
			m.add("wrong parent", "%s\n\t\tshould be under %s", c, p)
		case c.TraceID != p.TraceID:
			m.add("wrong trace", "%s\n\t\tshould be under %s", c, p)
		case c.Start < p.Start:
			m.add("starts before its parent", "by %d ns: %s\n\t\tunder %s", p.Start-c.Start, c, p)
		}
	}
	return m.Err()
}
