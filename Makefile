# SPDX-License-Identifier: Apache-2.0
# Every target installs what it lacks (as root, with apt) or says what to install.

SHELL := /bin/bash
export PATH := $(CURDIR)/.toolchain/bin:$(PATH)
export CGO_ENABLED := 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X breadcrumb/internal/version.Version=$(VERSION)
CLANG_FORMAT := clang-format-19
C_FILES := $(wildcard bpf/*.h bpf/*.bpf.c bpf/test/*.c probes/runtime/*/*.bpf.c)

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: deps-build ## build bin/breadcrumb, one static binary
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/breadcrumb ./cmd/agent
	@ls -l bin/breadcrumb | awk '{printf "bin/breadcrumb: %.1f MB\n", $$5/1e6}'

demo: deps-demo build ## trace a small shop of three services and a database for fifteen seconds
	test/shop/demo.sh

test: deps-test build ## run everything: unit, BPF logic, load and end-to-end tests, the core of them on Linux 6.1 too
	go vet ./...
	go test -timeout 20m ./...
	go run ./test/vm -kernel 6.1 -quick -may-skip

test-go-versions: deps-test ## test the Go probe on programs of every Go version from 1.19 on, which are fetched
	GO_TOOLCHAINS=all go test -count=1 -timeout 60m ./probes/runtime/golang

test-suites: deps-test ## have SQLAlchemy's tests ask PostgreSQL and MariaDB, and compare with what these log; takes some minutes
	go test -count=1 -v -timeout 30m ./test/e2e -run TestSQLAlchemy -suites

generate: deps-generate ## regenerate the BPF objects and their Go types
	go generate ./...

generate-check: generate ## regenerate, and fail if that changes anything
	@git diff --exit-code --stat -- '*_bpfel.go' '*_bpfel.o' || \
		{ echo 'the committed BPF objects are not what their sources make: run make generate and commit' >&2; exit 1; }

# VM takes flags of test/vm: -quick, -attach kprobe, -cost.
KERNEL := all
VM :=
test-vm: deps-vm ## run load, logic and end-to-end tests in virtual machines with Linux 5.10 to the newest (KERNEL=6.1: one)
	go run ./test/vm -kernel $(KERNEL) $(VM)

accuracy: deps-accuracy ## measure how often the parents of calls are right, for each runtime; takes about an hour
	cd test/accuracy && go test -run TestParents -count=1 -timeout 150m -parallel 6 -v -full

bench: deps-bench build ## compare servers with and without the agent; takes a quarter of an hour
	go run ./test/bench

lint: deps-generate ## check formatting, vet, and the BPF code's style
	@test -z "$$(gofmt -l .)" || { echo 'not formatted (make fmt):' >&2; gofmt -l . >&2; exit 1; }
	@$(CLANG_FORMAT) --dry-run --Werror $(C_FILES)
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

fmt: deps-generate ## format Go and C
	gofmt -w .
	$(CLANG_FORMAT) -i $(C_FILES)

deps-%:
	@.ci/deps $*

.PHONY: help build demo test test-go-versions test-suites generate test-vm generate-check accuracy bench lint fmt
