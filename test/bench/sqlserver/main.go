// SPDX-License-Identifier: Apache-2.0

// Sqlserver is an ordinary Go HTTP server that asks PostgreSQL, whose URL is in DATABASE, one question for
// each request. It knows nothing of tracing, but counts what it has served, and connects anew when it is sent
// SIGHUP. It is a module of its own, so that the driver stays out of the project's dependencies.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"
)

// connections is enough that no request waits for one.
const connections = 32

var served atomic.Int64

type server struct{ pool *pgxpool.Pool }

func (s server) account(w http.ResponseWriter, r *http.Request) {
	served.Add(1)
	var balance int
	// A load generator that goes in the middle of a request does not keep it from making its query: there is one for each that is counted.
	err := s.pool.QueryRow(context.WithoutCancel(r.Context()), "SELECT abalance FROM pgbench_accounts WHERE aid = $1", 1+rand.IntN(100_000)).Scan(&balance)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, balance)
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = connections
	// No statement is to be made that was not asked for.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	go func() {
		for range again {
			pool.Reset()
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/", server{pool}.account)
	mux.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, served.Load()) })
	log.Fatal(http.ListenAndServe(os.Args[1], mux))
}
