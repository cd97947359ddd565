// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"breadcrumb/test/e2e/servers"
)

// TestOtherWaysIn repeats the tests that hang on how bytes and sockets are found, with less load, by each way in
// that the kernel has but for the first: that one the agent takes by itself, in all other tests.
func TestOtherWaysIn(t *testing.T) {
	first := true
	for _, attach := range Attachments {
		if first && attach.Here() {
			first = false
			continue
		}
		t.Run(attach.Name, func(t *testing.T) {
			attach.Require(t)
			for _, name := range []string{"go", "python", "node", "nginx", "nginx-unix"} {
				t.Run("keep-alive/"+name, func(t *testing.T) { keepAlive(t, attach, servers.Find(t, name), 4000) })
			}
			for _, name := range []string{"go", "node"} {
				t.Run("scripts/"+name, func(t *testing.T) { playScripts(t, attach, name) })
			}
			t.Run("syscalls", func(t *testing.T) { everySyscall(t, attach) })
			t.Run("handed", func(t *testing.T) { connectionsHanded(t, attach) })
			for _, name := range []string{"go-proxy", "nginx-proxy", "nginx-unix"} {
				t.Run("proxies/"+name, func(t *testing.T) { proxyChain(t, attach, servers.Find(t, name), 400, false) })
			}
			t.Run("shop", func(t *testing.T) { shopParents(t, attach, 400, false) })
			t.Run("replay", func(t *testing.T) { replayGivesTheSame(t, attach) })
		})
	}
}
