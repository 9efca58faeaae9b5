# Everything runs in .venv; `make setup` updates it when pyproject.toml or constraints.txt has changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs

# with bytecode, every process of the tests and the demo starts seconds sooner
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup test lint suite demo docs clean

setup: $(STAMP)

# uv takes seconds, pip takes minutes; pip is the fallback
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer required, for example: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
		$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev,diffusion,ray,slurm]'; \
	else false; fi || $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,diffusion,ray,slurm]'
	touch $(STAMP)

# types take one core for a minute, which the tests' two processes leave free now and then
test: setup
	$(MAKE) --jobs=2 --no-print-directory lint suite

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# a file's tests stay in one process, in the order that tests/conftest.py gives
suite: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

demo: setup
	$(BIN)/palimpsest study study=demo

# the site in site/; a broken link fails it
docs: $(DOCS_STAMP)
	$(BIN)/python -m mkdocs build --strict

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $(DOCS_STAMP)

# removes everything that can be regenerated; keeps runs/
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
