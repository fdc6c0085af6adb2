# Every target sets up what it needs in .venv; Python 3.11 or newer is all that must be there before.
# `make demo` runs a scenario, `make test` checks everything, `make bench` measures the simulator's speed.

candidates := python3 python3.13 python3.12 python3.11 python
is_recent  := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(candidates),$(shell $(p) -c '$(is_recent)' >/dev/null 2>&1 && echo $(p))))

venv    := .venv
bin     := $(venv)/bin
pip     := $(bin)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
sources := pyproject.toml constraints.txt

# Where a run spends its time, for those who want it compiled.
compiled := build/compiled
hot      := policy/decode_set policy/live_request policy/kv/plain policy/scheduler/vllm_v1
hot      += world/engine world/journal world/leap

.PHONY: demo test lint format generated accuracy held-out bench compiled clean

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
	$(bin)/python docs/generate_links.py
	$(bin)/python docs/generate_power.py
	$(bin)/python docs/generate_calibrate.py
	$(bin)/python docs/generate_profile.py
	$(bin)/python docs/generate_engine_profile.py

# Simulated against the measured runs below $SIMLLM_MEASURED.
accuracy: $(venv)/.installed
	$(bin)/python docs/generate_accuracy.py

# The same for models that the engine's constants were not fitted on; fits them anew, which takes minutes.
held-out: $(venv)/.installed
	$(bin)/python docs/generate_held_out.py

# Compiles the hot modules, too, where there is a C compiler: its figures are the design `compiled`.
bench: $(venv)/.installed-dev
	if command -v cc >/dev/null; then \
		$(MAKE) compiled && $(bin)/python benchmarks/simulator.py --compiled $(compiled); \
	else \
		$(bin)/python benchmarks/simulator.py; \
	fi

# A copy of the package with its hot modules compiled by mypyc: the same results in about half the time. It needs a
# C compiler; PYTHONPATH=build/compiled in front of a command uses it. Built outside the checkout, which mypyc would
# take for a package of its own.
compiled: $(venv)/.installed-dev
	rm -rf $(compiled)
	mkdir -p $(dir $(compiled))
	work=$$(mktemp -d) && mkdir $$work/simllm && \
		cp -r *.py py.typed sim hwmodels kernels calibrate scenarios $$work/simllm && cd $$work && \
		{ $(abspath $(bin))/mypyc --config-file= --follow-imports=silent --ignore-missing-imports \
			$(hot:%=simllm/sim/%.py) >build.log || { cat build.log; exit 1; }; } && \
		rm -rf build && mv $$work $(abspath $(compiled))

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
