# make setup        environment: what a user needs
# make quickstart   environment, data, plan, training, samples, plots
# make test         environment, the developers' tools and the whole test suite
# make check        lint, types and tests: what CI runs
# make audit        known vulnerabilities of the installed packages, where a network serves
# make lowest       a selection of the tests with the lowest versions that pyproject.toml promises: 3 GB, 20 minutes
# make soak         every fault of docs/explanation/reliability.md, and its table: 35 minutes; make soak-hour: its hour of preemption
# make docs         the documentation as a site, offline: open site/index.html
# make bench        speed and memory beside other libraries; puts the tables into docs/speed.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready_dev
READY_DOCS := $(VENV)/.ready_docs

.PHONY: setup quickstart test lint types check audit lowest tensorboard docs bench soak soak-hour

setup: $(READY)

quickstart: $(READY)
	$(BIN)/python prepare.py
	$(BIN)/python plan.py experiment=quickstart plan.device=cpu
	$(BIN)/python train.py experiment=quickstart
	$(BIN)/python report.py

# the tests of one file stay together: they share what its fixtures have trained; the longest files begin (tests/conftest.py)
test: $(READY_DEV)
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY_DEV)
	$(BIN)/mypy

check: lint types test

audit: $(READY_DEV)
	$(BIN)/python .ci/audit.py

# PYTHON should be the lowest that pyproject.toml promises, too
lowest:
	$(PYTHON) .ci/lowest_versions.py

# what ran, with the commit, is written into docs/explanation/reliability.md: leave the checkout alone meanwhile
soak: $(READY_DEV)
	GPT_LIGHTNING_SOAK=all $(BIN)/python -m pytest $$($(BIN)/python -m tests.faults.reliability_table)

soak-hour: $(READY_DEV)
	GPT_LIGHTNING_SOAK=hour $(BIN)/python -m pytest tests/faults/test_preemption.py

# by default TensorBoard draws 1,000 points of a curve at random, and 10 texts
tensorboard: $(READY)
	$(BIN)/tensorboard --logdir runs --samples_per_plugin scalars=1000000,text=100000

# a warning is an error: a link to a page or a heading that is not there, for example
docs: $(READY_DOCS)
	$(BIN)/python -m documentation

# litgpt without its dependencies: it asks for a huggingface-hub older than transformers', and its model needs none;
# litdata and mosaicml-streaming with those alone that they import: their others ask for an urllib3, a numpy and a
# transformers older than ours
bench: $(READY_DEV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps 'litgpt==0.5.13' 'litdata==0.2.76' \
		boto3 botocore s3transfer jmespath 'mosaicml-streaming==0.13.0' brotli catalogue cramjam python-snappy zstd
	$(BIN)/python prepare.py source=stdlib tokenizer=bpe_4096
	$(BIN)/python prepare.py source=stdlib tokenizer=gpt2
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.write_docs_tables

# torch first and exactly, so that pip takes the build for this machine; then the rest at the versions that are tested
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpt-lightning needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable .
	touch $(READY)

$(READY_DEV): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY_DEV)

$(READY_DOCS): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $(READY_DOCS)
