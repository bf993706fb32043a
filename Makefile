# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
# CARGO_TARGET_DIR is respected; FEATURES=rocksdb builds with the RocksDB catalog.

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
FEATURES ?=
FLAGS := --release --locked $(if $(FEATURES),--features $(FEATURES))

.PHONY: demo build test setup

demo: build
	$(TARGET)/release/tierstream demo

build: setup
	$(CARGO) build $(FLAGS) -p tierstream-cli

test: build
	$(CARGO) test --release --locked --workspace

setup:
	@.ci/setup $(FEATURES)
