// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"strings"
	"sync"
	"testing"
)

func TestSumsAddUp(t *testing.T) {
	a, b := new(Account), new(Account)
	for e := FirstLoss; e < Entries; e++ {
		n := uint64(1) << e
		a.Add(Seen, n)
		a.Add(e, n)
	}
	a.Add(Seen, 5)
	a.Add(Exported, 3)
	b.Add(Seen, 2)
	b.Add(Exported, 1)
	b.Add(RingFull, 1)
	var lost uint64
	for e := FirstLoss; e < Entries; e++ {
		lost += 1 << e
	}
	ca, cb := a.Counts(), b.Counts()
	sum := ca.Plus(cb)
	for _, test := range []struct {
		name string
		c    Counts
		lost uint64
		open int64
	}{
		{"one", ca, lost, 2},
		{"the other", cb, 1, 0},
		{"both", sum, lost + 1, 2},
		{"none", Counts{}, 0, 0},
		{"more than was seen", Counts{Exported: 2, Seen: 1}, 0, -1},
	} {
		if got := test.c.Lost(); got != test.lost {
			t.Errorf("%s: %d lost, want %d", test.name, got, test.lost)
		}
		if got := test.c.Open(); got != test.open {
			t.Errorf("%s: %d open, want %d", test.name, got, test.open)
		}
	}
	if ca != a.Counts() || sum == ca {
		t.Error("a sum changes what it is a sum of")
	}
}

func TestAccountCountsFromEverywhere(t *testing.T) {
	a := new(Account)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				a.Add(Seen, 2)
				a.Add(Exported, 1)
				a.Add(Muted, 1)
				a.Counts()
			}
		})
	}
	all.Wait()
	if c := a.Counts(); c != (Counts{Seen: 16000, Exported: 8000, Muted: 8000}) || c.Open() != 0 {
		t.Error(c)
	}
}

func TestNoAccountCountsNothing(t *testing.T) {
	var a *Account
	a.Add(Seen, 1)
	if a.Counts() != (Counts{}) {
		t.Error(a.Counts())
	}
}

// TestNamesAreDistinct: they are names of metrics and of members in the summary.
func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for e := range Entries {
		name := e.String()
		if name == "" || seen[name] || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("entry %d is %q", e, name)
		}
		seen[name] = true
	}
}
