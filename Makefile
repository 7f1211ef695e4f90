# edgesnn: `make help` lists what there is.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.edgesnn-setup
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check lint types typetree warnings wheel bench bench-events size golden

help:
	@echo "make help      this list"
	@echo "make setup     .venv/ with everything; missing system packages too, as root on Debian/Ubuntu"
	@echo "make demo      train on real digits, compile for a Cortex-M4, run the firmware in the emulator"
	@echo "make test      the whole test suite"
	@echo "make check     what CI runs: test, then lint, types, warnings, wheel"
	@echo "  make lint      ruff: rules and format"
	@echo "  make types     mypy"
	@echo "  make typetree  build/typetree: the package as a type checker wants to see it"
	@echo "  make warnings  the C core with all warnings as errors, for this machine and for Arm"
	@echo "  make wheel     build the wheel and run the suite against it, outside this folder"
	@echo "make bench     import time, host inference, a table per emulated core (this project, the dense int8"
	@echo "               baseline, CMSIS-NN), neurons; MODELS=\"zoo:mnist-lenet\" IMAGES=1000 CORES=cortex-m4 LAYERS=1"
	@echo "make bench-events  instructions per synaptic operation, by layer, density and core; CORES=cortex-m4"
	@echo "make size      flash, RAM and stack of the golden firmware per core, functions that changed (ALL=1: all);"
	@echo "               BUNDLE=folder: of a bundle"
	@echo "make golden    write tests/golden/*.json (traces, sizes) again; read the diff"

setup: $(STAMP)

# torch first and pinned: whatever depends on it then takes this one.
$(STAMP): pyproject.toml scripts/setup-system.sh
	@sh scripts/setup-system.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "edgesnn needs Python 3.10 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet torch==2.13.0
	$(PY) -m pip install --quiet -e '.[all,dev]'
	@touch $@

demo: setup
	@$(PY) scripts/demo.py

test: setup
	$(VENV)/bin/pytest

check: test lint types warnings wheel

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

typetree:
	@rm -rf build/typetree && mkdir -p build/typetree/edgesnn
	@ln -s $(CURDIR)/edgesnn/* $(CURDIR)/compiler $(CURDIR)/runtime $(CURDIR)/targets build/typetree/edgesnn/

types: setup typetree
	$(VENV)/bin/mypy -p edgesnn

warnings: setup
	$(PY) scripts/c_warnings.py

# A stale build/lib would put removed files into the wheel. The second environment borrows the packages of
# the first by a path line, so that torch is not installed twice; its edgesnn is the wheel's.
wheel: setup
	rm -rf build/lib build/bdist.* build/wheel
	$(PY) -m build --wheel --no-isolation --outdir build/wheel . > build/wheel.log 2>&1 || \
	  { tail -20 build/wheel.log; exit 1; }
	$(PY) -m venv build/wheel/env
	build/wheel/env/bin/python -m pip install --quiet --no-deps build/wheel/*.whl
	$(PY) scripts/borrow_packages.py build/wheel/env
	mkdir build/wheel/outside && cd build/wheel/outside && \
	  EDGESNN_TEST_WHEEL=1 ../env/bin/python -m pytest -p no:cacheprovider $(CURDIR)/tests

bench: setup
	@$(PY) scripts/bench.py $(MODELS) $(if $(IMAGES),--images $(IMAGES)) $(if $(CORES),--cores $(CORES)) \
	  $(if $(LAYERS),--layers)
	@$(PY) scripts/bench_neurons.py --net

bench-events: setup
	@$(PY) scripts/bench_events.py $(CORES)

size: setup
	@$(PY) scripts/size.py $(BUNDLE) $(if $(ALL),--all)

golden: setup
	@$(PY) scripts/golden.py
