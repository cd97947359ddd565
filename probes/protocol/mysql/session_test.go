// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"fmt"
	"strings"
	"testing"

	"breadcrumb/probes/protocol/sql"

	"github.com/google/go-cmp/cmp"
)

func TestChangesOfTheSession(t *testing.T) {
	for _, test := range []struct {
		text string
		want *change
	}{
		{"SELECT 1", nil},
		{"", nil},
		{"USE shop", &change{database: "shop", uses: true}},
		{"/* a */ use shop;", &change{database: "shop", uses: true}},
		{"USE `a``b`", &change{database: "a`b", uses: true}},
		{"USE shop extra", &change{unknown: true}},
		{"USE", &change{unknown: true}},
		{"USE `shop", &change{unknown: true}},
		{"USELESS", nil},
		{"DROP DATABASE shop", &change{database: "shop", drops: true}},
		{"DROP SCHEMA IF EXISTS shop", &change{database: "shop", drops: true}},
		{"DROP SCHEMA `if`", &change{database: "if", drops: true}},
		{"DROP TABLE shop", nil},
		{"DROP DATABASE", &change{unknown: true}},
		{"SET NAMES utf8mb4", &change{wide: isNot}},
		{"SET NAMES 'utf8mb4' COLLATE utf8mb4_bin", &change{wide: isNot}},
		{"set names gbk", &change{wide: is}},
		{"SET NAMES \"SJIS\"", &change{wide: is}},
		{"SET NAMES DEFAULT", &change{initial: true}},
		{"SET CHARACTER SET big5", &change{wide: is}},
		{"SET character_set_client = cp932", &change{wide: is}},
		{"SET character_set_client := @old", &change{wide: is}},
		{"SET sql_mode = 'ANSI_QUOTES'", &change{ansi: is}},
		{"SET SESSION sql_mode='STRICT_TRANS_TABLES, ansi'", &change{ansi: is}},
		{"SET @@session.sql_mode := \"ORACLE\";", &change{ansi: is}},
		{"SET sql_mode = ''", &change{ansi: isNot}},
		{"SET sql_mode = DEFAULT", &change{ansi: isNot}},
		{"SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')", &change{ansi: isNot}},
		{"SET sql_mode = ?", &change{ansi: isNot}},
		{"SET GLOBAL sql_mode = 'ANSI'", &change{ansi: isNot}},
		{"SET @@global.sql_mode = 'ANSI'", &change{ansi: isNot}},
		{"SET NAMES utf8mb4, sql_mode = 'ANSI'", &change{wide: isNot, ansi: is}},
		{"SET autocommit = 0", nil},
		{"SET NAMES", &change{wide: is}},
		{"SELECT 1; USE shop", &change{unknown: true}},
		{"SELECT 1; SELECT 2 -- sql_mode = ansi", nil},
		{"SELECT 1; SET sql_mode = 'ANSI'", &change{ansi: isNot}},
		{"SELECT 1; SET NAMES gbk", &change{wide: is}},
	} {
		st := sql.New(sql.MySQL, sql.Sanitised).Read([]byte(test.text), false, sql.Modes{})
		got := changeOf([]byte(test.text), st, false)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(change{})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", test.text, diff)
		}
	}
}

// TestModes: what a server tells of how it reads texts holds for the statement that comes next.
func TestModes(t *testing.T) {
	ok := packet(1, okay(2))
	type modes struct{ NoBackslashEscapes, ANSIQuotes bool }
	for _, test := range []struct {
		name  string
		wire  wire
		parts []part
		want  modes
	}{
		{"at first", modern, nil, modes{}},
		{"no backslashes", modern, []part{req(query("CALL p()")), rsp(packet(1, okay(0x202)))}, modes{NoBackslashEscapes: true}},
		{"no backslashes, told behind rows", modern, []part{req(query(selectUsers)), rsp(modern.set(1, 0x202, []string{"a"}))}, modes{NoBackslashEscapes: true}},
		{"backslashes again", modern, []part{req(query("CALL p()")), rsp(packet(1, okay(0x202))), req(packet(0, "\x0e")), rsp(ok)}, modes{}},
		{"MariaDB tells of quotes", maria, []part{req(query("CALL p()")), rsp(packet(1, okay(0x8002)))}, modes{ANSIQuotes: true}},
		{"MySQL does not", modern, []part{req(query("CALL p()")), rsp(packet(1, okay(0x8002)))}, modes{}},
		{"but a statement does", modern, []part{req(query("SET sql_mode = 'ANSI'")), rsp(ok), req(query(insertUsers)), rsp(ok)}, modes{ANSIQuotes: true}},
		{"if it succeeds", modern, []part{req(query("SET sql_mode = 'ANSI'")), rsp(packet(1, fail(1231, ""))), req(query(insertUsers)), rsp(ok)}, modes{}},
		{"until the next", modern, []part{req(query("SET sql_mode = 'ANSI'")), rsp(ok), req(query("SET sql_mode = DEFAULT")), rsp(ok), req(query(insertUsers)), rsp(ok)}, modes{}},
		{"or a reset", modern, []part{req(query("SET sql_mode = 'ANSI'")), rsp(ok), req(packet(0, "\x1f")), rsp(ok), req(query(insertUsers)), rsp(ok)}, modes{}},
		{"or a loss", modern, []part{req(query("SET sql_mode = 'ANSI'")), rsp(ok), req(query(insertUsers)).afterLoss(), rsp(ok)}, modes{}},
		{"or what the server tracks", modern, []part{req(query("CALL p()")), rsp(packet(1, okayWith(2, variable("sql_mode", "STRICT_TRANS_TABLES,ANSI_QUOTES")))), req(query(insertUsers)), rsp(ok)}, modes{ANSIQuotes: true}},
		{"prepared", modern, []part{req(prepare("SET sql_mode = 'ANSI'")), rsp(modern.prepared(1, 0, 0)), req(execute(1)), rsp(ok), req(query(insertUsers)), rsp(ok)}, modes{ANSIQuotes: true}},
	} {
		_, d, err := playOn(protocol.New(testConn(nil, false), false), t, chunks(append(test.wire.hello("shop"), test.parts...), false, whole))
		if err != nil {
			t.Fatal(err)
		}
		if got := (modes{d.session.modes.NoBackslashEscapes, d.session.modes.ANSIQuotes}); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// TestWideCharacters: where a character may hold a backslash, only what precedes the first such character is read.
func TestWideCharacters(t *testing.T) {
	ok := packet(1, okay(2))
	text := "INSERT INTO users VALUES ('\x95\\', 'SECRET')"
	for _, set := range []string{"SET NAMES gbk", "SET character_set_client = sjis", "SET x = 1, NAMES big5"} {
		parts := append(modern.hello("shop"), req(query(set)), rsp(ok), req(query(text)), rsp(ok), req(query("SET NAMES utf8mb4")), rsp(ok), req(query(insertUsers)), rsp(ok))
		k, err := play(t, testConn(nil, false), false, chunks(parts, false, whole))
		if err != nil {
			t.Fatal(err)
		}
		r := k.results()
		if s := fmt.Sprint(r); len(r) != 4 || r[1].Attrs["breadcrumb.truncated"] != true || r[3].Attrs["breadcrumb.truncated"] != nil || containsSecret(s) {
			t.Errorf("%s: %s", set, s)
		}
	}
}

// TestUnknownCharacters: where the character set is not known, what is not UTF-8 may be in one of those.
func TestUnknownCharacters(t *testing.T) {
	ok := packet(1, okay(2))
	for text, cut := range map[string]any{
		"INSERT INTO users VALUES ('\x95\\', 'SECRET')": true, "INSERT INTO users VALUES ('\u00e9', 'SECRET')": nil, "INSERT INTO users VALUES ('e', 'SECRET')": nil,
	} {
		conn := testConn(nil, false)
		conn.Established = true
		k, err := play(t, conn, false, chunks([]part{req(query(text)), rsp(ok)}, false, whole))
		if err != nil {
			t.Fatal(err)
		}
		if r := k.results(); len(r) != 1 || r[0].Attrs["breadcrumb.truncated"] != cut || containsSecret(fmt.Sprint(r)) {
			t.Errorf("%q: %v", text, r)
		}
	}
}

func TestStatementsById(t *testing.T) {
	var p prepared
	for _, id := range []uint32{5, 3, 9, 5, 1} {
		p.add(statement{id: id, params: int(id)})
	}
	p.remove(3)
	p.remove(4)
	for id := range uint32(11) {
		st := p.find(id)
		if want := id == 1 || id == 5 || id == 9; (st != nil) != want || want && st.params != int(id) {
			t.Errorf("%d: %v", id, st)
		}
	}
	for id := range uint32(maxStatements) {
		p.add(statement{id: 100 + id})
	}
	if len(p.list) != maxStatements || p.find(5) != nil || p.find(100) == nil || p.find(100+maxStatements-1) == nil {
		t.Errorf("%d statements", len(p.list))
	}
	p.add(statement{id: 50})
	if p.find(50) == nil || p.find(100) != nil {
		t.Error("the newest is not known")
	}
	for i := range p.list {
		if i > 0 && p.list[i-1].id >= p.list[i].id {
			t.Fatal("not in order")
		}
	}
	for id := range uint32(100) {
		p.add(statement{id: id, statement: &sql.Statement{Text: strings.Repeat("x", maxText)}})
		if p.bytes > maxStatementBytes {
			t.Fatalf("%d bytes", p.bytes)
		}
	}
	for id := range uint32(10000) {
		p.remove(id)
	}
	if p.bytes != 0 || len(p.list) > 0 {
		t.Errorf("%d bytes of %d statements", p.bytes, len(p.list))
	}
}
