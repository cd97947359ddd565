// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
)

// kernelSymbols reads the addresses of the kernel's own symbols. One that it does not have, or does not show (to who
// has no CAP_SYSLOG, depending on kernel.kptr_restrict and kernel.perf_event_paranoid), is missing.
func kernelSymbols(names ...string) map[string]uint64 {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil
	}
	defer f.Close()
	found := map[string]uint64{}
	for in := bufio.NewScanner(f); len(found) < len(names) && in.Scan(); {
		line := in.Bytes() // address, type, name
		i := bytes.LastIndexByte(line, ' ')
		for _, name := range names {
			if string(line[i+1:]) != name {
				continue
			}
			address, _, _ := bytes.Cut(line, []byte(" "))
			if at, err := strconv.ParseUint(string(address), 16, 64); err != nil || at == 0 {
				return nil
			} else {
				found[name] = at
			}
		}
	}
	return found
}
