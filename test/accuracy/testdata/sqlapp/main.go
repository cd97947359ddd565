// SPDX-License-Identifier: Apache-2.0

// Sqlapp is an ordinary net/http server that asks a database for each request, in ways that programs do: it knows nothing of
// tracing. GET /SHAPE/ID executes statements with columns that are called call_ID_N.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"golang.org/x/sync/errgroup"
)

// pool is what the drivers have in common.
type pool interface {
	// query executes a statement, with an argument if there is one, and reads the rows.
	query(ctx context.Context, text string, args ...any) error
	// transaction executes both, the first of which is prepared, as one.
	transaction(ctx context.Context, first string, arg any, second string) error
}

// sleep is a statement that takes some time, which it has as its argument or in its text.
var sleep func(id string, n int, seconds string) string

func postgres(id string, n int, seconds string) string {
	if seconds == "" {
		seconds = "$1::float8"
	}
	return fmt.Sprintf("SELECT pg_sleep(%s) AS call_%s_%d", seconds, id, n)
}

func mysql(id string, n int, seconds string) string {
	if seconds == "" {
		seconds = "?"
	}
	return fmt.Sprintf("SELECT SLEEP(%s) AS call_%s_%d", seconds, id, n)
}

func seconds() float64 { return rand.Float64() * 0.003 }

// inText and inArgument are two kinds of call.
func inText(ctx context.Context, p pool, id string, n int) error {
	return p.query(ctx, sleep(id, n, fmt.Sprintf("%.4f", seconds())))
}

func inArgument(ctx context.Context, p pool, id string, n int) error {
	return p.query(ctx, sleep(id, n, ""), seconds())
}

func main() {
	many, few, one := open(64), open(8), open(1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		shape, id, _ := strings.Cut(r.URL.Path[1:], "/")
		if err := serve(r.Context(), many, few, one, shape, id); err != nil {
			log.Print(err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "done")
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(handler)))
}

func serve(ctx context.Context, many, few, one pool, shape, id string) error {
	switch shape {
	case "one":
		return inArgument(ctx, one, id, 0)
	case "slow":
		return many.query(ctx, sleep(id, 0, "3"))
	case "few":
		many = few
		fallthrough
	case "sequence":
		if err := inArgument(ctx, many, id, 0); err != nil {
			return err
		}
		return inText(ctx, many, id, 1)
	case "errgroup":
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return inText(ctx, many, id, 0) })
		group.Go(func() error { return inArgument(ctx, many, id, 1) })
		return group.Wait()
	case "transaction":
		return many.transaction(ctx, sleep(id, 0, ""), seconds(), sleep(id, 1, "0.001"))
	}
	return fmt.Errorf("no shape %q", shape)
}

func open(connections int) pool {
	driver, source := os.Getenv("DRIVER"), "root@tcp("+os.Getenv("DATABASE")+")/"
	sleep = mysql
	if driver != "mysql" {
		source = "postgres://postgres@" + os.Getenv("DATABASE") + "/postgres?sslmode=disable"
		sleep = postgres
	}
	if driver == "pgxpool" {
		config, err := pgxpool.ParseConfig(source)
		if err != nil {
			log.Fatal(err)
		}
		config.MaxConns = int32(connections)
		p, err := pgxpool.NewWithConfig(context.Background(), config)
		if err != nil {
			log.Fatal(err)
		}
		return native{p}
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return standard{db}
}

// standard is database/sql.
type standard struct{ db *sql.DB }

func (s standard) query(ctx context.Context, text string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, text, args...)
	return drain(rows, err)
}

func drain(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func (s standard) transaction(ctx context.Context, first string, arg any, second string) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	statement, err := tx.PrepareContext(ctx, first)
	if err != nil {
		return err
	}
	defer statement.Close()
	rows, err := statement.QueryContext(ctx, arg)
	if err := drain(rows, err); err != nil {
		return err
	}
	rows, err = tx.QueryContext(ctx, second)
	if err := drain(rows, err); err != nil {
		return err
	}
	return tx.Commit()
}

// native is pgx without database/sql.
type native struct{ pool *pgxpool.Pool }

func (n native) query(ctx context.Context, text string, args ...any) error {
	rows, err := n.pool.Query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func (n native) transaction(ctx context.Context, first string, arg any, second string) error {
	tx, err := n.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Prepare(ctx, first, first); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, first, arg); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, second); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
