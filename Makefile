PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# mlflow run --env-manager local finds `python` on PATH.
export PATH := $(BIN):$(PATH)
export MLFLOW_EXPERIMENT_NAME ?= fr-ps

.PHONY: setup train test test-slow coverage check docs docs-check bench bench-long clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

train: setup
	$(BIN)/mlflow run . -e train --env-manager local
	@$(BIN)/python -c 'from fr_ps.tracking.table_view import print_view_command; print_view_command("$(VENV)/bin/mlflow")'

# Two workers with one thread each: the tensors are too small for two threads. The hash seed is fixed because both workers must
# collect the tests in the same order.
PYTEST = OMP_NUM_THREADS=1 PYTHONHASHSEED=0 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not slow"

# Killed processes, real servers, PostgreSQL, mlflow run, whole searches; and every property test with 300 random examples.
test-slow: setup
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m "slow or hypothesis"

coverage: setup
	rm -f .coverage .coverage.*
	$(PYTEST) --cov --cov-report= -m "not slow"
	$(PYTEST) --cov --cov-append --cov-report=term -m slow

check: setup
	$(BIN)/ruff check fr_ps tests benchmarks docs
	$(BIN)/ruff format --check fr_ps tests benchmarks docs
	$(BIN)/mypy

docs: setup
	$(BIN)/python docs/generate_reference.py
	$(BIN)/mkdocs build --strict

# Runs the commands of the README and of the tutorials as they stand; about 15 minutes.
docs-check: setup
	$(BIN)/python docs/check_commands.py README.md docs/tutorial/built_in_faces.md docs/tutorial/your_captures.md

# Under 30 minutes on two idle cores. Writes benchmark_results/benchmarks.{json,md}, and logs both to MLflow.
bench: setup
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/run_all.py

bench-long: setup
	$(BIN)/python benchmarks/photometric.py --turns 20
	$(BIN)/python benchmarks/color_channels.py
	$(BIN)/python benchmarks/train_throughput.py --turns 20
	$(BIN)/python benchmarks/train_processes.py --turns 20
	$(BIN)/python benchmarks/data_loader.py --turns 20
	$(BIN)/python benchmarks/lightning_loop.py --turns 20
	$(BIN)/python benchmarks/growth.py --sessions 1000 10000 100000 1000000
	$(BIN)/python benchmarks/profile_time.py
	$(BIN)/python benchmarks/weighting_cost.py --turns 20
	$(BIN)/python benchmarks/tracking_cost.py --turns 20
	$(BIN)/python benchmarks/checkpoint_cost.py --epochs 20
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/fusion.py
	$(BIN)/python benchmarks/verification.py --large
	$(BIN)/python benchmarks/interval_coverage.py
	$(BIN)/python benchmarks/disentanglement.py
	$(BIN)/python benchmarks/search_overhead.py
	$(BIN)/python benchmarks/serving.py --turns 20 --requests 400

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
