// SPDX-License-Identifier: Apache-2.0

package correlate

import (
	"net/netip"
	"slices"

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

const (
	// maxPending bounds what waits on one connection: more are on their way at once only by pipelining.
	maxPending = 64
	// maxAddrs bounds the addresses that are known to be of this node; beyond it they are learnt anew.
	maxAddrs = 4096
)

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
	old := c.ends[e] // its end was not told, or it waits for the other end
	if peer := c.ends[e.other()]; peer != nil && (!peer.pair.both || old != nil && old.pair == peer.pair) {
		k.pair = peer.pair
		k.pair.both = true
	} else {
		k.pair = &pair{local: c.onThisNode(e), first: true}
	}
	k.pair.ends++
	c.conns[info.ID] = k
	c.ends[e] = k
}

// onThisNode says whether the other end of a connection may be here too.
func (c *Correlator) onThisNode(e endpoint) bool {
	if !e.local.IsValid() {
		return true
	}
	local, remote := e.local.Addr(), e.remote.Addr()
	if _, known := c.addrs[local]; !known {
		if len(c.addrs) == maxAddrs {
			clear(c.addrs)
		}
		c.addrs[local] = struct{}{}
	}
	_, known := c.addrs[remote]
	return known || remote.IsLoopback()
}

// ConnGone forgets a connection. Spans for whose sake its other end may still be told go on waiting.
func (c *Correlator) ConnGone(id uint64) {
	k := c.conns[id]
	if k == nil {
		return
	}
	delete(c.conns, id)
	delete(c.answering, id)
	p := k.pair
	p.ends--
	if c.ends[k.end] == k {
		if !p.both && len(p.pending) > 0 {
			// A short connection may end here before the other end is told at all.
			c.gone = append(c.gone, k)
			return
		}
		delete(c.ends, k.end)
	}
	if p.ends > 0 {
		return
	}
	for len(p.pending) > 0 { // nothing more will be told of it
		if n := p.pending[0]; n.state == waiting {
			c.stopWaiting(n)
		} else {
			c.forget(n)
		}
	}
}

// forgetGone forgets connections that are closed and for which nothing waits any more.
func (c *Correlator) forgetGone() {
	c.gone = slices.DeleteFunc(c.gone, func(k *conn) bool {
		if len(k.pair.pending) > 0 {
			return false
		}
		if c.ends[k.end] == k {
			delete(c.ends, k.end)
		}
		return true
	})
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
	for _, other := range p.pending {
		if other.kind == n.kind {
			continue
		}
		server, client := n, other
		if n.kind == trace.SpanKindClient {
			server, client = other, n
		}
		if matches(server, client) {
			other.refs++
			c.forget(other)
			c.joined(server, client)
			c.drop(other)
			return
		}
	}
	if len(p.pending) == maxPending {
		c.forget(p.pending[0])
	}
	n.pending = true
	p.pending = append(p.pending, n)
}

func matches(server, client *node) bool {
	if server.hasSeq && client.hasSeq {
		// A read that takes the client's FIN along counts it as a byte (Linux 6.18, tcp_recvmsg_locked,
		// found_fin_ok), and the bytes seem to begin one later. No request is one byte long.
		return server.joins-client.joins <= 1
	}
	return server.end == 0 || client.start <= server.end
}

// joined makes the client's span the parent of the server's.
func (c *Correlator) joined(server, client *node) {
	server.setParent(client, span.SourceLocalConnection)
	// The request had left before it came, whatever the hooks saw first.
	if client.start > server.start && client.span != nil {
		client.start = server.start
		client.span.Start = server.start
	}
	if server.state == waiting {
		c.stopWaiting(server)
	}
}

// mayJoin says whether the call behind a finished server span may still be told.
func (p *pair) mayJoin(n *node) bool {
	if p == nil || n.kind != trace.SpanKindServer {
		return false
	}
	first := p.first
	p.first = false
	return n.pending && (p.both || p.local && first)
}

// mayBeRead says whether the server may still read a call that has ended: it has not been told of it, and no
// answer shows that it was. Calls of other programs than those of this node are never told.
func (n *node) mayBeRead() bool {
	return n.pending && n.kind == trace.SpanKindClient && n.span.Unanswered && (n.pair.both || n.pair.local)
}

// forget takes a node out of those that wait for the other end: a call that is answered was read before,
// so that the other end has told it or never will.
func (c *Correlator) forget(n *node) {
	if !n.pending {
		return
	}
	n.pending = false
	p := n.pair
	if i := slices.Index(p.pending, n); i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
	if n.state == unread {
		c.calls.remove(n)
		n.state, n.pair = released, nil
		c.drop(n)
	}
}
