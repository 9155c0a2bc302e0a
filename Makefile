# `make demo` and `make test` set up all they need in .venv. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint typecheck bench clean
help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/demo: .venv/bin/python pyproject.toml
	@echo "installing Upon and what the demo needs into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@$(BIN)/python -m upon.embedded.install
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	@echo "installing Upon and what its tests need into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m upon.embedded.install
	@touch $@ .venv/demo

demo: .venv/demo ## images land in a folder, a rule runs a function on each: the main job, on this machine
	@$(BIN)/python examples/thumbnails/demo.py .demo

test: .venv/dev ## all tests, on a real Kafka
	$(BIN)/python -m pytest

lint: .venv/dev ## ruff and the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

typecheck: .venv/dev ## mypy, strict
	$(BIN)/mypy

bench: .venv/dev ## measure, with machine and versions
	$(BIN)/python -m benchmarks

clean: ## remove everything that was made here
	rm -rf .venv .demo build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
