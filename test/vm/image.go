// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// imagePackage is what the name of a kernel's package begins with; its release follows.
const imagePackage = "linux-image-"

// image is a kernel that can be booted.
type image struct {
	Release string
	// Vmlinuz is the kernel's file.
	Vmlinuz string
	// Modules are those between power-on and the shared folders, in the order in which they are loaded.
	Modules []string
}

// wantedModules are loaded, with those that they need, unless they are built in: shared folders, and a layer in
// memory over one of them.
var wantedModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// fetch returns a kernel from the cache; what is not there, or is to be looked for anew, is downloaded.
func (k kernel) fetch(ctx context.Context, cache string, archive *archive, anew bool) (image, error) {
	dir := filepath.Join(cache, k.Name)
	have, err := openImage(dir)
	if err == nil && !anew && k.Image.MatchString(imagePackage+have.Release) {
		return have, nil
	}
	progress("%s: looking for the kernel in %s", k.Name, strings.Join(k.Suites, ", "))
	var (
		from *debian
		name string
	)
	for _, suite := range k.Suites {
		d, err := archive.open(ctx, suite, k.Arch)
		if err != nil {
			return image{}, err
		}
		names, err := d.packages(ctx, imagePackage)
		if err != nil {
			return image{}, err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !k.Image.MatchString(n) })
		if len(names) == 0 {
			continue
		}
		if best := newest(names); name == "" || compareVersions(best, name) > 0 {
			from, name = d, best
		}
	}
	if name == "" {
		return image{}, fmt.Errorf("no package of %s is called %s", strings.Join(k.Suites, " or "), k.Image)
	}
	release := strings.TrimPrefix(name, imagePackage)
	if have.Release == release {
		return have, nil
	}
	// From 7.0 on the files are in packages that linux-image only depends on.
	wanted := []string{name}
	for _, prefix := range []string{"linux-base-", "linux-binary-", "linux-modules-"} {
		names, err := from.packages(ctx, prefix+release)
		if err != nil {
			return image{}, err
		}
		if slices.Contains(names, prefix+release) {
			wanted = append(wanted, prefix+release)
		}
	}
	progress("%s: fetching %s from %s", k.Name, release, from.suite)
	root, err := os.MkdirTemp(cache, k.Name+"-")
	if err != nil {
		return image{}, fmt.Errorf("unpack the kernel: %w", err)
	}
	defer os.RemoveAll(root)
	if err := from.download(ctx, wanted, root); err != nil {
		return image{}, err
	}
	if err := keep(root, release, wantedModules, dir); err != nil {
		return image{}, err
	}
	return openImage(dir)
}

// openImage reads what keep has left in a folder.
func openImage(dir string) (image, error) {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return image{}, err
	}
	modules, err := filepath.Glob(filepath.Join(dir, "modules", "*.ko"))
	return image{Release: strings.TrimSpace(string(release)), Vmlinuz: filepath.Join(dir, "vmlinuz"), Modules: modules}, err
}

// keep takes from an unpacked package what is needed, into a folder that appears as a whole.
func keep(root, release string, wanted []string, dir string) error {
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(filepath.Join(part, "modules"), 0o755)); err != nil {
		return fmt.Errorf("keep the kernel: %w", err)
	}
	tree, err := firstOf(filepath.Join(root, "lib/modules", release), filepath.Join(root, "usr/lib/modules", release))
	if err != nil {
		return err
	}
	vmlinuz, err := firstOf(filepath.Join(root, "boot/vmlinuz-"+release), filepath.Join(tree, "vmlinuz"))
	if err != nil {
		return err
	}
	if err := copyFile(vmlinuz, filepath.Join(part, "vmlinuz"), 0o644); err != nil {
		return err
	}
	order, err := loadOrder(tree, wanted)
	if err != nil {
		return err
	}
	for i, m := range order {
		path := filepath.Join(part, "modules", fmt.Sprintf("%02d-%s.ko", i, m.name))
		if err := os.WriteFile(path, m.object, 0o644); err != nil {
			return fmt.Errorf("keep the kernel: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(part, "release"), []byte(release+"\n"), 0o644); err != nil {
		return fmt.Errorf("keep the kernel: %w", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(part, dir)); err != nil {
		return fmt.Errorf("keep the kernel: %w", err)
	}
	return nil
}

func firstOf(paths ...string) (string, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the package holds no %s", strings.Join(paths, " and no "))
}

// module is a kernel module, unpacked.
type module struct {
	name   string
	object []byte
}

// loadOrder returns modules and what they depend on, each after what it needs. Built-in ones are left out.
func loadOrder(tree string, wanted []string) ([]module, error) {
	builtin, err := os.ReadFile(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("read the list of what is built in: %w", err)
	}
	done := map[string]bool{}
	for path := range strings.FieldsSeq(string(builtin)) {
		done[moduleName(path)] = true
	}
	paths := map[string]string{}
	err = filepath.WalkDir(filepath.Join(tree, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".ko") {
			paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	var order []module
	var add func(name string) error
	add = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		path := paths[name]
		if path == "" {
			return fmt.Errorf("the kernel has no module %s", name)
		}
		object, err := unpackModule(path)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", path, err)
		}
		needs, err := dependencies(object)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		for _, need := range needs {
			if err := add(need); err != nil {
				return err
			}
		}
		order = append(order, module{name, object})
		return nil
	}
	for _, name := range wanted {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName is the name of the module in a file, in the one of the two spellings that the kernel uses.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func unpackModule(path string) ([]byte, error) {
	for suffix, command := range map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"} {
		if strings.HasSuffix(path, suffix) {
			return exec.Command(command, "-dc", path).Output()
		}
	}
	return os.ReadFile(path)
}

// dependencies are the modules that a module says it needs.
func dependencies(object []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, errors.New("it has no .modinfo")
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(data), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// initramfs is what the kernel starts from: the guest program as its init, and the modules.
func initramfs(guest string, modules []string) ([]byte, error) {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	for _, dir := range []string{"dev", "modules", "proc", "sys", "tmp", "lower", "upper", "new"} {
		writeEntry(&archive, dir, 0o040755, nil)
	}
	files := map[string]string{"init": guest}
	for _, m := range modules {
		files["modules/"+filepath.Base(m)] = m
	}
	for name, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("make the initramfs: %w", err)
		}
		writeEntry(&archive, name, 0o100755, data)
	}
	writeEntry(&archive, "TRAILER!!!", 0, nil)
	if _, err := zip.Write(archive.Bytes()); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// writeEntry adds a file to a cpio archive in the format that the kernel reads.
// Documentation/driver-api/early-userspace/buffer-format.rst
func writeEntry(w *bytes.Buffer, name string, mode uint32, data []byte) {
	fields := []uint32{0, mode, 0, 0, 1, 0, uint32(len(data)), 0, 0, 0, 0, uint32(len(name) + 1), 0}
	w.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(w, "%08X", f)
	}
	pad := func() {
		for w.Len()%4 != 0 {
			w.WriteByte(0)
		}
	}
	w.WriteString(name + "\x00")
	pad()
	w.Write(data)
	pad()
}
