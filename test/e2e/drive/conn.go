// SPDX-License-Identifier: Apache-2.0

// Package drive is the client of the end-to-end tests: HTTP/1 over sockets of its own, so that it
// decides what every write holds, and a record of what it did, against which spans are compared. It
// knows nothing of the agent.
package drive

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// patience is a safety net for everything that waits for a server.
const patience = 30 * time.Second

// Exchange is a request that the driver made and what came of it.
type Exchange struct {
	Method string
	// Target is what the request line says, without a query in Path.
	Target, Path string
	// Status is that of the final answer, 0 if none came.
	Status int
	// Interim are the 1xx answers that came before it.
	Interim []int
	// Before was read before the first byte was sent, After when the last byte had come. Unix time, ns.
	Before, After int64
	// Local is the driver's end of the connection.
	Local string
	// TraceID and SpanID are the context that the request carried, or empty.
	TraceID, SpanID, TraceState string
	// Received is the size of the answer's body.
	Received int64
	// Err says how the connection failed.
	Err error
}

// Request is what to send.
type Request struct {
	Method string // GET if empty
	Target string
	// Host is the server's address if empty.
	Host string
	// Header lines, each without its end. Host is added.
	Header []string
	// Body is sent with its length unless Header says how it is framed.
	Body []byte
	// Trace adds a traceparent with random ids.
	Trace bool
	// TraceState is added along with it.
	TraceState string
}

// Conn is a connection to a server.
type Conn struct {
	net.Conn
	in          *bufio.Reader
	local, host string
	// Closed says that the server announced that it takes no more requests here.
	Closed bool
}

// Dial connects.
func Dial(network, addr string) (*Conn, error) {
	conn, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10), local: conn.LocalAddr().String(), host: addr}
	if network == "unix" {
		c.host = "localhost"
	}
	return c, nil
}

// Reset ends the connection by RST.
func (c *Conn) Reset() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	return c.Close()
}

// Head is the head of a request as it goes over this connection, and the exchange that it begins.
func (c *Conn) Head(r Request) ([]byte, Exchange) {
	c.SetDeadline(time.Now().Add(patience))
	x := Exchange{Method: r.Method, Target: r.Target, Local: c.local}
	if x.Method == "" {
		x.Method = "GET"
	}
	if r.Host == "" {
		r.Host = c.host
	}
	x.Path, _, _ = strings.Cut(r.Target, "?")
	head := make([]byte, 0, 256)
	head = append(head, x.Method...)
	head = append(head, ' ')
	head = append(head, r.Target...)
	head = append(append(append(head, " HTTP/1.1\r\nHost: "...), r.Host...), '\r', '\n')
	framed := r.Body == nil
	for _, line := range r.Header {
		head = append(append(head, line...), '\r', '\n')
		lower := strings.ToLower(line)
		framed = framed || strings.HasPrefix(lower, "content-length:") || strings.HasPrefix(lower, "transfer-encoding:")
	}
	if !framed {
		head = fmt.Appendf(head, "Content-Length: %d\r\n", len(r.Body))
	}
	if r.Trace {
		x.TraceID, x.SpanID, x.TraceState = randomHex(16), randomHex(8), r.TraceState
		head = fmt.Appendf(head, "traceparent: 00-%s-%s-01\r\n", x.TraceID, x.SpanID)
		if r.TraceState != "" {
			head = fmt.Appendf(head, "tracestate: %s\r\n", r.TraceState)
		}
	}
	return append(head, '\r', '\n'), x
}

// Send writes the request at once and begins its exchange.
func (c *Conn) Send(r Request) (Exchange, error) {
	head, x := c.Head(r)
	x.Before = time.Now().UnixNano()
	_, err := c.Write(append(head, r.Body...))
	x.Err = err
	return x, err
}

// SendSplit writes the request in pieces of size bytes, each by a call of its own, and begins its
// exchange.
func (c *Conn) SendSplit(r Request, size int) (Exchange, error) {
	head, x := c.Head(r)
	x.Before = time.Now().UnixNano()
	for all := append(head, r.Body...); len(all) > 0 && x.Err == nil; {
		n := min(size, len(all))
		_, x.Err = c.Write(all[:n])
		all = all[n:]
	}
	return x, x.Err
}

// pipeline writes several requests at once; bytes holds those of all exchanges.
func (c *Conn) pipeline(bytes []byte, exchanges []Exchange) error {
	now := time.Now().UnixNano()
	for i := range exchanges {
		exchanges[i].Before = now
	}
	_, err := c.Write(bytes)
	return err
}

// Do sends a request and reads its answer.
func (c *Conn) Do(r Request) Exchange {
	x, err := c.Send(r)
	if err == nil {
		c.Receive(&x)
	}
	return x
}

// Receive reads the answer to x: interim answers, and the final one to its end.
func (c *Conn) Receive(x *Exchange) error {
	for {
		err := c.receive(x)
		x.After, x.Err = time.Now().UnixNano(), err
		if err != nil || x.Status/100 != 1 || x.Status == 101 {
			return err
		}
		x.Interim = append(x.Interim, x.Status)
		x.Status = 0
	}
}

// ReceiveInterim reads one interim answer.
func (c *Conn) ReceiveInterim(x *Exchange) error {
	if err := c.receive(x); err != nil {
		return err
	}
	if x.Status/100 != 1 {
		return fmt.Errorf("an answer with status %d in place of an interim one", x.Status)
	}
	x.Interim = append(x.Interim, x.Status)
	x.Status = 0
	return nil
}

func (c *Conn) receive(x *Exchange) error {
	line, err := c.line()
	if err != nil {
		return err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return fmt.Errorf("not a status line: %q", line)
	}
	if x.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return fmt.Errorf("not a status line: %q", line)
	}
	old := line[7] == '0'
	c.Closed = old
	length, chunked := int64(-1), false
	for {
		if line, err = c.line(); err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch strings.ToLower(string(name)) {
		case "content-length":
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return err
			}
		case "transfer-encoding":
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case "connection":
			if bytes.EqualFold(value, []byte("close")) {
				c.Closed = true
			} else if bytes.EqualFold(value, []byte("keep-alive")) {
				c.Closed = false
			}
		}
	}
	switch {
	case x.Method == "HEAD", x.Status/100 == 1, x.Status == 204, x.Status == 304:
		return nil
	case chunked:
		return c.chunks(x)
	case length >= 0:
		n, err := io.CopyN(io.Discard, c.in, length)
		x.Received += n
		return err
	}
	// The body ends with the connection.
	c.Closed = true
	x.Received, err = io.Copy(io.Discard, c.in)
	return err
}

func (c *Conn) chunks(x *Exchange) error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(line), 16, 64)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		n, err := io.CopyN(io.Discard, c.in, size)
		x.Received += n
		if err != nil {
			return err
		}
		if line, err = c.line(); err != nil {
			return err
		}
		if len(line) != 0 {
			return fmt.Errorf("after a chunk: %q", line)
		}
	}
	for {
		if line, err := c.line(); err != nil || len(line) == 0 {
			return err
		}
	}
}

func (c *Conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// Buffered is what came after the last answer and was read along with it.
func (c *Conn) Buffered() io.Reader { return c.in }

// errQuiet says that a server closed a kept connection before it answered anything.
var errQuiet = errors.New("the server closed the connection before it answered")

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
