// SPDX-License-Identifier: Apache-2.0

// Goclient gets URLs with net/http's client and prints a line of JSON for each: what it knows of the
// exchange. It knows nothing of tracing.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

type result struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
	Before int64  `json:"before"`
	After  int64  `json:"after"`
	Error  string `json:"error,omitempty"`
}

func main() {
	prefix := flag.String("url", "", "what the URLs begin with; a number is added")
	count := flag.Int("n", 1, "how many")
	callers := flag.Int("c", 1, "how many at once")
	fresh := flag.Bool("fresh", false, "a connection for each")
	pause := flag.Duration("pause", 0, "how long to wait before each")
	giveUp := flag.Bool("give-up", false, "a connection for each, closed before the answer")
	flag.Parse()

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = *callers
	transport.DisableKeepAlives = *fresh
	client := &http.Client{Transport: transport}

	numbers := make(chan int)
	results := make([]result, *count)
	var group sync.WaitGroup
	for range *callers {
		group.Go(func() {
			for i := range numbers {
				time.Sleep(*pause)
				if url := fmt.Sprint(*prefix, i); *giveUp {
					results[i] = ask(url)
				} else {
					results[i] = get(client, url)
				}
			}
		})
	}
	for i := range *count {
		numbers <- i
	}
	close(numbers)
	group.Wait()

	out := json.NewEncoder(os.Stdout)
	for _, r := range results {
		out.Encode(r)
	}
}

// ask sends a request and goes away.
func ask(url string) result {
	r := result{URL: url, Before: time.Now().UnixNano()}
	err := func() error {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			return err
		}
		conn, err := net.Dial("tcp", req.URL.Host)
		if err != nil {
			return err
		}
		defer conn.Close()
		return req.Write(conn)
	}()
	if err != nil {
		r.Error = err.Error()
	}
	r.After = time.Now().UnixNano()
	return r
}

func get(client *http.Client, url string) result {
	r := result{URL: url, Before: time.Now().UnixNano()}
	res, err := client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		r.Status = res.StatusCode
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.After = time.Now().UnixNano()
	return r
}
