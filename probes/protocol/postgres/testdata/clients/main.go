// SPDX-License-Identifier: Apache-2.0

// pgx 5.13.0, and pq 1.12.3 where the argument says so.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"
)

func main() {
	if os.Args[1] == "pq" {
		usePQ()
	} else {
		usePGX(context.Background())
	}
}

func usePQ() {
	db, _ := sql.Open("postgres", "sslmode=disable")
	db.SetMaxOpenConns(1)
	exec := func(text string, args ...any) {
		_, err := db.Exec(text, args...)
		fmt.Println(err)
	}
	exec("CREATE TABLE p (a int, b text)")
	for i := range 3 {
		exec("INSERT INTO p VALUES ($1, $2)", i, "planted-p")
		var n int
		_ = db.QueryRow("SELECT count(*) FROM p WHERE a < $1", i).Scan(&n)
	}
	st, _ := db.Prepare("SELECT b FROM p WHERE a = $1")
	for i := range 3 {
		var s string
		_ = st.QueryRow(i).Scan(&s)
	}
	st.Close()
	exec("SELECT * FROM nowhere WHERE a = $1", 1)
	exec("SELECT * FROM nowhere")
	tx, _ := db.Begin()
	_, _ = tx.Exec("INSERT INTO p VALUES (9, 'planted-tx')")
	_ = tx.Rollback()
	db.Close()
}

func usePGX(ctx context.Context) {
	c, err := pgx.Connect(ctx, "sslmode=disable")
	if err != nil {
		panic(err)
	}
	exec := func(ctx context.Context, text string, args ...any) {
		_, err := c.Exec(ctx, text, args...)
		fmt.Println(err)
	}
	query := func(text string, args ...any) {
		rows, _ := c.Query(ctx, text, args...)
		for rows.Next() {
		}
		rows.Close()
	}
	exec(ctx, "CREATE TABLE g (a int, b text)")
	for i := range 3 {
		exec(ctx, "INSERT INTO g VALUES ($1, $2)", i, "planted-g")
		query("SELECT * FROM g WHERE a <= $1", i)
	}
	exec(ctx, "SELECT * FROM nowhere WHERE a = $1", 1)
	b := &pgx.Batch{}
	for i := range 10 {
		b.Queue("INSERT INTO g VALUES ($1, $2)", 10+i, "planted-batch")
		b.Queue("SELECT count(*) FROM g WHERE a = $1", i)
	}
	fmt.Println(c.SendBatch(ctx, b).Close())
	b = &pgx.Batch{}
	b.Queue("SELECT 1")
	b.Queue("SELECT 1/$1::int", 0)
	b.Queue("SELECT 3")
	fmt.Println(c.SendBatch(ctx, b).Close())
	exec(ctx, "SELECT $1::text", pgx.QueryExecModeSimpleProtocol, "planted-simple")
	exec(ctx, "SELECT $1::text", pgx.QueryExecModeExec, "planted-exec")
	exec(ctx, "SELECT $1::text", pgx.QueryExecModeCacheDescribe, "planted-describe")
	row := func(i int) ([]any, error) { return []any{i, "planted-copy" + strings.Repeat("x", 50)}, nil }
	fmt.Println(c.CopyFrom(ctx, pgx.Identifier{"g"}, []string{"a", "b"}, pgx.CopyFromSlice(150, row)))
	query("SELECT a, b FROM g WHERE a > $1", -1)
	p := c.PgConn().StartPipeline(ctx)
	for _, text := range []string{"SELECT 1", "SELECT 2"} {
		p.SendQueryParams(text, nil, nil, nil, nil)
		p.SendPipelineSync()
	}
	p.SendQueryParams("SELECT nothing", nil, nil, nil, nil)
	p.SendQueryParams("SELECT 4", nil, nil, nil, nil)
	_ = p.Sync()
	p.Close()
	_ = c.Ping(ctx)
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	exec(soon, "SELECT pg_sleep(3)")
	c.Close(ctx)
}
