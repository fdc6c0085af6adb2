# Every target sets up what it needs in .venv; Python 3.11 or newer is all that must be there before.
# `make demo` runs a scenario, `make test` checks everything, `make bench` measures the simulator's speed.

candidates := python3 python3.13 python3.12 python3.11 python
is_recent  := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(candidates),$(shell $(p) -c '$(is_recent)' >/dev/null 2>&1 && echo $(p))))

venv    := .venv
bin     := $(venv)/bin
pip     := $(bin)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
sources := pyproject.toml constraints.txt

.PHONY: demo test lint format generated accuracy bench clean

demo: $(venv)/.installed
	$(bin)/simllm run 01-first-run

test: lint
	$(bin)/pytest

lint: $(venv)/.installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format: $(venv)/.installed-dev
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

# Files that are derived from the code; tests fail when they are not current.
generated: $(venv)/.installed
	$(bin)/simllm schema > scenarios/scenario.schema.json.new
	mv scenarios/scenario.schema.json.new scenarios/scenario.schema.json
	$(bin)/python docs/generate_reference.py
	$(bin)/python docs/generate_readme.py

# Simulated against the measured runs below $SIMLLM_MEASURED.
accuracy: $(venv)/.installed
	$(bin)/python docs/generate_accuracy.py

bench: $(venv)/.installed
	$(bin)/python benchmarks/simulator.py

clean:
	rm -rf $(venv) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(bin)/python:
	@test -n "$(PYTHON)" || { echo "simllm needs Python 3.11 or newer; name one: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(venv)

$(venv)/.installed: $(bin)/python $(sources)
	$(pip) --editable .
	touch $@

# The type checker knows a package by its folder's name, and a checkout may be called anything.
$(venv)/.installed-dev: $(bin)/python $(sources)
	$(pip) --editable '.[dev,gpu]'
	mkdir -p $(venv)/typing && ln -sfn ../.. $(venv)/typing/simllm
	touch $(venv)/.installed $@
