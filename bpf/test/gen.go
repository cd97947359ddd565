// SPDX-License-Identifier: Apache-2.0

// Package test holds BPF programs that run the logic of the kernel side's headers on the input of a test.
package test

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -go-package test -no-global-types -cflags "-O2 -g -Wall -Werror -I../libbpf -I.." logic logic.bpf.c
