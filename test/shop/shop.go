// SPDX-License-Identifier: Apache-2.0

// Package shop starts the demo shop, three unmodified services in three languages, and knows which calls
// each of its requests makes.
//
//	gateway (Node)   GET /checkout/<id>
//	  orders (Go)    GET /orders/<id>
//	    stock (Python) GET /price/<id>, asked for by a goroutine of its own
//	    stock          GET /stock/<id>, at the same time
//	  orders         POST /pay/<id>
//	    stock          POST /reserve/<id>
package shop

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"breadcrumb/test/e2e/servers"
)

// Shop is a shop that runs.
type Shop struct {
	Gateway, Orders, Stock *servers.Server
}

// The services' service.name.
const (
	Gateway = "gateway"
	Orders  = "orders"
	Stock   = "stock"
)

// Start starts the three services.
func Start(t testing.TB, o servers.Options) *Shop {
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
		{Gateway, Orders, "GET", "/orders/" + id, status(404, unknown), 0},
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

// Path is what the driver asks for.
func Path(n int) string { return fmt.Sprint("/checkout/", n) }
