// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/prometheus/procfs"
)

// Cgroups is the cgroup2 hierarchy, as far as rules choose by it: it says of control groups whether what runs in them is
// wanted, before anything does.
type Cgroups struct {
	rules *Selector
	dir   string // where it is mounted
	root  string // the path of that

	mu    sync.Mutex
	paths map[uint64]string // of those that are chosen
}

// maxCgroups is how many paths are kept before all are looked for anew.
const maxCgroups = 16384

// ErrNoCgroups says that no cgroup2 hierarchy is mounted where the agent could read it.
var ErrNoCgroups = errors.New("no cgroup2 hierarchy is mounted here")

// NewCgroups finds where the hierarchy is mounted.
func NewCgroups(rules *Selector) (*Cgroups, error) {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			return &Cgroups{rules: rules, dir: m.MountPoint, root: strings.TrimSuffix(m.Root, "/")}, nil
		}
	}
	return nil, ErrNoCgroups
}

// Chosen calls found for each control group for which the rules say otherwise than for the one that it lies in; id is that of
// its folder's inode. What has gone meanwhile is left out.
func (c *Cgroups) Chosen(found func(id uint64, wanted bool) error) error {
	c.mu.Lock()
	c.paths = map[uint64]string{}
	c.mu.Unlock()
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !d.IsDir():
			return nil
		case err != nil:
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return nil //nolint:nilerror // it has gone
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return c.choose(st.Ino, strings.TrimPrefix(path, c.dir), found)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at the control groups: %w", err)
	}
	return nil
}

// Made is Chosen of one that was just made; path is from the root of the hierarchy on.
func (c *Cgroups) Made(id uint64, path string, found func(id uint64, wanted bool) error) error {
	c.mu.Lock()
	full := len(c.paths) >= maxCgroups
	c.mu.Unlock()
	if full {
		return c.Chosen(found)
	}
	return c.choose(id, path, found)
}

// Path is that of a control group that was chosen; empty if there is none of that id.
func (c *Cgroups) Path(id uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paths[id]
}

func (c *Cgroups) choose(id uint64, path string, found func(id uint64, wanted bool) error) error {
	wanted, above := c.wants(path), false
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		above = c.wants(path[:i])
	}
	if wanted == above {
		return nil
	}
	if wanted {
		c.mu.Lock()
		c.paths[id] = cmp.Or(c.root+path, "/")
		c.mu.Unlock()
	}
	return found(id, wanted)
}

func (c *Cgroups) wants(path string) bool { return c.rules.ByCgroup(cmp.Or(c.root+path, "/")) }
