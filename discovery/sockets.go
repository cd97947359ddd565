// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFDs bounds how many descriptors of a process are looked at. They come in ascending order; listening
// sockets and rings are made early, and a proxy with 100 000 connections must not cost 100 ms.
const maxFDs = 8192

// descriptors is what matters of a process's open files.
type descriptors struct {
	sockets []uint64 // inodes
	ioUring bool
}

// readDescriptors looks at the targets of /proc/PID/fd. procfs has the same, but unbounded and with a
// path walk for each.
func readDescriptors(dir string) (descriptors, error) {
	var d descriptors
	f, err := os.Open(dir)
	if err != nil {
		return d, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxFDs)
	if err != nil && err != io.EOF { //nolint:errorlint // Readdirnames returns it as it is
		return d, err
	}
	buf := make([]byte, 64)
	for _, name := range names {
		n, err := unix.Readlinkat(int(f.Fd()), name, buf)
		if err != nil {
			continue // closed in the meantime
		}
		link := buf[:n]
		if rest, ok := bytes.CutPrefix(link, []byte("socket:[")); ok {
			if inode, err := strconv.ParseUint(string(bytes.TrimSuffix(rest, []byte("]"))), 10, 64); err == nil {
				d.sockets = append(d.sockets, inode)
			}
		} else if bytes.Equal(link, []byte("anon_inode:[io_uring]")) {
			d.ioUring = true
		}
	}
	return d, nil
}

// listeners are the listening TCP sockets of a network namespace: inode to port.
type listeners map[uint64]uint16

// readListeners reads /proc/PID/net/tcp and tcp6. procfs parses every connection of the namespace; the
// kernel lists the listening ones first (net/ipv4/tcp_ipv4.c, tcp_get_idx), so this stops after them.
func readListeners(netDir string) listeners {
	l := make(listeners)
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(netDir + "/" + name)
		if err != nil {
			continue // no IPv6 here, or no rights: the caller has already met the latter
		}
		parseListeners(f, l)
		f.Close()
	}
	return l
}

// parseListeners reads lines like
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1 ...
func parseListeners(r io.Reader, l listeners) {
	const (
		localField, stateField, inodeField = 1, 3, 9
		stateListen                        = "0A"
	)
	s := bufio.NewScanner(r)
	s.Scan() // the heading
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) <= inodeField || fields[stateField] != stateListen {
			return
		}
		i := strings.LastIndexByte(fields[localField], ':')
		port, err := strconv.ParseUint(fields[localField][i+1:], 16, 16)
		if err != nil {
			continue
		}
		if inode, err := strconv.ParseUint(fields[inodeField], 10, 64); err == nil {
			l[inode] = uint16(port)
		}
	}
}

// of are the ports of those listeners that are among a process's sockets.
func (l listeners) of(sockets []uint64) []uint16 {
	var ports []uint16
	for _, inode := range sockets {
		if port, ok := l[inode]; ok {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// networks remembers the listeners of each network namespace during one pass over /proc.
type networks map[string]listeners

// listeners reads those of the namespace of the process in dir, once per pass.
func (n networks) listeners(dir string) listeners {
	if n == nil {
		return readListeners(dir + "/net")
	}
	ns, err := os.Readlink(dir + "/ns/net")
	if err != nil {
		return readListeners(dir + "/net")
	}
	l, ok := n[ns]
	if !ok {
		l = readListeners(dir + "/net")
		n[ns] = l
	}
	return l
}
