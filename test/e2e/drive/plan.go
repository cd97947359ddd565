// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Plan is a load of requests. The zero value of every field but Addr, Requests and Connections will
// do.
type Plan struct {
	Network, Addr string // Network is tcp if empty
	Requests      int
	Connections   int // as many requests are under way at once, times Depth
	// Depth is how many requests are sent in one write before the first answer is read.
	Depth int
	// Fresh opens a connection for each request, which asks to close it.
	Fresh bool
	// Split is the number of bytes that each write of a request holds; 0 is all.
	Split int
	// Trace gives each request a trace context of its own.
	Trace bool
	// Request makes the request of a number. By default it gets /item/<unique>, where the unique
	// part holds the number.
	Request func(i int) Request
	// Each is told of each exchange when it is over, by any goroutine.
	Each func(*Exchange)
}

// Run drives the load and returns every exchange in the order of their numbers. A connection that the
// server closes after an answer is opened anew; any other failure ends the run.
func (p Plan) Run() ([]Exchange, error) {
	if p.Network == "" {
		p.Network = "tcp"
	}
	if p.Depth == 0 {
		p.Depth = 1
	}
	if p.Request == nil {
		prefix := randomHex(6)
		p.Request = func(i int) Request { return Request{Target: fmt.Sprintf("/item/%s-%d", prefix, i)} }
	}
	exchanges := make([]Exchange, p.Requests)
	var (
		next   atomic.Int64
		failed atomic.Bool
		group  sync.WaitGroup
	)
	errs := make([]error, p.Connections)
	for w := range p.Connections {
		group.Go(func() {
			var conn *Conn
			defer func() {
				if conn != nil {
					conn.Close()
				}
			}()
			for !failed.Load() {
				end := int(next.Add(int64(p.Depth)))
				begin := end - p.Depth
				end = min(end, p.Requests)
				if begin >= end {
					return
				}
				if conn != nil && (conn.Closed || p.Fresh) {
					conn.Close()
					conn = nil
				}
				if conn == nil {
					if conn, errs[w] = Dial(p.Network, p.Addr); errs[w] != nil {
						failed.Store(true)
						return
					}
				}
				if errs[w] = p.round(conn, begin, exchanges[begin:end]); errs[w] != nil {
					failed.Store(true)
					return
				}
			}
		})
	}
	group.Wait()
	return exchanges, errors.Join(errs...)
}

// round sends the requests numbered from begin in one write and reads their answers.
func (p Plan) round(conn *Conn, begin int, exchanges []Exchange) error {
	if len(exchanges) == 1 {
		var err error
		if r := p.request(begin); p.Split > 0 {
			exchanges[0], err = conn.SendSplit(r, p.Split)
		} else {
			exchanges[0], err = conn.Send(r)
		}
		if err != nil {
			return fmt.Errorf("send request %d: %w", begin, err)
		}
	} else {
		var bytes []byte
		for i := range exchanges {
			r := p.request(begin + i)
			var head []byte
			head, exchanges[i] = conn.Head(r)
			bytes = append(append(bytes, head...), r.Body...)
		}
		if err := conn.pipeline(bytes, exchanges); err != nil {
			return fmt.Errorf("send requests from %d: %w", begin, err)
		}
	}
	for i := range exchanges {
		x := &exchanges[i]
		if err := conn.Receive(x); err != nil {
			if err == io.EOF {
				err = errQuiet
			}
			return fmt.Errorf("answer to %s: %w", x.Target, err)
		}
		if p.Each != nil {
			p.Each(x)
		}
		if conn.Closed && i+1 < len(exchanges) {
			return fmt.Errorf("the server closed the connection after %d of %d pipelined requests", i+1, len(exchanges))
		}
	}
	return nil
}

func (p Plan) request(i int) Request {
	r := p.Request(i)
	r.Trace = r.Trace || p.Trace
	if p.Fresh {
		r.Header = append(r.Header, "Connection: close")
	}
	return r
}
