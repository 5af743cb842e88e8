# `make demo` shows LiteFlow, `make test` proves it. Each makes .venv and installs what it needs; neither needs root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench bench-quick clean

help:
	@echo 'make demo    run a real job, kill it half-way, watch it go on'
	@echo 'make test    install what the tests need, then all checks and all tests'
	@echo 'make check   the checks alone: ruff, mypy, pyright, import-linter'
	@echo 'make bench   measure LiteFlow, the database alone and the peers, a quarter of an hour; bench-quick: without the peers, one minute'
	@echo 'make clean   remove .venv and all caches'

demo: $(VENV)/.ready-to-run
	@$(BIN)/python examples/demo.py

# pytest comes last, so that its closing line is the last of a good run.
test: check
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

# Nothing else is to run meanwhile. Each peer is installed into an environment of its own, below benchmarks/.venvs.
bench: $(VENV)/.ready-to-run
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-quick: $(VENV)/.ready-to-run
	@$(BIN)/python benchmarks/bench.py --quick $(ARGS)

clean:
	rm -rf $(VENV) benchmarks/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

# A stamp file a purpose: a second `make` installs nothing until pyproject.toml changes.
$(VENV)/.ready-to-run: pyproject.toml | $(BIN)/pip
	@echo 'Installing LiteFlow into $(VENV) ...'
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.ready-to-test: pyproject.toml | $(BIN)/pip
	@echo 'Installing LiteFlow and what its tests need into $(VENV) ...'
	@$(INSTALL) --editable '.[test,dev]'
	@touch $(VENV)/.ready-to-run $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'There is no $(PYTHON) here. On Debian or Ubuntu: sudo apt install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "LiteFlow needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version)." >&2; \
		echo 'Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
