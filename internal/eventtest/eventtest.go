// SPDX-License-Identifier: Apache-2.0

// Package eventtest makes records as the kernel side does, for tests of what is behind the ring buffer. It
// knows positions, names and times; what is sent when, the test says.
package eventtest

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"breadcrumb/bpf"
)

// Directions.
const (
	Ingress = 0
	Egress  = 1
)

// How a connection ends; the order is that of enum end_how.
const (
	PeerEnd = iota
	LocalEnd
	Closed
	Reset
)

// Kernel is the clock and the names of one kernel side.
type Kernel struct {
	Now  uint64 // monotonic, ns; each record is 1000 later than the one before
	last uint64 // name of a connection, or of a request
}

func (k *Kernel) tick() uint64 {
	k.Now += 1000
	return k.Now
}

func (k *Kernel) name() uint64 {
	k.last++
	return k.last
}

// Socket is a connection of a process.
type Socket struct {
	k       *Kernel
	PID     uint32
	Thread  uint32
	Event   bpf.ConnEvent // how it is introduced; may be changed before Open
	Request uint64        // under way
	pos     [2]uint64
	seq     [2]uint32
	moved   [2]uint64 // when
	tcp     bool
}

// TCP makes both ends of a connection; from is the one that asks.
func (k *Kernel) TCP(from, to uint32, client, server string) (c, s *Socket) {
	a, b := netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
	ends := [2]*Socket{}
	seq := uint32(k.name()) * 2654435761
	for i, pid := range []uint32{from, to} {
		local, remote := a, b
		if i == 1 {
			local, remote = b, a
		}
		e := bpf.ConnEvent{Conn: k.name(), Netns: 1, Family: 2, LocalPort: local.Port(), RemotePort: remote.Port()}
		e.Key = 0xffff888000000000 + e.Conn*2048
		if local.Addr().Is6() {
			e.Family = 10
		}
		copy(e.Local[:], local.Addr().AsSlice())
		copy(e.Remote[:], remote.Addr().AsSlice())
		ends[i] = &Socket{k: k, PID: pid, Thread: pid, Event: e, tcp: true, seq: [2]uint32{seq + uint32(i)*77, seq + uint32(1-i)*77}}
	}
	return ends[0], ends[1]
}

// Unix makes both ends of a Unix connection.
func (k *Kernel) Unix(from, to uint32, path string) (c, s *Socket) {
	ends := [2]*Socket{}
	for i, pid := range []uint32{from, to} {
		e := bpf.ConnEvent{Conn: k.name(), Netns: 1, Family: 1}
		e.Key = 0xffff888000000000 + e.Conn*2048
		ends[i] = &Socket{k: k, PID: pid, Thread: pid, Event: e}
	}
	c, s = ends[0], ends[1]
	c.Event.Peer, s.Event.Peer = s.Event.Key, c.Event.Key
	copy(c.Event.Remote[:], path)
	copy(s.Event.Local[:], path)
	return c, s
}

// Open is the record that introduces the connection.
func (s *Socket) Open() []byte {
	e := s.Event
	e.Hdr.Kind, e.Hdr.Tgid, e.Hdr.Time = uint32(bpf.EventConn), s.PID, s.k.tick()
	return record(&e)
}

// Option changes a data record before it is made.
type Option func(*bpf.DataEvent)

// Named begins a request on the connection.
func (s *Socket) Named() Option {
	return func(e *bpf.DataEvent) {
		s.Request = s.k.name()<<8 | 1<<56
		e.Request = s.Request
		e.Flags |= bpf.FlagNamed
	}
}

// For says on whose behalf a call is made.
func For(request uint64) Option { return func(e *bpf.DataEvent) { e.Cause = request } }

// With sets flags.
func With(flags uint32) Option { return func(e *bpf.DataEvent) { e.Flags |= flags } }

// Receive is the record of bytes that the process received.
func (s *Socket) Receive(text string, options ...Option) []byte {
	return s.move(Ingress, text, "", len(text), options)
}

// Send is the record of bytes that the process sent.
func (s *Socket) Send(text string, options ...Option) []byte {
	return s.move(Egress, text, "", len(text), options)
}

// Piece is the record of bytes of which only the first and the last are captured.
func (s *Socket) Piece(dir int, head, tail string, total int, options ...Option) []byte {
	return s.move(dir, head, tail, total, options)
}

// Unseen moves bytes of which nothing is told.
func (s *Socket) Unseen(dir, n int) {
	s.pos[dir] += uint64(n)
	s.seq[dir] += uint32(n)
	s.moved[dir] = s.k.tick()
}

func (s *Socket) move(dir int, head, tail string, total int, options []Option) []byte {
	now := s.k.tick()
	e := bpf.DataEvent{
		Begin: now, Conn: s.Event.Conn, Pos: s.pos[dir], Request: s.Request, Tid: s.Thread, Total: uint32(total),
		Captured: uint16(len(head)), Tail: uint8(len(tail)), Dir: uint8(dir),
	}
	e.Hdr.Kind, e.Hdr.Tgid, e.Hdr.Time = uint32(bpf.EventData), s.PID, now
	if dir == Egress {
		e.Begin -= 300
	}
	if s.tcp {
		e.Seq = s.seq[dir]
		e.Flags |= bpf.FlagHasSeq
	}
	for _, o := range options {
		o(&e)
	}
	s.pos[dir] += uint64(total)
	s.seq[dir] += uint32(total)
	s.moved[dir] = now
	// The kernel side reserves records in a few sizes.
	return append(append(append(record(&e), head...), tail...), make([]byte, 24)...)
}

// Progress is the record that tells how far a direction has come.
func (s *Socket) Progress(dir int) []byte {
	e := bpf.ProgressEvent{Conn: s.Event.Conn, Pos: s.pos[dir], Dir: uint32(dir)}
	e.Hdr.Kind, e.Hdr.Tgid, e.Hdr.Time = uint32(bpf.EventProgress), s.PID, s.moved[dir]
	s.k.tick()
	return record(&e)
}

// Moved is how far a direction has come, and when.
func (s *Socket) Moved(dir int) (pos, at uint64) { return s.pos[dir], s.moved[dir] }

// End is the record of an end.
func (s *Socket) End(how uint32, flags ...uint32) []byte {
	e := bpf.EndEvent{Conn: s.Event.Conn, Pos: s.pos, Last: s.moved, How: how}
	for _, f := range flags {
		e.Flags |= f
	}
	e.Hdr.Kind, e.Hdr.Tgid, e.Hdr.Time = uint32(bpf.EventEnd), s.PID, s.k.tick()
	return record(&e)
}

// Exit is the record of the end of a process.
func (k *Kernel) Exit(pid uint32) []byte {
	var e bpf.ProcessEvent
	e.Hdr.Kind, e.Hdr.Tgid, e.Hdr.Time = uint32(bpf.EventExit), pid, k.tick()
	return record(&e)
}

// record is the memory of an event. Like the machines that run the agent, those that test it are
// little-endian.
func record[T any](e *T) []byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		panic("records are little-endian")
	}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e))...)
}
