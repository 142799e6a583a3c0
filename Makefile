# make quickstart   environment, data, training, samples, plots
# make test         environment and the whole test suite
# make check        lint, types and tests: what CI runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup quickstart test lint types check tensorboard

setup: $(READY)

quickstart: $(READY)
	$(BIN)/python prepare.py
	$(BIN)/python train.py experiment=quickstart
	$(BIN)/python report.py

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

tensorboard: $(READY)
	$(BIN)/tensorboard --logdir runs

# torch first and exactly, so that pip takes the build for this machine; then the rest at the versions that are tested
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpt-lightning needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
