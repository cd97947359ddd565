// SPDX-License-Identifier: Apache-2.0

// Orders is the shop's middle: it looks up an order's price and stock at once, keeps the order, and takes
// payments. It keeps its orders in PostgreSQL, or in its memory if DATABASE does not say where. It knows
// nothing of tracing.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

// client keeps its connections. The default transport would keep two per host, and a busy shop would
// run out of ports.
var client = &http.Client{Transport: func() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 100
	return t
}()}

var stock = "http://127.0.0.1:" + cmp.Or(os.Getenv("STOCK_PORT"), "8082")

type answer struct {
	status int
	Price  int `json:"price"`
	Pieces int `json:"pieces"`
}

// store is where orders are kept, by their id.
type store interface {
	// place keeps an order that is not paid.
	place(ctx context.Context, id string, total int) error
	// total is what an order costs.
	total(ctx context.Context, id string) (int, error)
	paid(ctx context.Context, id string) error
}

type shop struct{ orders store }

func main() {
	var s shop
	if database := os.Getenv("DATABASE"); database != "" {
		db, err := open(context.Background(), database)
		if err != nil {
			log.Fatal(err)
		}
		s.orders = db
	} else {
		s.orders = &memory{totals: map[string]int{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{id}", s.order)
	mux.HandleFunc("POST /pay/{id}", s.pay)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+cmp.Or(os.Getenv("ORDERS_PORT"), "8081"), mux))
}

func (s shop) order(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var (
		price, pieces       answer
		priceErr, piecesErr error
		group               sync.WaitGroup
	)
	group.Go(func() { price, priceErr = call("GET", "/price/"+id) })
	pieces, piecesErr = call("GET", "/stock/"+id)
	group.Wait()

	switch {
	case priceErr != nil || piecesErr != nil:
		http.Error(w, "stock does not answer", http.StatusBadGateway)
		return
	case pieces.status == http.StatusNotFound:
		http.Error(w, "unknown article", http.StatusNotFound)
		return
	}
	if err := s.orders.place(r.Context(), id, price.Price); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":%q,"pieces":%d,"total":%d}`+"\n", id, pieces.Pieces, price.Price)
}

func (s shop) pay(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var payment struct{ Amount int }
	if err := json.NewDecoder(r.Body).Decode(&payment); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	total, err := s.orders.total(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if payment.Amount != total {
		http.Error(w, "that is not what it costs", http.StatusConflict)
		return
	}
	reserved, err := call("POST", "/reserve/"+id)
	if err != nil || reserved.status != http.StatusOK {
		http.Error(w, "nothing reserved", http.StatusBadGateway)
		return
	}
	if err := s.orders.paid(r.Context(), id); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"paid":%d}`+"\n", payment.Amount)
}

func call(method, path string) (answer, error) {
	req, err := http.NewRequest(method, stock+path, nil)
	if err != nil {
		return answer{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode}
	if res.StatusCode == http.StatusOK {
		err = json.NewDecoder(res.Body).Decode(&a)
	}
	// What is left must be read, or the connection is not used again.
	io.Copy(io.Discard, res.Body)
	return a, err
}
