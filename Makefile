# Every task of the project. `make run` and `make test` are all that a fresh machine needs.
#
# Build products stay outside the clone, in CARGO_TARGET_DIR (RocksDB takes long to compile; it is compiled once, in
# one profile, for the shipped binary, the tests and the failpoints alike).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
export PATH := $(HOME)/.cargo/bin:$(PATH)
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/casemate/target
export CARGO_TERM_COLOR ?= never

TRIPLE := x86_64-unknown-linux-gnu
BUILT := $(CARGO_TARGET_DIR)/$(TRIPLE)/release/casemate
TESTS := cargo test --release --locked --features failpoints
ARGS ?=

.PHONY: build run cluster test test-long test-clients test-tools bench fmt lint tidy fuzz clean setup test-connect test-streams test-faults sim

## build: the stripped static binary dist/casemate
build: setup
	cargo build --release --locked --bin casemate
	mkdir -p dist
	strip -o dist/casemate.new $(BUILT)
	@file dist/casemate.new | grep -q 'static-pie' || { file dist/casemate.new; echo 'not static-pie' >&2; exit 1; }
	mv -f dist/casemate.new dist/casemate
	@echo "dist/casemate: static-pie, $$(stat -c %s dist/casemate) bytes"

## run: serve on loopback from ./casemate-data (ARGS="--set num.partitions=4 …" for more)
run: build
	dist/casemate dev $(ARGS)

## cluster: three nodes on loopback from ./casemate-cluster, kept between runs (ARGS="--set num.partitions=4 …" for more)
cluster: build
	packaging/cluster dist/casemate ./casemate-cluster $(ARGS)

## test: formatting, lints, unit and integration tests
test: setup
	cargo fmt --check
	cargo clippy --release --locked --all-targets --features failpoints -- -D warnings
	$(TESTS)

## test-long: the long runs, resumable: each run adds to what earlier ones have shown
test-long: setup
	$(TESTS) --lib -- --ignored --nocapture larger_bounds
	$(TESTS) --test it -- --ignored --nocapture --test-threads 1

## test-clients: real clients, the stock Kafka tools, and programs in other languages against dist/casemate
test-clients: build test-tools
	tests/peers/clients dist/casemate
	tests/peers/programs/run dist/casemate

## test-tools: the stock Kafka tools, the same commands against dist/casemate and a real Kafka, answer for answer; then three nodes of each
test-tools: build
	tests/peers/tools dist/casemate
	tests/peers/cluster-tools dist/casemate --kafka

## test-connect, test-streams: Kafka Connect and Kafka Streams on a node that is killed (ARGS="--seconds 600 --kills 6")
test-connect: build
	tests/peers/connect dist/casemate $(ARGS)
test-streams: build
	tests/peers/streams dist/casemate $(ARGS)

## bench: ours beside the real Kafka, alternating; a table in Markdown
bench: build
	benches/run $(ARGS)

## fmt: format the source
fmt: setup
	cargo fmt

## lint: formatting, clippy, structure, dependency policy (cargo-deny where it is installed)
lint: setup
	cargo fmt --check
	cargo clippy --release --locked --all-targets --features failpoints -- -D warnings
	$(TESTS) --test tidy
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	 else echo 'cargo-deny is not installed: tests/tidy.rs held the policy of deny.toml'; fi

## test-faults: faults on three real nodes in network namespaces under load, SECONDS (7200) of them; adds to earlier runs
test-faults: setup
	CASEMATE_TEST_SECONDS=$(or $(SECONDS),7200) $(TESTS) --test it -- --ignored --nocapture nothing_is_lost_under_faults

## sim: the cluster's cores, and the quorum, under a seeded clock, network and disks: SEEDS (20000) runs from seed FIRST (1000)
sim: setup
	SIM_SEEDS=$(or $(SEEDS),20000) SIM_FIRST=$(or $(FIRST),1000) $(TESTS) --lib -- --ignored --nocapture campaign_of_many_seeds

## tidy: only the structure and dependency checks of tests/tidy.rs
tidy: setup
	$(TESTS) --test tidy

## fuzz: every parser for FUZZ_SECONDS (60)
fuzz: setup
	CASEMATE_TEST_FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(TESTS) --test fuzz -- --nocapture --test-threads 1

## clean: remove build products, the cached ones too
clean:
	rm -rf dist
	cargo clean

## setup: install what the build needs and this machine lacks
setup:
	@.ci/setup
