// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// Conn is what the correlator must know of a connection to find its other end on this node.
type Conn struct {
	ID    uint64
	NetNS uint32
	// Local and Remote are the addresses of a TCP connection, zero for a Unix one.
	Local, Remote netip.AddrPort
	// Socket and Peer are the kernel's addresses of the two ends of a Unix connection.
	Socket, Peer uint64
}

// endpoint is one end of a connection as the other end would name it.
type endpoint struct {
	local, remote netip.AddrPort
	netns         uint32 // only where the address means something else in each namespace: loopback
	socket, peer  uint64
}

// conn is one watched end.
type conn struct {
	end  endpoint
	pair *pair
}

// pair is a connection as seen from one or both ends. Requests that one end has told wait here for the
// other end to tell them too.
type pair struct {
	ends    int     // watched ends that are alive
	both    bool    // both ends are, or were, watched
	local   bool    // the other end may be on this node
	first   bool    // no request of it has been finished yet
	pending []*node // begun, not joined
}

// maxPending bounds what waits on one connection: more are on their way at once only by pipelining.
const maxPending = 64

func end(c Conn) endpoint {
	e := endpoint{socket: c.Socket, peer: c.Peer}
	if c.Local.IsValid() {
		e = endpoint{
			local:  netip.AddrPortFrom(c.Local.Addr().Unmap(), c.Local.Port()),
			remote: netip.AddrPortFrom(c.Remote.Addr().Unmap(), c.Remote.Port()),
		}
		if e.local.Addr().IsLoopback() || e.remote.Addr().IsLoopback() {
			e.netns = c.NetNS
		}
	}
	return e
}

func (e endpoint) other() endpoint {
	return endpoint{local: e.remote, remote: e.local, netns: e.netns, socket: e.peer, peer: e.socket}
}

// Conn introduces a connection.
func (c *Correlator) Conn(info Conn) {
	if c.conns[info.ID] != nil {
		return
	}
	e := end(info)
	k := &conn{end: e}
	if peer := c.ends[e.other()]; peer != nil && peer.pair != nil && !peer.pair.both {
		k.pair = peer.pair
		k.pair.both = true
		k.pair.ends++
	} else {
		local := !e.local.IsValid() || e.remote.Addr().IsLoopback() || e.remote.Addr() == e.local.Addr()
		k.pair = &pair{ends: 1, local: local, first: true}
	}
	c.conns[info.ID] = k
	c.ends[e] = k
}

// ConnGone forgets a connection. Spans that wait for its other end go on waiting.
func (c *Correlator) ConnGone(id uint64) {
	k := c.conns[id]
	if k == nil {
		return
	}
	delete(c.conns, id)
	if c.ends[k.end] == k {
		delete(c.ends, k.end)
	}
	k.pair.ends--
	if k.pair.ends > 0 {
		return
	}
	for _, n := range k.pair.pending {
		if n.pair == k.pair && n.state != waiting {
			n.pair = nil
		}
		c.drop(n)
	}
	k.pair.pending = nil
}

// join finds the span at the other end of the connection. The bytes are the same ones: TCP's sequence number
// of the first is equal at both ends, and a Unix socket carries requests one after the other. Wrong
// for a Unix socket on which one end pipelines and the other's events were lost.
func (c *Correlator) join(n *node, id uint64) {
	k := c.conns[id]
	if k == nil {
		return
	}
	p := k.pair
	n.pair = p
	for i, other := range p.pending {
		if other.kind == n.kind || !matches(n, other) {
			continue
		}
		p.pending = append(p.pending[:i], p.pending[i+1:]...)
		server, client := n, other
		if n.kind == trace.SpanKindClient {
			server, client = other, n
		}
		c.joined(server, client)
		c.drop(other)
		return
	}
	if !p.both && !(p.local && p.first) {
		return
	}
	if len(p.pending) >= maxPending {
		c.drop(p.pending[0])
		p.pending = append(p.pending[:0], p.pending[1:]...)
	}
	n.refs++
	p.pending = append(p.pending, n)
}

func matches(a, b *node) bool {
	if a.hasSeq && b.hasSeq {
		return a.joins == b.joins
	}
	server, client := a, b
	if a.kind == trace.SpanKindClient {
		server, client = b, a
	}
	return client.end == 0 || client.end >= server.start
}

// joined makes the client's span the parent of the server's.
func (c *Correlator) joined(server, client *node) {
	if server.parent != nil || server.state == released || server.state == lost {
		return
	}
	server.setParent(client, span.SourceLocalConnection)
	// The request had left before it came, whatever the hooks saw first.
	if client.span != nil && client.start > server.start {
		client.start = server.start
		client.span.Start = server.start
	}
	if server.state == waiting {
		server.state = underWay
		c.settle(server)
	}
}

// mayJoin says whether the call behind a finished server span may still be told.
func (p *pair) mayJoin(n *node) bool {
	if p == nil || n.kind != trace.SpanKindServer {
		return false
	}
	first := p.first
	p.first = false
	return p.both || (p.local && first)
}

// forget takes a node out of those that wait for the other end: a call that is answered was read before,
// so that the other end has told it or never will.
func (c *Correlator) forget(n *node) {
	p := n.pair
	if p == nil {
		return
	}
	n.pair = nil
	for i, other := range p.pending {
		if other == n {
			p.pending = append(p.pending[:i], p.pending[i+1:]...)
			c.drop(n)
			return
		}
	}
}
