# Two commands: `make book` makes the book, `make test` checks everything. `make smoke`, `make bench`, `make screenshots`,
# `make sweep` and `make clean` are for those who work on it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := book
.PHONY: book test smoke bench screenshots sweep environment clean

PYTHON ?= python3.11
BIN := .venv/bin
SMOKE := build/smoke/pages/_build/html

book: environment
	$(BIN)/unitcell build --profile book

smoke: environment
	$(BIN)/unitcell build --profile smoke --strict

test: environment
	@echo "[test] lint"
	$(BIN)/ruff check support tests notebooks benchmarks
	$(BIN)/ruff format --check support tests notebooks benchmarks
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	@echo "[test] unit tests"
	# Each day's first import of ArviZ writes the day into a file, over which two processes stumble.
	$(BIN)/python -W ignore -c "import arviz"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --ignore=tests/test_artefacts.py --ignore=tests/test_pages.py
	@echo "[test] every chapter, in the smoke profile, and the pages with warnings as errors"
	$(BIN)/unitcell build --profile smoke --strict
	@echo "[test] artefacts, links and pages"
	$(BIN)/pytest tests/test_artefacts.py tests/test_pages.py

bench: environment
	for script in $(filter-out benchmarks/ablations.py benchmarks/member.py benchmarks/known_crystals.py,$(wildcard benchmarks/*.py)); do echo "[bench] $$script"; $(BIN)/python "$$script"; done

screenshots: environment
	$(BIN)/python tests/screenshots.py $(SMOKE) build/screenshots

# Sixteen minutes on two cores: chapters 06 to 08 over windows, representations, seeds and classes, for chapter 09.
sweep: environment
	OMP_NUM_THREADS=1 $(BIN)/unitcell sweep --jobs 2 --out support/unitcell/reference/two_crystals.nc

# One pip call for everything, repeated only when the lock differs from the copy of what was installed.
environment:
	@if ! cmp -s requirements.lock .venv/installed.lock; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null || { echo "Python 3.11 is needed, and '$(PYTHON)' is not it: install it, or say where it is with 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }; \
	  echo "[environment] .venv, with everything in requirements.lock (some minutes, once)"; \
	  $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock; \
	  $(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --quiet -e .; \
	  cp requirements.lock .venv/installed.lock; \
	fi

clean:
	rm -rf build book/_build .snakemake
