# Every command that a person or CI runs; CI calls nothing else. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

OUT := $(or $(CARGO_TARGET_DIR),target)
DIST_TARGET ?= x86_64-unknown-linux-gnu
# Static; functions that are alike are one, relocations are packed: a tenth of the size.
DIST_FLAGS := -C target-feature=+crt-static -C link-arg=-Wl,--icf=all -C link-arg=-Wl,-z,pack-relative-relocs
# AES for bulk by AVX-512 is 0.7 MB of code in each image; our messages are too short to gain by it. AVX2 stays.
DIST_CRYPTO := -DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX
# What no statement of ours asks of SQLite, in words of its build: full texts, R-trees, JSON, looks into its own pages,
# programs that it loads. Beside what every build leaves out.
DIST_SQLITE := $(shell sed -n 's/^LIBSQLITE3_FLAGS = "\(.*\)"/\1/p' .cargo/config.toml) \
  -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE -DSQLITE_OMIT_JSON \
  -USQLITE_ENABLE_DBSTAT_VTAB -USQLITE_ENABLE_COLUMN_METADATA -USQLITE_SOUNDEX -DSQLITE_OMIT_LOAD_EXTENSION
DIST := $(OUT)/$(DIST_TARGET)/dist
SERVICES := billing payments
PROGRAMS := $(SERVICES) pinger ponger tinjis
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DENY_VERSION := 0.20.2
# The last revision that was delivered: stores that users have are of this or an older one.
PREVIOUS ?= 21388726f3daa7b1b72be450df1755d2adeb14c0
AUDITABLE_VERSION := 0.7.7

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Build

.PHONY: build
build: ## release binaries of everything, and a look that no crash point and no trial is in them
	cargo build --release --workspace --locked
	@for binary in tinjis $(SERVICES); do \
	  if grep -qE "TINJIS_(CRASH|TRIAL)" "$(OUT)/release/$$binary"; then \
	    echo "$$binary: a release binary must hold no crash point and no trial" >&2; exit 1; \
	  fi; \
	done

# Puts into each binary which crates it is made of, for tools that look into images.
AUDITABLE := $(if $(shell command -v cargo-auditable),auditable)

.PHONY: dist
dist: ## static binaries for images, with their sizes, tinjis without the services; DIST_OUT=FOLDER copies them there
	RUSTFLAGS="$(DIST_FLAGS)" AWS_LC_SYS_CFLAGS="$(DIST_CRYPTO)" LIBSQLITE3_FLAGS="$(DIST_SQLITE)" TINJIS_REVISION="$(REVISION)" \
	  cargo $(AUDITABLE) build --profile dist --locked \
	  --target $(DIST_TARGET) --package billing --package payments --package pingpong --package tinjis --no-default-features
	@cd "$(DIST)" && for program in $(PROGRAMS); do \
	  printf '%-10s %6d KiB\n' "$$program" "$$(( $$(stat -c %s "$$program") / 1024 ))"; \
	done
	@if [[ -z "$(AUDITABLE)" ]]; then echo "the binaries do not say which crates they are made of: make auditable"; fi
	@cd "$(DIST)" && for program in $(if $(AUDITABLE),$(PROGRAMS)); do \
	  readelf --sections --wide "$$program" | grep -F .dep-v0 >/dev/null || { echo "$$program does not say which crates it is made of" >&2; exit 1; }; \
	done
	@if [[ -n "$(DIST_OUT)" ]]; then mkdir -p "$(DIST_OUT)" && cp $(PROGRAMS:%="$(DIST)/%") "$(DIST_OUT)"; fi

.PHONY: images
images: dist ## an image per program from those binaries, with their sizes, each under 10 MB; needs a Docker daemon and no registry
	@deploy/scripts/images.sh "$(DIST)" "$(OUT)/images" $(VERSION) $(REVISION)

.PHONY: images-check
images-check: ## each image runs read-only, as nobody, without a capability, and is healthy
	@deploy/scripts/images-check.sh "$$(cat "$(OUT)/images/tag")"

.PHONY: images-more
images-more: ## PostgreSQL and Prometheus from Debian's packages, under the tags that compose and development name
	@deploy/scripts/images-more.sh "$(OUT)/images" $(or $(MORE),postgres prometheus)

.PHONY: compose-test
compose-test: ## what users of docker-compose type, on each profile; PROFILES names some of: plain invoice-app ping-pong metrics
	@deploy/scripts/compose-test.sh $(PROFILES)

.PHONY: sbom
sbom: ## what each image is made of, as CycloneDX, from the lock file; needs jq
	@mkdir -p "$(OUT)/sbom" && cargo metadata --format-version 1 --locked --no-default-features >"$(OUT)/sbom/metadata.json"
	@for program in billing payments pingpong tinjis; do \
	  jq --arg program "$$program" -f deploy/scripts/sbom.jq "$(OUT)/sbom/metadata.json" >"$(OUT)/sbom/$$program.cdx.json" && \
	  printf '%-10s %4d crates  %s\n' "$$program" "$$(jq '.components | length' "$(OUT)/sbom/$$program.cdx.json")" "$(OUT)/sbom/$$program.cdx.json"; \
	done; rm "$(OUT)/sbom/metadata.json"

.PHONY: login
login: ## to the registry of REGISTRY=host/path, as REGISTRY_USER by REGISTRY_PASSWORD
	@printf '%s' "$$REGISTRY_PASSWORD" | docker login --username "$$REGISTRY_USER" --password-stdin "$(firstword $(subst /, ,$(REGISTRY)))"

# With ARCH the tag ends in it, and `make push-lists` joins the platforms.
PUSHED = $(REGISTRY)/$$program:$(VERSION)$(addprefix -,$(ARCH))

.PHONY: push
push: ## tags the images for REGISTRY=host/path and pushes them; does nothing without it
	@if [[ -z "$(REGISTRY)" ]]; then echo "not pushed: REGISTRY=host/path says where to"; exit 0; fi; \
	for program in $(PROGRAMS); do docker tag "tinjis/$$program:$(VERSION)" "$(PUSHED)" && docker push "$(PUSHED)"; done

.PHONY: push-lists
push-lists: ## one name for both platforms
	@for program in $(PROGRAMS); do \
	  docker manifest create "$(PUSHED)" "$(PUSHED)-amd64" "$(PUSHED)-arm64" && docker manifest push "$(PUSHED)"; \
	done

.PHONY: sign
sign: ## signs the pushed images, with their SBOM beside them; needs cosign and an identity
	@for program in $(PROGRAMS); do \
	  case $$program in pinger | ponger) sbom=pingpong ;; *) sbom=$$program ;; esac; \
	  cosign sign --yes --recursive "$(PUSHED)" && \
	  cosign attest --yes --type cyclonedx --predicate "$(OUT)/sbom/$$sbom.cdx.json" "$(PUSHED)"; \
	done

## Deploy, to whatever cluster KUBECONFIG points at

# tinjis, invoice-app, ping-pong, staging or production.
ENV ?= invoice-app
ENVS := $(sort $(patsubst deploy/envs/%/releases,%,$(wildcard deploy/envs/*/releases)))
KUBECTL ?= kubectl
HELM ?= helm
# The command that takes image tars to the nodes; `none` where the nodes pull.
IMAGE_LOAD ?= kind load image-archive
CLUSTER := KUBECTL="$(KUBECTL)" HELM="$(HELM)" IMAGE_LOAD="$(IMAGE_LOAD)" IMAGES="$(abspath $(OUT)/images)" VERSION="$(VERSION)" \
  REVISION="$(REVISION)" REGISTRY="$(REGISTRY)"

# Images are made when there are none; `make images` makes them anew.
$(OUT)/images/tag:
	@$(MAKE) images

.PHONY: deploy
deploy: $(if $(filter none,$(IMAGE_LOAD)),,$(OUT)/images/tag) ## installs ENV and waits until it is up; says why when it is not
	@$(CLUSTER) deploy/scripts/cluster.sh deploy $(ENV)

.PHONY: test
test: ## looks at the deployed ENV from outside, as its users do
	@$(CLUSTER) deploy/scripts/test.sh $(ENV)

# The program, or one that is built already; what its probes run: as `make deploy` loads it.
TINJIS ?= cargo run --release --locked --package tinjis --
DOCTOR_IMAGE ?= $(if $(filter none,$(IMAGE_LOAD)),$(or $(REGISTRY),tinjis),tinjis)/tinjis:$(or $(if $(filter none,$(IMAGE_LOAD)),,$(shell cat "$(OUT)/images/tag" 2>/dev/null)),$(VERSION))

.PHONY: doctor
doctor: ## whether the deployed ENV is as closed as its doctor.toml says; DOCTOR="..." adds flags
	@KUBECTL="$(KUBECTL)" $(TINJIS) doctor deploy/envs/$(ENV)/doctor.toml --image "$(DOCTOR_IMAGE)" $(DOCTOR)

.PHONY: doctor-job
doctor-job: ## the same as a Job in the cluster, taken away at its end
	@KUBECTL="$(KUBECTL)" deploy/scripts/doctor-job.sh deploy/envs/$(ENV)/doctor.toml "$(DOCTOR_IMAGE)"

.PHONY: e2e-doctor
e2e-doctor: ## the doctor on the deployed production: green, red for each thing that is opened, all put right; needs jq
	@mkdir -p "$(OUT)/e2e"
	@KUBECTL="$(KUBECTL)" TINJIS="$(TINJIS)" IMAGE="$(DOCTOR_IMAGE)" OUT="$(abspath $(OUT)/e2e)" \
	  deploy/scripts/e2e-doctor.sh

.PHONY: check-manifests
check-manifests: ## what `make deploy` would create, as a client's dry run
	@$(CLUSTER) deploy/scripts/cluster.sh check $(ENV)

.PHONY: reset
reset: ## ENV with fresh data
	@$(CLUSTER) deploy/scripts/cluster.sh reset $(ENV)

.PHONY: destroy
destroy: ## takes ENV away, with its data
	@$(CLUSTER) deploy/scripts/cluster.sh destroy $(ENV)

.PHONY: prerequisites
prerequisites: ## what production expects of its cluster, for one of your own: a small database, Secrets, an authority
	@$(CLUSTER) deploy/scripts/prerequisites.sh

.PHONY: prerequisites-gone
prerequisites-gone: ## takes them away
	@$(CLUSTER) deploy/scripts/prerequisites.sh remove

# What e2e runs; staging and production are left out, aloud, where cert-manager is missing.
E2E ?= tinjis ping-pong invoice-app staging production
E2E_SETTINGS = $(CLUSTER) OUT="$(abspath $(OUT)/e2e)" TINJIS="$(abspath $(DIST)/tinjis)" CARGO_TARGET_DIR="$(abspath $(OUT))"
.PHONY: e2e
e2e: $(OUT)/images/tag ## every environment on the cluster of KUBECONFIG, from nothing to nothing; a verdict a line; needs jq
	@mkdir -p "$(OUT)/e2e"
	@$(E2E_SETTINGS) deploy/scripts/e2e.sh $(E2E) 2>&1 | tee "$(OUT)/e2e/log"

.PHONY: e2e-mutants
e2e-mutants: $(OUT)/images/tag ## whether e2e notices: planted faults, each of which must turn it red
	@mkdir -p "$(OUT)/e2e"
	@$(E2E_SETTINGS) deploy/scripts/e2e-mutants.sh

.PHONY: challenge
challenge: ## from nothing to all paid on the first environment, timed, and cleaned up; KEEP=1 leaves it
	@$(CLUSTER) deploy/scripts/challenge.sh

.PHONY: create-kind-cluster
create-kind-cluster: ## a local cluster of kind
	kind create cluster --wait 120s

.PHONY: run-local-kube-with-ping-pong-app
run-local-kube-with-ping-pong-app: create-k3d-cluster ## the ping pair, on a local cluster that is made if KUBECONFIG names none
	@$(MAKE) deploy ENV=ping-pong
	@$(MAKE) test ENV=ping-pong

.PHONY: create-k3d-cluster
create-k3d-cluster: ## a local cluster of k3d, context k3d-cluster; nothing where KUBECONFIG is set
	@if [[ -n "$$KUBECONFIG" ]]; then echo "using the cluster of KUBECONFIG=$$KUBECONFIG"; \
	else k3d cluster get cluster >/dev/null 2>&1 || k3d cluster create cluster; fi

.PHONY: delete-local-kube-cluster
delete-local-kube-cluster: ## that cluster is gone
	k3d cluster delete cluster

.PHONY: build-pinger
build-pinger: images ## the image pinger:latest

.PHONY: build-ponger
build-ponger: images ## the image ponger:latest

.PHONY: runasnonroot
runasnonroot: $(OUT)/images/tag ## the bug of docs/the-runasnonroot-bug.md on a cluster: its cause, the wrong fix and the right one
	@$(CLUSTER) deploy/scripts/runasnonroot.sh

.PHONY: render
render: ## deploy/envs/*/rendered.yaml, from the chart and the values
	@$(CLUSTER) deploy/scripts/render.sh $(ENVS)

.PHONY: chart
chart: ## lints the chart, with each environment's values, and runs its tests if helm-unittest is there
	@for values in deploy/envs/*/*.values.yaml; do \
	  $(HELM) lint --quiet --strict deploy/chart --values "$$values" || exit 1; \
	  $(HELM) template service deploy/chart --values "$$values" >/dev/null || exit 1; \
	done
	@if $(HELM) unittest --help >/dev/null 2>&1; then $(HELM) unittest --strict deploy/chart; \
	elif command -v helm-unittest >/dev/null; then helm-unittest --strict deploy/chart; \
	else echo "there is no helm-unittest: the tests of deploy/chart/tests were NOT run"; fi

.PHONY: render-check
render-check: render ## every rendered file is current
	@git diff --exit-code -- 'deploy/envs/*/rendered.yaml'

## Look

.PHONY: demo
demo: ## both services charge, are killed and judged, in under 20 s once built
	cargo run --release --locked -- demo

## Hold

.PHONY: test-code
test-code: ## every test of the code; `make test` looks at what is deployed
	cargo test --workspace --locked

.PHONY: check
check: version-check fmt clippy deny tidy docs ## form, lints, licences, rooms, docs: everything short of running tests

.PHONY: version-check
version-check: ## every file that names a version names Cargo.toml's; TAG=v1.2.3 is held to it too
	@if grep -rnE '(tinjis/[a-z]+:|^(version|appVersion): "?)[0-9]+[.]' deploy docker-compose.yml docs/doctor.md | grep -vF '$(VERSION)'; then \
	  echo "these are not of version $(VERSION), which Cargo.toml says" >&2; exit 1; \
	fi
	@[[ -z "$(TAG)" || "$(TAG)" == "v$(VERSION)" ]] || { echo "the tag $(TAG) is not v$(VERSION)" >&2; exit 1; }

.PHONY: fmt
fmt: ## rustfmt, as a check
	cargo fmt --all --check

.PHONY: clippy
clippy: ## lints of every target; a warning is an error
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --package tinjis --no-default-features --locked -- -D warnings

.PHONY: deny
deny: ## licences, bans and sources of every dependency
	cargo deny --offline check bans licenses sources

.PHONY: tidy
tidy: ## directions between rooms, lengths, paths in docs, the settings table
	cargo test --locked --package tinjis --test tidy

.PHONY: docs
docs: ## the API's pages; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

.PHONY: size
size: ## lines of the shipped crates, long functions, import circles and exact duplicates; docs/size.md records them
	@deploy/scripts/size.sh

.PHONY: contract
contract: ## ids of docs/contract.md that no test names: none
	cargo test --locked --package tinjis --test contract -- --nocapture

## Prove, at full size; `make test-code` runs the same code small

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

.PHONY: prove
prove: previous ## every proof, small, and one table of them; FULL=1 is the full size, ONLY=pauses one of them
	cargo build --locked --package harness --bin prove
	UPGRADE_PREVIOUS="$(abspath $(OUT))/previous" PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" $(if $(filter-out 0,$(FULL)),full,small) $(if $(ONLY),"$(ONLY)")

.PHONY: prove-mutants
prove-mutants: ## the protocol broken on purpose in a copy, a patch at a time: the named proof must notice each
	cargo build --locked --package harness --bin prove
	PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" mutants

.PHONY: pauses
pauses: ## billing stopped past its leases in mid-run, and let go on, 50 times
	PAUSES=$(or $(PAUSES),50) \
	  cargo test --profile prove --locked --package tinjis --test pauses -- --nocapture

.PHONY: replicas
replicas: ## three of each service on one PostgreSQL; the database is killed in mid-run of 20,000 invoices
	REPLICAS_INVOICES=$(or $(REPLICAS_INVOICES),20000) RESTART_INVOICES=$(or $(RESTART_INVOICES),20000) \
	  cargo test --profile prove --locked --package tinjis --test replicas -- --nocapture --test-threads 1

.PHONY: previous
previous: ## the programs that this version replaces, for the tests of an upgrade; PREVIOUS=REVISION names others
	@deploy/scripts/previous.sh "$(OUT)/previous" $(PREVIOUS)

.PHONY: upgrade
upgrade: previous ## the previous version and this one on one database, at once and in turn
	UPGRADE_PREVIOUS="$(abspath $(OUT))/previous" UPGRADE_INVOICES=$(or $(UPGRADE_INVOICES),10000) \
	  cargo test --workspace --locked --test upgrade -- --nocapture --test-threads 1

.PHONY: faults
faults: ## each way in which a network treats calls badly, alone and mixed at 20 % of calls, over 10,000 invoices
	FAULT_INVOICES=$(or $(FAULT_INVOICES),10000) \
	  cargo test --profile prove --locked --package tinjis --test faults -- --nocapture --test-threads 1

.PHONY: kill-points
kill-points: ## billing and payments killed at each named point, at its first, second and a random hit
	KILL_HITS=$(or $(KILL_HITS),3) \
	  cargo test --profile prove --locked --package tinjis --test kill_points -- --nocapture --test-threads 1

.PHONY: prove-rotation
prove-rotation: ## certificates, authorities and tokens of all four services change under 100,000 requests without a retry: none fails
	ROTATION_REQUESTS=$(or $(ROTATION_REQUESTS),100000) \
	  cargo test --release --locked --package tinjis --test rotation -- --nocapture change_under_load

# As the tests have built it: a number that overflows is found then.
.PHONY: fuzz
fuzz: ## nearly right requests, answers, tokens, certificates and files for 60 s each: nothing breaks
	FUZZ_MS=$$(( $(or $(FUZZ_SECONDS),60) * 1000 )) \
	  cargo test --locked --workspace --lib --bins --test fuzz -- --nocapture --test-threads 1 fuzz_

.PHONY: hostile
hostile: ## sslscan on each business port, and a thousand slow connections of each kind over TLS while others are answered
	HOSTILE_SECONDS=$(or $(HOSTILE_SECONDS),30) \
	  cargo test --release --locked --package tinjis --test hostile -- --nocapture --test-threads 1

.PHONY: prove-pings
prove-pings: ## a minute of pings over mutual TLS while the certificates of both sides change: none fails
	PING_SECONDS=$(or $(PING_SECONDS),60) \
	  cargo test --release --locked --package tinjis --test rotation -- --nocapture no_ping_fails

.PHONY: prove-callers
prove-callers: ## who is not to be let in is refused for the reason that is counted, next to a twin that is let in
	cargo test --locked --package tinjis --test callers -- --nocapture --test-threads 1

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
bench: ## charges a second beside wrk and a plain loop; exit 1 below the goals; BENCH_LEGS, BENCH_INVOICES and BENCH_ROUNDS
	cargo bench --locked --package tinjis --bench charging

.PHONY: growth
growth: ## what a charge costs among 10,000 and among 1,000,000 invoices, on each database; exit 1 when it grows; GROWTH_INVOICES
	BENCH_GROWTH=$(or $(GROWTH_INVOICES),1000000) cargo bench --locked --package tinjis --bench charging

.PHONY: bench-store
bench-store: ## claims and settlements a second of billing's stores alone, and WAL a row; BENCH_STORE_INVOICES
	cargo bench --locked --package billing --bench store

## Set up

.PHONY: auditable
auditable: ## cargo-auditable, if it is missing
	@cargo install --list | grep -qF 'cargo-auditable v$(AUDITABLE_VERSION):' || \
	  cargo install cargo-auditable --locked --version $(AUDITABLE_VERSION)

.PHONY: tools
tools: auditable ## cargo-auditable and cargo-deny, if they are missing
	@cargo deny --version 2>/dev/null | grep -qF ' $(DENY_VERSION)' || \
	  cargo install cargo-deny --locked --version $(DENY_VERSION)
