// SPDX-License-Identifier: Apache-2.0

package golang

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	grpcModule = "google.golang.org/grpc"
	netModule  = "golang.org/x/net"
)

// streamArchs are what the tables say that they are the same for.
var streamArchs = []string{"amd64", "arm64"}

func TestLookupGRPC(t *testing.T) {
	rows := make(map[string]StreamOffsets)
	for _, row := range grpcTable {
		rows[row.since] = row.offsets
	}
	for _, tt := range []struct {
		version string
		row     string // none if empty
		exact   bool
	}{
		{"v1.40.0", "v1.40.0", true},
		{"v1.51.0", "v1.40.0", true},
		{"v1.52.0", "v1.52.0", true},
		{"v1.57.2", "v1.52.0", true},
		{"v1.58.3", "v1.58.0", true},
		{"v1.60.1", "v1.60.0", true},
		{"v1.65.1", "v1.60.0", true},
		{"v1.66.0", "v1.66.0", true},
		{"v1.68.1", "v1.66.0", true},
		{"v1.69.0", "v1.69.0", true},
		{"v1.76.0", "v1.69.0", true},
		{"v1.77.0", "v1.77.0", true},
		{"v1.85.0", "v1.77.0", true},
		{"v1.70.0+dirty", "v1.69.0", true},
		{"v1.69.0-dev", "v1.66.0", false},
		{"v1.69.0-dev.0.20241101120000-0123456789ab", "v1.66.0", false},
		{"v1.85.0-dev", "v1.77.0", false},
		{"v1.85.1", "v1.77.0", false},
		{"v1.100.0", "v1.77.0", false},
		{"v2.0.0", "v1.77.0", false},
		{"(devel)", "v1.77.0", false},
		{"", "v1.77.0", false},
		{"v1.69", "v1.77.0", false},
		{"v1.x.0", "v1.77.0", false},
		{"v1.39.1", "", false},
		{"v0.0.0-20180101000000-0123456789ab", "", false},
	} {
		t.Run(tt.version, func(t *testing.T) {
			got, exact := LookupGRPC(tt.version)
			if diff := cmp.Diff(rows[tt.row], got); diff != "" {
				t.Errorf("offsets (-want +got):\n%s", diff)
			}
			if exact != tt.exact {
				t.Errorf("exact = %v, want %v", exact, tt.exact)
			}
		})
	}
}

func TestLookupHTTP2(t *testing.T) {
	for _, tt := range []struct {
		pkg, version string
		found, exact bool
	}{
		{http2Bundle, "go1.19", true, true},
		{http2Bundle, "go1.26.8", true, true},
		{http2Bundle, "go1.26rc1", true, false},
		{http2Bundle, "unknown", true, false},
		{http2Bundle, "go1.18.10", false, false},
		{http2Internal, "go1.27.4", true, true},
		{http2Internal, "go1.28.0", true, false},
		{http2Internal, "devel go1.28-abcdef", true, false},
		{http2Module, "v0.1.0", true, true},
		{http2Module, "v0.62.0", true, true},
		{http2Module, "v0.62.1", true, false},
		{http2Module, "v0.0.0-20220722155237-a158d28d115b", true, false},
		{http2Module, "(devel)", true, false},
		{http2Module, "", true, false},
		{"net/http/httputil", "go1.26.8", false, false},
		{"", "", false, false},
	} {
		t.Run(tt.pkg+" "+tt.version, func(t *testing.T) {
			var want HTTP2Offsets
			if tt.found {
				want = http2Table[tt.pkg]
			}
			got, exact := LookupHTTP2(tt.pkg, tt.version)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("offsets (-want +got):\n%s", diff)
			}
			if exact != tt.exact {
				t.Errorf("exact = %v, want %v", exact, tt.exact)
			}
		})
	}
}

func TestGRPCOffsetsMatchSources(t *testing.T) {
	network := usedModule(t, netModule)
	modules := []module{usedModule(t, grpcModule)}
	for _, v := range releases(t, grpcModule, func(v string) bool {
		_, exact := LookupGRPC(v)
		return exact
	}) {
		modules = append(modules, fetchModule(t, grpcModule, v))
	}
	for _, arch := range streamArchs {
		std := newSources(goroot(t, ""), arch, nil)
		for _, m := range modules {
			t.Run(m.Version+" "+arch, func(t *testing.T) {
				got, exact := LookupGRPC(m.Version)
				if !exact {
					t.Errorf("%s is not in the table", m.Version)
				}
				if diff := cmp.Diff(grpcSourceOffsets(t, newSources(std.goroot, arch, std, m, network)), got); diff != "" {
					t.Errorf("offsets (-source +table):\n%s", diff)
				}
			})
		}
	}
}

func grpcSourceOffsets(t *testing.T, s *sources) (o StreamOffsets) {
	t.Helper()
	const transport = grpcModule + "/internal/transport"
	o.ServerConn = s.offset(t, s.lookup(t, transport, "http2Server"), "conn")
	o.ClientConn = s.offset(t, s.lookup(t, transport, "http2Client"), "conn")

	handle := s.function(t, grpcHandleStream)
	if handle == nil {
		t.Fatalf("no %s", grpcHandleStream)
	}
	write := s.function(t, grpcClientWrite)
	if old := s.function(t, grpcClientWriteOld); (old == nil) == (write == nil) {
		t.Fatalf("want either %s or %s", grpcClientWrite, grpcClientWriteOld)
	} else if old != nil {
		write = old
	}
	if typ := handle.Params().At(0).Type(); !types.IsInterface(typ) {
		t.Errorf("the first argument of %s is a %s, want an interface", grpcHandleStream, typ)
	}

	var serverIndirect, clientIndirect bool
	o.ServerStreamID, o.ServerMethod, serverIndirect = s.stream(t, handle.Params().At(1).Type())
	o.ClientStreamID, o.ClientMethod, clientIndirect = s.stream(t, write.Params().At(0).Type())
	if serverIndirect != clientIndirect {
		t.Errorf("indirect for the server: %v, for the client: %v", serverIndirect, clientIndirect)
	}
	o.Indirect = serverIndirect
	return o
}

// stream finds the fields of a Stream from a pointer to it or to a struct that has it embedded.
func (s *sources) stream(t *testing.T, ptr types.Type) (id, method uint16, indirect bool) {
	t.Helper()
	typ := pointee(t, ptr)
	var base uint16
	if !hasField(typ, "id") {
		base = s.offset(t, typ, "Stream")
		typ = fieldOf(typ, "Stream").Type()
		if _, indirect = typ.Underlying().(*types.Pointer); indirect {
			if base != 0 {
				t.Errorf("the pointer to the stream is at %d, want 0", base)
			}
			typ = pointee(t, typ)
		}
	}
	wantType(t, typ, "id", "uint32")
	wantType(t, typ, "method", "string")
	return base + s.offset(t, typ, "id"), base + s.offset(t, typ, "method"), indirect
}

func TestHTTP2OffsetsMatchSources(t *testing.T) {
	check := func(t *testing.T, s *sources, pkg, version string) {
		got, exact := LookupHTTP2(pkg, version)
		if !exact && !strings.HasPrefix(version, "v0.0.0-") {
			t.Errorf("%s is not in the table", version)
		}
		if diff := cmp.Diff(http2SourceOffsets(t, s, pkg), got); diff != "" {
			t.Errorf("offsets (-source +table):\n%s", diff)
		}
	}

	used := []string{""}
	if !testing.Short() {
		used = toolchains(t)
	}
	for _, toolchain := range used {
		root := goroot(t, toolchain)
		version := toolchain
		if version == "" {
			version = runtime.Version()
		}
		pkg := http2Bundle
		if _, err := os.Stat(filepath.Join(root, "src", http2Internal)); err == nil {
			pkg = http2Internal
		}
		for _, arch := range streamArchs {
			t.Run(version+" "+arch, func(t *testing.T) {
				check(t, newSources(root, arch, nil), pkg, version)
			})
		}
	}

	modules := []module{usedModule(t, netModule)}
	for _, v := range releases(t, netModule, func(v string) bool {
		_, exact := LookupHTTP2(http2Module, v)
		return exact
	}) {
		modules = append(modules, fetchModule(t, netModule, v))
	}
	if len(modules) > 1 {
		for _, v := range []string{
			"v0.0.0-20210405180319-a5a99cb37ef4", "v0.0.0-20210917221730-978cfadd31cf", "v0.0.0-20211005001312-d4b1ae081e3b",
			"v0.0.0-20220127200216-cd36cc0744dd", "v0.0.0-20220722155237-a158d28d115b", "v0.0.0-20220909164309-bea034e7d591",
		} {
			modules = append(modules, fetchModule(t, netModule, v))
		}
	}
	for _, arch := range streamArchs {
		std := newSources(goroot(t, ""), arch, nil)
		for _, m := range modules {
			t.Run(m.Version+" "+arch, func(t *testing.T) {
				check(t, newSources(std.goroot, arch, std, m), http2Module, m.Version)
			})
		}
	}
}

func http2SourceOffsets(t *testing.T, s *sources, pkg string) HTTP2Offsets {
	t.Helper()
	run, write := s.function(t, http2RunHandler(pkg)), s.function(t, http2WriteHeaders(pkg))
	if run == nil || write == nil {
		t.Fatalf("want both %s and %s", http2RunHandler(pkg), http2WriteHeaders(pkg))
	}
	if got := write.Params().At(0).Type().String(); got != "uint32" {
		t.Errorf("the first argument of %s is a %s, want an uint32", http2WriteHeaders(pkg), got)
	}
	named := func(name string) types.Type { return s.lookup(t, pkg, http2Prefix(pkg)+name) }
	conn, writer, stream := named("serverConn"), named("responseWriter"), named("stream")
	state := pointee(t, fieldOf(writer, "rws").Type())
	for _, ptr := range []struct{ got, want types.Type }{
		{run.Params().At(0).Type(), writer},
		{fieldOf(state, "stream").Type(), stream},
		{fieldOf(stream, "sc").Type(), conn},
	} {
		if !types.Identical(pointee(t, ptr.got), ptr.want) {
			t.Errorf("%s, want a pointer to %s", ptr.got, ptr.want)
		}
	}
	wantType(t, stream, "id", "uint32")

	// Of the functions that may start the goroutine that makes a request, the first that there is does it.
	var requester []string
	for _, name := range http2Requesters(pkg) {
		if len(requester) == 0 && s.function(t, name) != nil {
			requester = append(requester, name)
		}
	}
	client := http2Prefix(pkg) + "ClientConn"
	starters := s.callers(t, pkg, client, "doRequest")
	if len(starters) == 0 { // before there was such a goroutine
		starters = s.callers(t, pkg, client, "writeHeaders")
	}
	if diff := cmp.Diff(starters, requester); diff != "" {
		t.Errorf("requester (-source +names):\n%s", diff)
	}
	return HTTP2Offsets{
		ServerConn:  s.offset(t, conn, "conn"),
		ClientConn:  s.offset(t, named("ClientConn"), "tconn"),
		WriterState: s.offset(t, writer, "rws"),
		StateStream: s.offset(t, state, "stream"),
		StreamID:    s.offset(t, stream, "id"),
		StreamConn:  s.offset(t, stream, "sc"),
	}
}

type module struct{ Path, Version, Dir string }

// goCommand runs go outside of the module, with a toolchain if one is named.
func goCommand(t *testing.T, toolchain string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if toolchain != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+toolchain)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func goroot(t *testing.T, toolchain string) string {
	t.Helper()
	if toolchain == "" {
		toolchain = runtime.Version()
		if !parsedRelease(toolchain) {
			toolchain = "local"
		}
	}
	return strings.TrimSpace(string(goCommand(t, toolchain, "env", "GOROOT")))
}

func parsedRelease(goVersion string) bool {
	_, release := parseVersion(goVersion)
	return release && !strings.ContainsAny(goVersion, " -+")
}

// usedModule is a module in the version that this one requires.
func usedModule(t *testing.T, path string) module {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", path, err)
	}
	return fetchModule(t, path, strings.TrimSpace(string(out)))
}

func fetchModule(t *testing.T, path, version string) (m module) {
	t.Helper()
	if err := json.Unmarshal(goCommand(t, "", "mod", "download", "-json", path+"@"+version), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// releases are the versions of a module to compare with besides the one at hand: none, or with
// GO_TOOLCHAINS=all each that the table claims to know.
func releases(t *testing.T, path string, known func(version string) bool) (versions []string) {
	t.Helper()
	if os.Getenv("GO_TOOLCHAINS") != "all" {
		return nil
	}
	for _, v := range strings.Fields(string(goCommand(t, "", "list", "-m", "-versions", path))) {
		if known(v) {
			versions = append(versions, v)
		}
	}
	return versions
}

// sources type-checks the declarations in packages, from their sources and as the compiler would lay them
// out. What a package imports from modules that are not given stays unknown; offset sees to it that nothing
// depends on that.
type sources struct {
	goroot, arch string
	modules      []module
	std          *sources // type-checks the standard library; itself if nil
	fset         *token.FileSet
	packages     map[string]*types.Package
	files        map[string][]*ast.File
}

func newSources(goroot, arch string, std *sources, modules ...module) *sources {
	return &sources{goroot, arch, modules, std, token.NewFileSet(), make(map[string]*types.Package), make(map[string][]*ast.File)}
}

func (s *sources) sizes() types.Sizes { return types.SizesFor("gc", s.arch) }

// Import is for go/types.
func (s *sources) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := s.packages[path]; p != nil {
		return p, nil
	}
	dir, std := s.find(path)
	if std && s.std != nil {
		return s.std.Import(path)
	}
	if dir == "" {
		s.packages[path] = types.NewPackage(path, path[strings.LastIndex(path, "/")+1:])
		s.packages[path].MarkComplete()
		return s.packages[path], nil
	}
	ctx := build.Default
	ctx.GOROOT, ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = s.goroot, "linux", s.arch, false
	ctx.BuildTags = []string{"http2legacy"}
	found, err := ctx.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range found.GoFiles {
		f, err := parser.ParseFile(s.fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: s, IgnoreFuncBodies: true, Sizes: s.sizes(), Error: func(error) {}}
	p, _ := conf.Check(path, s.fset, files, nil)
	s.packages[path], s.files[path] = p, files
	return p, nil
}

// callers are the methods of a type, as symbols, in which a method of the given name is called.
func (s *sources) callers(t *testing.T, pkg, typ, method string) (symbols []string) {
	t.Helper()
	s.lookup(t, pkg, typ)
	for _, f := range s.files[pkg] {
		for _, d := range f.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || d.Recv == nil || d.Body == nil || types.ExprString(d.Recv.List[0].Type) != "*"+typ {
				continue
			}
			var calls bool
			ast.Inspect(d.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					sel, ok := call.Fun.(*ast.SelectorExpr)
					calls = calls || ok && sel.Sel.Name == method
				}
				return true
			})
			if calls {
				symbols = append(symbols, fmt.Sprintf("%s.(*%s).%s", pkg, typ, d.Name.Name))
			}
		}
	}
	return symbols
}

// find returns the folder of a package, empty if it is not known, and whether it is of the standard library.
func (s *sources) find(path string) (dir string, std bool) {
	for _, m := range s.modules {
		if rest, ok := strings.CutPrefix(path+"/", m.Path+"/"); ok {
			return filepath.Join(m.Dir, rest), false
		}
	}
	for _, src := range []string{"src", "src/vendor"} {
		dir := filepath.Join(s.goroot, src, path)
		if _, err := os.Stat(dir); err == nil {
			return dir, true
		}
	}
	return "", false
}

func (s *sources) lookup(t *testing.T, pkg, name string) types.Type {
	t.Helper()
	p, err := s.Import(pkg)
	if err != nil {
		t.Fatal(err)
	}
	obj := p.Scope().Lookup(name)
	if obj == nil {
		t.Fatalf("%s has no %s", pkg, name)
	}
	return obj.Type()
}

// function finds a method by its symbol, "path/of/package.(*Type).method".
func (s *sources) function(t *testing.T, symbol string) *types.Signature {
	t.Helper()
	pkg, rest, _ := strings.Cut(symbol, ".(*")
	receiver, name, ok := strings.Cut(rest, ").")
	if !ok {
		t.Fatalf("%s is not a method of a pointer", symbol)
	}
	named := s.lookup(t, pkg, receiver).(*types.Named)
	for m := range named.Methods() {
		if _, ptr := m.Signature().Recv().Type().(*types.Pointer); ptr && m.Name() == name {
			return m.Signature()
		}
	}
	return nil
}

// offset returns where in a struct a field is.
func (s *sources) offset(t *testing.T, typ types.Type, name string) uint16 {
	t.Helper()
	var before []*types.Var
	for f := range typ.Underlying().(*types.Struct).Fields() {
		if before = append(before, f); f.Name() == name {
			all := s.sizes().Offsetsof(before)
			return uint16(all[len(all)-1])
		}
		if !sized(f.Type()) {
			t.Fatalf("the size of %s, which is before %s in %s, is not known", f, name, typ)
		}
	}
	t.Fatalf("%s has no %s", typ, name)
	return 0
}

// sized tells whether all is known that a value of the type is made of.
func sized(typ types.Type) bool {
	switch u := typ.Underlying().(type) {
	case *types.Basic:
		return u.Kind() != types.Invalid
	case *types.Array:
		return sized(u.Elem())
	case *types.Struct:
		for f := range u.Fields() {
			if !sized(f.Type()) {
				return false
			}
		}
	}
	return true
}

func fieldOf(typ types.Type, name string) *types.Var {
	for f := range typ.Underlying().(*types.Struct).Fields() {
		if f.Name() == name {
			return f
		}
	}
	panic(fmt.Sprintf("%s has no %s", typ, name))
}

func hasField(typ types.Type, name string) bool {
	for f := range typ.Underlying().(*types.Struct).Fields() {
		if f.Name() == name {
			return true
		}
	}
	return false
}

func pointee(t *testing.T, typ types.Type) types.Type {
	t.Helper()
	ptr, ok := typ.Underlying().(*types.Pointer)
	if !ok {
		t.Fatalf("%s is not a pointer", typ)
	}
	return types.Unalias(ptr.Elem())
}

func wantType(t *testing.T, typ types.Type, field, want string) {
	t.Helper()
	if got := fieldOf(typ, field).Type().String(); got != want {
		t.Errorf("%s of %s is a %s, want a %s", field, typ, got, want)
	}
}
