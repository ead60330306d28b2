# Everything a developer runs. `make` alone lists the targets.
#
#   make serve ARGS="Qwen/Qwen3-Embedding-0.6B --port 8080"
#   make test ARGS="-k dimension"
#   make PYTHON=python3.13 venv

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv serve test lint browser audit docs constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.all ## Make .venv with all that serving, tests and checks need

serve: $(VENV)/.serving ## Serve the starter model, or what ARGS says; installs only what serving needs
	@$(BIN)/anydim serve $(ARGS)

test: $(VENV)/.all ## Run the tests in two processes, each file in one; ARGS goes to pytest
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.all ## Check style, types, the project's own rules and that the generated pages are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/python -m pytest -q tests/policy
	$(BIN)/python -m anydim.cli.docs --check
	$(BIN)/python -m tests.compatibility --check

browser: ## Install Debian's Chromium for the tests of the page, where apt-get and root are at hand; else they are skipped
	@if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  { timeout 30 apt-get -qq update && DEBIAN_FRONTEND=noninteractive timeout 120 \
	    apt-get -qq install -y --no-install-recommends chromium; } >/dev/null 2>&1 \
	    || echo 'Chromium could not be installed: the tests of the page in a browser are skipped.'; \
	else echo 'No Chromium, and no apt-get as root: the tests of the page in a browser are skipped.'; fi

audit: ## Ask the public vulnerability service about every pinned version; needs a network
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

docs: $(VENV)/.all ## Write the generated pages: docs/cli.md, docs/config.md, docs/metrics.md
	$(BIN)/python -m anydim.cli.docs
	$(BIN)/python -m tests.compatibility

# torch names the one triton that it goes with, which a CPU build does not say: keep the two in step.
constraints: TORCH ?= 2.13.0
constraints: TRITON ?= 3.7.1
constraints: ## Write constraints.txt anew from the newest releases that go together; TORCH and TRITON are chosen by hand
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --disable-pip-version-check \
	    torch==$(TORCH) triton==$(TRITON) '.[test,lint,fuzz]'
	{ echo '# Tested together. Written by `make constraints`; pip reads it with -c.'; \
	  build/constraints/bin/python -m pip list --disable-pip-version-check --format=freeze \
	  | grep -v -i -E '^(anydim|pip|nvidia-.*|cuda-.*)==' | sed -E 's/\+.*//' | LC_ALL=C sort -f; } \
	  > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## Remove .venv, caches and build folders
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serving: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[fast,starter]'
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test,lint]'
	@touch $@ $(VENV)/.serving
