# Two commands do everything: `make demo` runs the main job, `make test` passes the tests. `make test-torch` passes those of
# the Python package that need PyTorch, which it installs beside the build (5 GB where no wheel for CPUs is to be had).
# CARGO_TARGET_DIR is respected; FEATURES=rocksdb builds with the RocksDB catalog.

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
FEATURES ?=
FLAGS := --release --locked $(if $(FEATURES),--features $(FEATURES))

.PHONY: demo build test test-python test-torch torch setup

demo: build
	$(TARGET)/release/tierstream demo

build: setup
	$(CARGO) build $(FLAGS) -p tierstream-cli

test: build
	$(CARGO) test --release --locked --workspace
	$(MAKE) test-python

# TIERSTREAM: the command, for tests that need a daemon.
test-python: build
	python/build $(TARGET) $(TARGET)/python numpy pytest
	TIERSTREAM=$(TARGET)/release/tierstream $(TARGET)/python/bin/pytest -q python/tests --ignore python/tests/pytorch

test-torch: torch
	TIERSTREAM=$(TARGET)/release/tierstream $(TARGET)/python-torch/bin/pytest -q python/tests

# The environment of these tests.
torch: build
	python/build --torch $(TARGET) $(TARGET)/python-torch numpy pytest scikit-learn pillow torchdata

setup:
	@.ci/setup $(FEATURES)
