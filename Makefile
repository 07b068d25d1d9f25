# The commands for users and for CI; .ci/run also calls cargo itself. `make help` lists them by purpose. A proof has one
# target; its sizes are variables.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

OUT := $(or $(CARGO_TARGET_DIR),target)
DIST_TARGET ?= x86_64-unknown-linux-gnu
# Static binaries; identical functions are merged and relocations packed, which saves a tenth of the size.
DIST_FLAGS := -C target-feature=+crt-static -C link-arg=-Wl,--icf=all -C link-arg=-Wl,-z,pack-relative-relocs
# Panics contain the paths of dependencies. These begin at the dependency: the same on each machine, and 23 KB less.
DIST_FLAGS += $(patsubst %,--remap-path-prefix=%/=,$(wildcard $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src/*))
# AVX-512 code for bulk AES is 0.7 MB in each image, and our messages are too short to profit from it. AVX2 stays.
DIST_CRYPTO := -DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX
# No panic unwinds through C code, so its unwind tables, 0.2 MB of each image, are left out. Those of Rust code stay.
DIST_C := -fno-asynchronous-unwind-tables -fno-unwind-tables
# SQLite features that no statement of ours uses: full-text search, R-trees, page inspection
# and loadable extensions, in addition to what every build leaves out.
DIST_SQLITE := $(shell sed -n 's/^LIBSQLITE3_FLAGS = "\(.*\)"/\1/p' .cargo/config.toml) \
  -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE \
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
MDBOOK_VERSION := 0.5.4
HELM_DOCS_VERSION := v1.14.2
HELM_UNITTEST_VERSION := v1.1.2
SCHEMATHESIS_VERSION := 4.32.5

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
##= PROMTOOL            promtool of Prometheus, for make alerts
PROMTOOL ?= promtool
##= SCHEMATHESIS        schemathesis for make openapi-check; by default the one of make openapi-tools
SCHEMATHESIS ?= $(OUT)/schemathesis/bin/schemathesis
##= TRACES_COLLECTOR    an OpenTelemetry collector with OTLP and the file exporter, for make traces-test; by default the one of make traces-tools
TRACES_COLLECTOR ?= $(OUT)/collector/otelcol
##= DIST_FEATURES        features of the binaries of images, such as billing/otlp,payments/otlp for traces
DIST_FEATURES ?=
##= IMAGE_LOAD           the command that takes image tars to the nodes; by default chosen from the current context; none where the nodes pull
IMAGE_LOAD ?=
##= REGISTRY             host/path of a registry: to push to, and with IMAGE_LOAD=none to pull from
##= REPOSITORY_URL       https:// address of this repository, for images and the packaged chart
REPOSITORY_URL ?=
CLUSTER := KUBECTL="$(KUBECTL)" HELM="$(HELM)" IMAGE_LOAD="$(IMAGE_LOAD)" IMAGES="$(abspath $(OUT)/images)" VERSION="$(VERSION)" \
  REVISION="$(REVISION)" REGISTRY="$(REGISTRY)"

# A line per pushed manifest list, as sha256sum writes it: the digest, two spaces, the name.
DIGESTS := $(OUT)/digests.txt

# The folder into which `make tools-chart` installs.
export PATH := $(PATH):$(or $(GOBIN),$(HOME)/go/bin)

# Images are built if there are none; `make images` always builds them.
$(OUT)/images/tag:
	@$(MAKE) images

##= TINJIS               a built tinjis for make doctor; by default cargo builds and runs it
TINJIS ?= cargo run --release --locked --package tinjis --
# The image for the doctor's probes, as `make deploy` loads it.
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

.PHONY: simulate
simulate: ## bill months of subscriptions on a virtual clock and judge each; SIMULATE_SUBSCRIPTIONS=20000 SIMULATE_MONTHS=3
	cargo run --release --locked --bin tinjis -- simulate --subscriptions $(or $(SIMULATE_SUBSCRIPTIONS),20000) \
	  --months $(or $(SIMULATE_MONTHS),3) --kills $(or $(SIMULATE_KILLS),6)

.PHONY: build
build: ## build release binaries; fails when one contains a crash point or a test override
	cargo build --release --workspace --locked
	@for binary in tinjis $(SERVICES); do \
	  if grep -qE "TINJIS_(CRASH|TRIAL)" "$(OUT)/release/$$binary"; then \
	    echo "$$binary: a release binary must contain no crash point and no test override" >&2; exit 1; \
	  fi; \
	done

.PHONY: check
check: version-check fmt clippy deny tidy rustdoc ## formatting, lints, licences, module boundaries, docs and their links: everything except the tests

.PHONY: version-check
version-check: ## check that every file but chart tests names the version of Cargo.toml; TAG=v1.2.3 is checked too
	@if grep -rnE --exclude='*_test.yaml' '(tinjis/[a-z]+:|^(version|appVersion): "?)[0-9]+[.]' deploy docker-compose.yml docs/how-to/doctor.md | grep -vF '$(VERSION)'; then \
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

.PHONY: pages
pages: ## write the generated pages of docs/reference again, from the code and from figures.toml
	WRITE_PAGES=1 cargo test --locked --package tinjis --test tidy

.PHONY: figures-check
figures-check: ## check that no figure of docs/reference/figures.toml is older than 30 days
	@deploy/scripts/figures-check.sh docs/reference/figures.toml

.PHONY: rustdoc
rustdoc: ## build the API docs of the crates; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# mdBook converts each link to Markdown into one to HTML. A link that leaves docs/ must stay as it is: it leads to a
# file of this clone, or with SOURCE to one of a repository. README.md becomes index.html.
.PHONY: docs
docs: ## build the documentation as a site in book/, without network; warnings are errors; SOURCE=URL/blob/REVISION for links to code
	@command -v mdbook >/dev/null || { echo "mdbook is missing: \`make mdbook\` installs it" >&2; exit 1; }
	@mkdir -p "$(OUT)" && mdbook build 2>&1 | tee "$(OUT)/mdbook.log"
	@if grep -qE 'WARN|ERROR' "$(OUT)/mdbook.log"; then echo "mdbook warns: see above" >&2; exit 1; fi
	@for depth in 1 2 3 4; do \
	  find book -mindepth $$depth -maxdepth $$depth -name '*.html' -exec sed --in-place --regexp-extended \
	    -e 's#(href="(\.\./){'$$depth'}[^."][^"]*)\.html#\1.md#g' \
	    -e 's#(href="[^":]*)README\.html#\1index.html#g' \
	    $(if $(SOURCE),-e 's#href="(\.\./){'$$depth'}([^."])#href="$(SOURCE)/\2#g') {} +; \
	done

.PHONY: mdbook
mdbook: ## install mdbook if it is missing; takes minutes
	@mdbook --version 2>/dev/null | grep -qF 'v$(MDBOOK_VERSION)' || cargo install mdbook --locked --version $(MDBOOK_VERSION)

.PHONY: test-code
test-code: ## run every test of the code (`make test` tests a deployed environment)
	cargo test --workspace --locked

.PHONY: contract
contract: ## check that a test covers each id of docs/reference/contract.md
	cargo test --locked --package tinjis --test contract -- --nocapture

.PHONY: console-test
console-test: ## drive the console with headless Chromium and axe; needs chromium, node 20 and npm; CONSOLE_INVOICES, CONSOLE_DATABASE_URL
	cargo build --locked --workspace --bin billing --bin payments
	cd crates/billing/console-test && npm ci --ignore-scripts --no-audit --no-fund && \
	  CONSOLE_BIN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug npm test

.PHONY: lists
lists: ## fill a store of each database and read every list of the console and of /v1, with each index and without it; LIST_ROWS=1000000
	LIST_ROWS=$(or $(LIST_ROWS),1000000) cargo test --locked --package billing --lib list_plans -- --nocapture --test-threads 1

.PHONY: traces-tools
traces-tools: ## build an OpenTelemetry collector for make traces-test, into the build folder; needs go and takes minutes
	@cd deploy/collector && go build -trimpath -ldflags='-s -w' -o "$(abspath $(OUT))/collector/otelcol" .

.PHONY: traces-test
traces-test: ## send a charge whose response is lost twice to a real collector and assert on what it writes
	@test -x "$(TRACES_COLLECTOR)" || { echo "the collector is missing: \`make traces-tools\` builds it, or set TRACES_COLLECTOR" >&2; exit 1; }
	TRACES_COLLECTOR="$(abspath $(TRACES_COLLECTOR))" cargo test --locked --package tinjis --test traces -- --nocapture real_collector

.PHONY: openapi-tools
openapi-tools: ## install schemathesis for make openapi-check, into the build folder; needs python3 with venv
	@"$(SCHEMATHESIS)" --version 2>/dev/null | grep -qF '$(SCHEMATHESIS_VERSION)' || { python3 -m venv "$(OUT)/schemathesis" && \
	  "$(OUT)/schemathesis/bin/pip" install --quiet --disable-pip-version-check schemathesis==$(SCHEMATHESIS_VERSION); }

.PHONY: openapi-check
openapi-check: ## compare the responses of both services with their OpenAPI documents; OPENAPI_EXAMPLES=30 requests beyond the fixed ones
	@"$(SCHEMATHESIS)" --version >/dev/null || { echo "schemathesis is missing: \`make openapi-tools\` installs it, or set SCHEMATHESIS" >&2; exit 1; }
	SCHEMATHESIS="$(or $(wildcard $(abspath $(SCHEMATHESIS))),$(SCHEMATHESIS))" OPENAPI_EXAMPLES=$(or $(OPENAPI_EXAMPLES),30) \
	  cargo test --locked --package tinjis --test openapi -- --nocapture --test-threads 1 undocumented

.PHONY: openapi-client
openapi-client: ## generate clients from the OpenAPI documents, compile them and pay with them; needs node 20 and npm
	cd crates/tinjis/tests/openapi/client && npm ci --ignore-scripts --no-audit --no-fund
	cargo test --locked --package tinjis --test openapi -- --nocapture client

.PHONY: size
size: ## print lines, long functions, import circles and duplicates; docs/reference/size.md records them
	@deploy/scripts/size.sh

.PHONY: demo-picture
demo-picture: ## draw docs/explanation/images/quarter.svg again, as the demo of README draws it
	cargo run --release --locked --bin tinjis -- demo --seed 8213 --plot docs/explanation/images/quarter.svg

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
runasnonroot: $(OUT)/images/tag ## reproduce the bug of docs/explanation/the-runasnonroot-bug.md, with the wrong and the right fix
	@$(CLUSTER) deploy/scripts/runasnonroot.sh

.PHONY: render
render: ## render rendered.yaml of each environment from its base, the chart and its values
	@$(CLUSTER) deploy/scripts/render.sh $(ENVS)

.PHONY: render-check
render-check: render ## check that every rendered file is current
	@git diff --exit-code -- 'deploy/envs/*/rendered.yaml' deploy/envs/staging/doctor.toml deploy/envs/production/doctor.toml \
	  deploy/examples/flux-base.yaml

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

HELM_DOCS_MISSING := helm-docs is missing: go install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)

.PHONY: chart-docs
chart-docs: ## write deploy/chart/README.md from its template and the comments of values.yaml; needs helm-docs
	@command -v helm-docs >/dev/null || { echo "$(HELM_DOCS_MISSING)" >&2; exit 1; }
	@helm-docs --chart-search-root deploy/chart --sort-values-order file --log-level warning

# Without helm-docs only its absence is reported, except in CI; `make tidy` compares the keys of the table in any case.
.PHONY: chart-docs-check
chart-docs-check: ## check that deploy/chart/README.md is current; without helm-docs an error in CI only
	@if command -v helm-docs >/dev/null; then $(MAKE) chart-docs && git diff --exit-code -- deploy/chart/README.md; \
	elif [[ -n "$${CI:-}" ]]; then echo "$(HELM_DOCS_MISSING)" >&2; exit 1; \
	else echo "$(HELM_DOCS_MISSING); the README of the chart was NOT compared"; fi

.PHONY: tools-chart
tools-chart: ## install helm-docs and helm-unittest, both by go install, if they are missing
	@command -v helm-docs >/dev/null || go install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)
	@command -v helm-unittest >/dev/null || $(HELM) unittest --help >/dev/null 2>&1 || \
	  go install github.com/helm-unittest/helm-unittest/cmd/helm-unittest@$(HELM_UNITTEST_VERSION)

CHART_PACKAGE := $(OUT)/chart/tinjis-$(VERSION).tgz
CHART_DIGEST := $(OUT)/chart/digest.txt

.PHONY: package
package: ## package the chart, with REPOSITORY_URL as its address, and render the package with the values of each environment
	@rm -rf "$(OUT)/chart" && mkdir -p "$(OUT)/chart" && cp -R deploy/chart "$(OUT)/chart/tinjis"
	@if [[ -n "$(REPOSITORY_URL)" ]]; then cd "$(OUT)/chart/tinjis" && sed -i 's|https://git.example.com/tinjis/tinjis|$(REPOSITORY_URL)|' Chart.yaml values.yaml files/alerts/*.yaml; fi
	@$(HELM) package "$(OUT)/chart/tinjis" --destination "$(OUT)/chart" --version $(VERSION) --app-version $(VERSION)
	@if tar --list --file "$(CHART_PACKAGE)" | grep -E '/tests/|gotmpl'; then echo "the package has files that only the repository needs" >&2; exit 1; fi
	@HELM="$(HELM)" CHART="$(abspath $(CHART_PACKAGE))" deploy/scripts/render.sh $(ENVS)
	@git diff --exit-code -- 'deploy/envs/*/rendered.yaml'
	@for release in payments antaeus; do \
	  layers=(--values "deploy/envs/base/$$release.values.yaml"); more=deploy/envs/production/$$release.values.json; \
	  if [[ -r $$more ]]; then layers+=(--values "$$more"); fi; \
	  $(HELM) install "$$release" "$(CHART_PACKAGE)" --namespace "$$release" "$${layers[@]}" --set image.registry=registry.example.com \
	    --dry-run=client | grep -F "image: registry.example.com/tinjis/" >/dev/null || { echo "$$release does not install by the README" >&2; exit 1; }; \
	done
	@$(HELM) install antaeus "$(CHART_PACKAGE)" --namespace antaeus --dry-run=client --set component=billing,store.kind=sqlite \
	  --set 'services[0].name=antaeus,services[0].port=8000' >/dev/null

.PHONY: login-chart
login-chart: ## log helm in to REGISTRY=host/path with REGISTRY_USER and REGISTRY_PASSWORD
	@printf '%s' "$${REGISTRY_PASSWORD:?}" | $(HELM) registry login --username "$${REGISTRY_USER:?}" --password-stdin "$(firstword $(subst /, ,$(REGISTRY)))"

.PHONY: push-chart
push-chart: ## push the packaged chart to REGISTRY/charts as an OCI artifact; writes its digest; does nothing without REGISTRY
	@if [[ -z "$(REGISTRY)" ]]; then echo "not pushed: set REGISTRY=host/path"; exit 0; fi; \
	$(HELM) push "$(CHART_PACKAGE)" "oci://$(REGISTRY)/charts" 2>&1 | tee "$(OUT)/chart/push.log" && \
	printf '%s  %s\n' "$$(sed -n 's/^Digest: *sha256://p' "$(OUT)/chart/push.log")" "$(REGISTRY)/charts/tinjis" >"$(CHART_DIGEST)" && \
	grep -E '^[0-9a-f]{64}  ' "$(CHART_DIGEST)"

.PHONY: sign-chart
sign-chart: ## sign the pushed chart by its digest; needs cosign and an identity
	@read -r digest chart <"$(CHART_DIGEST)" && cosign sign --yes "$$chart@sha256:$$digest"

# Tests the rules as the chart renders them, so that a broken template fails a test.
.PHONY: alerts
alerts: ## check the alert rules as the chart renders them and those of the nightly doctor, and run their tests; needs promtool and helm
	@for program in $(PROMTOOL) $(HELM); do \
	  command -v "$$program" >/dev/null || { echo "$$program is missing: see PROMTOOL and HELM in make help" >&2; exit 1; }; \
	done
	@rm -rf "$(OUT)/alerts" && mkdir -p "$(OUT)/alerts/files/alerts" "$(OUT)/alerts/tests"
	@cp -r deploy/chart/tests/alerts "$(OUT)/alerts/tests/alerts"
	@$(HELM) template antaeus deploy/chart --set store.kind=sqlite --set monitoring.alerts.enabled=true \
	  --show-only templates/monitoring.yaml | sed '1,/^spec:$$/d; s/^  //' >"$(OUT)/alerts/rendered.yaml"
	@for source in deploy/chart/files/alerts/*.yaml; do \
	  cp "$(OUT)/alerts/rendered.yaml" "$(OUT)/alerts/files/alerts/$$(basename "$$source")"; \
	done
	@$(PROMTOOL) check rules --lint=all --lint-fatal "$(OUT)/alerts/rendered.yaml" deploy/chart/files/alerts/*.yaml
	@$(PROMTOOL) test rules "$(OUT)"/alerts/tests/alerts/*_test.yaml
	@$(PROMTOOL) check rules --lint=all --lint-fatal deploy/doctor/alerts.yaml
	@$(PROMTOOL) test rules deploy/doctor/tests/alerts_test.yaml

##@ Prove: `make prove` runs the proofs small; each other target is one proof at full size, with its size in variables

.PHONY: prove
prove: previous ## run every proof and print one table; FULL=1 selects the full size, ONLY=pauses a single proof, BEYOND_TESTS=1 those that cargo test runs smaller
	cargo build --locked --package testkit --bin prove
	UPGRADE_PREVIOUS="$(abspath $(OUT))/previous" PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" $(if $(filter-out 0,$(FULL)),full,$(if $(filter-out 0,$(BEYOND_TESTS)),beyond-tests,small)) $(if $(ONLY),"$(ONLY)")

.PHONY: prove-mutants
prove-mutants: ## apply each mutant patch to a copy: the proof that it names must fail; ONLY=restored selects patches by name
	cargo build --locked --package testkit --bin prove
	PROVE_OUT="$(OUT)/proofs" "$(OUT)/debug/prove" mutants $(if $(ONLY),"$(ONLY)")

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

.PHONY: failover
failover: ## lose the leader of a PostgreSQL under Patroni in mid-run: killed, stopped, cut off; FAILOVERS=50 FAILOVER_INVOICES=2000
	@mkdir -p "$(OUT)"
	FAILOVERS=$(or $(FAILOVERS),50) FAILOVER_INVOICES=$(or $(FAILOVER_INVOICES),2000) FAILOVER_OUT="$(abspath $(OUT))/failovers.jsonl" \
	  cargo test --profile prove --locked --package tinjis --test failover -- --nocapture --test-threads 1

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
idle: ## serve others beside idle and slow connections, and beside half heads; IDLE_CONNECTIONS=1000 HALF_HEADS=5000 HALF_HEAD_SHARE=50
	IDLE_CONNECTIONS=$(or $(IDLE_CONNECTIONS),1000) HALF_HEADS=$(or $(HALF_HEADS),5000) HALF_HEAD_INVOICES=$(or $(HALF_HEAD_INVOICES),10000) HALF_HEAD_SHARE=$(or $(HALF_HEAD_SHARE),50) \
	  cargo test --release --locked --package tinjis --test idle --test half_heads -- --nocapture --test-threads 1

.PHONY: scale
scale: ## one pay call over many pending invoices, and the calls after it; SCALE_INVOICES=200000
	SCALE_INVOICES=$(or $(SCALE_INVOICES),200000) \
	  cargo test --release --locked --package tinjis --test scale -- --nocapture --test-threads 1

.PHONY: import
import: ## import rows within 64 MiB of memory in the command and in billing; IMPORT_ROWS=1000000
	IMPORT_ROWS=$(or $(IMPORT_ROWS),1000000) \
	  cargo test --release --locked --package tinjis --test import -- --nocapture memory_stays_bounded

.PHONY: prove-schedule
prove-schedule: ## random subscriptions over every zone: what is previewed is what is made; SCHEDULE_SUBSCRIPTIONS=100000 SCHEDULE_MONTHS=24
	SCHEDULE_SUBSCRIPTIONS=$(or $(SCHEDULE_SUBSCRIPTIONS),100000) SCHEDULE_MONTHS=$(or $(SCHEDULE_MONTHS),24) \
	  cargo test --release --locked --package tinjis --test schedule -- --nocapture --test-threads 1 previewed

.PHONY: generate
generate: ## invoice many due periods within 64 MiB of memory in billing; GENERATED_INVOICES=1000000
	GENERATED_INVOICES=$(or $(GENERATED_INVOICES),1000000) \
	  cargo test --release --locked --package tinjis --test schedule -- --nocapture --test-threads 1 memory_stays_bounded

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

.PHONY: e2e-alerts
e2e-alerts: $(OUT)/images/tag ## fire each alert by its fault on the cluster's Prometheus, with scaled times, after QUIET_MINUTES=10; needs jq, cert-manager, the Prometheus operator, MORE=kube-state-metrics
	@mkdir -p "$(OUT)/e2e"
	@$(E2E_SETTINGS) QUIET_MINUTES="$(or $(QUIET_MINUTES),10)" PROMETHEUS_URL="$(PROMETHEUS_URL)" deploy/scripts/e2e.sh alerts 2>&1 | tee "$(OUT)/e2e/alerts.log"

.PHONY: e2e-doctor
e2e-doctor: ## test doctor on the deployed production environment with planted isolation holes; needs jq
	@mkdir -p "$(OUT)/e2e"
	@KUBECTL="$(KUBECTL)" TINJIS="$(TINJIS)" IMAGE="$(DOCTOR_IMAGE)" OUT="$(abspath $(OUT)/e2e)" \
	  deploy/scripts/e2e-doctor.sh

.PHONY: holes
holes: ## plant isolation holes one by one on the deployed production; admission must refuse or doctor --read-only name each; HOLES="..." some only; PEERS=1 prints what other tools find; needs jq
	@mkdir -p "$(OUT)/e2e"
	@KUBECTL="$(KUBECTL)" TINJIS="$(TINJIS)" OUT="$(abspath $(OUT)/e2e)" PEERS="$(PEERS)" deploy/scripts/holes.sh $(HOLES)

##@ Measure

.PHONY: bench
bench: ## charges per second against wrk and a naive loop; exit 1 below the goals; BENCH_INVOICES, BENCH_LEGS, BENCH_ROUNDS, BENCH_GENERATED, BENCH_OTHER
	cargo bench --locked --package tinjis --bench charging

.PHONY: growth
growth: ## CPU per charge at 10,000 and at GROWTH_INVOICES=1000000 invoices on each database; exit 1 when it grows
	BENCH_GROWTH=$(or $(GROWTH_INVOICES),1000000) cargo bench --locked --package tinjis --bench charging

.PHONY: deployments
deployments: ## CPU per charge with 1, 2 and 4 deployments side by side; exit 1 when more cost more; DEPLOYMENTS_INVOICES=20000 DEPLOYMENTS_ROUNDS=30
	BENCH_DEPLOYMENTS=$(or $(DEPLOYMENTS_INVOICES),20000) BENCH_ROUNDS=$(or $(DEPLOYMENTS_ROUNDS),30) \
	  cargo bench --locked --package tinjis --bench charging

.PHONY: partitions
partitions: ## CPU and WAL of a row in tables with and without hash partitions on PostgreSQL; PARTITIONS_ROWS=10000000 PARTITIONS_ROUNDS=5
	BENCH_PARTITIONS=$(or $(PARTITIONS_ROWS),10000000) BENCH_ROUNDS=$(or $(PARTITIONS_ROUNDS),5) \
	  cargo bench --locked --package tinjis --bench charging

.PHONY: bench-store
bench-store: ## claims and settlements per second of billing's stores, and WAL bytes per row; BENCH_STORE_INVOICES
	cargo bench --locked --package billing --bench store

##@ Release

.PHONY: dist
dist: ## build static binaries for the images and print their sizes; DIST_OUT=DIR copies them there
	RUSTFLAGS="$(DIST_FLAGS)" CFLAGS="$(DIST_C)" AWS_LC_SYS_CFLAGS="$(DIST_CRYPTO) $(DIST_C)" \
	  LIBSQLITE3_FLAGS="$(DIST_SQLITE)" TINJIS_REVISION="$(REVISION)" \
	  cargo $(AUDITABLE) build --profile dist --locked $(addprefix --features ,$(DIST_FEATURES)) \
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
	@SOURCE="$(REPOSITORY_URL)" deploy/scripts/images.sh "$(DIST)" "$(OUT)/images" $(VERSION) $(REVISION)

.PHONY: images-check
images-check: ## check that each image runs read-only, as a non-root user, without capabilities, and gets healthy
	@deploy/scripts/images-check.sh "$$(cat "$(OUT)/images/tag")"

.PHONY: images-more
images-more: ## build PostgreSQL and Prometheus images from Debian packages for compose and development; MORE=kube-state-metrics builds that one, and needs go
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
push-lists: ## push a manifest list per image for both platforms; writes their digests to DIGESTS
	@mkdir -p "$(dir $(DIGESTS))" && : >"$(DIGESTS)"
	@for program in $(PROGRAMS); do \
	  docker manifest create "$(PUSHED)" "$(PUSHED)-amd64" "$(PUSHED)-arm64" && digest=$$(docker manifest push "$(PUSHED)") && \
	  [[ $$digest == sha256:* ]] && printf '%s  %s\n' "$${digest#sha256:}" "$(REGISTRY)/$$program" | tee -a "$(DIGESTS)" || exit 1; \
	done

.PHONY: sign
sign: ## sign the images of DIGESTS by their digests and attest their SBOM; needs cosign and an identity
	@[[ -s "$(DIGESTS)" ]] || { echo "no digests to sign: make push-lists writes $(DIGESTS)" >&2; exit 1; }
	@while read -r digest image; do \
	  case $$image in */pinger | */ponger) sbom=pingpong ;; *) sbom=$${image##*/} ;; esac; \
	  cosign sign --yes --recursive "$$image@sha256:$$digest" && \
	  cosign attest --yes --type cyclonedx --predicate "$(OUT)/sbom/$$sbom.cdx.json" "$$image@sha256:$$digest" || exit 1; \
	done <"$(DIGESTS)"

.PHONY: auditable
auditable: ## install cargo-auditable if it is missing
	@cargo install --list | grep -qF 'cargo-auditable v$(AUDITABLE_VERSION):' || \
	  cargo install cargo-auditable --locked --version $(AUDITABLE_VERSION)
