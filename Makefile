# Everything runs in an environment of its own, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= .demo

.PHONY: demo test check bench clean

demo: $(STAMP)  ## draw a small data set and train on it, live
	$(BIN)/dojang --workspace $(DEMO) demo

test: $(STAMP)  ## lint, types, every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "" -n 2 --dist loadgroup

check: $(STAMP)  ## the quick tests only
	$(BIN)/python -m pytest -n 2

bench: $(STAMP)  ## the figures the README quotes
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dojang needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
