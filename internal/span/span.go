// SPDX-License-Identifier: Apache-2.0

// Package span holds the one type that every stage passes on: a request and its answer as one side
// of a connection saw them, on its way to becoming an OpenTelemetry span. It decides nothing.
package span

import (
	"breadcrumb/internal/ledger"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// State says how far an exchange has come.
type State uint8

const (
	// Open is a request whose answer is not complete. Its ID is final and may be used as a parent.
	Open State = iota
	// Answered is a request whose answer has begun with the chunk that is being decoded.
	Answered
	// Done is a request whose span is complete but for its trace and its parent.
	Done
	// Lost is a request that will never be a span. The stage that says so has counted it.
	Lost
)

// Source says by which rule a span got its parent; it is exported as breadcrumb.parent.source.
type Source uint8

const (
	SourceNone            Source = iota // a root, or nothing that can be believed
	SourceHeader                        // the context in the request's own headers
	SourceLocalConnection               // the span at the other end of the same connection, on this node
	SourceGoroutine                     // the goroutine that made the call, or one that it descends from
	SourceTask                          // the task (asyncio, a virtual thread) that made the call, or one from which it was made
	SourceHandOff                       // who waited for the end of the job in which the call was made
	SourceThread                        // the thread that made the call was serving that request
	SourceInferred                      // by time alone: asked for, and of a stated confidence
	SourceEventLoop                     // the same of a thread that serves many at once, confirmed by what came after
	SourceProxy                         // the request that the call passes on word for word
)

// String is the value of breadcrumb.parent.source.
func (s Source) String() string {
	switch s {
	case SourceHeader:
		return "header"
	case SourceLocalConnection:
		return "local-connection"
	case SourceGoroutine:
		return "goroutine"
	case SourceTask:
		return "task"
	case SourceHandOff:
		return "hand-off"
	case SourceThread:
		return "thread"
	case SourceInferred:
		return "inferred"
	case SourceEventLoop:
		return "event-loop"
	case SourceProxy:
		return "proxy"
	}
	return ""
}

// Context is a trace context as it came over the wire. A zero TraceID means that there was none.
// https://www.w3.org/TR/trace-context/
type Context struct {
	TraceID    trace.TraceID
	SpanID     trace.SpanID
	Flags      trace.TraceFlags
	TraceState string
}

// Evidence is what the kernel side recorded when the first byte of a request passed. Decoders copy it
// from the chunk; the correlator's rules are the only readers.
type Evidence struct {
	PID, TID uint32
	// Task is the goroutine, or task of another runtime, that moved the bytes, or asked for them to be moved; 0 where
	// there is none.
	Task uint64
	// ParentTask is the goroutine that started Task; 0 where it is not known.
	ParentTask uint64
	// Cause is the request that was current in the execution context that made this call, as the kernel
	// side saw it. Only calls have one; 0 is none.
	Cause trace.SpanID
	// CauseSource is the kind of context in which Cause was found.
	CauseSource Source
	// Inherited says that Cause came from the goroutine's ancestor and not from the goroutine itself.
	Inherited bool
	// Dialed says that the call is the first on a connection that was seen from its beginning: Cause may be of the moment at which
	// that was opened.
	Dialed bool
	// Multiplexed says that many requests share the connection: the thread that moves the bytes says nothing of them.
	Multiplexed bool
	// Conn names the connection, Seq the TCP sequence number of the request's first byte (0 and
	// HasSeq false for Unix sockets). Both ends of a connection see the same Seq.
	Conn   uint64
	Seq    uint32
	HasSeq bool
}

// Target is the process a span belongs to, as the exporters need it.
type Target struct {
	PID uint32
	// Resource describes the process; it is shared by all its spans and must not be changed.
	Resource []attribute.KeyValue
	// Account is where everything that happens to the process's messages is counted.
	Account *ledger.Account
}

// ServiceName is the resource's service.name.
func (t *Target) ServiceName() string {
	for _, kv := range t.Resource {
		if kv.Key == "service.name" {
			return kv.Value.AsString()
		}
	}
	return ""
}

// Span is one exchange. Decoders make it when the request begins and fill it until it is Done; from
// then on only the correlator (TraceID, Parent, Source, TraceState, Flags, Start) and the exporters
// (read only) touch it.
type Span struct {
	State  State
	Kind   trace.SpanKind // server or client
	Source Source

	ID         trace.SpanID
	TraceID    trace.TraceID
	Parent     trace.SpanID
	Flags      trace.TraceFlags
	TraceState string

	Name       string
	Start, End int64 // Unix time, ns
	Status     codes.Code
	Message    string
	Attrs      []attribute.KeyValue

	// Unanswered says that the exchange ended before any answer came: the other end may still read the request.
	Unanswered bool
	// Partial says that fields of it are not known, which the attribute breadcrumb.unknown_fields tells as well.
	Partial bool
	// Link is the request for which the call was made, and which has ended before it; zero where there is none.
	Link Context
	// Wire is the context that the request carried.
	Wire Context
	// Digest is a hash of what is asked, values in the text included, where a proxy would pass it on as it is; 0: there is none. It is
	// never exported.
	Digest   uint64
	Evidence Evidence
	Target   *Target
}

// ScopeName is the instrumentation scope of every span.
const ScopeName = "breadcrumb"
