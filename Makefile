# Everything a newcomer needs: `make reproduce` and `make test`; `make help` lists the rest.
PYTHON  ?= python3
PROFILE ?= mini
TABLES  ?=
BIN     := .venv/bin
TORCH   := torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help setup test test-all mutants check reproduce tables-check bench audit clean lock

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup: .venv/.done  ## Make .venv with locked versions of everything

# torch comes first and without a hash: a GPU owner gets the CUDA build, a CPU machine what its index serves.
.venv/.done: pyproject.toml .requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement .requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

test: setup  ## Fast tests, no network (under 3 minutes)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: setup  ## All tests; those on real data need OTFKD_DATA
	$(BIN)/python -m pytest -m '' -n auto --dist worksteal

mutants: setup  ## Whether the fast tests notice one-line faults: MUTANTS="--rooms distill --sample 50", or --known
	$(BIN)/python -m experiments.mutants $(MUTANTS)

check: setup  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

reproduce: setup  ## Make tables and report.html: PROFILE=mini, TABLES=those published or main,interval,cost
	$(BIN)/otfkd-reproduce --profile $(PROFILE) $(if $(TABLES),--tables $(TABLES))

tables-check: setup  ## Whether every built table is what its published rows give
	$(BIN)/otfkd-reproduce --check

bench: setup  ## Measure this machine: steps, scoring, start, memory; real sentences if OTFKD_DATA is set
	$(BIN)/python -m experiments.benchmarks

# The extra mteb stays out, for its hundreds of megabytes: its tests skip where it is not installed.
lock: .venv/.done  ## Renew .requirements.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	echo "torch; python_version < '0'" > .venv/no-torch.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra dev --extra mini --extra onnx --extra tensorboard --extra mlflow --extra dashboard --extra joblib \
		--extra optuna --extra slurm \
		--override .venv/no-torch.txt --output-file .requirements.lock pyproject.toml

# Strict: a version that nobody could say anything of is no good news. The tool lives apart from what it looks at.
audit: .venv/.done  ## Whether a locked version has a known vulnerability (asks the network)
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement .requirements.lock
	echo $(TORCH) > .venv/torch.txt
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement .venv/torch.txt

clean:  ## Remove the environment and caches, never runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache dist build *.egg-info
