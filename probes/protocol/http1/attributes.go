// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"breadcrumb/probes"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// maxAttrs is the most attributes that a span usually has; more only cost an allocation.
const maxAttrs = 16

// Attributes of our own.
var (
	// truncatedAttr marks a span of which a head was longer than what was captured of it.
	truncatedAttr = attribute.Bool("breadcrumb.truncated", true)
	// unfinishedAttr marks a span of an exchange that was still under way when the agent stopped.
	unfinishedAttr = attribute.Bool("breadcrumb.unfinished", true)
)

// failureKind is a value of error.type for what no status code tells.
type failureKind uint8

const (
	noFailure failureKind = iota
	connectionClosed
	connectionReset
)

var failureAttrs = [...]attribute.KeyValue{
	connectionClosed: semconv.ErrorTypeKey.String("connection_closed"),
	connectionReset:  semconv.ErrorTypeKey.String("connection_reset"),
}

var (
	version10   = semconv.NetworkProtocolVersion("1.0")
	version11   = semconv.NetworkProtocolVersion("1.1")
	schemeHTTP  = semconv.URLScheme("http")
	schemeHTTPS = semconv.URLScheme("https")
)

// statuses holds the attributes of a status code, from 100 on.
var statuses = func() (t [500]struct{ code, err attribute.KeyValue }) {
	for i := range t {
		t[i].code = semconv.HTTPResponseStatusCode(100 + i)
		t[i].err = semconv.ErrorTypeKey.String(strconv.Itoa(100 + i))
	}
	return t
}()

// values makes attribute values. It keeps the last one of each kind, because the requests of one
// connection tend to repeat them.
type values struct {
	conn   *probes.Conn
	server bool

	peerAddress, peerPort attribute.KeyValue // not set if there is none
	peerClient            attribute.KeyValue
	transport             attribute.KeyValue

	agent, client interned
	authority     authority
	target        string // as it was sent
	targetScheme  string
	targetHost    string
	path, query   attribute.KeyValue
	full          attribute.KeyValue
	scratch       []byte
}

// maxInterned bounds the values that a connection keeps, so that one long one does not stay for its life.
const maxInterned = 1 << 10

// interned is a value and the bytes that it was made from.
type interned struct {
	from string
	attr attribute.KeyValue
}

func (i *interned) of(key attribute.Key, b []byte) attribute.KeyValue {
	if i.attr.Key != "" && i.from == string(b) {
		return i.attr
	}
	s := string(b)
	attr := key.String(valid(s))
	if len(s) <= maxInterned {
		i.from, i.attr = s, attr
	}
	return attr
}

// authority is a host with a port as it was sent, and what it means.
type authority struct {
	from          string
	scheme        string
	set           bool
	address, port attribute.KeyValue
}

func (v *values) init(c *probes.Conn, server bool) {
	v.conn, v.server = c, server
	if c.RemoteAddr != "" {
		v.peerAddress = semconv.NetworkPeerAddress(c.RemoteAddr)
		v.peerClient = semconv.ClientAddress(c.RemoteAddr)
		if c.RemotePort != 0 {
			v.peerPort = semconv.NetworkPeerPort(int(c.RemotePort))
		}
	}
	if c.Network == "unix" {
		v.transport = semconv.NetworkTransportUnix
	}
}

// text makes a string of b that may be exported: OTLP refuses a whole batch for a string that is not UTF-8.
func text(b []byte) string { return valid(string(b)) }

func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// describe sets the name, the context and those attributes of an exchange that come from the request
// head in d.req.
func (d *decoder) describe(ex *exchange, cut bool) {
	r, v, sp := &d.req, &d.values, ex.span
	ex.head = true
	ex.method = methodOf(r.method)
	label := d.labels.label(ex.method, r.method)
	sp.Name = label.name
	r.context(&sp.Wire)

	attrs := sp.Attrs[:0]
	if cap(attrs) == 0 {
		attrs = make([]attribute.KeyValue, 0, maxAttrs)
	}
	attrs = append(attrs, label.attr)
	if label.other {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(text(r.method)))
	}
	attrs = v.url(attrs, r, ex.method)
	if v.server {
		attrs = v.clientAddress(attrs, r)
		if r.agent != nil {
			attrs = append(attrs, v.agent.of(semconv.UserAgentOriginalKey, r.agent))
		}
	}
	if v.peerAddress.Key != "" {
		attrs = append(attrs, v.peerAddress)
		if v.peerPort.Key != "" {
			attrs = append(attrs, v.peerPort)
		}
	}
	if v.transport.Key != "" {
		attrs = append(attrs, v.transport)
	}
	switch r.minor {
	case 0:
	case '0':
		attrs = append(attrs, version10)
	case '1':
		attrs = append(attrs, version11)
	default:
		attrs = append(attrs, semconv.NetworkProtocolVersion("1."+string(rune(r.minor))))
	}
	if ex.truncated = cut; cut {
		attrs = append(attrs, truncatedAttr)
	}
	sp.Attrs = attrs
}

// describePartly does what describe does for an exchange that is over before its request's head was
// complete. It returns false if not even the request line is known.
func (d *decoder) describePartly(ex *exchange) bool {
	s := &d.streams[d.in]
	if s.state != inHead || d.exchanges.find(s.exchange) != ex {
		return false
	}
	if d.req.parse(s.buf); d.req.minor == 0 {
		return false
	}
	d.describe(ex, false)
	return true
}

// conclude adds what is known when the exchange, the oldest one, is over.
func (d *decoder) conclude(ex *exchange, f failure) {
	sp := ex.span
	attrs := sp.Attrs
	failed := f.kind != noFailure
	if failed {
		attrs = append(attrs, failureAttrs[f.kind])
		sp.Status = codes.Error
	}
	sp.Unanswered = (failed || f.unfinished) && !d.answer.bound
	if a := &d.answer; a.bound {
		lowest := 400
		if d.server {
			lowest = 500
		}
		isError := a.status >= lowest && !failed
		if i := a.status - 100; i < len(statuses) {
			attrs = append(attrs, statuses[i].code)
			if isError {
				attrs = append(attrs, statuses[i].err)
			}
		} else {
			attrs = append(attrs, semconv.HTTPResponseStatusCode(a.status))
			if isError {
				attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(a.status)))
			}
		}
		if isError {
			sp.Status = codes.Error
		}
		if a.size >= 0 && !failed && !f.unfinished {
			attrs = append(attrs, semconv.HTTPResponseBodySize(int(a.size)))
		}
		if a.truncated && !ex.truncated {
			attrs = append(attrs, truncatedAttr)
		}
	}
	// Where the response is complete, the announced size holds even if the end of the body passed
	// uncaptured; but not if none of the body was sent.
	if ex.size >= 0 && (ex.done || ex.announced && ex.body && !failed && !f.unfinished) {
		attrs = append(attrs, semconv.HTTPRequestBodySize(int(ex.size)))
	}
	if f.unfinished {
		attrs = append(attrs, unfinishedAttr)
	}
	sp.Attrs = attrs
}

// url adds what the request target and the Host field say.
func (v *values) url(attrs []attribute.KeyValue, r *request, m method) []attribute.KeyValue {
	scheme, host, origin := "http", r.host, r.target
	userinfo := userNone
	switch {
	case m == methodConnect: // RFC 9112, 3.2.3
		host, origin = r.target, nil
		scheme = ""
	case len(r.target) > 0 && r.target[0] != '/' && r.target[0] != '*':
		if s, auth, rest, ok := absolute(r.target); ok { // RFC 9112, 3.2.2
			scheme = s
			userinfo, host = user(auth)
			origin = rest
		}
	}
	wire := host // as the URL has it
	if v.server && m != methodConnect {
		scheme, host = r.original(scheme, host)
		attrs = append(attrs, v.schemeAttr(scheme))
	} else if v.server {
		attrs = append(attrs, schemeHTTP)
	}
	attrs = v.origin(attrs, r, m, scheme, wire, origin, userinfo)
	attrs = v.serverAddress(attrs, scheme, host)
	if len(v.authority.from) > maxInterned {
		v.authority = authority{}
	}
	return attrs
}

func (v *values) schemeAttr(scheme string) attribute.KeyValue {
	switch scheme {
	case "http":
		return schemeHTTP
	case "https":
		return schemeHTTPS
	}
	return semconv.URLScheme(scheme)
}

// original returns scheme and host as the first client sent them, if a proxy tells.
func (r *request) original(scheme string, host []byte) (string, []byte) {
	proto := first(r.forProto)
	if h := first(r.forHost); len(h) > 0 {
		host = h
	}
	if r.forwarded != nil {
		if h := forwarded(r.forwarded, "host"); len(h) > 0 {
			host = h
		}
		if p := forwarded(r.forwarded, "proto"); len(p) > 0 {
			proto = p
		}
	}
	switch {
	case equalFold(proto, "https"):
		scheme = "https"
	case equalFold(proto, "http"):
		scheme = "http"
	}
	return scheme, host
}

// origin adds path and query on the server's side, the whole URL on the client's.
func (v *values) origin(attrs []attribute.KeyValue, r *request, m method, scheme string, host, target []byte, u userinfo) []attribute.KeyValue {
	if v.server {
		if m == methodConnect {
			return attrs
		}
		if v.target != string(target) || v.path.Key == "" {
			s := string(target)
			path, query, ok := strings.Cut(s, "?")
			if path == "" {
				path = "/"
			}
			v.path = semconv.URLPath(valid(path))
			v.query = attribute.KeyValue{}
			if ok {
				v.scratch = redact(v.scratch[:0], target[len(target)-len(query):])
				v.query = semconv.URLQuery(text(v.scratch))
			}
			v.target = s
		}
		attrs = append(attrs, v.path)
		if v.query.Key != "" {
			attrs = append(attrs, v.query)
		}
		v.forget()
		return attrs
	}
	if m == methodConnect {
		return append(attrs, semconv.URLFull(text(host)))
	}
	if v.full.Key == "" || v.target != string(r.target) || v.targetHost != string(host) || v.targetScheme != scheme {
		v.target, v.targetHost, v.targetScheme = string(r.target), string(host), scheme
		b := append(v.scratch[:0], scheme...)
		b = append(b, "://"...)
		switch u {
		case userNone:
		case userName:
			b = append(b, "REDACTED@"...)
		case userPassword:
			b = append(b, "REDACTED:REDACTED@"...)
		}
		if len(host) > 0 {
			b = append(b, host...)
		} else {
			b = v.appendRemote(b)
		}
		path, query, ok := bytes.Cut(target, question)
		if len(path) > 0 && path[0] != '*' { // OPTIONS * is about the server (RFC 9112, 3.2.4)
			b = append(b, path...)
		}
		if ok {
			b = append(b, '?')
			b = redact(b, query)
		}
		v.scratch = b
		v.full = semconv.URLFull(text(b))
	}
	attrs = append(attrs, v.full)
	v.forget()
	return attrs
}

// forget drops a long target and what was made of it.
func (v *values) forget() {
	if len(v.target)+len(v.targetHost) > maxInterned {
		v.target, v.targetHost, v.scratch = "", "", nil
		v.path, v.query, v.full = attribute.KeyValue{}, attribute.KeyValue{}, attribute.KeyValue{}
	}
}

// appendRemote adds the other side's address as a URL has it.
func (v *values) appendRemote(b []byte) []byte {
	if strings.IndexByte(v.conn.RemoteAddr, ':') >= 0 {
		b = append(b, '[')
		b = append(b, v.conn.RemoteAddr...)
		b = append(b, ']')
	} else {
		b = append(b, v.conn.RemoteAddr...)
	}
	if p := v.conn.RemotePort; p != 0 && p != 80 {
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(p), 10)
	}
	return b
}

// serverAddress adds the address and the port that the client meant; without a Host field those of the
// connection.
func (v *values) serverAddress(attrs []attribute.KeyValue, scheme string, host []byte) []attribute.KeyValue {
	a := &v.authority
	if !a.set || a.from != string(host) || a.scheme != scheme {
		*a = authority{from: string(host), scheme: scheme, set: true}
		name, port := hostPort(host)
		switch {
		case len(name) > 0:
			a.address = semconv.ServerAddress(text(name))
			switch {
			case port >= 0:
				a.port = semconv.ServerPort(port)
			case scheme == "http":
				a.port = semconv.ServerPort(80)
			case scheme == "https":
				a.port = semconv.ServerPort(443)
			}
		case v.server:
			a.local(v.conn.LocalAddr, v.conn.LocalPort)
		default:
			a.local(v.conn.RemoteAddr, v.conn.RemotePort)
		}
	}
	if a.address.Key != "" {
		attrs = append(attrs, a.address)
	}
	if a.port.Key != "" {
		attrs = append(attrs, a.port)
	}
	return attrs
}

func (a *authority) local(address string, port uint16) {
	if address != "" {
		a.address = semconv.ServerAddress(address)
	}
	if port != 0 {
		a.port = semconv.ServerPort(int(port))
	}
}

// clientAddress adds the address of the first client, if a proxy tells it, else the peer's.
func (v *values) clientAddress(attrs []attribute.KeyValue, r *request) []attribute.KeyValue {
	if r.forwarded != nil || r.forFor != nil {
		addr := address(forwarded(r.forwarded, "for"))
		if addr == nil {
			addr = address(first(r.forFor))
		}
		if addr != nil {
			return append(attrs, v.client.of(semconv.ClientAddressKey, addr))
		}
	}
	if v.peerClient.Key != "" {
		attrs = append(attrs, v.peerClient)
	}
	return attrs
}

var question = []byte{'?'}

// absolute cuts a target in absolute form into scheme, authority, and the rest.
func absolute(target []byte) (scheme string, authority, rest []byte, ok bool) {
	i := bytes.Index(target, []byte("://"))
	if i <= 0 || i > len("coap+tcp") {
		return "", nil, nil, false
	}
	s := target[:i]
	switch {
	case equalFold(s, "http"):
		scheme = "http"
	case equalFold(s, "https"):
		scheme = "https"
	default:
		for _, c := range s {
			if !isToken[c] {
				return "", nil, nil, false
			}
		}
		scheme = strings.ToLower(string(s))
	}
	rest = target[i+3:]
	if j := bytes.IndexAny(rest, "/?#"); j >= 0 {
		return scheme, rest[:j], rest[j:], true
	}
	return scheme, rest, nil, true
}

// userinfo says what an authority tells of its user.
type userinfo uint8

const (
	userNone userinfo = iota
	userName
	userPassword
)

// user cuts the user off an authority.
func user(authority []byte) (userinfo, []byte) {
	i := bytes.LastIndexByte(authority, '@')
	switch {
	case i < 0:
		return userNone, authority
	case bytes.IndexByte(authority[:i], ':') >= 0:
		return userPassword, authority[i+1:]
	}
	return userName, authority[i+1:]
}

// hostPort cuts a port off a host; it is -1 if there is none. Brackets around an IPv6 address are cut
// off too.
func hostPort(b []byte) (host []byte, port int) {
	if len(b) > 0 && b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		if i < 0 {
			return b, -1
		}
		return b[1:i], portOf(b[i+1:])
	}
	i := bytes.LastIndexByte(b, ':')
	if i < 0 {
		return b, -1
	}
	if bytes.IndexByte(b[:i], ':') >= 0 {
		return b, -1 // an IPv6 address without brackets
	}
	return b[:i], portOf(b[i:])
}

// portOf parses ":80".
func portOf(b []byte) int {
	if len(b) < 2 || b[0] != ':' {
		return -1
	}
	n, ok := number(b[1:])
	if !ok || n > 65535 {
		return -1
	}
	return int(n)
}

// first returns the first element of a list.
func first(list []byte) []byte {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		list = list[:i]
	}
	return trim(list)
}

// forwarded returns a parameter of the first element of a Forwarded field (RFC 7239, 4).
func forwarded(list []byte, name string) []byte {
	for {
		i, quoted := 0, false
		for ; i < len(list); i++ {
			if c := list[i]; c == '"' {
				quoted = !quoted
			} else if !quoted && (c == ';' || c == ',') {
				break
			}
		}
		k, v, ok := bytes.Cut(list[:i], []byte{'='})
		if ok && equalFold(trim(k), name) {
			v = trim(v)
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v
		}
		if i == len(list) || list[i] == ',' {
			return nil
		}
		list = list[i+1:]
	}
}

// maxAddress is the length of the longest host name.
const maxAddress = 253

// address cuts the port off a forwarded client's address. Names that hide the client (RFC 7239, 6) and
// nonsense give nil.
func address(b []byte) []byte {
	host, _ := hostPort(b)
	if len(host) == 0 || len(host) > maxAddress || host[0] == '_' || equalFold(host, "unknown") {
		return nil
	}
	for _, c := range host {
		if !isToken[c] && c != ':' {
			return nil
		}
	}
	return host
}

// redacted replaces a secret.
const redacted = "REDACTED"

// redact appends a query to dst, the values of secrets replaced.
func redact(dst, query []byte) []byte {
	for len(query) > 0 {
		end := bytes.IndexAny(query, "&;")
		param := query
		if end >= 0 {
			param = query[:end]
		}
		if i := bytes.IndexByte(param, '='); i >= 0 && i+1 < len(param) && isSecret(param[:i]) {
			dst = append(dst, param[:i+1]...)
			dst = append(dst, redacted...)
		} else {
			dst = append(dst, param...)
		}
		if end < 0 {
			break
		}
		dst = append(dst, query[end])
		query = query[end+1:]
	}
	return dst
}

// maxSecretName bounds the names that isSecret looks at; the longest it knows has 17 letters.
const maxSecretName = 64

// isSecret says whether the value of a query parameter must not be shown: the list of the semantic
// conventions (url.query), and names that are widely used for the same. Case, '-', '_' and '.' do not
// matter; of a name like user[password] the innermost part counts.
func isSecret(name []byte) bool {
	var buf [maxSecretName]byte
	b := buf[:0]
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			if h, l := hexValue[name[i+1]], hexValue[name[i+2]]; h != noHex && l != noHex {
				c = h<<4 | l
				i += 2
			}
		}
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == '[':
			b = b[:0]
			continue
		case c == '-', c == '_', c == '.', c == ']', c == ' ', c == '+':
			continue
		}
		if len(b) == maxSecretName {
			return false
		}
		b = append(b, c)
	}
	switch string(b) {
	case "awsaccesskeyid", "signature", "sig", "xgoogsignature", "xgoogcredential",
		"xamzsignature", "xamzcredential", "xamzsecuritytoken",
		"password", "passwd", "pwd", "secret", "clientsecret", "token", "accesstoken", "refreshtoken",
		"idtoken", "authtoken", "bearertoken", "securitytoken", "apikey", "xapikey", "accesskey", "secretkey",
		"privatekey", "key", "auth", "authorization", "code", "session", "sessionid", "jwt",
		"credential", "credentials":
		return true
	}
	return false
}
