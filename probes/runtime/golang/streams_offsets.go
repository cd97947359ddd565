// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"slices"
	"strconv"
	"strings"
)

// Functions of google.golang.org/grpc and what their arguments lead to. An interface takes two words of
// the arguments, so the stream that a server handles is the fourth, after the receiver and the transport.
// The client's is the second, after the receiver.
//
// A server's stream is handled by a goroutine of its own, or by one that handles streams one after the
// other (NumStreamWorkers). Its transport is an *http2Server except where a net/http server passes requests
// on (Server.ServeHTTP): then it is a *serverHandlerTransport, which has no connection, and the stream's id
// is 0, which no stream of HTTP/2 has but the connection itself.
//
// A client's stream has its id, and its HEADERS are queued, before the first write. Writes come from whoever
// calls SendMsg or CloseSend: for a unary call that is the caller; what is written again for a retry comes
// from whoever notices that it must be, which for a stream may be the goroutine that receives. There is none
// for a stream on which nothing is sent and that is not closed for sending, or whose first message cannot be
// encoded, is too large, or comes when the attempt is over.
const (
	grpcHandleStream = "google.golang.org/grpc.(*Server).handleStream"
	// From v1.69.0 on, and before.
	grpcClientWrite    = "google.golang.org/grpc/internal/transport.(*http2Client).write"
	grpcClientWriteOld = "google.golang.org/grpc/internal/transport.(*http2Client).Write"
)

// StreamOffsets says where gRPC keeps what belongs to a stream, in bytes. They are the same on amd64 and
// arm64, and do not depend on the version of Go.
type StreamOffsets struct {
	// internal/transport.http2Server, http2Client: conn, a net.Conn; its data word is 8 further
	ServerConn uint16
	ClientConn uint16

	// From what the argument of handleStream and Write points to: id, a uint32, and method, a string
	// ("/package.Service/Method").
	ServerStreamID uint16
	ClientStreamID uint16
	ServerMethod   uint16
	ClientMethod   uint16

	// Indirect says that the argument points to a pointer to the stream that these offsets are for.
	Indirect bool
}

// grpcTable has a row for each version of gRPC that brought a layout of its own, oldest first. From a row
// on, its offsets hold until the next row.
//
// All were computed from the sources of each release (v1.40.0 to newestGRPC), those of internal/transport
// (http2_server.go, http2_client.go, transport.go, server_stream.go, client_stream.go) and of what they
// contain. TestGRPCOffsetsMatchSources does it again.
var grpcTable = []struct {
	since   string
	offsets StreamOffsets
}{
	{"v1.40.0", StreamOffsets{
		ServerConn: 32, ClientConn: 64,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 80, ClientMethod: 80,
	}},
	{"v1.52.0", StreamOffsets{ // http2Client.address came
		ServerConn: 32, ClientConn: 136,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 80, ClientMethod: 80,
	}},
	{"v1.58.0", StreamOffsets{ // resolver.Address.Type went
		ServerConn: 32, ClientConn: 128,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 80, ClientMethod: 80,
	}},
	{"v1.60.0", StreamOffsets{ // http2Server.ctx went
		ServerConn: 16, ClientConn: 128,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 80, ClientMethod: 80,
	}},
	{"v1.66.0", StreamOffsets{ // Stream.ct became an interface
		ServerConn: 16, ClientConn: 128,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 88, ClientMethod: 88,
	}},
	{"v1.69.0", StreamOffsets{ // ServerStream and ClientStream came, which begin with a *Stream
		ServerConn: 16, ClientConn: 128,
		ServerStreamID: 0, ClientStreamID: 0, ServerMethod: 24, ClientMethod: 24, Indirect: true,
	}},
	{"v1.77.0", StreamOffsets{ // they begin with a Stream, the id of which has moved to its end
		ServerConn: 16, ClientConn: 128,
		ServerStreamID: 108, ClientStreamID: 108, ServerMethod: 16, ClientMethod: 16,
	}},
}

// newestGRPC is the last version that was found to have the last row's layout.
const newestGRPC = "v1.85.0"

// LookupGRPC returns the offsets for a program with the given version of google.golang.org/grpc, as its
// build information has it ("v1.69.4"). They are exact for a release that was compared; for a newer one or
// a pre-release they are those of the nearest lower version, and of the newest if there is nothing to go by
// ("(devel)"). For versions before 1.40 there are none: ServerConn is zero.
func LookupGRPC(version string) (o StreamOffsets, exact bool) {
	v, ok := parseModuleVersion(version)
	if !ok {
		return grpcTable[len(grpcTable)-1].offsets, false
	}
	for _, row := range grpcTable {
		if v.compare(row.since) < 0 {
			break
		}
		o = row.offsets
	}
	return o, o.ServerConn != 0 && v.release() && v.compare(newestGRPC) <= 0
}

// The implementations of HTTP/2, by the package they are in. A program may have more than one; what they
// share is only their origin. The functions to watch are the methods runHandler and writeHeaders, see
// http2RunHandler and http2WriteHeaders.
const (
	// http2Bundle is in programs built by Go before 1.27, its names prefixed with http2.
	http2Bundle = "net/http"
	// http2Internal took its place in Go 1.27.
	http2Internal = "net/http/internal/http2"
	// http2Module is used by programs that import it. From v0.54.0 on and built by Go 1.27 it has no code
	// of its own but passes on to net/http, unless it is built with the tag http2legacy.
	http2Module = "golang.org/x/net/http2"
)

var http2Packages = []string{http2Bundle, http2Internal, http2Module}

// http2RunHandler is the function that every handler of an HTTP/2 server is called by, in a goroutine of
// its own that is started by the one that serves the connection: at once, or when another handler has ended
// if there are too many; also for the request that a connection was upgraded by, and for a pushed one.
// The *serverConn is its first argument and the *responseWriter its second.
func http2RunHandler(pkg string) string {
	return pkg + ".(*" + http2Prefix(pkg) + "serverConn).runHandler"
}

// http2WriteHeaders is the function that writes the HEADERS of a request, and again for its trailers. The
// *ClientConn is its first argument and the stream's id its second. It is called by a goroutine that was
// started for this attempt at the request by the one that called RoundTrip (in golang.org/x/net before
// October 2021 by that one itself). A retry is another stream, with another such goroutine.
func http2WriteHeaders(pkg string) string {
	return pkg + ".(*" + http2Prefix(pkg) + "ClientConn).writeHeaders"
}

// http2Requesters are the names, by version, of the function that starts this goroutine, called by the one
// that called RoundTrip. Of those that a program has, the first is the one that does it; the others may
// only pass on to it, and may be inlined where they are called.
func http2Requesters(pkg string) []string {
	receiver := pkg + ".(*" + http2Prefix(pkg) + "ClientConn)."
	return []string{
		receiver + "internalRoundTrip", // from golang.org/x/net v0.54.0 on
		receiver + "roundTrip",         // from v0.23.0 and Go 1.23 on
		receiver + "RoundTrip",
	}
}

func http2Prefix(pkg string) string {
	if pkg == http2Bundle {
		return "http2"
	}
	return ""
}

// HTTP2Offsets says where an implementation of HTTP/2 keeps what belongs to a stream, in bytes. They are the
// same on amd64 and arm64.
type HTTP2Offsets struct {
	// serverConn.conn, ClientConn.tconn: a net.Conn; its data word is 8 further
	ServerConn uint16
	ClientConn uint16

	// The way from a *responseWriter to the stream's id: responseWriter.rws, a pointer;
	// responseWriterState.stream, a pointer; stream.id, a uint32. And stream.sc, the *serverConn.
	WriterState uint16
	StateStream uint16
	StreamID    uint16
	StreamConn  uint16
}

// http2Table has the layouts of each implementation. So far none has changed.
//
// They were computed from the sources of the first and the last release of each minor version of Go (1.19
// to 1.27), of each release of golang.org/x/net up to newestHTTP2, and of some revisions before there were
// releases, since April 2021. TestHTTP2OffsetsMatchSources does it again.
var http2Table = map[string]HTTP2Offsets{
	http2Bundle: {
		ServerConn: 16, ClientConn: 8,
		WriterState: 0, StateStream: 0, StreamID: 8, StreamConn: 0,
	},
	http2Internal: { // serverConn.hs became an interface
		ServerConn: 24, ClientConn: 8,
		WriterState: 0, StateStream: 0, StreamID: 8, StreamConn: 0,
	},
	http2Module: {
		ServerConn: 16, ClientConn: 8,
		WriterState: 0, StateStream: 0, StreamID: 8, StreamConn: 0,
	},
}

// newestHTTP2 is the last version of golang.org/x/net that was compared. Of Go it is newestCompared.
const newestHTTP2 = "v0.62.0"

// LookupHTTP2 returns the offsets for one of the implementations, whose version is Go's ("go1.26.8") or, for
// golang.org/x/net/http2, that of golang.org/x/net ("v0.62.0"). They are exact for a release up to the newest
// that was compared; else they are those of the newest. For a package that is none of them, and for
// versions of Go before 1.19, there are none: ServerConn is zero.
func LookupHTTP2(pkg, version string) (o HTTP2Offsets, exact bool) {
	o = http2Table[pkg]
	if o.ServerConn == 0 {
		return o, false
	}
	if pkg == http2Module {
		v, ok := parseModuleVersion(version)
		return o, ok && v.release() && v.compare(newestHTTP2) <= 0
	}
	goOffsets, exact := Lookup(version)
	if goOffsets.StackHi == 0 {
		return HTTP2Offsets{}, false
	}
	return o, exact
}

// moduleVersion is major, minor and patch, and 1 for a release, 0 for something on the way to it.
type moduleVersion [4]int

// parseModuleVersion reads a version as build information has it: "v1.69.4", "v1.70.0-dev",
// "v0.0.0-20220722155237-a158d28d115b". What was built from a changed source tree ("v1.69.4+dirty") is not
// told apart.
func parseModuleVersion(s string) (v moduleVersion, ok bool) {
	s, ok = strings.CutPrefix(s, "v")
	if !ok {
		return v, false
	}
	s, _, _ = strings.Cut(s, "+")
	s, _, pre := strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return v, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return v, false
		}
		v[i] = int(n)
	}
	if !pre {
		v[3] = 1
	}
	return v, true
}

func (v moduleVersion) release() bool { return v[3] != 0 }

// compare compares v with a version of the tables.
func (v moduleVersion) compare(table string) int {
	t, _ := parseModuleVersion(table)
	return slices.Compare(v[:], t[:])
}
