// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"go.opentelemetry.io/otel/trace"
)

func TestDetect(t *testing.T) {
	for _, test := range []struct {
		head     string
		want     probes.Verdict
		requests bool
	}{
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", probes.Yes, true},
		{"GET / HTTP/1.0\n\n", probes.Yes, true},
		{"GET / HTTP/1.1", probes.Yes, true},
		{"BREW /pot HTTP/1.1\r\n", probes.Yes, true},
		{"OPTIONS * HTTP/1.1\r\n", probes.Yes, true},
		{"CONNECT db.example:443 HTTP/1.1\r\n", probes.Yes, true},
		{"GET http://x/ HTTP/1.1\r\n", probes.Yes, true},
		{"M-SEARCH * HTTP/1.1\r\n", probes.Yes, true},
		{"HTTP/1.1 200 OK\r\n", probes.Yes, false},
		{"HTTP/1.0 404 \r\n", probes.Yes, false},
		{"HTTP/1.1 200\r\n", probes.Yes, false},
		{"", probes.Maybe, false},
		{"G", probes.Maybe, true},
		{"H", probes.Maybe, false},
		{"HE", probes.Maybe, true},
		{"HTTP/1.1 20", probes.Maybe, false},
		{"GET ", probes.Maybe, true},
		{"GET /", probes.Maybe, true},
		{"GET /a/very/long/target", probes.Maybe, true},
		{"GET / HTTP/1.1\r", probes.Yes, true},

		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", probes.No, true},
		{"GET / HTTP/2.0\r\n", probes.No, true},
		{"GET /\r\n", probes.No, true},
		{"GET key\r\n", probes.No, true},
		{"get key\r\n", probes.No, true},
		{"PING\r\n", probes.No, true},
		{"*1\r\n$4\r\nPING\r\n", probes.No, true},
		{"INVITE sip:bob@x SIP/2.0\r\n", probes.No, true},
		{"OPTIONS * RTSP/1.0\r\n", probes.No, true},
		{"SSH-2.0-OpenSSH_9.9\r\n", probes.No, true},
		{"220 mail ESMTP\r\n", probes.No, true},
		{"EHLO there\r\n", probes.No, true},
		{"\x16\x03\x01\x02\x00\x01", probes.No, true},
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", probes.No, true},
		{"HTTP/2 200\r\n", probes.No, true},
		{"HTTP/1.1 2x0 OK\r\n", probes.No, true},
		{"HTTP/1.1 2000 OK\r\n", probes.No, true},
		{" GET / HTTP/1.1\r\n", probes.No, true},
		{"GET \x00/ HTTP/1.1\r\n", probes.No, true},
		{"GET /\x00 HT", probes.No, true},
		{strings.Repeat("A", 30), probes.No, true},
		{"{\"json\": true}", probes.No, true},
	} {
		for _, dir := range []probes.Direction{probes.Ingress, probes.Egress} {
			got, requests := detect(dir, []byte(test.head))
			if got != test.want || got == probes.Yes && requests != test.requests {
				t.Errorf("%q: %d %v, want %d %v", test.head, got, requests, test.want, test.requests)
			}
		}
	}
}

func TestPrefixesAreNotRuledOut(t *testing.T) {
	for _, head := range []string{"DELETE /items/7?x=y HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "PROPFIND * HTTP/1.0\r\n\r\n"} {
		for n := range len(head) {
			if v, _ := detect(probes.Ingress, []byte(head[:n])); v == probes.No {
				t.Errorf("%q is ruled out", head[:n])
			}
		}
	}
}

func TestTraceparent(t *testing.T) {
	const trc, par = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, test := range []struct {
		value string
		ok    bool
		flags trace.TraceFlags
	}{
		{"00-" + trc + "-" + par + "-01", true, 1},
		{"00-" + trc + "-" + par + "-00", true, 0},
		{"00-" + trc + "-" + par + "-03", true, 3},
		{"00-" + trc + "-" + par + "-ff", true, 3},
		{"01-" + trc + "-" + par + "-01", true, 1},
		{"fe-" + trc + "-" + par + "-01-what-the-future-holds", true, 1},
		{"cc-" + trc + "-" + par + "-01-", true, 1},

		{"", false, 0},
		{"ff-" + trc + "-" + par + "-01", false, 0},
		{"00-" + trc + "-" + par + "-01-", false, 0},
		{"00-" + trc + "-" + par + "-01-x", false, 0},
		{"cc-" + trc + "-" + par + "-01.x", false, 0},
		{"00-" + trc + "-" + par + "-0", false, 0},
		{"00-" + trc + "-" + par + "-0g", false, 0},
		{"0-" + trc + "-" + par + "-01", false, 0},
		{"00-" + strings.ToUpper(trc) + "-" + par + "-01", false, 0},
		{"00-" + trc + "-" + strings.ToUpper(par) + "-01", false, 0},
		{"0A-" + trc + "-" + par + "-01", false, 0},
		{"00-" + strings.Repeat("0", 32) + "-" + par + "-01", false, 0},
		{"00-" + trc + "-" + strings.Repeat("0", 16) + "-01", false, 0},
		{"00_" + trc + "-" + par + "-01", false, 0},
		{"00-" + trc[:31] + "g-" + par + "-01", false, 0},
	} {
		var c span.Context
		ok := parseTraceparent([]byte(test.value), &c)
		want := span.Context{}
		if test.ok {
			want = span.Context{TraceID: traceID(trc), SpanID: spanID(par), Flags: test.flags}
		}
		if ok != test.ok || c != want {
			t.Errorf("%q: %v %+v", test.value, ok, c)
		}
	}
}

func TestContext(t *testing.T) {
	const tp = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
	const b3 = "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n"
	w3c := span.Context{TraceID: traceID("0af7651916cd43dd8448eb211c80319c"), SpanID: spanID("b7ad6b7169203331"), Flags: 1}
	zipkin := span.Context{TraceID: traceID("80f198ee56343ba864fe8b2a57d3eff7"), SpanID: spanID("e457b5a2e4d86bd1"), Flags: 1}
	state := func(s string) span.Context { c := w3c; c.TraceState = s; return c }
	flags := func(f trace.TraceFlags) span.Context { c := zipkin; c.Flags = f; return c }
	long := func(n int) string { return strings.Repeat("v", n) }
	var many []string
	for i := range 33 {
		many = append(many, fmt.Sprintf("k%d=v", i))
	}
	for _, test := range []struct {
		name, fields string
		want         span.Context
	}{
		{"none", "Host: x\r\n", span.Context{}},
		{"traceparent", tp, w3c},
		{"with spaces", "TRACEPARENT: \t00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 \r\n", w3c},
		{"twice", tp + tp, span.Context{}},
		{"twice, and b3", tp + tp + b3, zipkin},
		{"traceparent before b3", b3 + tp, w3c},
		{"b3", b3, zipkin},
		{"b3 without a decision", "B3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1\r\n", flags(0)},
		{"b3 with a parent", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0-05e3ac9a4f6e3b90\r\n", flags(0)},
		{"b3 with a bad parent", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0-x\r\n", span.Context{}},
		{"b3 with a bad decision", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-2\r\n", span.Context{}},
		{"b3 with a decision only", "b3: 0\r\n", span.Context{}},
		{"b3 of zeros", "b3: 00000000000000000000000000000000-e457b5a2e4d86bd1-1\r\n", span.Context{}},
		{"b3 fields", "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7\r\nX-B3-SpanId: e457b5a2e4d86bd1\r\nX-B3-Sampled: true\r\n", zipkin},
		{"b3 fields, debug", "x-b3-traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\nx-b3-spanid: e457b5a2e4d86bd1\r\nx-b3-flags: 1\r\n", zipkin},
		{"b3 fields, one missing", "x-b3-traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\n", span.Context{}},

		{"tracestate", tp + "tracestate: a=1,b@c=2 x \r\n", state("a=1,b@c=2 x")},
		{"tracestate alone", "tracestate: a=1\r\n", span.Context{}},
		{"tracestate, empty", tp + "tracestate: \r\n", w3c},
		{"tracestate, empty members", tp + "tracestate: ,a=1, ,,b=2,\r\n", state("a=1,b=2")},
		{"tracestate, several", tp + "tracestate: a=1\r\nX: y\r\nTracestate: b=2\r\n", state("a=1,b=2")},
		{"tracestate, a key twice", tp + "tracestate: a=1,a=2\r\n", w3c},
		{"tracestate, no value", tp + "tracestate: a=1,b\r\n", w3c},
		{"tracestate, bad key", tp + "tracestate: A=1\r\n", w3c},
		{"tracestate, bad value", tp + "tracestate: a=1=2\r\n", w3c},
		{"tracestate, too many", tp + "tracestate: " + strings.Join(many, ",") + "\r\n", w3c},
		{"tracestate, as many as may be", tp + "tracestate: " + strings.Join(many[:32], ",") + "\r\n", state(strings.Join(many[:32], ","))},
		{"tracestate, too long", tp + "tracestate: a=" + long(200) + ",b=" + long(200) + ",c=" + long(200) + ",d=1\r\n", state("a=" + long(200) + ",b=" + long(200))},
		{"tracestate, a value too long", tp + "tracestate: a=" + long(257) + "\r\n", w3c},
	} {
		var r request
		head := "GET / HTTP/1.1\r\n" + test.fields + "\r\n"
		if n, v := r.parse([]byte(head)); n != len(head) || v != probes.Yes {
			t.Errorf("%s: %d %v", test.name, n, v)
		}
		var c span.Context
		r.context(&c)
		if c != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, c, test.want)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, test := range [][2]string{
		{"", ""},
		{"a=b&c", "a=b&c"},
		{"token", "token"},
		{"token=", "token="},
		{"token=x", "token=REDACTED"},
		{"TOKEN=x=y&a=b", "TOKEN=REDACTED&a=b"},
		{"a=b&api_key=1&api-key=2&apikey=3&x-api-key=4", "a=b&api_key=REDACTED&api-key=REDACTED&apikey=REDACTED&x-api-key=REDACTED"},
		{"AWSAccessKeyId=1&Signature=2&sig=3&X-Goog-Signature=4", "AWSAccessKeyId=REDACTED&Signature=REDACTED&sig=REDACTED&X-Goog-Signature=REDACTED"},
		{"X-Amz-Signature=1&X-Amz-Credential=2&X-Amz-Security-Token=3&X-Amz-Date=4", "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED&X-Amz-Date=4"},
		{"%74oken=x&pass%77ord=y", "%74oken=REDACTED&pass%77ord=REDACTED"},
		{"user[password]=x&user%5Bpassword%5D=y", "user[password]=REDACTED&user%5Bpassword%5D=REDACTED"},
		{"accessToken=x;jwt=y", "accessToken=REDACTED;jwt=REDACTED"},
		{"tokens=x&monkey=y&keys=z&passwords=1", "tokens=x&monkey=y&keys=z&passwords=1"},
		{"&&=x&%=y&%4=z&", "&&=x&%=y&%4=z&"},
		{strings.Repeat("n", 100) + "=x", strings.Repeat("n", 100) + "=x"},
	} {
		if got := string(redact(nil, []byte(test[0]))); got != test[1] {
			t.Errorf("%q: %q, want %q", test[0], got, test[1])
		}
	}
}

func TestHostPort(t *testing.T) {
	for _, test := range []struct {
		in, host string
		port     int
	}{
		{"x", "x", -1}, {"x:80", "x", 80}, {"[::1]:8080", "::1", 8080}, {"[::1]", "::1", -1}, {"::1", "::1", -1},
		{"x:", "x", -1}, {"x:y", "x", -1}, {"x:70000", "x", -1}, {"", "", -1}, {":80", "", 80}, {"[::1", "[::1", -1}, {"[]", "", -1},
	} {
		if host, port := hostPort([]byte(test.in)); string(host) != test.host || port != test.port {
			t.Errorf("%q: %q %d", test.in, host, port)
		}
	}
}

func TestForwarded(t *testing.T) {
	for _, test := range [][3]string{
		{"for=192.0.2.60;proto=http;by=203.0.113.43", "for", "192.0.2.60"},
		{"For=\"[2001:db8:cafe::17]:4711\"", "for", "[2001:db8:cafe::17]:4711"},
		{"for=\"a;b,c\" ; host=x", "host", "x"},
		{"proto=https, for=1.2.3.4", "for", ""},
		{"", "for", ""}, {"for", "for", ""}, {";;for=x", "for", "x"}, {"for=\"", "for", "\""}, {"x=\"for=y", "for", ""},
	} {
		if got := string(forwarded([]byte(test[0]), test[1])); got != test[2] {
			t.Errorf("%q: %q, want %q", test[0], got, test[2])
		}
	}
	for _, test := range [][2]string{
		{"192.0.2.60", "192.0.2.60"}, {"192.0.2.60:1", "192.0.2.60"}, {"[2001:db8::1]:1", "2001:db8::1"}, {"2001:db8::1", "2001:db8::1"}, {"client.example", "client.example"},
		{"unknown", ""}, {"_hidden", ""}, {"", ""}, {"<script>", ""}, {strings.Repeat("a", 300), ""}, {"a\x00", ""},
	} {
		if got := string(address([]byte(test[0]))); got != test[1] {
			t.Errorf("%q: %q, want %q", test[0], got, test[1])
		}
	}
}

func TestValuesAreUTF8(t *testing.T) {
	events := chunks([]part{in("GET /\xff?q=\xfe HTTP/1.1\r\nHost: \xfd\r\nUser-Agent: \xfc\r\n\r\n"), out(ok0)}, whole)
	k, _ := play(t, testConn(nil), true, events)
	got := k.results()[0].Attrs
	for _, key := range []string{"url.path", "url.query", "server.address", "user_agent.original"} {
		if s := got[key].(string); !strings.Contains(s, "\uFFFD") {
			t.Errorf("%s is %q", key, s)
		}
	}
}

// TestAgainstNetHTTP reads random well-formed messages with net/http as well.
func TestAgainstNetHTTP(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	for range 1000 {
		var requests, responses bytes.Buffer
		var methods []string
		for range 1 + rng.IntN(4) {
			m := pick("GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "BREW")
			methods = append(methods, m)
			fmt.Fprintf(&requests, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", m, pick("/", "/a/b?c=d", "/%41?x", "http://abs.example/p?q"), pick("h", "h:81", "[::1]:82"), pick("", "X: y\r\n", "Accept:  */*  \r\n", "A:\r\n"))
			requests.WriteString(randomBody(rng, m == "POST" || m == "PUT"))
			fmt.Fprintf(&responses, "HTTP/1.1 %s\r\n%s", pick("200 OK", "404 Not Found", "500 ", "299 x y z"), pick("", "Server: s\r\n"))
			field := randomBody(rng, true)
			if m == "HEAD" {
				field = field[:strings.Index(field, "\r\n\r\n")+4]
			}
			responses.WriteString(field)
		}
		type message struct {
			method, path, query, host string
			status                    int
			request, response         int64
		}
		var want []message
		reqs, ress := bufio.NewReader(bytes.NewReader(requests.Bytes())), bufio.NewReader(bytes.NewReader(responses.Bytes()))
		for range methods {
			req, err := http.ReadRequest(reqs)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(ress, req)
			if err != nil {
				t.Fatal(err)
			}
			w := message{method: req.Method, path: req.URL.EscapedPath(), query: req.URL.RawQuery, host: req.Host, status: res.StatusCode}
			if w.request, err = io.Copy(io.Discard, req.Body); err != nil {
				t.Fatal(err)
			}
			if w.response, err = io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			want = append(want, w)
		}
		acc := new(ledger.Account)
		k, err := play(t, testConn(acc), true, chunks([]part{in(requests.String()), out(responses.String())}, whole))
		if err != nil || len(k.done) != len(want) {
			t.Fatalf("%v, %d spans of %d\n%s\n%s", err, len(k.done), len(want), &requests, &responses)
		}
		k.balance(acc)
		for i, r := range k.results() {
			got := message{method: r.Attrs["http.request.method"].(string), path: r.Attrs["url.path"].(string), status: int(r.Attrs["http.response.status_code"].(int64))}
			if got.method == "_OTHER" {
				got.method = r.Attrs["http.request.method_original"].(string)
			}
			got.query, _ = r.Attrs["url.query"].(string)
			got.request, _ = r.Attrs["http.request.body.size"].(int64)
			got.response, _ = r.Attrs["http.response.body.size"].(int64)
			host, port := hostPort([]byte(want[i].host))
			if port < 0 {
				port = 80
			}
			got.host = want[i].host
			if got != want[i] || r.Attrs["server.address"] != string(host) || r.Attrs["server.port"] != int64(port) {
				t.Fatalf("%+v, want %+v\n%v\n%s\n%s", got, want[i], r.Attrs, &requests, &responses)
			}
		}
	}
}

// randomBody makes the end of a head and a body.
func randomBody(rng *rand.Rand, body bool) string {
	if !body {
		return "\r\n"
	}
	n := rng.IntN(50)
	if rng.IntN(2) == 0 {
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, strings.Repeat("b", n))
	}
	var b strings.Builder
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for n > 0 {
		m := 1 + rng.IntN(n)
		fmt.Fprintf(&b, "%X\r\n%s\r\n", m, strings.Repeat("c", m))
		n -= m
	}
	b.WriteString("0\r\n")
	if rng.IntN(3) == 0 {
		b.WriteString("Trailer-Field: x\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}
