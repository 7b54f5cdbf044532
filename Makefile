# make demo   train on real digits and look at the attributions         make test   the tests
# make demo-full   prune, teach, quantise and export it as well, in two minutes
# make lint   ruff, mypy, import directions                             make bench  the figures the README quotes
# make test-oldest, make test-newest   the tests on the lowest and on the newest versions of the other packages
# make docs   the documentation site, in docs/_build                    make figures  the pictures on its pages
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
VERSIONS ?= -c constraints.txt

.PHONY: demo demo-full test test-slow test-oldest test-newest lint docs figures bench clean

demo: $(VENV)/.demo
	@$(BIN)/lit-xai demo

demo-full: $(VENV)/.demo
	@$(BIN)/lit-xai demo --full

# A file's tests stay in one process: what they share is made once. In the order of conftest.py, the longest first.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test
	@$(PYTEST)

test-slow: $(VENV)/.test
	@$(PYTEST) -m slow

# Each in an environment of its own, with whatever build of torch pip finds: gigabytes where that is one for CUDA.
test-oldest:
	@$(MAKE) test VENV=.venv-oldest VERSIONS="-c constraints-oldest.txt"

test-newest:
	@$(MAKE) test VENV=.venv-newest VERSIONS="--upgrade --upgrade-strategy eager"

lint: $(VENV)/.lint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Built anew each time: a name that moves changes pages that do not. A warning is an error: dead references and links,
# pages that no menu leads to.
docs: $(VENV)/.docs
	@$(BIN)/python -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --quiet -b html docs docs/_build
	@echo "The site is in docs/_build: open docs/_build/index.html."

figures: $(VENV)/.docs
	@$(BIN)/python docs/figures.py $(if $(DATA),--data-dir $(DATA))

bench: $(VENV)/.test
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "lit_xai needs Python 3.11 or newer, but %s is %d.%d: name another with `make PYTHON=python3.12 ...`" % (sys.executable, v.major, v.minor))'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: SIZE = about 0.4 GB with a CPU build of torch, 3 GB or more where pip finds a CUDA build
$(VENV)/.test: SIZE = about 0.6 GB with a CPU build of torch, 3 GB or more where pip finds a CUDA build
$(VENV)/.lint: SIZE = under 50 MB beyond the library's own requirements
$(VENV)/.docs: SIZE = about 30 MB beyond the library's own requirements
$(VENV)/.demo: EXTRAS = [export]
$(VENV)/.test: EXTRAS = [test]
$(VENV)/.lint: EXTRAS = [export,study,lint]
$(VENV)/.docs: EXTRAS = [docs]

$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.docs: pyproject.toml constraints.txt constraints-oldest.txt | $(BIN)/python
	@echo "Setting up $(VENV): pip downloads what is not there yet, $(SIZE)."
	@echo "(Another package index: make PIP_ARGS='--index-url ...'. This takes a few minutes the first time.)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) $(VERSIONS) -e '.$(EXTRAS)'
	@touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest build dist docs/_build docs/reference
