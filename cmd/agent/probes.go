// SPDX-License-Identifier: Apache-2.0

package main

import (
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/fastcgi"
	"breadcrumb/probes/protocol/http1"
	"breadcrumb/probes/protocol/http2"
	"breadcrumb/probes/protocol/mysql"
	"breadcrumb/probes/protocol/postgres"
)

// protocols are what breadcrumb understands, the likeliest first.
func protocols(cfg *Config) []probes.Protocol {
	http := http1.New(cfg.HTTP)
	return []probes.Protocol{http2.New(http), http, fastcgi.New(http), postgres.New(cfg.SQL.Text), mysql.New(cfg.SQL.Text)}
}
