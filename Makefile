# Two commands on a fresh clone: `make demo` and `make test`. Each makes .venv first where it is missing.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $(p))))
BIN := .venv/bin
LOGS ?= logs

.PHONY: help demo test test-all lint dashboard notebooks clean
help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: .venv/installed ## train a small ConvNet on the embedded digits: a minute, no download
	$(BIN)/python -m cifar_lightning experiment=demo

test: .venv/installed-dev lint ## linter, type checker and the fast tests
	$(BIN)/python -m pytest -n 2

test-all: .venv/installed-dev lint ## the slow tests too
	$(BIN)/python -m pytest -n 2 -m 'not gpu'

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dashboard: .venv/installed ## TensorBoard on http://localhost:6006/#custom_scalars over logs/
	$(BIN)/tensorboard --logdir $(LOGS) --host localhost

notebooks: .venv/installed-dev ## run the notebooks anew and store their outputs: 10 minutes on one core, official data
	$(BIN)/jupyter execute --inplace --NotebookClient.record_timing=False notebooks/*.ipynb

clean: ## remove .venv and caches, not data or logs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

# uv, inside the environment, installs in seconds what pip takes minutes for.
.venv/bin/uv:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and was not found; name it with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/installed: .venv/bin/uv pyproject.toml
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable .
	@touch $@

.venv/installed-dev: .venv/installed pyproject.toml
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	@touch $@
