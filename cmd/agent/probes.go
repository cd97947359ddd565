// SPDX-License-Identifier: Apache-2.0

package main

import (
	"breadcrumb/probes"
	"breadcrumb/probes/protocol/http1"
)

// protocols are what breadcrumb understands, the likeliest first.
var protocols = []probes.Protocol{
	http1.Protocol,
}
