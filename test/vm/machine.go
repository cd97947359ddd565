// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"breadcrumb/test/vm/job"
)

// memory is that of a machine, in MiB.
const memory = 2048

// boot starts a machine with the kernel, which finds its plan in the job's folder, and returns when it has
// ended. It is killed, by its own number, when ctx ends.
func boot(ctx context.Context, k kernel, img image, built, dir string) error {
	initrd := filepath.Join(dir, "initrd")
	archive, err := initramfs(filepath.Join(built, "bin", "guest"), img.Modules)
	if err != nil {
		return err
	}
	if err := os.WriteFile(initrd, archive, 0o644); err != nil {
		return err
	}
	args := append(k.qemu(img, initrd), share(job.Tag, dir, "")...)
	args = append(args, share(job.BuiltTag, built, ",readonly=on")...)
	if !k.Small {
		args = append(args, share(job.RootTag, "/", ",readonly=on")...)
	}
	args = append(args, "-serial", "file:"+filepath.Join(dir, "out", "console.log"))
	if out, err := command(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", args[0], errors.Join(ctx.Err(), err), out)
	}
	return nil
}

// share gives a machine a folder. It is served by the emulator itself: a server in a process of its own, as virtiofs
// has it, writes to the machine's memory unseen by the emulator, which then goes on with code that it translated from
// what was there before.
func share(tag, folder, options string) []string {
	return []string{
		"-fsdev", "local,id=" + tag + ",path=" + folder + ",security_model=passthrough,multidevs=remap" + options,
		"-device", "virtio-9p-pci,fsdev=" + tag + ",mount_tag=" + tag,
	}
}

// command is a process that is killed with ctx and with this one.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// qemu is the command line of a machine, without its shared folders and console.
func (k kernel) qemu(img image, initrd string) []string {
	var args []string
	options := "quiet panic=-1 oops=panic mitigations=off nokaslr audit=0 lsm=lockdown,capability,yama,bpf"
	cpu, cpus := "", ""
	switch k.Arch {
	case "arm64":
		args = []string{"qemu-system-aarch64", "-machine", "virt"}
		options += " console=ttyAMA0"
		cpu, cpus = "max,pauth-impdef=on", "2"
	default:
		args = []string{"qemu-system-x86_64", "-machine", "q35,smbus=off,sata=off"}
		options += " console=ttyS0 tsc=reliable random.trust_cpu=on"
		// Several emulated CPUs, each a thread, make newer kernels oops in code that they patch while it runs.
		// QEMU 7.2's cmpxchg16b now and then leaves anything in the flags: a boot in ten died of it.
		// Without it, newer kernels allocate memory for BPF in caches only that they check.
		cpu, cpus = "max,-la57,-cx16", "1"
		options += " slab_debug=F,kmalloc-*"
	}
	// Emulation everywhere: where /dev/kvm is there it does not have to work, and a result must not depend on it.
	return append(args, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", cpu, "-smp", cpus, "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", img.Vmlinuz, "-initrd", initrd, "-append", options)
}
