// SPDX-License-Identifier: Apache-2.0

// Package bpf is the kernel side of breadcrumb: the programs that see the bytes of watched processes'
// connections, and the Go half that loads them, attaches them and reads their events. It knows nothing of
// what the bytes mean.
package bpf

// There are two builds of it: the second one is for kernels before 5.15.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -go-package bpf -cflags "-O2 -g -Wall -Werror -Ilibbpf -I." -type conn_event -type data_event -type progress_event -type end_event -type handoff_event -type job_event -type caller_event -type method_event -type stream_layout -type process_event -type event_kind -type event_flag -type end_how -type stat -type verdict_kind -type target_flag -type reader_state -type need -type direction bpf socket.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -go-package bpf -no-global-types -cflags "-O2 -g -Wall -Werror -Ilibbpf -I. -DOLD_KERNEL" bpfOld socket.bpf.c
