# Everything sets itself up: a virtual environment in .venv, from pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYENV := $(wildcard $(HOME)/.pyenv/versions)
find-python = $(firstword $(shell python3.$(1) -c 'import sys; print(sys.executable)' 2>/dev/null) $(wildcard $(PYENV)/3.$(1).*/bin/python3.$(1)))
PYTHONS = $(foreach minor,11 12 13 14,$(call find-python,$(minor)))

IMAGE ?= bdauto:0.1.0
BUILDER ?= $(firstword $(foreach name,buildah podman docker,$(shell command -v $(name))))
# Two for each processor: end-to-end tests wait about as long as they work.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help demo test test-all unit simulate static matrix matrix-unit check format bench docs manifests real-bd e2e-k8s image lock release clean

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(STAMP) ## a short story on the sandbox: dispatch, refusal, a dead agent, the reaper
	$(BIN)/bdauto demo

test: $(STAMP) ## what a change needs: some minutes
	$(BIN)/pytest --numprocesses $(WORKERS) -m 'not maintainer'

test-all: $(STAMP) ## all tests, as the gate runs them; those that need a real bd run when one is on PATH
	$(BIN)/pytest --numprocesses $(WORKERS)

unit: $(STAMP) ## the unit tests alone, in seconds
	$(BIN)/pytest --numprocesses auto tests/unit

simulate: $(STAMP) ## many simulated histories: SEEDS=1,2 N=5000; then look for each mutation
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1) --number $(or $(N),2000)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1) --number 20000 --mutations

check: static test ## format, lint, types, layers, and all tests

static: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin bdauto
	$(BIN)/lint-imports

matrix: ## check and tests on each Python found, from 3.11 on
	@for python in $(PYTHONS); do $(MAKE) VENV=.venv-$$(basename $$python) PYTHON=$$python check || exit 1; done

matrix-unit: ## the unit tests on the oldest and the newest Python found, but not on that of `make test`
	@for python in $(filter-out $(shell $(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))'),$(firstword $(PYTHONS)) $(lastword $(PYTHONS))); do \
	  $(MAKE) VENV=.venv-$$(basename $$python) PYTHON=$$python unit || exit 1; done

format: $(STAMP) ## reformat and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

real-bd: $(STAMP) ## contract and end-to-end suites on each BD_DIR/*/bd, in each topology: a table (by hand; dolt on PATH)
	@test -n "$(BD_DIR)" || { echo "BD_DIR is missing: a folder with VERSION/bd for each version"; exit 2; }
	$(BIN)/python -m scripts.real_bd $(BD_DIR)

bench: $(STAMP) ## measure against benchmarks/incumbent.sh and write docs/performance.md
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

man: $(STAMP) ## write the manual pages into build/man/
	$(BIN)/python -m scripts.man_pages build/man
.PHONY: man

docs: $(STAMP) ## write docs/options.md and the tables of docs/decisions.md, and redraw the pictures in docs/
	$(BIN)/python -m scripts.options_page
	$(BIN)/python -m scripts.decision_tables
	$(BIN)/python -m scripts.pictures

manifests: $(STAMP) ## write deploy/kustomize's objects as the Helm chart prints them (helm on PATH, or from .ci/tools)
	PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/python -m scripts.manifests

e2e-k8s: $(STAMP) ## manifests, Terraform module and Helm chart on a real control plane (by hand; see CONTRIBUTING.md)
	$(BIN)/python -m scripts.e2e_k8s

# The format of buildah and podman themselves has no HEALTHCHECK.
image: ## the image, by buildah, podman or docker; BD_SHA256=... is required (see docs/deploy.md)
	@test -n "$(BUILDER)" || { echo "none of buildah, podman and docker is on PATH"; exit 2; }
	@test -n "$(BD_SHA256)" || { echo "BD_SHA256 is missing: the archive's line in checksums.txt of bd's release"; exit 2; }
	$(BUILDER) build --file deploy/Dockerfile --tag $(IMAGE) $(if $(PLATFORM),--platform $(PLATFORM)) \
	  $(if $(filter docker,$(notdir $(BUILDER))),,--format docker) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	  $(foreach name,BD_VERSION BD_SHA256 BD_URL PYTHON_IMAGE,$(if $($(name)),--build-arg $(name)=$($(name)))) .

lock: $(STAMP) ## pin the image's Python packages again: deploy/requirements*.txt
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --python-version 3.11 --extra all pyproject.toml --output-file deploy/requirements.txt
	printf 'hatchling\nhatch-fancy-pypi-readme\n' | $(LOCK) --python-version 3.11 - --output-file deploy/requirements-build.txt

release: $(STAMP) ## VERSION=1.2.3: check, build, commit and tag; then it says what is left
	@test -n "$(VERSION)" || { echo "VERSION is missing: make release VERSION=1.2.3"; exit 2; }
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m scripts.release $(VERSION)

clean: ## remove what was generated
	rm -rf .venv .venv-* .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
