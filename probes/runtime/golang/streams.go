// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"debug/buildinfo"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"breadcrumb/bpf"
)

// StreamSite is a place at which a library tells which goroutine serves a stream of HTTP/2, or opens one.
type StreamSite struct {
	Site
	Function, Program string
}

// streamFunctions are all functions that may be probed.
func streamFunctions() []string {
	names := []string{grpcHandleStream, grpcClientWrite, grpcClientWriteOld}
	for _, pkg := range http2Packages {
		names = append(append(names, http2RunHandler(pkg), http2WriteHeaders(pkg)), http2Requesters(pkg)...)
	}
	return names
}

// findStreams finds where the program's libraries for HTTP/2 serve and open streams, and what is to be known there.
func (l *Layout) findStreams(im *image, funcs map[string]Func, info *buildinfo.BuildInfo) {
	// put says whether the program has the function.
	put := func(name, program string) bool {
		f, ok := funcs[name]
		if !ok {
			return false
		}
		site, err := im.site(f)
		if err != nil {
			l.NoStreams = fmt.Sprintf("no place for a probe in %s: %v", name, err)
		} else {
			l.Streams = append(l.Streams, StreamSite{*site, name, program})
		}
		return true
	}
	l.findGRPC(put, moduleOf(info, "google.golang.org/grpc"))
	for _, pkg := range http2Packages {
		version := info.GoVersion
		if pkg == http2Module {
			version = moduleOf(info, "golang.org/x/net")
		}
		o, exact := LookupHTTP2(pkg, version)
		if o.ServerConn == 0 {
			continue
		}
		calls := put(http2WriteHeaders(pkg), "http2_client_stream")
		if calls {
			for _, name := range http2Requesters(pkg) {
				if put(name, "http2_requester") {
					break
				}
			}
			l.HTTP2.ClientConn = o.ClientConn // the same of all
		}
		if _, serves := funcs[http2RunHandler(pkg)]; serves && l.HTTP2.ServerConn != 0 && l.HTTP2.ServerConn != o.ServerConn {
			l.NoStreams = "it has two servers of HTTP/2, and " + pkg + "'s is not followed"
		} else if put(http2RunHandler(pkg), "http2_server_stream") {
			l.HTTP2.ServerConn, l.HTTP2.ServerStream = o.ServerConn, o.StreamID
		} else if !calls {
			continue
		}
		if !exact && pkg == http2Module {
			l.Guessed = append(l.Guessed, strings.TrimSpace("golang.org/x/net "+version))
		}
	}
}

// findGRPC is findStreams for grpc-go of a version.
func (l *Layout) findGRPC(put func(name, program string) bool, version string) {
	o, exact := LookupGRPC(version)
	if o.ServerConn == 0 {
		l.NoStreams = "google.golang.org/grpc " + version + " is older than any that is known"
		return
	}
	serves := put(grpcHandleStream, "grpc_server_stream")
	calls := put(grpcClientWrite, "grpc_client_stream") || put(grpcClientWriteOld, "grpc_client_stream")
	if !serves && !calls {
		return
	}
	if _, known := parseModuleVersion(version); !known {
		// Built by Bazel, or by a distribution.
		l.GRPC = bpf.StreamLayout{Guess: 1}
		l.Guessed = append(l.Guessed, "which version of google.golang.org/grpc it was built with")
		return
	}
	l.GRPC = bpf.StreamLayout{
		ServerConn: o.ServerConn, ClientConn: o.ClientConn, ServerStream: o.ServerStreamID, ClientStream: o.ClientStreamID,
		ServerMethod: o.ServerMethod, ClientMethod: o.ClientMethod,
	}
	if o.Indirect {
		l.GRPC.Indirect = 1
	}
	if !exact {
		l.Guessed = append(l.Guessed, "google.golang.org/grpc "+version)
	}
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
