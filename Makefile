# Everything sets itself up: a virtual environment in .venv, from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench docs e2e-k8s clean

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(STAMP) ## a short story on the sandbox: dispatch, refusal, a dead agent, the reaper
	$(BIN)/bdauto demo

test: $(STAMP) ## all tests; those that need a real bd run when one is on PATH
	$(BIN)/pytest --numprocesses auto

check: $(STAMP) ## what CI runs: format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses auto

format: $(STAMP) ## reformat and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure against scripts/incumbent.sh and write docs/performance.md
	$(BIN)/python scripts/bench.py

docs: $(STAMP) ## redraw the pictures in docs/
	$(BIN)/python scripts/pictures.py

e2e-k8s: $(STAMP) ## the manifests on a real control plane on loopback (by hand; see CONTRIBUTING.md)
	$(BIN)/python scripts/e2e_k8s.py

clean: ## remove what was generated
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
