// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"

	"breadcrumb/bpf"
)

// StreamSite is a place at which a library tells which goroutine serves a stream of HTTP/2, or opens one.
type StreamSite struct {
	Site
	Function, Program string
}

// streamFunctions are the functions that are probed, and by which program.
func streamFunctions() map[string]string {
	functions := map[string]string{
		grpcHandleStream:   "grpc_server_stream",
		grpcClientWrite:    "grpc_client_stream",
		grpcClientWriteOld: "grpc_client_stream",
	}
	for _, pkg := range http2Packages {
		functions[http2RunHandler(pkg)] = "http2_server_stream"
		functions[http2WriteHeaders(pkg)] = "http2_client_stream"
		functions[http2RoundTrip(pkg)] = "http2_requester"
	}
	return functions
}

// findStreams finds where the program's libraries for HTTP/2 serve and open streams, and what is to be known there.
func (l *Layout) findStreams(im *image, funcs map[string]Func, info *buildinfo.BuildInfo) {
	functions := streamFunctions()
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		f, ok := funcs[name]
		if !ok {
			continue
		}
		site, err := im.site(f)
		if err != nil {
			l.NoStreams = fmt.Sprintf("no place for a probe in %s: %v", name, err)
			continue
		}
		l.Streams = append(l.Streams, StreamSite{*site, name, functions[name]})
	}
	version := moduleOf(info, "google.golang.org/grpc")
	if _, ok := funcs[grpcHandleStream]; ok || funcs[grpcClientWrite].Addr|funcs[grpcClientWriteOld].Addr != 0 {
		o, exact := LookupGRPC(version)
		l.GRPC = bpf.StreamLayout{
			ServerConn: o.ServerConn, ClientConn: o.ClientConn, ServerStream: o.ServerStreamID, ClientStream: o.ClientStreamID,
			ServerMethod: o.ServerMethod, ClientMethod: o.ClientMethod,
		}
		if o.Indirect {
			l.GRPC.Indirect = 1
		}
		switch {
		case o.ServerConn == 0:
			l.dropStreams("grpc_")
			l.NoStreams = "google.golang.org/grpc " + version + " is older than any that is known"
		case !exact:
			l.Guessed = append(l.Guessed, "google.golang.org/grpc "+cmp.Or(version, "of an unknown version"))
		}
	}
	// The program has Go's own or none, and perhaps the module's, of the same layout.
	for _, pkg := range http2Packages {
		_, serves := funcs[http2RunHandler(pkg)]
		_, calls := funcs[http2WriteHeaders(pkg)]
		if !serves && !calls {
			continue
		}
		version := info.GoVersion
		if pkg == http2Module {
			version = moduleOf(info, "golang.org/x/net")
		}
		o, exact := LookupHTTP2(pkg, version)
		if o.ServerConn != 0 && l.HTTP2.ServerConn == 0 {
			l.HTTP2 = bpf.StreamLayout{ServerConn: o.ServerConn, ClientConn: o.ClientConn, ServerStream: o.StreamID}
		}
		if !exact && pkg == http2Module {
			l.Guessed = append(l.Guessed, "golang.org/x/net "+cmp.Or(version, "of an unknown version"))
		}
	}
}

// dropStreams gives up the places of a library's programs.
func (l *Layout) dropStreams(prefix string) {
	l.Streams = slices.DeleteFunc(l.Streams, func(s StreamSite) bool { return len(s.Program) >= len(prefix) && s.Program[:len(prefix)] == prefix })
}

// moduleOf is the version of a module that the program was built with, or what it was replaced by; empty if it is not known.
func moduleOf(info *buildinfo.BuildInfo, path string) string {
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path })
	if i < 0 {
		return ""
	}
	if r := info.Deps[i].Replace; r != nil {
		return r.Version
	}
	return info.Deps[i].Version
}
