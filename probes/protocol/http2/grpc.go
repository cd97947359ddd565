// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"breadcrumb/internal/span"

	"go.opentelemetry.io/otel/trace"
)

// gRPC over HTTP/2: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

// statusNames are gRPC's status codes (doc/statuscodes.md), by number.
var statusNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

// serverErrors are the codes that are errors of the server's (semantic conventions, RPC: gRPC).
var serverErrors = map[string]bool{
	"UNKNOWN": true, "DEADLINE_EXCEEDED": true, "UNIMPLEMENTED": true, "INTERNAL": true, "UNAVAILABLE": true, "DATA_LOSS": true,
}

// statusName is the name of grpc-status' value; one that is not known stands for itself.
func statusName(value string) string {
	if n, err := strconv.Atoi(value); err == nil && n >= 0 && n < len(statusNames) {
		return statusNames[n]
	}
	return value
}

// ofHTTP is the code that stands for an HTTP status where there is no grpc-status (doc/http-grpc-status-mapping.md).
func ofHTTP(status int) string {
	switch status {
	case 400:
		return "INTERNAL"
	case 401:
		return "UNAUTHENTICATED"
	case 403:
		return "PERMISSION_DENIED"
	case 404:
		return "UNIMPLEMENTED"
	case 429, 502, 503, 504:
		return "UNAVAILABLE"
	}
	return "UNKNOWN"
}

// ofReset is the code that stands for a stream's reset (PROTOCOL-HTTP2.md, Errors).
func ofReset(code uint32) string {
	switch code {
	case 7: // REFUSED_STREAM
		return "UNAVAILABLE"
	case 8: // CANCEL
		return "CANCELLED"
	case 11: // ENHANCE_YOUR_CALM
		return "RESOURCE_EXHAUSTED"
	case 12: // INADEQUATE_SECURITY
		return "PERMISSION_DENIED"
	}
	return "INTERNAL"
}

// isGRPC says whether a content type is gRPC's; gRPC-Web's is not, whose status lies in its body.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// isMessage says whether a DATA frame, of which b is the beginning of the payload, is one message of gRPC (PROTOCOL-HTTP2.md,
// Length-Prefixed-Message). Connect's envelopes are the same.
func isMessage(f frame, b []byte) bool {
	return f.flags&padded == 0 && f.length >= 5 && len(b) >= 5 && b[0] <= 1 && int(binary.BigEndian.Uint32(b[1:])) == f.length-5
}

// message decodes grpc-message.
func message(value string) string {
	if s, err := url.PathUnescape(value); err == nil {
		return s
	}
	return value
}

var timeoutUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}

// timeout decodes grpc-timeout; 0 if it is none.
func timeout(value string) time.Duration {
	if len(value) < 2 || len(value) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(value[:len(value)-1], 10, 32)
	if err != nil {
		return 0
	}
	unit := timeoutUnits[value[len(value)-1]]
	if unit > 0 && time.Duration(n) > math.MaxInt64/unit {
		return math.MaxInt64 // 8 digits of hours are more than a Duration holds
	}
	return time.Duration(n) * unit
}

// traceBin decodes grpc-trace-bin: OpenCensus' binary format, version 0, with a trace id, a span id and options.
func traceBin(value string) (c span.Context, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil || len(b) < 27 || b[0] != 0 || b[1] != 0 || b[18] != 1 {
		return c, false
	}
	copy(c.TraceID[:], b[2:18])
	copy(c.SpanID[:], b[19:27])
	if len(b) >= 29 && b[27] == 2 {
		c.Flags = trace.TraceFlags(b[28] & 1)
	}
	return c, c.TraceID.IsValid() && c.SpanID.IsValid()
}
