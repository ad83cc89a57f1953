# Two commands matter: `make demo` and `make test`. Both start from a fresh clone.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

# Re-made when the project's dependencies change; the assets command skips what is there.
$(VENV)/ready: pyproject.toml training/assets.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m training assets
	$(BIN)/python -m training demo --prepare
	touch $@

demo: $(VENV)/ready ## install, run the whole job on built-in photos, show the saving
	$(BIN)/python -m training demo $(DEMO_FLAGS)

test: $(VENV)/ready ## install, run the whole test-suite
	$(BIN)/python -m training assets --all
	$(BIN)/python -m pytest

lint: $(VENV)/ready ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready ## what everything costs, as ratios; one table, and runs/bench.json
	mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks -p no:randomly -q --benchmark-only \
		--benchmark-quiet --benchmark-json=runs/bench.json

clean: ## remove what was built here
	rm -rf $(VENV) .cache runs dist build
