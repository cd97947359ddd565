// SPDX-License-Identifier: Apache-2.0

// Package shop starts the demo shop, three unmodified services in three languages and a database, and knows
// which calls each of its requests makes.
//
//	gateway (Node)   GET /checkout/<id>
//	  orders (Go)    POST /orders/<id>
//	    stock (Python) GET /price/<id>, asked for by a goroutine of its own
//	    stock          GET /stock/<id>, at the same time
//	    PostgreSQL     INSERT orders
//	  orders         POST /pay/<id>
//	    PostgreSQL     SELECT orders
//	    stock          POST /reserve/<id>
//	    PostgreSQL     UPDATE orders
package shop

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"breadcrumb/test/e2e/servers"
)

// Shop is a shop that runs.
type Shop struct {
	Gateway, Orders, Stock *servers.Server
	// Database is where orders keeps them; nil: in its memory.
	Database *servers.Database
}

// All are its servers.
func (s *Shop) All() []*servers.Server {
	all := []*servers.Server{s.Gateway, s.Orders, s.Stock}
	if s.Database != nil {
		all = append(all, s.Database.Server)
	}
	return all
}

// The services' service.name.
const (
	Gateway = "gateway"
	Orders  = "orders"
	Stock   = "stock"

	Database = "postgres"
)

// Start starts the three services and their database.
func Start(t testing.TB, o servers.Options) *Shop {
	t.Helper()
	database := servers.PostgreSQL(t, o)
	o.Env = append(slices.Clone(o.Env), "DATABASE=postgres://postgres@"+database.Addr+"/postgres?sslmode=disable")
	s := StartWithoutDatabase(t, o)
	s.Database = database
	return s
}

// StartWithoutDatabase starts the three services alone: orders keeps them in its memory.
func StartWithoutDatabase(t testing.TB, o servers.Options) *Shop {
	t.Helper()
	folder := filepath.Join(servers.ModuleRoot(), "test", "shop")
	gateway, orders, stock := servers.FreePort(t), servers.FreePort(t), servers.FreePort(t)
	o.Env = append([]string{
		"GATEWAY_PORT=" + strconv.Itoa(gateway),
		"ORDERS_PORT=" + strconv.Itoa(orders),
		"STOCK_PORT=" + strconv.Itoa(stock),
	}, o.Env...)
	s := &Shop{}
	s.Stock = servers.Listening(t, servers.Run(t, o, "/usr/bin/python3", filepath.Join(folder, "stock", "stock.py")), stock)
	s.Orders = servers.Listening(t, servers.Run(t, o, servers.Build(t, "test/shop/orders")), orders)
	s.Gateway = servers.Listening(t, servers.Run(t, o, "node", filepath.Join(folder, "gateway", "gateway.js")), gateway)
	return s
}

// Call is a request that one service makes of another, or the driver of the gateway.
type Call struct {
	From, To     string // From is empty for the driver
	Method, Path string
	Status       int
	// Under is the call, by its number, during which it is made; -1 for none.
	Under int
}

// Calls are those that a checkout makes, in an order in which each comes after the one that it is under.
func Calls(n int) []Call {
	unknown, broken := n%17 == 3, n%29 == 5
	id := strconv.Itoa(n)
	status := func(code int, not bool) int {
		if not {
			return code
		}
		return 200
	}
	calls := []Call{
		{"", Gateway, "GET", "/checkout/" + id, 200, -1},
		{Gateway, Orders, "POST", "/orders/" + id, status(404, unknown), 0},
		{Orders, Stock, "GET", "/price/" + id, 200, 1},
		{Orders, Stock, "GET", "/stock/" + id, status(404, unknown), 1},
	}
	if unknown {
		calls[0].Status = 404
		return calls
	}
	calls[0].Status = status(502, broken)
	return append(calls,
		Call{Gateway, Orders, "POST", "/pay/" + id, status(502, broken), 0},
		Call{Orders, Stock, "POST", "/reserve/" + id, status(500, broken), 4})
}

// Statement is what orders asks of the database.
type Statement struct {
	Operation, Text string // as its spans show them
	Under           int    // the call, by its number, during which it is executed
}

// Statements are those that a checkout executes, in their order.
func Statements(n int) []Statement {
	calls := Calls(n)
	var list []Statement
	if calls[1].Status == 200 {
		list = append(list, Statement{"INSERT", "INSERT INTO orders (id, total) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET total = $2, paid = NULL", 1})
	}
	if len(calls) > 4 {
		list = append(list, Statement{"SELECT", "SELECT total FROM orders WHERE id = $1", 4})
	}
	if calls[0].Status == 200 {
		list = append(list, Statement{"UPDATE", "UPDATE orders SET paid = now() WHERE id = $1", 4})
	}
	return list
}

// Spans is how many spans a checkout makes of a shop with or without a database: both ends of everything, but for the driver's.
func Spans(n int, database bool) int {
	spans := 2*len(Calls(n)) - 1
	if database {
		spans += 2 * len(Statements(n))
	}
	return spans
}

// Path is what the driver asks for.
func Path(n int) string { return fmt.Sprint("/checkout/", n) }
