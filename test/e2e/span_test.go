// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/shop"
)

func serverSpan(n int) *Span {
	return &Span{
		TraceID: fmt.Sprintf("%032x", n+1), SpanID: fmt.Sprintf("%016x", n+1), Kind: "server", Start: 100, End: 200,
		Attributes: map[string]any{"url.path": fmt.Sprint("/item/", n), "http.request.method": "GET", "http.response.status_code": 200.0},
		Resource:   map[string]any{"service.name": "shop"},
	}
}

// TestComparisonFindsWhatIsWrong sees that Compare is not pleased with everything.
func TestComparisonFindsWhatIsWrong(t *testing.T) {
	for want, spoil := range map[string]func(s []*Span) []*Span{
		"":                        func(s []*Span) []*Span { return s },
		"1 × missing":             func(s []*Span) []*Span { return s[1:] },
		"1 × not of any request":  func(s []*Span) []*Span { return append(s, serverSpan(7)) },
		"several for one request": func(s []*Span) []*Span { d := *s[0]; d.SpanID = strings.Repeat("e", 16); return append(s, &d) },
		"span id twice":           func(s []*Span) []*Span { s[1].SpanID = s[0].SpanID; return s },
		"bad id":                  func(s []*Span) []*Span { s[1].TraceID = strings.Repeat("0", 32); return s },
		"starts too early":        func(s []*Span) []*Span { s[0].Start = 89; return s },
		"ends too late":           func(s []*Span) []*Span { s[0].End = 211; return s },
		"ends before it starts":   func(s []*Span) []*Span { s[0].End = 99; return s },
		"method":                  func(s []*Span) []*Span { s[0].Attributes["http.request.method"] = "PUT"; return s },
		"status code":             func(s []*Span) []*Span { delete(s[0].Attributes, "http.response.status_code"); return s },
		"kind":                    func(s []*Span) []*Span { s[0].Kind = "client"; return s },
		"service.name":            func(s []*Span) []*Span { s[0].Resource = nil; return s },
		"context":                 func(s []*Span) []*Span { s[2].ParentID = ""; return s },
		"parent source":           func(s []*Span) []*Span { delete(s[2].Attributes, "breadcrumb.parent.source"); return s },
		"parent from nowhere":     func(s []*Span) []*Span { s[0].ParentID = strings.Repeat("f", 16); return s },
	} {
		var spans []*Span
		var truth []drive.Exchange
		for n := range 3 {
			spans = append(spans, serverSpan(n))
			truth = append(truth, drive.Exchange{Method: "GET", Path: fmt.Sprint("/item/", n), Status: 200, Before: 90, After: 210})
		}
		spans[2].ParentID = strings.Repeat("a", 16)
		spans[2].Attributes["breadcrumb.parent.source"] = "header"
		truth[2].TraceID, truth[2].SpanID = spans[2].TraceID, spans[2].ParentID
		err := Compare(spoil(spans), truth, Want{Service: "shop"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got: %v", want, err)
		}
	}
}

// TestLongAnswerMayEndLate takes a span that ends after the driver has its last byte: it may if the answer was
// long, until the server reads the connection's next request.
func TestLongAnswerMayEndLate(t *testing.T) {
	for _, test := range []struct {
		received, end int64
		last, good    bool
	}{
		{100, 210, false, true}, {100, 211, false, false}, {1 << 20, 211, false, true}, {1 << 20, 320, false, true},
		{1 << 20, 321, false, false}, {1 << 20, 1000, true, true},
	} {
		spans := []*Span{serverSpan(0), serverSpan(1), serverSpan(2)}
		spans[1].Start, spans[1].End = 310, 315
		spans[0].End = test.end
		truth := []drive.Exchange{
			{Path: "/item/1", Before: 300, After: 320, Local: "127.0.0.1:4000"},
			{Path: "/item/0", Before: 90, After: 210, Local: "127.0.0.1:4000", Received: test.received},
			{Path: "/item/2", Before: 90, After: 210, Local: "127.0.0.1:4001"},
		}
		for i := range truth {
			truth[i].Method, truth[i].Status = "GET", 200
		}
		if test.last {
			truth[0].Local = "127.0.0.1:4001"
		}
		if err := Compare(spans, truth, Want{}); (err == nil) != test.good {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestLedgerThatDoesNotAddUp(t *testing.T) {
	counts := func(seen, exported, lost int64) Counts {
		c := Counts{"seen": seen, "exported": exported}
		for _, name := range losses {
			c[name] = 0
		}
		c["ring_full"] = lost
		return c
	}
	for name, test := range map[string]struct {
		total Counts
		of    []Counts
		good  bool
	}{
		"good":     {counts(10, 7, 3), []Counts{counts(4, 4, 0), counts(6, 3, 3)}, true},
		"open":     {counts(10, 7, 2), []Counts{counts(10, 7, 2)}, false},
		"not all":  {counts(10, 7, 3), []Counts{counts(6, 3, 3)}, false},
		"twice":    {counts(10, 11, 0), []Counts{counts(10, 11, 0)}, false},
		"no entry": {Counts{"seen": 1, "exported": 1}, []Counts{{"seen": 1, "exported": 1}}, false},
	} {
		s := &Summary{Total: test.total}
		for _, c := range test.of {
			s.Processes = append(s.Processes, Account{Counts: c})
		}
		if err := s.check(); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShopComparison makes the spans that a shop must yield, and spoils them.
func TestShopComparison(t *testing.T) {
	make := func() (spans []*Span, truth []drive.Exchange) {
		id := 0
		add := func(service, kind string, c shop.Call, parent *Span) *Span {
			id++
			s := serverSpan(id)
			s.Kind, s.Resource = kind, map[string]any{"service.name": service}
			s.Attributes = map[string]any{"http.request.method": c.Method, "http.response.status_code": float64(c.Status)}
			if kind == "client" {
				s.Attributes["url.full"] = "http://127.0.0.1:1" + c.Path
			} else {
				s.Attributes["url.path"] = c.Path
			}
			if parent != nil {
				s.TraceID, s.ParentID = parent.TraceID, parent.SpanID
			}
			spans = append(spans, s)
			return s
		}
		for n := range 40 {
			truth = append(truth, drive.Exchange{})
			var served []*Span
			for _, c := range shop.Calls(n) {
				var call *Span
				if c.From != "" {
					call = add(c.From, "client", c, served[c.Under])
				}
				served = append(served, add(c.To, "server", c, call))
			}
			for _, st := range shop.Statements(n) {
				execute := func(service, kind string, parent *Span) *Span {
					s := add(service, kind, shop.Call{}, parent)
					s.Status.Code, s.Attributes = "unset", map[string]any{"db.system.name": "postgresql", "db.query.text": st.Text}
					return s
				}
				execute(shop.Database, "server", execute(shop.Orders, "client", served[st.Under]))
			}
		}
		return spans, truth
	}
	spans, truth := make()
	r := compareShop(spans, truth)
	if err := r.Err(); err != nil || r.wrong+r.none > 0 || r.right != len(spans)-len(truth) {
		t.Errorf("%+v", r)
	}
	spans[3].ParentID = spans[0].SpanID
	spans[13].ParentID = spans[2].SpanID // a statement, whose server's span is then of nothing that was asked
	spans[20].ParentID = ""
	r = compareShop(spans[:len(spans)-1], truth)
	if r.wrong != 3 || r.none != 1 || r.counts["missing"] != 2 || r.Err() == nil {
		t.Errorf("%+v", r)
	}
}
