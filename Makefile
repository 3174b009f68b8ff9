# make demo: halve a detector and look at the report. make test: the tests; make test-fast: all but the slow ones.
# make docs: the documentation, in docs/_build/html.
# They set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder # in the order of tests/conftest.py
READY := $(VENV)/.ready
LOWEST := .venv-lowest

.PHONY: setup demo demo-lanes demo-classification test test-fast coverage test-lowest lint typecheck docs bench pins clean

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "detprune needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.txt)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/detprune run configs/yolo/shapes_yolov8n_channels.yaml --overwrite

demo-lanes: $(READY)
	$(BIN)/detprune run configs/lanes/drawn_roads_channels.yaml --overwrite

demo-classification: $(READY)
	$(BIN)/detprune run configs/classification/digits_resnet20.yaml --overwrite

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS)

test-fast: $(READY)
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# what runs in processes of its own is not counted
coverage: $(READY)
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term

# with the oldest versions that pyproject.toml allows
test-lowest: $(READY)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	$(LOWEST)/bin/python -m pytest $(WORKERS) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

typecheck: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(READY)
	$(BIN)/python tools/benchmark.py
	$(BIN)/python tools/benchmark_detector.py

pins: $(READY)
	printf '%s\n' '# Pinned versions that the tests run with. Renewed by `make pins`.' > requirements.new
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --extra dev pyproject.toml tools/pins.in >> requirements.new
	grep -v '^detprune' requirements.new > requirements.txt && rm requirements.new

clean:
	rm -rf $(VENV) $(LOWEST) docs/_build runs .pytest_cache .mypy_cache .ruff_cache
