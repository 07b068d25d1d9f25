# Every command that people or CI run; CI calls nothing else. `make help` lists them by purpose. A proof has one target; its
# sizes are variables.

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
# SQLite features that no statement of ours uses: full-text search, R-trees, JSON, page inspection
# and loadable extensions, in addition to what every build leaves out.
DIST_SQLITE := $(shell sed -n 's/^LIBSQLITE3_FLAGS = "\(.*\)"/\1/p' .cargo/config.toml) \
  -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE -DSQLITE_OMIT_JSON \
  -USQLITE_ENABLE_DBSTAT_VTAB -USQLITE_ENABLE_COLUMN_METADATA -USQLITE_SOUNDEX -DSQLITE_OMIT_LOAD_EXTENSION
DIST := $(OUT)/$(DIST_TARGET)/dist
SERVICES := billing payments
PROGRAMS := $(SERVICES) pinger ponger tinjis
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DENY_VERSION := 0.20.2
# A delivered revision whose schema is older on both databases, so that an upgrade has steps to take.
PREVIOUS ?= 21388726f3daa7b1b72be450df1755d2adeb14c0
AUDITABLE_VERSION := 0.7.7

# Embeds the dependency list in each binary, for image scanners.
AUDITABLE := $(if $(shell command -v cargo-auditable),auditable)

# With ARCH the tag ends in it, and `make push-lists` joins the platforms in one manifest list.
PUSHED = $(REGISTRY)/$$program:$(VERSION)$(addprefix -,$(ARCH))

##= ENV=invoice-app      the environment: tinjis, invoice-app, ping-pong, staging or production
ENV ?= invoice-app
ENVS := $(sort $(patsubst deploy/envs/%/kustomization.yaml,%,$(wildcard deploy/envs/*/kustomization.yaml)))
##= KUBECTL, HELM        other clients, such as KUBECTL='minikube kubectl --'
KUBECTL ?= kubectl
HELM ?= helm
##= IMAGE_LOAD           the command that takes image tars to the nodes; by default chosen from the current context; none where the nodes pull
IMAGE_LOAD ?=
##= REGISTRY             host/path of a registry: to push to, and with IMAGE_LOAD=none to pull from
CLUSTER := KUBECTL="$(KUBECTL)" HELM="$(HELM)" IMAGE_LOAD="$(IMAGE_LOAD)" IMAGES="$(abspath $(OUT)/images)" VERSION="$(VERSION)" \
  REVISION="$(REVISION)" REGISTRY="$(REGISTRY)"

# Images are made when there are none; `make images` makes them anew.
$(OUT)/images/tag:
	@$(MAKE) images

##= TINJIS               a built tinjis for make doctor; by default cargo builds and runs it
TINJIS ?= cargo run --release --locked --package tinjis --
# What the probes of the doctor run: the image as `make deploy` loads it.
DOCTOR_IMAGE ?= $(if $(filter none,$(IMAGE_LOAD)),$(or $(REGISTRY),tinjis),tinjis)/tinjis:$(or $(if $(filter none,$(IMAGE_LOAD)),,$(shell cat "$(OUT)/images/tag" 2>/dev/null)),$(VERSION))

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^##= / { variables = variables "  " substr($$0, 5) "\n" } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-33s  %s\n", $$1, $$2 } END { printf "\nVariables\n%s", variables }' $(MAKEFILE_LIST)

##@ Use: the names that scripts of the replaced systems type

.PHONY: deploy
deploy: $(if $(filter none,$(IMAGE_LOAD)),,$(OUT)/images/tag) ## install ENV and wait until it is ready; prints the reason when it is not
	@$(CLUSTER) deploy/scripts/cluster.sh deploy $(ENV)

.PHONY: test
test: ## test the deployed ENV from outside, as a client
	@$(CLUSTER) deploy/scripts/test.sh $(ENV)

.PHONY: reset
reset: ## reinstall ENV with fresh data
	@$(CLUSTER) deploy/scripts/cluster.sh reset $(ENV)

.PHONY: run-local-kube-with-ping-pong-app
run-local-kube-with-ping-pong-app: create-k3d-cluster ## deploy and test pinger and ponger, on a local cluster unless KUBECONFIG is set
	@$(MAKE) deploy ENV=ping-pong
	@$(MAKE) test ENV=ping-pong

.PHONY: create-k3d-cluster
create-k3d-cluster: ## create a local k3d cluster (context k3d-cluster); does nothing where KUBECONFIG is set
	@if [[ -n "$${KUBECONFIG:-}" ]]; then echo "using the cluster of KUBECONFIG=$$KUBECONFIG"; \
	elif k3d cluster get cluster >/dev/null 2>&1; then k3d kubeconfig merge cluster --kubeconfig-merge-default --kubeconfig-switch-context >/dev/null; \
	else k3d cluster create cluster; fi

.PHONY: delete-local-kube-cluster
delete-local-kube-cluster: ## delete that cluster
	k3d cluster delete cluster

.PHONY: build-pinger
build-pinger: images ## build the image pinger:latest

.PHONY: build-ponger
build-ponger: images ## build the image ponger:latest

##@ Develop

.PHONY: demo
demo: ## run both services, kill billing during charging and verify the result; under 20 s once built
	cargo run --release --locked -- demo

.PHONY: build
build: ## build release binaries; fails when one contains a crash point or a test override
	cargo build --release --workspace --locked
	@for binary in tinjis $(SERVICES); do \
	  if grep -qE "TINJIS_(CRASH|TRIAL)" "$(OUT)/release/$$binary"; then \
	    echo "$$binary: a release binary must contain no crash point and no test override" >&2; exit 1; \
	  fi; \
	done

.PHONY: check
check: version-check fmt clippy deny tidy docs ## formatting, lints, licences, module boundaries and docs: everything except the tests

.PHONY: version-check
version-check: ## check that every file names the version of Cargo.toml; TAG=v1.2.3 is checked too
	@if grep -rnE '(tinjis/[a-z]+:|^(version|appVersion): "?)[0-9]+[.]' deploy docker-compose.yml docs/doctor.md | grep -vF '$(VERSION)'; then \
	  echo "these are not of version $(VERSION), which Cargo.toml says" >&2; exit 1; \
	fi
	@[[ -z "$(TAG)" || "$(TAG)" == "v$(VERSION)" ]] || { echo "the tag $(TAG) is not v$(VERSION)" >&2; exit 1; }

.PHONY: fmt
fmt: ## check the formatting with rustfmt
	cargo fmt --all --check

.PHONY: clippy
clippy: ## run clippy on every target; warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --package tinjis --no-default-features --locked -- -D warnings

.PHONY: deny
deny: ## check licences, bans and sources of dependencies
	cargo deny --offline check bans licenses sources

.PHONY: tidy
tidy: ## check module boundaries, lengths, wording, paths in docs and the settings table
	cargo test --locked --package tinjis --test tidy

.PHONY: docs
docs: ## build the API docs; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

.PHONY: test-code
test-code: ## run every test of the code (`make test` tests a deployed environment)
	cargo test --workspace --locked

.PHONY: contract
contract: ## check that a test covers each id of docs/contract.md
	cargo test --locked --package tinjis --test contract -- --nocapture

.PHONY: size
size: ## print lines, long functions, import circles and duplicates; docs/size.md records them
	@deploy/scripts/size.sh

.PHONY: tools
tools: auditable ## install cargo-auditable and cargo-deny if they are missing
	@cargo deny --version 2>/dev/null | grep -qF ' $(DENY_VERSION)' || \
	  cargo install cargo-deny --locked --version $(DENY_VERSION)

##@ Deploy to the cluster of KUBECONFIG

.PHONY: destroy
destroy: ## delete ENV and its data
	@$(CLUSTER) deploy/scripts/cluster.sh destroy $(ENV)

.PHONY: check-manifests
check-manifests: ## client-side dry run of `make deploy`
	@$(CLUSTER) deploy/scripts/cluster.sh check $(ENV)

.PHONY: challenge
challenge: ## install the first environment, charge all invoices, print the time, delete it; KEEP=1 keeps it
	@$(CLUSTER) deploy/scripts/challenge.sh

.PHONY: doctor
doctor: ## test the isolation of the deployed ENV against its doctor.toml; DOCTOR="..." adds flags
	@KUBECTL="$(KUBECTL)" $(TINJIS) doctor deploy/envs/$(ENV)/doctor.toml --image "$(DOCTOR_IMAGE)" $(DOCTOR)

.PHONY: doctor-job
doctor-job: ## run the same test as a Job in the cluster, deleted when it ends
	@KUBECTL="$(KUBECTL)" deploy/scripts/doctor-job.sh deploy/envs/$(ENV)/doctor.toml "$(DOCTOR_IMAGE)"

.PHONY: prerequisites
prerequisites: ## install what production expects of a cluster, for a local one: database, Secrets, CA
	@$(CLUSTER) deploy/scripts/prerequisites.sh

.PHONY: prerequisites-gone
prerequisites-gone: ## delete these prerequisites
	@$(CLUSTER) deploy/scripts/prerequisites.sh remove

.PHONY: create-kind-cluster
create-kind-cluster: ## create a local kind cluster
	kind create cluster --wait 120s

.PHONY: runasnonroot
runasnonroot: $(OUT)/images/tag ## reproduce the bug of docs/the-runasnonroot-bug.md, with the wrong and the right fix
	@$(CLUSTER) deploy/scripts/runasnonroot.sh

.PHONY: render
render: ## render rendered.yaml of each environment from its base, the chart and its values
	@$(CLUSTER) deploy/scripts/render.sh $(ENVS)

.PHONY: render-check
render-check: render ## check that every rendered file is current
	@git diff --exit-code -- 'deploy/envs/*/rendered.yaml' deploy/envs/staging/doctor.toml deploy/envs/production/doctor.toml

.PHONY: chart
chart: ## lint the chart with each environment's values, and run its unit tests if helm-unittest is installed
	@for values in deploy/envs/*/*.values.yaml deploy/envs/*/*.values.json; do \
	  layers=(--values "$$values"); \
	  if [[ $$values == *.json ]]; then layers=(--values "deploy/envs/base/$$(basename "$$values" json)yaml" "$${layers[@]}"); fi; \
	  $(HELM) lint --quiet --strict deploy/chart "$${layers[@]}" || exit 1; \
	  $(HELM) template service deploy/chart "$${layers[@]}" >/dev/null || exit 1; \
	done
	@if $(HELM) unittest --help >/dev/null 2>&1; then $(HELM) unittest --strict deploy/chart; \
	elif command -v helm-unittest >/dev/null; then helm-unittest --strict deploy/chart; \
	else echo "helm-unittest is not installed: the tests of deploy/chart/tests were NOT run"; fi

##@ Prove: `make prove` runs the proofs small; each other target is one proof at full size, with its size in variables

.PHONY: prove
prove: previous ## run every proof and print one table; FULL=1 selects the full size, ONLY=pauses a single proof
	cargo build --locked --package testkit --bin prove
	UPGRADE_PREVIOUS="$(abspath $(OUT))/previous" PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" $(if $(filter-out 0,$(FULL)),full,small) $(if $(ONLY),"$(ONLY)")

.PHONY: prove-mutants
prove-mutants: ## apply each mutant patch to a copy: the proof that it names must fail
	cargo build --locked --package testkit --bin prove
	PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" mutants

.PHONY: model
model: ## search every interleaving of faults over the protocol and its broken variants
	cargo run --release --locked --package model

.PHONY: sim
sim: ## run the simulation, one process per seed; SIM_SEEDS=2000 SIM_FIRST=1
	SIM_SEEDS=$(or $(SIM_SEEDS),2000) SIM_FIRST=$(or $(SIM_FIRST),1) \
	  cargo test --release --locked --package sim --test simulation -- --nocapture

.PHONY: kills
kills: ## kill -9 billing, then payments, during runs; KILLS=20 KILL_INVOICES=20000
	KILLS=$(or $(KILLS),20) KILL_INVOICES=$(or $(KILL_INVOICES),20000) \
	  cargo test --release --locked --package tinjis --test kills -- --nocapture --test-threads 1

.PHONY: kill-points
kill-points: ## kill billing and payments at each crash point, at its first, second and a random hit; KILL_HITS=3
	KILL_HITS=$(or $(KILL_HITS),3) \
	  cargo test --profile prove --locked --package tinjis --test kill_points -- --nocapture --test-threads 1

.PHONY: pauses
pauses: ## stop billing past its leases during a run and continue it; PAUSES=50
	PAUSES=$(or $(PAUSES),50) \
	  cargo test --profile prove --locked --package tinjis --test paused_past_leases -- --nocapture

.PHONY: faults
faults: ## inject each network fault alone, and all of them in 20 % of calls; FAULT_INVOICES=10000
	FAULT_INVOICES=$(or $(FAULT_INVOICES),10000) \
	  cargo test --profile prove --locked --package tinjis --test faults -- --nocapture --test-threads 1

.PHONY: replicas
replicas: ## three replicas of each service on one PostgreSQL that is killed; REPLICAS_INVOICES=20000 RESTART_INVOICES=20000
	REPLICAS_INVOICES=$(or $(REPLICAS_INVOICES),20000) RESTART_INVOICES=$(or $(RESTART_INVOICES),20000) \
	  cargo test --profile prove --locked --package tinjis --test replicas -- --nocapture --test-threads 1

.PHONY: upgrade
upgrade: previous ## run the previous version and this one on one database; UPGRADE_INVOICES=10000
	UPGRADE_PREVIOUS="$(abspath $(OUT))/previous" UPGRADE_INVOICES=$(or $(UPGRADE_INVOICES),10000) \
	  cargo test --workspace --locked --test upgrade -- --nocapture --test-threads 1

.PHONY: previous
previous: ## build the previous version for the upgrade tests; PREVIOUS=REVISION selects another
	@deploy/scripts/previous.sh "$(OUT)/previous" $(PREVIOUS)

.PHONY: drill
drill: ## back up billing during a run, restore it, repair it from the ledger, pay the rest; DRILL_INVOICES=20000
	DRILL_INVOICES=$(or $(DRILL_INVOICES),20000) \
	  cargo test --profile prove --locked --package tinjis --test restore -- --nocapture --test-threads 1

.PHONY: prove-rotation
prove-rotation: ## rotate certificates, CAs and tokens under load; no request may fail; ROTATION_REQUESTS=100000
	ROTATION_REQUESTS=$(or $(ROTATION_REQUESTS),100000) \
	  cargo test --release --locked --package tinjis --test rotation -- --nocapture change_under_load

.PHONY: prove-pings
prove-pings: ## ping over mutual TLS while both certificates rotate; no ping may fail; PING_SECONDS=60
	PING_SECONDS=$(or $(PING_SECONDS),60) \
	  cargo test --release --locked --package tinjis --test rotation -- --nocapture no_ping_fails

.PHONY: prove-callers
prove-callers: ## test authentication: each rejected caller has a positive control that is accepted
	cargo test --locked --package tinjis --test callers -- --nocapture --test-threads 1

# Uses the test profile, in which integer overflow panics.
.PHONY: fuzz
fuzz: ## fuzz requests, responses, tokens, certificates and files; FUZZ_SECONDS=60
	FUZZ_MS=$$(( $(or $(FUZZ_SECONDS),60) * 1000 )) \
	  cargo test --locked --workspace --lib --bins --test fuzz -- --nocapture --test-threads 1 fuzz_

.PHONY: hostile
hostile: ## sslscan each business port, and serve others beside 1,000 slow TLS connections; HOSTILE_SECONDS=30
	HOSTILE_SECONDS=$(or $(HOSTILE_SECONDS),30) \
	  cargo test --release --locked --package tinjis --test slow_and_scanning_clients -- --nocapture --test-threads 1

.PHONY: idle
idle: ## serve others beside idle and slow connections, also under ulimit -n 1024; IDLE_CONNECTIONS=1000
	IDLE_CONNECTIONS=$(or $(IDLE_CONNECTIONS),1000) \
	  cargo test --release --locked --package tinjis --test idle -- --nocapture --test-threads 1

.PHONY: scale
scale: ## one pay call over many pending invoices, and the calls after it; SCALE_INVOICES=200000
	SCALE_INVOICES=$(or $(SCALE_INVOICES),200000) \
	  cargo test --release --locked --package tinjis --test scale -- --nocapture --test-threads 1

.PHONY: import
import: ## import rows within 64 MiB of memory in the command and in billing; IMPORT_ROWS=1000000
	IMPORT_ROWS=$(or $(IMPORT_ROWS),1000000) \
	  cargo test --release --locked --package tinjis --test import -- --nocapture memory_stays_bounded

# Environments of e2e. Staging and production are skipped with a message where cert-manager is missing.
E2E ?= tinjis ping-pong invoice-app staging production
E2E_SETTINGS = $(CLUSTER) OUT="$(abspath $(OUT)/e2e)" TINJIS="$(abspath $(DIST)/tinjis)" CARGO_TARGET_DIR="$(abspath $(OUT))"
.PHONY: e2e
e2e: $(OUT)/images/tag ## install, test and delete every environment on the cluster of KUBECONFIG; needs jq; E2E="tinjis ..."
	@mkdir -p "$(OUT)/e2e"
	@$(E2E_SETTINGS) deploy/scripts/e2e.sh $(E2E) 2>&1 | tee "$(OUT)/e2e/log"

.PHONY: e2e-mutants
e2e-mutants: $(OUT)/images/tag ## plant faults, each of which must fail e2e
	@mkdir -p "$(OUT)/e2e"
	@$(E2E_SETTINGS) deploy/scripts/e2e-mutants.sh

.PHONY: e2e-doctor
e2e-doctor: ## test doctor on the deployed production environment with planted isolation holes; needs jq
	@mkdir -p "$(OUT)/e2e"
	@KUBECTL="$(KUBECTL)" TINJIS="$(TINJIS)" IMAGE="$(DOCTOR_IMAGE)" OUT="$(abspath $(OUT)/e2e)" \
	  deploy/scripts/e2e-doctor.sh

##@ Measure

.PHONY: bench
bench: ## charges per second against wrk and a naive loop; exit 1 below the goals; BENCH_INVOICES, BENCH_LEGS, BENCH_ROUNDS
	cargo bench --locked --package tinjis --bench charging

.PHONY: growth
growth: ## CPU per charge at 10,000 and at GROWTH_INVOICES=1000000 invoices on each database; exit 1 when it grows
	BENCH_GROWTH=$(or $(GROWTH_INVOICES),1000000) cargo bench --locked --package tinjis --bench charging

.PHONY: bench-store
bench-store: ## claims and settlements per second of billing's stores, and WAL bytes per row; BENCH_STORE_INVOICES
	cargo bench --locked --package billing --bench store

##@ Release

.PHONY: dist
dist: ## build static binaries for the images and print their sizes; DIST_OUT=DIR copies them there
	RUSTFLAGS="$(DIST_FLAGS)" AWS_LC_SYS_CFLAGS="$(DIST_CRYPTO)" LIBSQLITE3_FLAGS="$(DIST_SQLITE)" TINJIS_REVISION="$(REVISION)" \
	  cargo $(AUDITABLE) build --profile dist --locked \
	  --target $(DIST_TARGET) --package billing --package payments --package pingpong --package tinjis --no-default-features
	@cd "$(DIST)" && for program in $(PROGRAMS); do \
	  printf '%-10s %6d KiB\n' "$$program" "$$(( $$(stat -c %s "$$program") / 1024 ))"; \
	done
	@if [[ -z "$(AUDITABLE)" ]]; then echo "the binaries carry no dependency list: install cargo-auditable with make auditable"; fi
	@cd "$(DIST)" && for program in $(if $(AUDITABLE),$(PROGRAMS)); do \
	  readelf --sections --wide "$$program" | grep -F .dep-v0 >/dev/null || { echo "$$program carries no dependency list" >&2; exit 1; }; \
	done
	@if [[ -n "$(DIST_OUT)" ]]; then mkdir -p "$(DIST_OUT)" && cp $(PROGRAMS:%="$(DIST)/%") "$(DIST_OUT)"; fi

.PHONY: images
images: dist ## build one image per program, each under 10 MB; needs a Docker daemon
	@deploy/scripts/images.sh "$(DIST)" "$(OUT)/images" $(VERSION) $(REVISION)

.PHONY: images-check
images-check: ## check that each image runs read-only, as a non-root user, without capabilities, and gets healthy
	@deploy/scripts/images-check.sh "$$(cat "$(OUT)/images/tag")"

.PHONY: images-more
images-more: ## build PostgreSQL and Prometheus images from Debian packages for compose and development
	@deploy/scripts/images-more.sh "$(OUT)/images" $(or $(MORE),postgres prometheus)

.PHONY: compose-test
compose-test: ## test docker-compose; PROFILES selects some of: plain invoice-app ping-pong metrics
	@deploy/scripts/compose-test.sh $(PROFILES)

.PHONY: sbom
sbom: ## write a CycloneDX SBOM per image from the lock file; needs jq
	@mkdir -p "$(OUT)/sbom" && cargo metadata --format-version 1 --locked --no-default-features >"$(OUT)/sbom/metadata.json"
	@for program in billing payments pingpong tinjis; do \
	  jq --arg program "$$program" -f deploy/scripts/sbom.jq "$(OUT)/sbom/metadata.json" >"$(OUT)/sbom/$$program.cdx.json" && \
	  printf '%-10s %4d crates  %s\n' "$$program" "$$(jq '.components | length' "$(OUT)/sbom/$$program.cdx.json")" "$(OUT)/sbom/$$program.cdx.json"; \
	done; rm "$(OUT)/sbom/metadata.json"

.PHONY: login
login: ## log in to REGISTRY=host/path with REGISTRY_USER and REGISTRY_PASSWORD
	@printf '%s' "$${REGISTRY_PASSWORD:?}" | docker login --username "$${REGISTRY_USER:?}" --password-stdin "$(firstword $(subst /, ,$(REGISTRY)))"

.PHONY: push
push: ## tag the images for REGISTRY=host/path and push them; does nothing without REGISTRY
	@if [[ -z "$(REGISTRY)" ]]; then echo "not pushed: set REGISTRY=host/path"; exit 0; fi; \
	for program in $(PROGRAMS); do docker tag "tinjis/$$program:$(VERSION)" "$(PUSHED)" && docker push "$(PUSHED)"; done

.PHONY: push-lists
push-lists: ## push a manifest list per image for both platforms
	@for program in $(PROGRAMS); do \
	  docker manifest create "$(PUSHED)" "$(PUSHED)-amd64" "$(PUSHED)-arm64" && docker manifest push "$(PUSHED)"; \
	done

.PHONY: sign
sign: ## sign the pushed images and attest their SBOM; needs cosign and an identity
	@for program in $(PROGRAMS); do \
	  case $$program in pinger | ponger) sbom=pingpong ;; *) sbom=$$program ;; esac; \
	  cosign sign --yes --recursive "$(PUSHED)" && \
	  cosign attest --yes --type cyclonedx --predicate "$(OUT)/sbom/$$sbom.cdx.json" "$(PUSHED)"; \
	done

.PHONY: auditable
auditable: ## install cargo-auditable if it is missing
	@cargo install --list | grep -qF 'cargo-auditable v$(AUDITABLE_VERSION):' || \
	  cargo install cargo-auditable --locked --version $(AUDITABLE_VERSION)
