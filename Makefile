# `make mnist` trains the example, `make test` runs the tests, `make docs` builds the documentation in
# build/docs; each sets up what it needs first.
# Settings: PYTHON (3.11 or newer), VENV (folder of the virtual environment), ARGS (passed on), as in
#   make mnist PYTHON=python3.13 ARGS="--epochs 3 --plot mnist.png"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
python := $(VENV)/bin/python

.PHONY: docs mnist test
mnist: $(VENV)/examples.installed
	$(python) examples/mnist.py $(ARGS)

test: $(VENV)/test,examples.installed
	OMP_NUM_THREADS=1 $(python) -m pytest -n auto $(ARGS)

docs: $(VENV)/docs.installed
	$(python) -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet \
		--doctree-dir build/doctrees $(ARGS) docs build/docs

# The extra for the NVIDIA GPUs that can be seen: CUDA 13 wants driver 580 and compute capability
# 7.5, CUDA 12 driver 525. Empty where there is no such GPU.
cuda_extra = $(shell nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader \
	2>/dev/null | awk -F ', *' '/^[0-9]+\./ { split($$1, driver, "."); old = old || $$2 + 0 < 7.5 } \
	END { if (driver[1] >= 580 && !old) print ",cuda13"; else if (driver[1] >= 525) print ",cuda12" }')

# One stamp per set of extras: what is installed already is not looked at again.
$(VENV)/%.installed: pyproject.toml | $(python)
	$(python) -m pip install --disable-pip-version-check --editable '.[$*$(cuda_extra)]'
	touch $@

$(python):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit($(too_old))'
	$(PYTHON) -m venv $(VENV)

too_old = "gpugrad needs Python 3.11 or newer, not " + sys.version.split()[0] + ": set PYTHON=..."
