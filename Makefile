# What developers and CI do, from an empty machine on: each command builds the environment that it needs.
PYTHON ?= python3
VENV ?= .venv
COVERAGE ?= on
# Further arguments of the benchmark, such as `--only rates`.
BENCH ?=
# Further arguments of the soak, such as `--messages 200000 --minutes 30 --seed 7`.
SOAK ?=
# Most tests wait for other processes, so more of them than there are cores can run at a time.
WORKERS ?= 4

RUN := $(VENV)/bin/python -P -m
PARALLEL := -q -n $(WORKERS) --dist worksteal
# What failed beside others, where it may have waited for a core for too long, decides alone.
ALONE := -q --last-failed --last-failed-no-failures none
READY := $(VENV)/.ready
DEMO := $(VENV)-demo
SOURCES := $(shell find posttroll -name '*.py') pyproject.toml

# Older versions of pip do not know dependency groups.
PIP := pip>=25.1

.PHONY: setup demo test test-fast check docs bench bench-quick soak clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --upgrade '$(PIP)'
	$(RUN) pip install --quiet --editable '.[examples]' --group dev
	touch $@

# In an environment of its own, with the package as users get it.
demo: $(DEMO)/.ready
	$(DEMO)/bin/python examples/demo.py

$(DEMO)/.ready: $(SOURCES)
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -P -m pip install --quiet '.[examples]'
	touch $@

test: $(READY)
ifeq ($(COVERAGE),on)
	$(RUN) coverage erase
	$(RUN) coverage run -m pytest $(PARALLEL) || $(RUN) coverage run -m pytest $(ALONE)
	$(RUN) coverage combine --quiet
	$(RUN) coverage report
else
	$(RUN) pytest $(PARALLEL) || $(RUN) pytest $(ALONE)
endif

test-fast: $(READY)
	$(RUN) pytest tests/unit $(PARALLEL)

check: $(READY)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy posttroll $(wildcard tests/typing)
	$(VENV)/bin/lint-imports
	$(RUN) codespell_lib

docs: $(READY)
	$(RUN) sphinx -W --keep-going -n -q -b html doc/source doc/build/html
	$(RUN) sphinx -W --keep-going -n -q -b doctest doc/source doc/build/doctest
	$(VENV)/bin/python doc/check_examples.py

bench: $(READY)
	$(VENV)/bin/python -m bench $(BENCH)

bench-quick: $(READY)
	$(VENV)/bin/python -m bench --quick $(BENCH)

soak: $(READY)
	$(VENV)/bin/python -m tests.soak $(SOAK)

clean:
	rm -rf .venv* build dist doc/build .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
