// SPDX-License-Identifier: Apache-2.0

// Package probes holds the contracts of what breadcrumb understands, protocols and runtimes, and
// finds the protocol of each connection. The protocols and runtimes themselves live below it, a folder
// each, and are listed in cmd/agent/probes.go.
package probes

import (
	"errors"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

var (
	// ErrNotProtocol is returned by a decoder that finds that the connection does not speak its protocol
	// after all: messages on it are lost.
	ErrNotProtocol = errors.New("not this protocol")
	// ErrUpgraded is returned by a decoder when the connection goes on as something else, as its protocol
	// provides: it is opaque from there on, and no message is lost.
	ErrUpgraded = errors.New("upgraded to another protocol")
)

// Upgrade is the error of a decoder when the connection goes on as another protocol that breadcrumb understands. What is under way,
// the new protocol's decoder takes over (Adopter).
type Upgrade struct {
	Protocol string    // Protocol.Name
	Pos      [2]uint64 // by Direction: where the bytes of the old protocol end
}

func (u *Upgrade) Error() string { return "upgraded to " + u.Protocol }

// Adopter is a decoder that goes on with what another one has begun.
type Adopter interface {
	// Adopt takes over the decoder of the connection's first protocol, which waits for the answer to the request that asked for the
	// upgrade.
	Adopt(old Decoder, pos [2]uint64)
}

// Direction is seen from the process: Ingress was received by it, Egress sent.
type Direction uint8

const (
	Ingress Direction = iota
	Egress
)

// Other is the opposite direction.
func (d Direction) Other() Direction { return d ^ 1 }

// Chunk is what one call moved over one connection in one direction, or a part of it. Chunks of a
// connection come in the order in which the calls ended; in each direction Pos never decreases. Between
// Pos+Total of a chunk and Pos of the next there may be a gap: bytes that moved unseen (Chunk.Lost says
// whether an event was lost there, else the kernel side left them out on purpose).
//
// Head and Tail are valid during the call only.
type Chunk struct {
	Dir Direction
	// Pos is the position in the direction's byte stream of the first byte of Head.
	Pos uint64
	// Total is the number of bytes that moved; captured are the first len(Head) and the last len(Tail).
	// Where everything is captured, Tail is empty and len(Head) == Total.
	Total uint64
	Head  []byte
	Tail  []byte
	// Begin is when the first of the bytes was on its way (egress: as early as the attachment sees it;
	// ingress: when the process had it), End when the last was. Unix time, ns.
	Begin, End int64
	// ID is the kernel's name for the request or call that these bytes belong to, if it has one: the same
	// for all chunks until the next request starts on the connection.
	ID trace.SpanID
	// Named says that ID was made for this chunk: the kernel side takes its first byte for the first byte
	// of a request. It may be wrong (a body that follows an interim response).
	Named bool
	// Lost says that events of this connection were lost before this chunk, in either direction.
	Lost bool
	// Untold says of what is lost that there was room for it, but it was not known what the bytes were.
	Untold bool
	// Unreadable says that the bytes could not be captured though they should have been.
	Unreadable bool
	// Evidence is what the kernel side saw when the bytes passed.
	Evidence span.Evidence
	// Framed says that the kernel side knows the connection to speak the framed protocol, and Server, then, that the process is
	// the side that answers.
	Framed, Server bool
}

// lost has the chunk say that what was lost before another one was lost before it.
func (c *Chunk) lost(other *Chunk) {
	if other.Lost {
		c.Untold = other.Untold && (c.Untold || !c.Lost)
		c.Lost = true
	}
}

// LossCause is how messages are counted that were lost before the chunk.
func (c *Chunk) LossCause() ledger.Entry {
	if c.Untold {
		return ledger.Truncated
	}
	return ledger.RingFull
}

// End says how a direction, or the whole connection, ended.
type End uint8

const (
	// PeerClosed: the peer will send no more (the process read end-of-file).
	PeerClosed End = iota
	// LocalClosed: the process will send no more (shutdown or close).
	LocalClosed
	// Closed: the connection is gone in both directions.
	Closed
	// Reset: as Closed, by an error of the transport.
	Reset
	// Stopped: the agent stops, or gives the connection up; it goes on unseen.
	Stopped
)

// Conn is what a decoder may know of its connection.
type Conn struct {
	ID uint64
	// Local and Remote are "host", port; for a Unix socket the host is its path (may be empty) and the
	// port 0.
	LocalAddr, RemoteAddr string
	LocalPort, RemotePort uint16
	// Network is "tcp" or "unix"; Type is "ipv4", "ipv6" or "" (network.transport, network.type).
	Network, Type string
	// Established says that the connection was open before the agent saw it.
	Established bool
	Target      *span.Target
}

// Out takes what a decoder makes of a chunk.
type Out interface {
	// Span hands over a span that was just begun (Open), whose answer has (Answered, with the chunk in which it
	// did), that ended (Done) or was given up (Lost, already counted in the target's account). The same pointer is handed over when its state changes. A span must be
	// handed over as Open before it is Done or Lost. After Done or Lost the decoder must forget it.
	Span(*span.Span)
	// Alias says that the kernel side took bytes that belong to the span for a new request and named
	// it id: whatever names id as its cause means the span.
	Alias(id trace.SpanID, s *span.Span)
	// New returns an empty span (State Open, Target and Evidence not set) whose memory may be reused.
	New() *span.Span
}

// Decoder follows one connection. It needs no lock; it touches no files, clocks or globals, keeps no
// reference to its input, does not panic, and holds bounded state.
type Decoder interface {
	// Decode takes the next chunk. An error means that nothing more can be made of the connection; the
	// decoder has given up its open spans (handed them over as Done or Lost) and is not called again.
	Decode(c *Chunk, out Out) error
	// End says that no more will come in one or both directions, at time t (Unix ns).
	End(e End, t int64, out Out)
	// Waiting returns, for each direction, the position up to which the decoder expects bytes that are not
	// captured (the end of a body of known length) and whether it waits at all. The caller then asks the
	// kernel side how far the connection is and calls Progress.
	Waiting() (dir Direction, until uint64, ok bool)
	// Progress says that the direction has reached position pos, its last byte at time t (Unix ns).
	Progress(dir Direction, pos uint64, t int64, out Out)
}

// Verdict is what detection says of the first bytes of a connection.
type Verdict uint8

const (
	No    Verdict = iota // not this protocol
	Maybe                // more bytes are needed
	Yes
)

// Capture is what the kernel side tells of a connection.
type Capture uint8

const (
	// CaptureHeads: whole, what comes up to a blank line; the rest by the ends of its pieces, until it goes quiet.
	CaptureHeads Capture = iota
	// CaptureFrames: HTTP/2's frames, but for large bodies.
	CaptureFrames
	// CaptureEnds: requests whole, up to a limit, and of answers both ends of their first pieces and of those that look like the
	// last one of a database's.
	CaptureEnds
)

// Protocol is a kind of traffic that breadcrumb understands. It is a value: data and two functions.
type Protocol struct {
	// Name as in network.protocol.name.
	Name string
	// Captures is what the kernel side tells of it.
	Captures Capture
	// Detect looks at the first captured bytes in one direction and errs towards No. requests says, on
	// Yes, whether these bytes are from the side that asks.
	Detect func(dir Direction, head []byte) (v Verdict, requests bool)
	// New makes a decoder; server says whether the process is the side that answers.
	New func(c *Conn, server bool) Decoder
}
