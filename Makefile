# make demo    see it work: three Docker hosts on this machine, a push, an update, a rollback, a lost host
# make test    every test, the ones on real Docker hosts too
# make build   the release binary, target/release/portolan
# make bench   the figures of docs/benchmarks.md
#
# Each does its own set-up on a Debian machine, asks nothing, cleans up after itself and can be repeated.
SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build demo test bench lint

build:
	tests/hosts/install.sh build
	cargo build --release --locked

demo:
	tests/hosts/install.sh hosts
	cargo build --release --locked
	tests/demo.sh target/release/portolan

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

test:
	tests/hosts/install.sh test
	$(MAKE) --no-print-directory lint
	tests/all.sh

bench:
	tests/hosts/install.sh hosts
	cargo build --release --locked
	tests/bench.sh target/release/portolan
