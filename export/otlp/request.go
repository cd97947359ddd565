// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"breadcrumb/internal/span"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	// maxRequest is the size at which a request is sent and the next one begun. Collectors refuse
	// requests of more than 4 MiB by default, all of it.
	maxRequest = 3 << 20
	// maxResources bounds the encoded resources that are kept, about 1 KiB each.
	maxResources = 1024
	// maxSpare and maxSpareSize bound the buffers that are kept for the next request.
	maxSpare     = 64
	maxSpareSize = 4 << 20
)

// requests makes ExportTraceServiceRequests of spans. All memory is used again for the next one.
type requests struct {
	resources map[*span.Target]*resource
	used      []*resource // those in this request, in the order of their first span
	spare     [][]byte
	spareSize int
	messages  []*tracepb.ResourceSpans // envelopes
	size      int
}

// resource is an encoded target, and its spans in the request that is being made.
type resource struct {
	head  []byte
	buf   []byte // nil: not in this request
	start int    // of the ScopeSpans in buf
}

// fill makes a request of the first spans of a batch, at least one, and says of how many. The request
// stays good until the next call.
//
// The bytes travel as unknown fields of ResourceSpans messages that hold nothing else, because protobuf
// writes those as they are: the client neither builds nor encodes a message per span.
func (r *requests) fill(batch []*span.Span) ([]*tracepb.ResourceSpans, int) {
	r.reset()
	n := 0
	var last *span.Target
	var res *resource
	for _, s := range batch {
		if r.size >= maxRequest {
			break
		}
		if res == nil || s.Target != last {
			last, res = s.Target, r.resource(s.Target)
		}
		before := len(res.buf)
		res.buf = appendSpan(res.buf, s)
		r.size += len(res.buf) - before
		n++
	}
	for i, res := range r.used {
		end(res.buf, res.start)
		if i == len(r.messages) {
			r.messages = append(r.messages, new(tracepb.ResourceSpans))
		}
		r.messages[i].ProtoReflect().SetUnknown(res.buf)
	}
	return r.messages[:len(r.used)], n
}

// resource is t's, with its buffer begun.
func (r *requests) resource(t *span.Target) *resource {
	res := r.resources[t]
	if res == nil {
		if r.resources == nil || len(r.resources) >= maxResources {
			r.resources = make(map[*span.Target]*resource) // those in use stay in used
		}
		res = &resource{head: appendResource(nil, t)}
		r.resources[t] = res
	}
	if res.buf == nil {
		res.buf, res.start = appendHead(r.buffer(), res.head)
		r.size += len(res.buf)
		r.used = append(r.used, res)
	}
	return res
}

func (r *requests) buffer() []byte {
	if n := len(r.spare); n > 0 {
		b := r.spare[n-1]
		r.spare = r.spare[:n-1]
		r.spareSize -= cap(b)
		return b[:0]
	}
	return make([]byte, 0, 4096)
}

// reset takes the last request's memory back.
func (r *requests) reset() {
	for i, res := range r.used {
		if len(r.spare) < maxSpare && r.spareSize+cap(res.buf) <= maxSpareSize {
			r.spare = append(r.spare, res.buf)
			r.spareSize += cap(res.buf)
		}
		res.buf = nil
		r.messages[i].ProtoReflect().SetUnknown(nil)
	}
	clear(r.used)
	r.used = r.used[:0]
	r.size = 0
}
