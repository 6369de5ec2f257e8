# `make` lists the targets. `make run` and `make test` need nothing but Python 3.11 to 3.13, git and make.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-all lint check docs security release-check bench bench-skill bench-volatility bench-store bench-scale bench-dashboard setup setup-dev setup-peers lock lock-peers clean

# Refused in one line, here, before a recipe starts: a recipe that fails adds a line of make's own.
refusal = $(shell PYTHON='$(PYTHON)' .ci/find-python 2>&1 >/dev/null)
setup = $(if $(refusal),$(error $(refusal)))@PYTHON='$(PYTHON)' .ci/setup

# Two workers of one thread each for two cores. A file's tests share a worker: importing TensorFlow takes seconds.
pytest = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

# One resolution for every supported Python and platform; pins that still hold are kept.
compile = uv pip compile pyproject.toml --group build --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --quiet

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

run: setup ## set up and run the main job on bundled real prices, offline
	.venv/bin/forecaster run configs/quickstart.yaml

test: setup-dev ## set up and run the tests, but those marked slow
	$(pytest) -m "not slow"

test-all: setup-dev ## set up and run every test
	$(pytest)

lint: setup-dev ## check style, types and the direction of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy docs/examples/*.py
	.venv/bin/lint-imports

check: lint test-all ## check everything: run this before a commit

docs: setup-dev ## draw the pictures, write the reference, and build the pages of docs/ into workspace/docs
	.venv/bin/python docs/make_images.py
	.venv/bin/python docs/make_reference.py
	.venv/bin/zensical build

security: setup-dev ## look for what is unsafe in the code, and for known holes in the pins (asks a service)
	.venv/bin/bandit --quiet --recursive --severity-level medium forecaster pipelines dashboards
	.venv/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

release-check: setup-dev ## build the wheel, install it alone on each Python here, and run the quickstart with it
	.ci/release-check

bench: setup-dev setup-peers ## measure speed and memory beside the peers; arguments in ARGUMENTS, such as --quick
	.venv/bin/python tests/benchmarks/speed.py $(ARGUMENTS)

bench-skill: setup-dev ## hold all models against each other on 20 stocks, 2005 to 2022; arguments in ARGUMENTS
	.venv/bin/python tests/benchmarks/bench_skill.py $(ARGUMENTS)

bench-volatility: setup-dev ## hold models of the variance against HAR-log on two indices; arguments in ARGUMENTS
	.venv/bin/python tests/benchmarks/bench_volatility.py $(ARGUMENTS)

bench-store: setup-dev ## measure the price store with 75 million rows; arguments in ARGUMENTS, such as --rounds 3
	.venv/bin/python tests/benchmarks/bench_store.py $(ARGUMENTS)

bench-scale: setup-dev ## measure nights and scoring of up to 10,000 symbols; arguments in ARGUMENTS, such as --symbols 100 1000
	.venv/bin/python tests/benchmarks/bench_scale.py $(ARGUMENTS)

bench-dashboard: setup-dev ## measure how fast the pages of the dashboard answer with 1,000 symbols
	.venv/bin/python tests/benchmarks/bench_dashboard.py $(ARGUMENTS)

setup: ## make .venv with what the application needs
	$(setup) core

setup-dev: ## make .venv with what the tests and checks need as well
	$(setup) dev

setup-peers: ## make .venv-peers with the libraries that `make bench` measures beside ours
	@PYTHON='$(PYTHON)' .ci/setup-peers

lock: ## remake both lock files from pyproject.toml (needs uv; delete them first to take the newest versions)
	$(compile) --output-file requirements.lock
	$(compile) --extra dev --constraints requirements.lock --output-file requirements-dev.lock

lock-peers: ## remake the lock file of the peers from tests/benchmarks/peers.in (needs uv)
	uv pip compile tests/benchmarks/peers.in --universal --fork-strategy fewest --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --quiet --output-file requirements-peers.lock

clean: ## remove .venv, .venv-peers and the caches; workspace/ stays
	@if [ -e .venv ]; then rm -rf .venv-old && mv .venv .venv-old; fi
	rm -rf .venv-old .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find forecaster pipelines dashboards tests -name __pycache__ -type d -prune -exec rm -rf {} +
