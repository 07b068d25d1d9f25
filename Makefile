# Every command that a person or CI runs; CI calls nothing else. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

OUT := $(or $(CARGO_TARGET_DIR),target)
DIST_TARGET := x86_64-unknown-linux-gnu
SERVICES := billing payments
DENY_VERSION := 0.20.2

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Build

.PHONY: build
build: ## release binaries of everything, and a look that no crash point and no trial is in them
	cargo build --release --workspace --locked
	@for binary in tinjis $(SERVICES); do \
	  if grep -qE "TINJIS_(CRASH|TRIAL)" "$(OUT)/release/$$binary"; then \
	    echo "$$binary: a release binary must hold no crash point and no trial" >&2; exit 1; \
	  fi; \
	done

.PHONY: dist
dist: ## static binaries for images, with their sizes
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --target $(DIST_TARGET) --workspace --locked
	@cd "$(OUT)/$(DIST_TARGET)/dist" && for binary in $(SERVICES) tinjis; do \
	  printf '%-10s %6d KiB  %s\n' "$$binary" "$$(( $$(stat -c %s "$$binary") / 1024 ))" "$$(file -b "$$binary" | cut -d, -f1-4)"; \
	done

## Look

.PHONY: demo
demo: ## both services charge, are killed and judged, in under 20 s once built
	cargo run --release --locked -- demo

## Hold

.PHONY: test
test: ## every test
	cargo test --workspace --locked

.PHONY: check
check: fmt clippy deny tidy docs ## form, lints, licences, rooms, docs: everything short of running tests

.PHONY: fmt
fmt: ## rustfmt, as a check
	cargo fmt --all --check

.PHONY: clippy
clippy: ## lints of every target; a warning is an error
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: deny
deny: ## licences, bans and sources of every dependency
	cargo deny --offline check bans licenses sources

.PHONY: tidy
tidy: ## directions between rooms, lengths, paths in docs, the settings table
	cargo test --locked --package tinjis --test tidy

.PHONY: docs
docs: ## the API's pages; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

.PHONY: contract
contract: ## ids of docs/contract.md that no test names: none
	cargo test --locked --package tinjis --test contract -- --nocapture

## Prove, at full size; `make test` runs the same code small

.PHONY: model
model: ## the exhaustive model: every interleaving of faults over the production protocol, and its broken variants
	cargo run --release --locked --package model

.PHONY: sim
sim: ## the simulation: 2,000 seeds, a process each; SIM_FIRST and SIM_SEEDS choose others
	SIM_SEEDS=$(or $(SIM_SEEDS),2000) SIM_FIRST=$(or $(SIM_FIRST),1) \
	  cargo test --release --locked --package sim --test simulation -- --nocapture

.PHONY: kills
kills: ## kill -9 of billing, then of payments, 20 times each in runs of 20,000 invoices
	KILLS=$(or $(KILLS),20) KILL_INVOICES=$(or $(KILL_INVOICES),20000) \
	  cargo test --release --locked --package tinjis --test kills -- --nocapture --test-threads 1

.PHONY: faults
faults: ## each way in which a network treats calls badly, alone and mixed at 20 % of calls, over 10,000 invoices
	FAULT_INVOICES=$(or $(FAULT_INVOICES),10000) \
	  cargo test --profile prove --locked --package tinjis --test faults -- --nocapture --test-threads 1

.PHONY: kill-points
kill-points: ## billing and payments killed at each named point, at its first, second and a random hit
	KILL_HITS=$(or $(KILL_HITS),3) \
	  cargo test --profile prove --locked --package tinjis --test kill_points -- --nocapture --test-threads 1

.PHONY: prove-rotation
prove-rotation: ## certificates and authorities of all four services change under 100,000 requests without a retry: none fails
	ROTATION_REQUESTS=$(or $(ROTATION_REQUESTS),100000) \
	  cargo test --release --locked --package tinjis --test rotation -- --nocapture

.PHONY: drill
drill: ## billing is backed up in mid-run, charges on, dies, is restored, repaired from the ledger, and pays the rest
	DRILL_INVOICES=$(or $(DRILL_INVOICES),20000) \
	  cargo test --release --locked --package tinjis --test restore -- --nocapture --test-threads 1

.PHONY: idle
idle: ## 1,000 idle and slow connections, and others answered meanwhile, also under ulimit -n 1024
	IDLE_CONNECTIONS=$(or $(IDLE_CONNECTIONS),1000) \
	  cargo test --release --locked --package tinjis --test idle -- --nocapture --test-threads 1

.PHONY: scale
scale: ## one pay call with 200,000 pending invoices, and the calls after it
	SCALE_INVOICES=$(or $(SCALE_INVOICES),200000) \
	  cargo test --release --locked --package tinjis --test scale -- --nocapture --test-threads 1

.PHONY: import
import: ## an import of 1,000,000 rows within 64 MiB of the command's memory, and of billing's
	IMPORT_ROWS=$(or $(IMPORT_ROWS),1000000) \
	  cargo test --release --locked --package tinjis --test import -- --nocapture memory_stays_bounded

.PHONY: bench
bench: ## charges a second beside wrk and a plain loop; exit 1 below the goals
	cargo bench --locked --package tinjis --bench charging

## Set up

.PHONY: tools
tools: ## cargo-deny, if it is missing
	@cargo deny --version 2>/dev/null | grep -qF ' $(DENY_VERSION)' || \
	  cargo install cargo-deny --locked --version $(DENY_VERSION)
