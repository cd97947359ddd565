// SPDX-License-Identifier: Apache-2.0

// Goclient gets URLs with net/http's client and prints a line of JSON for each: what it knows of the
// exchange. It knows nothing of tracing.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
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
				results[i] = get(client, fmt.Sprint(*prefix, i))
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
