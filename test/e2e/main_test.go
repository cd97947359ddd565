// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"testing"

	"breadcrumb/test/e2e/servers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Clean()
	if left := servers.Children(os.Getpid()); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "processes left behind:", left)
		code = 1
	}
	os.Exit(code)
}
