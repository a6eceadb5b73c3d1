# Everything runs in an environment of its own, made from whatever Python >= 3.11 is on the machine.
#   make demo    install, then watch a city's alerts arrive, live: broker, Redis, worker, feed
#   make demo-replay  install, then replay the same day and hold it against what happened
#   make test    install, then every check and the whole test suite
#   make services  fetch the jars of the Apache Kafka that the tests run on (needs mvn)
#   make bench   install, then the speed table
#   make bench-live  install, then the same from Kafka to Redis
#   make bench-tune  install, then many settings over one history, against a replay, polars, duckdb
#   make chaos   install, then kill everything at random and compare with a replay
#   make clean   remove the environment and every cache

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help demo demo-replay bench-live bench-tune chaos services test audit lint unit coverage bench clean

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

# The first interpreter that is new enough and can make an environment; PYTHON=... overrides.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.14 python3.11 python; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1 </dev/null; then \
	        echo "making $(VENV) with $$($$python --version) ($$python)"; \
	        exec $$python -m venv $(VENV); \
	    fi; \
	done; \
	echo "no Python >= 3.11 with venv found: install python3 and python3-venv, or set PYTHON=" >&2; \
	exit 1

# A stamp per set of extras: installed once, again when pyproject.toml changes.
$(VENV)/.installed-run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[live,embedded]' </dev/null
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]' </dev/null
	@touch $@ $(VENV)/.installed-run

demo: $(VENV)/.installed-run
	@$(BIN)/tocsin demo

demo-replay: $(VENV)/.installed-run
	@$(BIN)/tocsin demo-replay

services: $(VENV)/.installed-dev
	$(BIN)/python -m tests.services.kafka </dev/null

test: lint audit unit coverage

audit: $(VENV)/.installed-dev
	$(BIN)/python -m tests.audit </dev/null

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/lint-imports

# Compiled, as users run it.
unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n $(JOBS) </dev/null

# The kernels again as plain Python: what the compiler would hide, and line coverage of kernels/.
coverage: $(VENV)/.installed-dev
	rm -f .coverage .coverage.*
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m coverage run -m pytest -q -n $(JOBS) tests/kernels </dev/null
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

bench-live: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.live

bench-tune: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.tune

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.topologies.chaos

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache \
	    .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
