# make demo     two worker processes train a small CNN on the shipped digits and compare themselves with one device
# make test     all tests (ARGS="-m unit -k name" picks some; ARGS="-m nightly" are the long ones)
# make bench    whether all benchmarks run here; NAME=scaling measures one (ARGS="--rounds=3" are its options)
# make install  only .venv, with the package (editable) and the test tools
# make lint     ruff and mypy
#
# PYTHON=python3.12 picks the interpreter; without it the first of CANDIDATES that runs and is supported is taken.
.PHONY: help install demo test bench lint format clean

CANDIDATES := python3.12 python3.11 python3.13 python3.10 python3 python
SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $(p))))

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help:
	@sed -n 's/^# //p' Makefile | head -5

install: .venv/.tools

demo: .venv/.package
	$(BIN)/python examples/demo.py $(ARGS)

test: .venv/.tools
	$(BIN)/python -m pytest $(ARGS)

bench: .venv/.tools
	$(BIN)/python -m tfdist bench $(if $(NAME),$(NAME),all --quick) $(ARGS)

lint: .venv/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The stamps make a second call start at once; they are older than what they were made from after an edit of either.
.venv/.package: setup.py constraints.txt
	@if ! $(BIN)/python -c '$(SUPPORTED)' >/dev/null 2>&1; then \
	  if [ -z "$(PYTHON)" ]; then \
	    echo "make: expected Python 3.10-3.13 with venv on the PATH and found none;" \
	      "name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	  fi; \
	  if ! "$(PYTHON)" -c '$(SUPPORTED)'; then \
	    echo "make: expected Python 3.10-3.13 with venv. Received: PYTHON=$(PYTHON)" >&2; exit 1; \
	  fi; \
	  echo "making .venv with $(PYTHON)"; rm -rf .venv; "$(PYTHON)" -m venv .venv; \
	fi
	@echo "installing tfdist and what it needs into .venv"
	$(PIP) --editable .
	@touch $@

.venv/.tools: .venv/.package
	@echo "installing the test tools into .venv"
	$(PIP) --editable '.[test]'
	@touch $@
