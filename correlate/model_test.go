// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"math/rand/v2"
	"testing"

	"breadcrumb/internal/span"
)

// model is an event loop that serves requests, each of which makes two calls, as the kernel side would tell of it: what was
// read last is what a call is said to be for. What really caused a call is known.
type model struct {
	*loop
	rng    *rand.Rand
	timers float64 // how many of the calls a timer makes
	drops  float64 // how many of the events are lost

	last    *span.Span // the request that is current
	free    []uint64   // connections of the client's pool
	serving []*work
	said    map[*span.Span]*span.Span // by call: for which request the kernel side says that it was made
	truth   map[*span.Span]*span.Span // and for which it was
	conns   uint64
}

// work is a request under way.
type work struct {
	request *span.Span
	conn    uint64
	left    int        // calls to make
	call    *span.Span // under way
	waits   bool       // for a timer
}

func (m *model) lost() bool { return m.rng.Float64() < m.drops }

// step does one thing that can happen now.
func (m *model) step() {
	if len(m.serving) < 16 && m.rng.IntN(3) == 0 {
		m.conns++
		w := &work{conn: 1 << 20, left: 2}
		w.conn += m.conns
		w.request = &span.Span{}
		if !m.lost() {
			w.request = m.request(w.conn)
		}
		m.last = w.request
		m.serving = append(m.serving, w)
		m.goOn(w)
		return
	}
	if len(m.serving) == 0 {
		return
	}
	i := m.rng.IntN(len(m.serving))
	w := m.serving[i]
	if w.waits {
		w.waits = false
		m.make(w) // nothing was read: what is current is another's
		return
	}
	conn := w.call.Evidence.Conn
	if m.lost() {
		w.call.State = span.Lost // its end is not told
		m.Add(w.call)
		m.take()
	} else {
		m.answer(w.call)
	}
	m.free = append(m.free, conn)
	m.last = m.said[w.call] // the kernel side goes on with what it said that the call was for
	m.goOn(w)
	if w.left < 0 {
		m.serving = append(m.serving[:i], m.serving[i+1:]...)
	}
}

// goOn does what follows in the same turn of the loop.
func (m *model) goOn(w *work) {
	if w.left == 0 {
		w.left = -1
		if w.request.ID.IsValid() {
			m.respond(w.request)
		}
		return
	}
	if w.waits = m.rng.Float64() < m.timers; !w.waits {
		m.make(w)
	}
}

func (m *model) make(w *work) {
	w.left--
	if len(m.free) == 0 {
		m.conns++
		m.free = append(m.free, m.conns)
	}
	conn := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	w.call = m.call(conn, m.last)
	m.said[w.call], m.truth[w.call] = m.last, w.request
}

// run returns how many calls have the right parent, none and a wrong one.
func (m *model) run(steps int) (right, none, wrong int) {
	for range steps {
		m.step()
	}
	m.Flush()
	m.take()
	for call, request := range m.truth {
		switch {
		case call.State != span.Done:
		case !call.Parent.IsValid():
			none++
		case call.Parent == request.ID:
			right++
		default:
			wrong++
		}
	}
	return right, none, wrong
}

func newModel(t *testing.T, seed uint64, timers, drops float64) *model {
	return &model{loop: newLoop(t), rng: rand.New(rand.NewPCG(seed, 7)), timers: timers, drops: drops,
		said: map[*span.Span]*span.Span{}, truth: map[*span.Span]*span.Span{}}
}

// TestLoopsByModel holds the rules for event loops to what really caused each call, with timers and without, and with
// events lost: a wrong parent is rarer than one in ten thousand.
func TestLoopsByModel(t *testing.T) {
	for _, test := range []struct {
		name          string
		timers, drops float64
		right         float64 // at least, of all
	}{
		{"woken by sockets", 0, 0, 0.99},
		{"woken by sockets, events lost", 0, 0.02, 0.5},
		{"timers", 1, 0, 0},
		{"some timers", 0.2, 0, 0},
		{"few timers, events lost", 0.01, 0.01, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			right, none, wrong := 0, 0, 0
			for seed := range uint64(50) {
				r, n, w := newModel(t, seed, test.timers, test.drops).run(4000)
				right, none, wrong = right+r, none+n, wrong+w
			}
			all := right + none + wrong
			t.Logf("of %d: right %d, none %d, wrong %d", all, right, none, wrong)
			if wrong*10_000 > all {
				t.Errorf("%d of %d are wrong", wrong, all)
			}
			if float64(right) < test.right*float64(all) {
				t.Errorf("%d of %d are right", right, all)
			}
		})
	}
}
