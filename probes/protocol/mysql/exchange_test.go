// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"breadcrumb/internal/ledger"
	"breadcrumb/internal/span"
	"breadcrumb/probes"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// want is a span that a conversation is to yield.
type want struct {
	text   string // its statement; "": not known
	attrs  attrs  // besides those of the statement and of the connection
	failed bool
	part   int // in which its command begins, from 0 on
	end    int // with which its answer is complete
	name   string
	wire   span.Context
}

// exchangeTest is a conversation in full.
type exchangeTest struct {
	name      string
	wire      wire
	db        string // with which the connection begins
	parts     []part
	want      []want
	pipelined bool // times depend on how the bytes are moved
	middle    bool // it gives the same where the handshake was not seen, but for the database
}

var (
	plain  = wire{caps: capsPlain}
	modern = wire{caps: capsNew}
	maria  = wire{caps: capsNew | 1<<34 | 1<<36, maria: true}
	mariaP = wire{caps: capsPlain | clientProgress, maria: true}
)

func in(db string) attrs { return attrs{"db.namespace": db} }

func rows(db string, n int) attrs {
	return attrs{"db.namespace": db, "db.response.returned_rows": int64(n)}
}

func failure(db, code string) attrs {
	return attrs{"db.namespace": db, "db.response.status_code": code, "error.type": code}
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var traced = span.Context{
	TraceID: trace.TraceID{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c},
	SpanID:  trace.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}, Flags: 1,
}

// exchangeTests are conversations and their spans. What must not be seen anywhere has SECRET in it.
func exchangeTests() []exchangeTest {
	const (
		sel   = "SELECT name FROM users WHERE id = 'SECRETid'"
		ins   = "INSERT INTO users VALUES (1, 'SECRETname')"
		other = "SELECT name FROM orders WHERE id = ?"
	)
	cols := []string{"id", "name"}
	two := []string{row("1", "SECRETa"), row("2", "SECRETb")}
	attributes := wire{caps: capsNew | clientQueryAttribute}
	optional := wire{caps: capsNew | 1<<25}
	tests := []exchangeTest{
		{name: "rows", wire: plain, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(plain.set(1, 2, cols, two...))},
			want:  []want{{text: sel, attrs: rows("shop", 2)}}},
		{name: "rows, without EOF packets", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(modern.set(1, 2, cols, two...))},
			want:  []want{{text: sel, attrs: rows("shop", 2)}}},
		{name: "no rows", wire: plain, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(plain.set(1, 2, cols))},
			want:  []want{{text: sel, attrs: rows("shop", 0)}}},
		{name: "no rows, without EOF packets", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(modern.set(1, 2, cols))},
			want:  []want{{text: sel, attrs: rows("shop", 0)}}},
		{name: "one column", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(modern.set(1, 2, cols[:1], row("SECRET"), row("")))},
			want:  []want{{text: sel, attrs: rows("shop", 2)}}},
		{name: "300 columns and rows", wire: plain, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(plain.set(1, 2, slices.Repeat(cols, 150), slices.Repeat([]string{strings.Repeat("\xfb", 300)}, 300)...))},
			want:  []want{{text: sel, attrs: rows("shop", 300)}}},
		{name: "no result", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: ins, attrs: in("shop")}}},
		{name: "no database", wire: modern,
			parts: []part{req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: ins}}},
		{name: "a text with the end of a string of C", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins + "\x00")), rsp(packet(1, okay(2)))},
			want:  []want{{text: ins, attrs: in("shop")}}},
		{name: "a text that cannot be read", wire: modern, db: "shop", middle: true,
			parts: []part{req(query("SELECT 'SECRET")), rsp(packet(1, fail(1064, "near SECRET")))},
			want:  []want{{text: "SELECT 'SECRET", attrs: merge(failure("shop", "1064"), attrs{"breadcrumb.withheld": true}), failed: true}}},
		{name: "an error", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins)), rsp(packet(1, fail(1062, "Duplicate entry 'SECRET' for key")))},
			want:  []want{{text: ins, attrs: failure("shop", "1062"), failed: true}}},
		{name: "an error without a state", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins)), rsp(packet(1, "\xff"+le(2006, 2)))},
			want:  []want{{text: ins, attrs: failure("shop", "2006"), failed: true}}},
		{name: "an error behind rows", wire: plain, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(strings.TrimSuffix(plain.set(1, 2, cols, two...), plain.eof(7, 2)), packet(7, fail(1317, "Query SECRET was interrupted")))},
			want:  []want{{text: sel, attrs: failure("shop", "1317"), failed: true}}},
		{name: "an error that was told before it was asked for", wire: modern, db: "shop",
			parts: []part{req(query(ins)), rsp(packet(0, fail(4031, "The client was disconnected")))},
			want:  []want{{text: ins, attrs: failure("shop", "4031"), failed: true}}},
		{name: "several in turn", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins)), rsp(packet(1, okay(2))), req(query(sel)), rsp(modern.set(1, 2, cols)), req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: ins, attrs: in("shop")}, {text: sel, attrs: rows("shop", 0), part: 2, end: 3}, {text: ins, attrs: in("shop"), part: 4, end: 5}}},
		{name: "no statements", wire: modern, db: "shop", middle: true,
			parts: []part{req(packet(0, "\x0e")), rsp(packet(1, okay(2))), req(packet(0, "\x09")), rsp(packet(1, "Uptime: SECRET")), req(packet(0, "\x1b\x00\x00")), rsp(packet(1, "\xfe\x00\x00\x02\x00")),
				req(packet(0, "\x04users\x00%")), rsp(packet(1, column("a")+str("SECRETdefault")), packet(2, column("b")), modern.eof(3, 2)), req(packet(0, "\x0a")), rsp(modern.set(1, 2, cols, two...)),
				req(query(ins)), rsp(packet(1, okay(2))), req(packet(0, "\x01"))},
			want: []want{{text: ins, attrs: in("shop"), part: 10, end: 11}}},
		{name: "prepared", wire: modern, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 1, 1)), req(execute(1, "SECRETvalue")), rsp(modern.set(1, 2, cols[:1], "\x00\x00"+str("SECRET"))), req(execute(1, "SECRETvalue")), rsp(modern.set(1, 2, cols[:1])), req(closeStmt(1), query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: other, attrs: rows("shop", 1), part: 2, end: 3}, {text: other, attrs: rows("shop", 0), part: 4, end: 5}, {text: ins, attrs: in("shop"), part: 6, end: 7}}, pipelined: true},
		{name: "prepared, with EOF packets", wire: plain, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(plain.prepared(1, 3, 2)), req(execute(1, "SECRETvalue")), rsp(plain.set(1, 2, cols[:1], "\x00\x00"+str("SECRET"))), req(prepare(ins)), rsp(plain.prepared(2, 2, 0)), req(execute(2)), rsp(packet(1, okay(2))), req(prepare("COMMIT")), rsp(plain.prepared(3, 0, 0)), req(execute(3)), rsp(packet(1, okay(2)))},
			want:  []want{{text: other, attrs: rows("shop", 1), part: 2, end: 3}, {text: ins, attrs: in("shop"), part: 6, end: 7}, {text: "COMMIT", attrs: in("shop"), part: 10, end: 11}}},
		{name: "prepared, and one EOF packet in it", wire: plain, db: "shop", middle: true,
			parts: []part{req(prepare(ins)), rsp(plain.prepared(2, 2, 0)), req(execute(2)), rsp(packet(1, okay(2))), req(query(sel)), rsp(plain.set(1, 2, cols, two...))},
			want:  []want{{text: ins, attrs: in("shop"), part: 2, end: 3}, {text: sel, attrs: rows("shop", 2), part: 4, end: 5}}},
		{name: "prepared before", wire: modern, db: "shop", middle: true,
			parts: []part{req(execute(5, "SECRETvalue")), rsp(packet(1, okay(2)))},
			want:  []want{{attrs: in("shop")}}},
		{name: "closed", wire: modern, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 1, 1)), req(closeStmt(1)), req(execute(1, "SECRETvalue")), rsp(packet(1, fail(1243, "Unknown prepared statement handler")))},
			want:  []want{{attrs: failure("shop", "1243"), failed: true, part: 3, end: 4}}, pipelined: true},
		{name: "what cannot be prepared", wire: modern, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(packet(1, fail(1146, "Table 'SECRET' doesn't exist"))), req(execute(1)), rsp(packet(1, fail(1243, "")))},
			want:  []want{{text: other, attrs: failure("shop", "1146"), failed: true}, {attrs: failure("shop", "1243"), failed: true, part: 2, end: 3}}},
		{name: "values sent before", wire: modern, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 1, 0)), req(packet(0, "\x18"+le(1, 4)+le(0, 2)+"SECRETlong"), packet(0, "\x18"+le(1, 4)+le(0, 2)+"SECRETlonger"), execute(1)), rsp(packet(1, okay(2))), req(packet(0, "\x1a"+le(1, 4))), rsp(packet(1, okay(2)))},
			want:  []want{{text: other, attrs: in("shop"), part: 2, end: 3}}, pipelined: true},
		{name: "a cursor", wire: plain, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(plain.prepared(1, 0, 2)), req(packet(0, "\x17"+le(1, 4)+"\x01"+le(1, 4))), rsp(packet(1, "\x02"), packet(2, column("a")), packet(3, column("b")), plain.eof(4, 0x42)),
				req(fetch(1, 2)), rsp(packet(1, "\x00SECRETrow"), packet(2, "\x00SECRETrow"), plain.eof(3, 0x42)), req(fetch(1, 2)), rsp(plain.eof(1, 0x82)), req(fetch(1, 2)), rsp(packet(1, fail(1421, "SECRET"))), req(query(ins)), rsp(packet(1, okay(2)))},
			want: []want{{text: other, attrs: in("shop"), part: 2, end: 3}, {text: other, attrs: failure("shop", "1421"), failed: true, part: 8, end: 9}, {text: ins, attrs: in("shop"), part: 10, end: 11}}},
		{name: "a cursor, without EOF packets", wire: modern, db: "shop", middle: true,
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 0, 2)), req(packet(0, "\x17"+le(1, 4)+"\x01"+le(1, 4))), rsp(packet(1, "\x02"), packet(2, column("a")), packet(3, column("b")), modern.eof(4, 0x42)),
				req(fetch(1, 2)), rsp(packet(1, "\x00SECRETrow"), packet(2, "\x00SECRETrow"), modern.eof(3, 0xc2))},
			want: []want{{text: other, attrs: in("shop"), part: 2, end: 3}}},
		{name: "several statements at once", wire: plain, db: "shop", middle: true,
			parts: []part{req(query(sel + "; " + ins + "; " + sel)), rsp(plain.set(1, 10, cols, two...), packet(plain.seqAfter(1, 2, 2), okay(10)), plain.set(plain.seqAfter(1, 2, 2)+1, 2, cols[:1], row("SECRET")))},
			want:  []want{{text: sel + "; " + ins + "; " + sel, attrs: rows("shop", 3)}}},
		{name: "several statements at once, without EOF packets", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(sel + "; " + ins + "; " + sel)), rsp(modern.set(1, 10, cols, two...), packet(modern.seqAfter(1, 2, 2), okay(10)), modern.set(modern.seqAfter(1, 2, 2)+1, 2, cols[:1], row("SECRET")))},
			want:  []want{{text: sel + "; " + ins + "; " + sel, attrs: rows("shop", 3)}}},
		{name: "several statements, of which one fails", wire: modern, db: "shop", middle: true,
			parts: []part{req(query(ins + "; " + sel)), rsp(packet(1, okay(10)), packet(2, fail(1146, "SECRET")))},
			want:  []want{{text: ins + "; " + sel, attrs: failure("shop", "1146"), failed: true}}},
		{name: "a procedure", wire: plain, db: "shop", middle: true,
			parts: []part{req(query("CALL p('SECRET')")), rsp(plain.set(1, 10, cols, two...), packet(plain.seqAfter(1, 2, 2), okay(2)))},
			want:  []want{{text: "CALL p('SECRET')", attrs: rows("shop", 2)}}},
		{name: "a local file", wire: modern, db: "shop", middle: true,
			parts: []part{req(query("LOAD DATA LOCAL INFILE 'SECRETpath' INTO TABLE users")), rsp(packet(1, "\xfbSECRETpath")), req(packet(2, "SECRET,data\n"), packet(3, "")), rsp(packet(4, okay(2))), req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: "LOAD DATA LOCAL INFILE 'SECRETpath' INTO TABLE users", attrs: in("shop"), end: 3}, {text: ins, attrs: in("shop"), part: 4, end: 5}}},
		{name: "a local file that fails", wire: modern, db: "shop", middle: true,
			parts: []part{req(query("LOAD DATA LOCAL INFILE 'SECRETpath' INTO TABLE users")), rsp(packet(1, "\xfbSECRETpath")), req(packet(2, "")), rsp(packet(3, fail(2, "SECRET"))), req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: "LOAD DATA LOCAL INFILE 'SECRETpath' INTO TABLE users", attrs: failure("shop", "2"), failed: true, end: 3}, {text: ins, attrs: in("shop"), part: 4, end: 5}}},
		{name: "other databases", wire: modern, db: "shop",
			parts: []part{req(packet(0, "\x02archive")), rsp(packet(1, okay(2))), req(query(ins)), rsp(packet(1, okay(2))),
				req(query("use `a``b` ;")), rsp(packet(1, okay(2))), req(query(ins)), rsp(packet(1, okay(2))),
				req(query("USE nowhere")), rsp(packet(1, fail(1049, "Unknown database"))), req(query(ins)), rsp(packet(1, okay(2))),
				req(query("CALL p()")), rsp(packet(1, okayWith(2, variable("autocommit", "ON"), schema("tracked")))), req(query(ins)), rsp(packet(1, okay(2))),
				req(query("DROP DATABASE IF EXISTS tracked")), rsp(packet(1, okay(2))), req(query(ins)), rsp(packet(1, okay(2)))},
			want: []want{{text: ins, attrs: in("archive"), part: 2, end: 3}, {text: "use `a``b` ;", attrs: in("archive"), part: 4, end: 5}, {text: ins, attrs: in("a`b"), part: 6, end: 7},
				{text: "USE nowhere", attrs: failure("a`b", "1049"), failed: true, part: 8, end: 9}, {text: ins, attrs: in("a`b"), part: 10, end: 11}, {text: "CALL p()", attrs: in("a`b"), part: 12, end: 13},
				{text: ins, attrs: in("tracked"), part: 14, end: 15}, {text: "DROP DATABASE IF EXISTS tracked", attrs: in("tracked"), part: 16, end: 17}, {text: ins, part: 18, end: 19}}},
		{name: "changes that are longer than what is kept", wire: modern, db: "shop",
			parts: []part{req(query("CALL p()")), rsp(packet(1, okayWith(2, variable("x", strings.Repeat("x", 2000)), schema("tracked")))), req(query(ins)), rsp(packet(1, okay(2)))},
			want:  []want{{text: "CALL p()", attrs: in("shop")}, {text: ins, part: 2, end: 3}}},
		{name: "a database among several statements", wire: modern, db: "shop",
			parts: []part{req(query("USE archive; " + ins)), rsp(packet(1, okay(10)), packet(2, okay(2))), req(query(ins)), rsp(packet(1, okay(2))),
				req(query("USE archive; " + ins)), rsp(packet(1, okayWith(10, schema("archive"))), packet(2, okay(2))), req(query(ins)), rsp(packet(1, okay(2)))},
			want: []want{{text: "USE archive; " + ins, attrs: in("shop")}, {text: ins, part: 2, end: 3}, {text: "USE archive; " + ins, part: 4, end: 5}, {text: ins, part: 6, end: 7}}},
		{name: "another user", wire: modern, db: "shop",
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 1, 1)), req(packet(0, "\x11root\x00"+str(password)+"archive\x00\x21\x00caching_sha2_password\x00"+str(str("_os")+str("attrSECRET")))), rsp(packet(1, "\xfecaching_sha2_password\x00SECRETsalt\x00")),
				req(packet(2, "SECRETscrambled")), rsp(packet(3, "\x01\x04")), req(packet(4, "\x02")), rsp(packet(5, "\x01-----BEGIN PUBLIC KEY-----")), req(packet(6, "SECRETencrypted")), rsp(packet(7, okay(2))),
				req(query(ins)), rsp(packet(1, okay(2))), req(execute(1)), rsp(packet(1, fail(1243, "")))},
			want: []want{{text: ins, attrs: in("archive"), part: 10, end: 11}, {attrs: failure("archive", "1243"), failed: true, part: 12, end: 13}}},
		{name: "a reset", wire: modern, db: "shop",
			parts: []part{req(prepare(other)), rsp(modern.prepared(1, 1, 1)), req(packet(0, "\x1f")), rsp(packet(1, okay(2))), req(execute(1)), rsp(packet(1, fail(1243, "")))},
			want:  []want{{attrs: failure("shop", "1243"), failed: true, part: 4, end: 5}}},
		{name: "rows of bound values", wire: maria, db: "shop",
			parts: []part{req(prepare("INSERT INTO users VALUES (?, ?)")), rsp(maria.prepared(4, 2, 0)),
				req(bulkRows(4, 0x80, "\xfd\x00", "\x03\x00", "\x00", str("SECRETa"), "\x00", le(1, 4), "\x01", "\x00", le(2, 4), "\x00", str("SECRETb"), "\x02")), rsp(packet(1, okay(2))),
				req(bulkRows(4, 0, "\x00", str("SECRETa"), "\x00", le(1, 4), "\x01", "\x01")), rsp(packet(1, okay(2))),
				req(bulkRows(4, 0x80, "\x99\x00", "\x03\x00", "\x00", str("SECRETa"), "\x00", le(1, 4), "\x01", "\x01")), rsp(packet(1, okay(2)))},
			want: []want{{text: "INSERT INTO users VALUES (?, ?)", attrs: attrs{"db.namespace": "shop", "db.operation.batch.size": int64(3)}, part: 2, end: 3}, {text: "INSERT INTO users VALUES (?, ?)", attrs: attrs{"db.namespace": "shop", "db.operation.batch.size": int64(2)}, part: 4, end: 5},
				{text: "INSERT INTO users VALUES (?, ?)", attrs: in("shop"), part: 6, end: 7}}},
		{name: "prepared and executed at once", wire: maria, db: "shop", pipelined: true,
			parts: []part{req(prepare(other), execute(lastPrepared, "SECRET")), rsp(maria.prepared(9, 1, 2)), rsp(packet(1, "\x02\x01"), maria.set(1, 2, cols, two...)[len(packet(1, "\x02")):]), req(execute(9, "SECRET")), rsp(packet(1, "\x02\x00"), packet(2, "\x00SECRETrow"), maria.eof(3, 2)),
				req(prepare(ins), execute(lastPrepared, "SECRET")), rsp(packet(1, fail(1146, "")), packet(1, fail(1243, "")))},
			want: []want{{text: other, attrs: rows("shop", 2)}, {text: other, attrs: rows("shop", 1)}, {text: ins, attrs: failure("shop", "1146"), failed: true}, {text: ins, attrs: failure("shop", "1243"), failed: true}}},
		{name: "many at once", wire: modern, db: "shop", middle: true, pipelined: true,
			parts: []part{req(query(ins), query(sel), closeStmt(8), query(ins), packet(0, "\x0e"), query(sel)), rsp(packet(1, okay(2)), modern.set(1, 2, cols, two...)), rsp(packet(1, fail(1062, "SECRET")), packet(1, okay(2)), modern.set(1, 2, cols))},
			want:  []want{{text: ins, attrs: in("shop")}, {text: sel, attrs: rows("shop", 2)}, {text: ins, attrs: failure("shop", "1062"), failed: true}, {text: sel, attrs: rows("shop", 0)}}},
		{name: "asked before the answer is complete", wire: modern, db: "shop", middle: true, pipelined: true,
			parts: []part{req(query(sel)), rsp(modern.set(1, 2, cols, two...)[:70]), req(query(ins)), rsp(modern.set(1, 2, cols, two...)[70:]), rsp(packet(1, okay(2)))},
			want:  []want{{text: sel, attrs: rows("shop", 2)}, {text: ins, attrs: in("shop")}}},
		{name: "attributes of queries", wire: attributes, db: "shop", middle: true,
			parts: []part{req(packet(0, "\x03\x00\x01", sel)), rsp(attributes.set(1, 2, cols, two...)),
				req(packet(0, "\x03\x03\x01\x02\x01", "\xfe\x00", str("a"), "\xfe\x00", str("b"), "\x08\x00", str("c"), str("SECRETvalue"), "SECRET88", ins)), rsp(packet(1, okay(2))),
				req(packet(0, "\x03\x02\x01\x00\x01", "\xfe\x00", str("x"), "\xfe\x00", str("traceparent"), str("SECRETvalue"), str(traceparent), ins)), rsp(packet(1, okay(2)))},
			want: []want{{text: sel, attrs: rows("shop", 2)}, {text: ins, attrs: in("shop"), part: 2, end: 3}, {text: ins, attrs: in("shop"), part: 4, end: 5, wire: traced}}},
		{name: "attributes of prepared statements", wire: attributes, db: "shop",
			parts: []part{req(prepare(other)), rsp(attributes.prepared(1, 1, 0)), req(packet(0, "\x17"+le(1, 4)+"\x08"+le(1, 4)+"\x02\x00\x01", "\xfd\x00", str(""), "\xfe\x00", str("traceparent"), str("SECRETvalue"), str(traceparent))), rsp(packet(1, okay(2))),
				req(packet(0, "\x17"+le(1, 4)+"\x08"+le(1, 4)+"\x00")), rsp(packet(1, okay(2))), req(execute(1, "SECRETvalue")), rsp(packet(1, okay(2))), req(packet(0, "\x17"+le(1, 4)+"\x00"+le(1, 4))), rsp(packet(1, okay(2)))},
			want: []want{{text: other, attrs: in("shop"), part: 2, end: 3, wire: traced}, {text: other, attrs: in("shop"), part: 4, end: 5}, {text: other, attrs: in("shop"), part: 6, end: 7}, {text: other, attrs: in("shop"), part: 8, end: 9}}},
		{name: "no definitions", wire: optional, db: "shop", middle: true,
			parts: []part{req(query(sel)), rsp(packet(1, "\x00\x02"), packet(2, row("1", "SECRET")), optional.eof(3, 2)), req(query(sel)), rsp(packet(1, "\x01\x02"), optional.set(1, 2, cols, two...)[len(packet(1, "\x02")):]),
				req(prepare(other)), rsp(packet(1, "\x00"+le(3, 4)+le(2, 2)+le(1, 2)+"\x00"+le(0, 2)+"\x00")), req(execute(3)), rsp(packet(1, okay(2)))},
			want: []want{{text: sel, attrs: rows("shop", 1)}, {text: sel, attrs: rows("shop", 2), part: 2, end: 3}, {text: other, attrs: in("shop"), part: 6, end: 7}}},
		{name: "reports of progress", wire: mariaP, db: "shop", middle: true,
			parts: []part{req(query("ALTER TABLE users")), rsp(packet(1, "\xff\xff\xff\x01\x01\x02"+le(500, 3)+str("copy to SECRET"))), rsp(packet(2, "\xff\xff\xff\x01\x02\x02"+le(500, 3)+str("x"))), rsp(packet(3, okay(2)))},
			want:  []want{{text: "ALTER TABLE users", attrs: in("shop"), end: 3}}},
		{name: "a statement that is not text", wire: modern, db: "shop",
			parts: []part{req(query("SELECT _binary'\x00\xff\xfe'")), rsp(modern.set(1, 2, cols[:1], row("\xff\xfe")))},
			want:  []want{{text: "SELECT _binary'\x00\xff\xfe'", attrs: rows("shop", 1)}}},
	}
	for i := range tests {
		test := &tests[i]
		for j := range test.want {
			if w := &test.want[j]; w.end == 0 {
				w.end = w.part + 1
			}
		}
	}
	return tests
}

// all are the parts of the conversation with its handshake, or without.
func (test *exchangeTest) all(middle bool) []part {
	if middle {
		return append(slices.Clone(test.parts), end(probes.Closed))
	}
	return append(append(test.wire.hello(test.db), test.parts...), end(probes.Closed))
}

// results are what the test wants at one side.
func (test *exchangeTest) results(server, middle bool) []result {
	var list []result
	before := len(test.wire.hello(""))
	if middle {
		before = 0
	}
	for _, w := range test.want {
		var a attrs
		if a = clientAttrs(w.attrs); server {
			a = serverAttrs(w.attrs)
		}
		name := w.name
		if w.text != "" {
			a = statementAttrs(w.text, a)
			name, _ = a["db.query.summary"].(string)
		} else {
			a["breadcrumb.unknown_fields"] = true
		}
		if middle {
			delete(a, "db.namespace")
		}
		if test.wire.maria && !middle {
			a["db.system.name"] = "mariadb"
		}
		if name == "" {
			name = "192.0.2.7:3306"
			if ns, ok := a["db.namespace"].(string); ok {
				name = ns
			}
		}
		r := result{Name: name, Attrs: a, Wire: w.wire}
		if w.failed {
			r.Status = codes.Error
		}
		if !test.pipelined {
			r.Start = int64(w.part+before+1) * 1000
			r.End = int64(w.end+before+1)*1000 + int64(len(test.parts[w.end].data))
		}
		list = append(list, r)
	}
	return list
}

// timeless takes the times away.
func timeless(list []result) []result {
	for i := range list {
		list[i].Start, list[i].End = 0, 0
	}
	return list
}

// check plays the conversation and compares.
func (test *exchangeTest) check(t *testing.T, how string, server, middle bool, split splitter) {
	t.Helper()
	acc := new(ledger.Account)
	conn := testConn(acc, server)
	conn.Established = middle
	events := chunks(test.all(middle), server, split)
	k, err := play(t, conn, server, events)
	if err != nil {
		t.Errorf("%s: %v", how, err)
	}
	got := k.results()
	if test.pipelined {
		got = timeless(got)
	}
	if diff := cmp.Diff(test.results(server, middle), got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", how, diff)
	}
	k.balance(acc, 0)
	var left [2][]byte
	for _, ev := range events {
		left[ev.Dir] = append(left[ev.Dir], ev.Head...)
	}
	for _, b := range left {
		if test.secret(string(b)) {
			t.Errorf("%s: left in chunks: %q", how, b)
		}
	}
}

// secret says whether what chunks hold is something that must be zeroed, and not of a statement.
func (test *exchangeTest) secret(s string) bool {
	for _, w := range test.want {
		s = strings.ReplaceAll(s, w.text, "")
	}
	return strings.Contains(s, "SECRET") || strings.Contains(s, salt) || strings.Contains(s, moreSalt)
}

func TestConversations(t *testing.T) {
	for _, test := range exchangeTests() {
		t.Run(test.name, func(t *testing.T) {
			for _, server := range []bool{false, true} {
				for _, middle := range []bool{false, true} {
					if middle && !test.middle {
						continue
					}
					how := map[bool]string{false: "client", true: "server"}[server] + map[bool]string{true: ", from the middle"}[middle]
					test.check(t, how, server, middle, whole)
					if t.Failed() {
						return
					}
				}
			}
		})
	}
}

// TestSplitAnywhere moves each conversation by other calls: the spans must be the same.
func TestSplitAnywhere(t *testing.T) {
	for _, test := range exchangeTests() {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, server := range []bool{false, true} {
				for _, middle := range []bool{false, true} {
					if middle && !test.middle {
						continue
					}
					for _, n := range []int{1, 2, 3, 5, 8, 100} {
						if middle && n < 5 {
							continue // what is held until a protocol is found comes in one piece
						}
						test.check(t, fmt.Sprintf("server %v, middle %v, in steps of %d", server, middle, n), server, middle, steps(n))
					}
					for i, p := range test.all(middle) {
						step := 1 + len(p.data)/1500
						for n := step; n < len(p.data); n += step {
							if middle && i == 0 && n < 5 {
								continue
							}
							test.check(t, fmt.Sprintf("server %v, middle %v, part %d split at %d", server, middle, i, n), server, middle, splitAt(i, n))
							if t.Failed() {
								return
							}
						}
					}
				}
			}
		})
	}
}

func containsSecret(s string) bool { return strings.Contains(s, "SECRET") }
