// SPDX-License-Identifier: Apache-2.0

package probes

// Tables is how many connections each table holds.
func (c *Conns) Tables() (byID, byKey, byPID, waiting int) {
	for _, m := range c.byPID {
		byPID += len(m)
	}
	if byPID == 0 {
		byPID = len(c.byPID) // nor may empty ones stay
	}
	return len(c.conns), len(c.byKey), byPID, len(c.waiting)
}
