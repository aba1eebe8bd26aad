# Two commands matter: `make demo`, `make test`; both set up first. `make` alone lists all. Needs: make, a POSIX shell, Python 3.11-3.13.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.8

# uv writes into .venv and nowhere else, whatever environment the caller has activated.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT
export UV_PYTHON_DOWNLOADS := never

FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3 python)
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-long chaos lint demo-space lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## make .venv from the lock (PYTHON=... picks the interpreter)
	@:

demo: $(READY) ## make a small world of seven modalities, embed it, search it, write demo/demo.html
	@$(BIN)/python -m jobs.demo

# What starts no Ray runs on both cores; one Ray has them to itself.
test: $(READY) ## the tests, without the slow ones
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal tests/encoders
	@$(BIN)/python -m pytest -m "not slow" --ignore tests/encoders

test-slow: $(READY) ## the slow tests alone: minutes each
	@$(BIN)/python -m pytest -m "slow and not long"

test-long: $(READY) ## those that take longest: trainings, a lease that runs out
	@$(BIN)/python -m pytest -m long

POINTS ?= 200
SEED ?= 1
chaos: $(READY) ## kill and spoil everything, POINTS=200 times, and see that nothing is lost or doubled: hours
	@$(BIN)/python tests/chaos $(POINTS) --seed $(SEED)

lint: $(READY) ## ruff and strict mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

demo-space: $(READY) ## train the space that ships with the repository anew: encoders/spaces/demo
	@$(BIN)/python -m jobs.make_demo_space --out encoders/spaces/demo

lock: $(READY) ## resolve pyproject.toml into the lock; pins that still fit stay (delete their lines to move them)
	@$(UV_COMPILE) --extra dev pyproject.toml --output-file requirements.lock
	@echo 'uv==$(UV_VERSION)' | $(UV_COMPILE) - --output-file requirements-uv.lock

clean: ## remove what runs have left behind: demo/, caches, build folders (not .venv)
	@rm -rf demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# pip installs one pinned uv, uv installs the lock and compiles it, as every process of a job imports torch. Redone when a lock or pyproject.toml changes.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@found=; if ! $(BIN)/python -c '$(FITS)' 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(FITS)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'error: no Python 3.11, 3.12 or 3.13 with its venv module among: $(PYTHONS).' >&2; \
	    echo '       Install one (Debian: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.12' >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: $$("$$found" --version) -> $(VENV)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo 'setup: installing the lock (the first time: torch with its CUDA libraries, about 7.6 GB on disk)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-uv.lock
	@[ -t 2 ] || quiet=--quiet; \
	$(BIN)/uv pip sync $$quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
