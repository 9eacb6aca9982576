# make setup | train | test | test-faults | lint | bench       (each makes .venv first, where it is missing)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup train test test-faults lint bench

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,tensorboard,audio,detection]"
	touch $(READY)

train: $(READY)
	$(BIN)/python train.py $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-faults: $(READY)
	$(BIN)/python -m pytest -m faults $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/epoch_time.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/mixing.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/gates.py
