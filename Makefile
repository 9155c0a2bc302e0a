# `make demo` and `make test` set up all they need in .venv. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Modules are compiled once, whatever the environment wants: most of what the tests start is a new interpreter.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-latest test-lowest lint typecheck bench chaos lock upgrade clean
help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# Exactly what a lock names, setuptools included; then Upon itself, built with that, nothing more fetched.
.venv/demo: .venv/bin/python pyproject.toml locks/demo.txt
	@echo "installing Upon and what the demo needs into .venv …"
	@$(PIP) --require-hashes --requirement locks/demo.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m upon.embedded.broker.install
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml locks/dev.txt
	@echo "installing Upon and what its tests need into .venv …"
	@$(PIP) --require-hashes --requirement locks/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m upon.embedded.broker.install
	@touch $@ .venv/demo

demo: .venv/demo ## images land in a folder, a rule runs a function on each: the main job, on this machine
	@$(BIN)/python examples/thumbnails/demo.py .demo

test: .venv/dev ## all tests, on a real Kafka
	$(BIN)/python -m pytest --numprocesses 4 --dist loadgroup --no-loadscope-reorder --budget 360

# A few tests of every layer: what a dependency that changed breaks shows in these.
SAMPLE := tests/unit tests/integration/test_streams.py tests/integration/test_fabric.py tests/integration/test_sdk.py
OTHER_VERSIONS = rm -rf $(1) && $(BIN)/uv venv --quiet $(1) && \
  $(BIN)/uv pip install --quiet --python $(1)/bin/python --resolution $(2) --editable '.[dev]' && \
  $(1)/bin/python -m upon.embedded.broker.install && timeout --kill-after=30 900 $(1)/bin/python -m pytest -q $(SAMPLE)

test-latest: .venv/dev ## a sample of the tests with the newest of everything that pyproject.toml allows
	$(call OTHER_VERSIONS,.venv-latest,highest)

test-lowest: .venv/dev ## a sample of the tests with the oldest of everything that pyproject.toml allows
	$(call OTHER_VERSIONS,.venv-lowest,lowest-direct)

# The locks: what pip installs, with hashes, for every Python and platform. dev holds all that the others do.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group build \
  --custom-compile-command "make lock" pyproject.toml

lock: ## bring the locks in step with pyproject.toml; what they hold keeps its version
	@test -x $(BIN)/uv || $(MAKE) .venv/dev
	$(COMPILE) $(UPGRADE) --extra dev --output-file locks/dev.txt
	$(COMPILE) $(UPGRADE) --extra demo --constraints locks/dev.txt --output-file locks/demo.txt
	$(COMPILE) $(UPGRADE) --extra sources --extra streams --extra endpoint --extra postgres \
	  --constraints locks/dev.txt --output-file locks/image.txt

upgrade: ## lock the newest version of everything
	@$(MAKE) lock UPGRADE=--upgrade

lint: .venv/dev ## ruff and the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

typecheck: .venv/dev ## mypy, strict, tests and benchmarks too
	$(BIN)/mypy

chaos: .venv/dev ## kill and stop all that works at a site, at random, for CHAOS seconds (600)
	$(BIN)/python -m tests.failures.chaos $(CHAOS)

bench: .venv/dev ## measure, with machine and versions
	$(BIN)/python -m benchmarks

clean: ## remove everything that was made here
	rm -rf .venv .venv-latest .venv-lowest .demo build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
