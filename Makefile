# MOS: the commands that people and CI use. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
INPUT ?=
CUTS ?= 10000
N ?= 1000
SEED ?= 1
ONLY ?=
SOAK ?= 60
MINUTES ?= 10
CAMERAS ?=
RIG ?=
MOS ?=
SECONDS ?= 60
RENEW ?=
# Everything but `libcamera`, which Debian 12 has too old a library for.
FEATURES ?= demo,whep

# What a fresh Debian 12 lacks. BUILD_DEPS build and run MOS; TEST_DEPS are the peers that the tests start.
# openssh-server starts its service on installation, as Debian does; the tests run their own copy on a free port.
BUILD_DEPS := build-essential pkg-config clang libclang-dev \
	libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly \
	gstreamer1.0-libav gstreamer1.0-nice
TEST_DEPS := coturn ffmpeg glib-networking gstreamer1.0-tools openssh-client openssh-server openssl chromium device-tree-compiler strace valgrind python3 python3-venv
YOCTO_DEPS := git python3 python3-venv shellcheck systemd device-tree-compiler gstreamer1.0-tools \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
CROSS_DEPS := mmdebstrap qemu-user
HIL_DEPS := mmdebstrap binutils xz-utils python3 python3-venv openssh-client openssh-server ffmpeg

# apt-get for the packages of $(1) that are missing; says which, does nothing if there are none.
define install_missing
	@missing=(); for p in $(1); do \
	  dpkg-query -W -f='$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$$p"); done; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
	  command -v apt-get >/dev/null || { echo "error: not a Debian machine; install by hand: $${missing[*]}" >&2; exit 1; }; \
	  sudo=(); [ "$$(id -u)" = 0 ] || sudo=(sudo); \
	  echo "installing with apt-get: $${missing[*]}"; \
	  "$${sudo[@]}" apt-get update -q; \
	  "$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"; \
	fi
endef

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: deps
deps: ## Install with apt-get what building and the demo need, only if missing
	$(call install_missing,$(BUILD_DEPS))

.PHONY: test-deps
test-deps: ## Install with apt-get what the tests need besides, only if missing
	$(call install_missing,$(BUILD_DEPS) $(TEST_DEPS))
	@for c in rustfmt clippy; do $(CARGO) $${c/rust/} --version >/dev/null 2>&1 || \
	  { echo "installing with rustup: $$c"; rustup component add $$c; }; done

.PHONY: build
build: deps ## Build the release binary as firmware would: target/release/mos
	$(CARGO) build --release -p mos

.PHONY: demo
demo: deps ## Build and run the demo; INPUT=file.mp4, rtsp://… or /dev/video0 becomes the lens `road`
	$(CARGO) build --release -p mos --features demo
	target/release/mos demo $(if $(INPUT),'$(INPUT)')

.PHONY: test
test: test-deps yocto-check hil-check ## All that CI runs: format, clippy, unit, black-box and doc tests, the API by its document, instruction counts, the firmware layer
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features $(FEATURES) -- -D warnings
	$(CARGO) clippy --workspace --bins --lib -- -D warnings
	$(CARGO) build --workspace --features $(FEATURES) --bins
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} $(CARGO) test --workspace --features $(FEATURES) --no-fail-fast
	$(MAKE) --no-print-directory api-check
	$(MAKE) --no-print-directory loom
	$(MAKE) --no-print-directory counts

.PHONY: loom
loom: ## Check the frame bus' leases and generations in every interleaving and memory order, with loom
	RUSTFLAGS="--cfg loom" $(CARGO) test -p mos-frame --lib --target-dir target/loom

.PHONY: bench
bench: test-deps ## One table of ours, the peer in the same run, the ratio and the limit; ONLY=record, evidence, cameras, raw, control, clip, snapshot, segments, start, reduce, upload or bus
	$(CARGO) build --release --workspace --features $(FEATURES) --bins --examples
	target/release/bench $(ONLY)

.PHONY: million
million: test-deps ## Start on, ask and check an archive of N=n files (a million: 8 GB of disk, some minutes)
	$(CARGO) build --release --workspace --features $(FEATURES) --bins
	N=$(if $(filter file,$(origin N)),1000000,$(N)) target/release/bench million

.PHONY: crash
crash: test-deps ## The power-cut test with CUTS=n cuts (10000)
	CUTS=$(CUTS) $(CARGO) test --release -p mos --test crash -- --nocapture

.PHONY: road
road: test-deps ## N=n uploads (1000) over bad roads, from SEED=n (1); the tests run a short form
	$(CARGO) build --release --workspace --features $(FEATURES) --bins
	N=$(N) SEED=$(SEED) $(CARGO) test --release -p mos-tests --test road -- --nocapture

.PHONY: soak
soak: test-deps ## Long runs of MINUTES=n (10): 16 network cameras in random trouble, then 8 with clips, uploads, retention; CAMERAS=n, SEED=n (1), ONLY=trouble or service
	$(CARGO) build --release --workspace --features $(FEATURES) --bins
	MINUTES=$(MINUTES) SEED=$(SEED) $(if $(CAMERAS),CAMERAS=$(CAMERAS)) $(CARGO) test --release -p mos-tests --test soak -- --ignored --nocapture --test-threads 1 $(ONLY)

.PHONY: api-check
api-check: test-deps ## Try the API by its OpenAPI document with schemathesis (fetched into target/api-venv); EXAMPLES=n for each operation (12)
	$(CARGO) build --workspace --features $(FEATURES) --bins
	@wanted=tests/api/requirements.txt; cmp -s $$wanted target/api-venv/requirements.txt || { \
	  echo "installing with pip, in target/api-venv: the tools of $$wanted"; rm -rf target/api-venv; mkdir -p target; \
	  python3 -m venv target/api-venv && target/api-venv/bin/pip install --quiet --disable-pip-version-check -r $$wanted && \
	  cp $$wanted target/api-venv/requirements.txt; }
	EXAMPLES=$(EXAMPLES) tests/api/check $(CURDIR)/target/debug/mos $(CURDIR)/target/api-venv

.PHONY: whep-peer
whep-peer: test-deps ## Record whepserversink of gst-plugins-rs, in H.264 and H.265; builds it in target/peers, which takes minutes
	$(CARGO) build --workspace --features $(FEATURES) --bins
	$(CARGO) test --workspace --features $(FEATURES) --test black_box -- --ignored --nocapture whep::whepserversink

.PHONY: fuzz
fuzz: deps ## Fuzz everything that parses what comes from outside, SECONDS=60 for each target or ONLY=one; installs cargo-fuzz and a nightly toolchain if missing
	.ci/fuzz '$(SECONDS)' '$(ONLY)'

# Optimised as far as it is counted, and each crate in one piece and from its beginning: in many, what is inlined depends on
# what else there is, and counts change by a third with code that never runs. Everything else is as the tests have built it.
COUNTED := $(foreach crate,mos mos-hal mos-mp4 mos-frame,--config profile.dev.package.$(crate).opt-level=2 \
	--config profile.dev.package.$(crate).codegen-units=1)

.PHONY: counts
counts: test-deps ## Count the instructions of the hot paths (callgrind), and compare; RENEW=1 writes app/benches/counts/baseline.toml anew
	CARGO_INCREMENTAL=0 $(if $(RENEW),RENEW=1) $(CARGO) bench --workspace --features $(FEATURES) --profile dev $(COUNTED) --bench counts

.PHONY: advisories
advisories: ## Ask the registries for yanked crates and for faults of pinned Python packages; what could not be asked is told as NOT RUN
	@test -x target/audit-venv/bin/pip-audit || { echo "installing with pip, in target/audit-venv: pip-audit"; \
	  python3 -m venv target/audit-venv && target/audit-venv/bin/pip install --quiet --disable-pip-version-check 'pip-audit==2.*'; }
	.ci/advisories $(CURDIR)/target/audit-venv

.PHONY: yocto-deps
yocto-deps:
	$(call install_missing,$(YOCTO_DEPS))

.PHONY: yocto-check
yocto-check: yocto-deps ## Check the firmware layer meta-mos as far as no build is needed, and each check by a fault
	@wanted=meta-mos/checks/requirements.txt; \
	if ! cmp -s $$wanted target/yocto-venv/requirements.txt; then \
	  echo "installing with pip, in target/yocto-venv: the tools of $$wanted"; \
	  rm -rf target/yocto-venv; mkdir -p target; python3 -m venv target/yocto-venv; \
	  target/yocto-venv/bin/pip install --quiet --disable-pip-version-check -r $$wanted; \
	  cp $$wanted target/yocto-venv/requirements.txt; \
	fi
	target/yocto-venv/bin/python meta-mos/checks/run.py

.PHONY: yocto-crates
yocto-crates: ## Write meta-mos' crate list anew, after a change of Cargo.lock
	python3 meta-mos/checks/crates.py --write

.PHONY: cross-aarch64
cross-aarch64: ## Build the release program for aarch64 in a Debian chroot under target/cross (as root); FEATURES= for none
	$(call install_missing,$(CROSS_DEPS))
	.ci/cross-aarch64

.PHONY: libcamera
libcamera: ## Test the feature `libcamera` on a real libcamera, in a Debian 13 chroot under target/libcamera (as root)
	$(call install_missing,mmdebstrap)
	.ci/libcamera

.PHONY: kernel-trees
kernel-trees: ## Apply device-tree/'s overlays to the boards' whole trees of Debian's arm64 kernel (fetches 5 MB)
	$(call install_missing,$(BUILD_DEPS) device-tree-compiler)
	CARGO='$(CARGO)' FEATURES='$(FEATURES)' .ci/kernel-trees

.PHONY: hil-images
hil-images: ## Make what the virtual rigs of hil/ boot, in ~/.cache/mos-hil (as root); RIG=one of them, MOS=program to test
	$(call install_missing,$(HIL_DEPS))
	MOS='$(MOS)' hil/images $(RIG)

.PHONY: hil
hil: ## Run the cases of hil/ on all virtual rigs or on RIG=environment; CUTS=power cuts (20), ONLY=case, SOAK=seconds (60)
	$(call install_missing,$(HIL_DEPS))
	MOS='$(MOS)' ONLY='$(ONLY)' SOAK='$(SOAK)' CUTS='$(if $(filter file,$(origin CUTS)),,$(CUTS))' hil/run $(RIG)

.PHONY: hil-check
hil-check: ## Show hil/'s judges doctored archives, which they must find; needs no board
	python3 hil/unit/test_judge.py

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
