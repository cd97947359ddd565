// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"

	"breadcrumb/test/e2e/drive"
	"breadcrumb/test/e2e/servers"
	"breadcrumb/test/shop"
)

const checkouts = 2000

// driveShop makes checkouts, 64 at once, and returns what happened and how many spans that is.
func driveShop(t *testing.T, s *shop.Shop, checkouts int, trace bool) (truth []drive.Exchange, spans int) {
	t.Helper()
	truth, err := drive.Plan{
		Addr: s.Gateway.Addr, Requests: checkouts, Connections: 64, Trace: trace,
		Request: func(i int) drive.Request { return drive.Request{Target: shop.Path(i)} },
	}.Run()
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range truth {
		calls := shop.Calls(i)
		if x.Status != calls[0].Status {
			t.Fatalf("%s: status %d, want %d", x.Target, x.Status, calls[0].Status)
		}
		spans += shop.Spans(i, s.Database != nil)
	}
	return truth, spans
}

func TestDriverAgainstShop(t *testing.T) {
	if _, n := driveShop(t, shop.Start(t, servers.Options{}), checkouts, true); n < 10*checkouts {
		t.Errorf("%d spans to expect", n)
	}
}

// TestShopParents holds every parent of every span of busy services to the calls that were made.
func TestShopParents(t *testing.T) {
	for _, trace := range []bool{false, true} {
		t.Run(map[bool]string{false: "roots", true: "traceparent"}[trace], func(t *testing.T) {
			shopParents(t, nil, checkouts, trace)
		})
	}
}

func shopParents(t *testing.T, attach *Attachment, checkouts int, trace bool) {
	s := shop.Start(t, servers.Options{})
	agent := TraceBy(t, attach, s.All()...)
	truth, n := driveShop(t, s, checkouts, trace)
	agent.WaitSpans(n)
	spans, summary := agent.Stop()
	NothingLost(t, summary, n)
	if err := Compare(Select(spans, shop.Gateway, "server"), truth, Want{Service: shop.Gateway}); err != nil {
		t.Errorf("checkouts: %v", err)
	}
	r := compareShop(spans, truth)
	t.Logf("parents: %d right, %d none, %d wrong", r.right, r.none, r.wrong)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

type shopResult struct {
	Mismatches
	right, none, wrong int
}

func compareShop(spans []*Span, truth []drive.Exchange) *shopResult {
	r := &shopResult{}
	type key struct{ service, kind, method, path string }
	index := make(map[key][]*Span, len(spans))
	asked := map[string][]*Span{} // of the database, by the parent
	for _, s := range spans {
		if s.Text("db.system.name") != "" {
			asked[s.ParentID] = append(asked[s.ParentID], s)
			continue
		}
		k := key{s.Service(), s.Kind, s.Text("http.request.method"), s.Path()}
		index[k] = append(index[k], s)
	}
	// statement takes a span of the database's or of who asks it from below its parent, in their order.
	statement := func(service, kind, text string, parent *Span) *Span {
		if parent == nil {
			return nil
		}
		list := asked[parent.SpanID]
		at := slices.IndexFunc(list, func(s *Span) bool {
			return s.Service() == service && s.Kind == kind && s.Text("db.query.text") == text
		})
		if at < 0 {
			r.add("missing", "%s span of %s: %s\n\t\tunder %s", kind, service, text, parent)
			return nil
		}
		s := list[at]
		if asked[parent.SpanID] = slices.Delete(list, at, at+1); len(list) == 1 {
			delete(asked, parent.SpanID)
		}
		if s.Status.Code != "unset" {
			r.add("status", "%s", s)
		}
		return s
	}
	take := func(service, kind string, c shop.Call) *Span {
		k := key{service, kind, c.Method, c.Path}
		list := index[k]
		delete(index, k)
		if len(list) == 0 {
			r.add("missing", "%s span of %s: %s %s", kind, service, c.Method, c.Path)
			return nil
		}
		if len(list) > 1 {
			r.add("several", "%s\n\t\tand %s", list[0], list[1])
		}
		if got := list[0].Number("http.response.status_code"); got != c.Status {
			r.add("status code", "%d, want %d: %s", got, c.Status, list[0])
		}
		return list[0]
	}
	under := func(child, parent *Span) {
		switch {
		case child == nil || parent == nil:
		case child.ParentID == "":
			r.none++
			r.add("no parent", "%s\n\t\tshould be under %s", child, parent)
		case child.ParentID != parent.SpanID || child.TraceID != parent.TraceID:
			r.wrong++
			r.add("wrong parent", "%s\n\t\tshould be under %s", child, parent)
		case child.Start < parent.Start:
			r.add("starts before its parent", "by %d ns: %s\n\t\tunder %s", parent.Start-child.Start, child, parent)
		default:
			r.right++
		}
	}
	for i := range truth {
		calls := shop.Calls(i)
		served := make([]*Span, len(calls))
		for j, c := range calls {
			served[j] = take(c.To, "server", c)
			if c.From == "" {
				continue // its parent was compared with the driver's context
			}
			made := take(c.From, "client", c)
			under(served[j], made)
			under(made, served[c.Under])
		}
		for _, s := range shop.Statements(i) {
			made := statement(shop.Orders, "client", s.Text, served[s.Under])
			under(made, served[s.Under])
			under(statement(shop.Database, "server", s.Text, made), made)
		}
	}
	for k, list := range index {
		r.add("not of any request", "%s: %s", fmt.Sprint(k), list[0])
	}
	for parent, list := range asked {
		if parent == "" {
			r.none += len(list)
		} else {
			r.wrong += len(list)
		}
		r.add("not of any request", "%d statements, the first: %s", len(list), list[0])
	}
	return r
}
