# The two commands are `make demo` and `make test`; both do all their own set-up.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := runs/demo
# Two files of tests at a time: much of a test is waiting for kernels and processes.
LANES := --numprocesses 2 --dist loadfile --no-loadscope-reorder
STAGES := 01_assemble_data 02_align_modalities 03_drpo_train 04_reward_curves 05_domain_analysis

export TOKENIZERS_PARALLELISM := false
# Threads that wait asleep: two spinning threads on a busy machine are slower than one.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo cards test test-slow test-lab lint clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv from requirements/cpu.txt; a second run reuses it

# The stamp comes last: an interrupted installation has none and begins again from nothing.
$(STAMP): requirements/cpu.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed: install one and run 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }
	@test -f $(STAMP) || "$(PYTHON)" -m venv --clear .venv
	@rm -f $(STAMP)
	@echo "Installing into .venv (a few minutes the first time)."
	$(BIN)/python -m pip install --quiet --progress-bar off -r requirements/cpu.txt
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps -e .
	@touch $(STAMP)

demo: export HF_HUB_OFFLINE := 1
demo: export QOQ_RUNS := runs
demo: setup  ## run notebooks 01 to 05 at tiny size into runs/demo (nothing is downloaded)
	@mkdir -p $(DEMO)
	@for stage in $(STAGES); do \
	  echo "== $$stage"; \
	  $(BIN)/python -m papermill notebooks/$$stage.ipynb $(DEMO)/$$stage.ipynb -k python3 \
	    -p model_size tiny -p run_id demo --no-progress-bar --log-output \
	    || { echo "make demo stopped: $$stage failed; see $(DEMO)/$$stage.ipynb." >&2; exit 1; }; \
	  $(BIN)/python -c 'import sys; from qoq_lib.runs import read_result; read_result(sys.argv[1])' \
	    $(DEMO)/$$stage.ipynb || exit 1; \
	done
	@echo "Done: the executed notebooks, figures and run.json are in $(DEMO)/."

cards: setup  ## check the data cards and render data_cards/README.md
	$(BIN)/python -m qoq_lib.data.cards

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## everything that CI runs
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m "not slow and not lab" $(LANES)

test-slow: lint  ## all tests, those that take minutes included
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m "not lab" $(LANES)

test-lab: setup  ## run the analysis notebooks in JupyterLab in a headless Chromium, both themes
	$(BIN)/python -m pip install --quiet --constraint requirements/cpu.txt --editable '.[lab]'
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m lab tests/test_lab.py

clean:  ## remove the environment and caches; runs/ and data/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
