// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// database is a store in PostgreSQL.
type database struct{ pool *pgxpool.Pool }

// open makes the table in the database of a URL. The pool connects when it is asked for the first time.
func open(ctx context.Context, url string) (*database, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, total int NOT NULL, paid timestamptz)")
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, fmt.Errorf("make the table: %w", err)
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	// By default a connection that has been idle for a second is asked with an empty statement whether it lives.
	config.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > time.Minute }
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &database{pool}, err
}

func (d *database) place(ctx context.Context, id string, total int) error {
	_, err := d.pool.Exec(ctx, "INSERT INTO orders (id, total) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET total = $2, paid = NULL", id, total)
	return err
}

func (d *database) total(ctx context.Context, id string) (total int, err error) {
	err = d.pool.QueryRow(ctx, "SELECT total FROM orders WHERE id = $1", id).Scan(&total)
	return total, err
}

func (d *database) paid(ctx context.Context, id string) error {
	_, err := d.pool.Exec(ctx, "UPDATE orders SET paid = now() WHERE id = $1", id)
	return err
}

// memory is a store that ends with the program.
type memory struct {
	mu     sync.Mutex
	totals map[string]int
}

func (m *memory) place(_ context.Context, id string, total int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.totals[id] = total
	return nil
}

func (m *memory) total(_ context.Context, id string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	total, ok := m.totals[id]
	if !ok {
		return 0, fmt.Errorf("no order %s", id)
	}
	return total, nil
}

func (m *memory) paid(context.Context, string) error { return nil }
