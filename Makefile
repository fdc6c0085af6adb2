# Every target sets up what it needs in .venv; Python 3.11 or newer is all that must be there before.
# `make demo` runs a scenario, `make test` checks everything, `make bench` measures the simulator's speed.

candidates := python3 python3.13 python3.12 python3.11 python
is_recent  := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(candidates),$(shell $(p) -c '$(is_recent)' >/dev/null 2>&1 && echo $(p))))

venv    := .venv
bin     := $(venv)/bin
pip     := $(bin)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
sources := pyproject.toml constraints.txt setup.py

is_compiled := $(bin)/simllm --version | grep -q '(compiled)'

.PHONY: demo test lint format generated accuracy held-out traces reproductions bench compiled clean

demo: $(venv)/.installed
	$(bin)/simllm run 01-first-run

# What is compiled is tested in pure Python as well, where the two could differ: `pytest` alone takes what is there.
test: lint compiled
	$(bin)/pytest
	if $(is_compiled); then SIMLLM_PURE_PYTHON=1 $(bin)/pytest tests/policy tests/world; fi

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
	$(bin)/simllm schema study > scenarios/study.schema.json.new
	mv scenarios/study.schema.json.new scenarios/study.schema.json
	$(bin)/python docs/generate_reference.py
	$(bin)/python docs/generate_readme.py
	$(bin)/python docs/generate_links.py
	$(bin)/python docs/generate_power.py
	$(bin)/python docs/generate_kv_tiers.py
	$(bin)/python docs/generate_store_loss.py
	$(bin)/python docs/generate_calibrate.py
	$(bin)/python docs/generate_profile.py
	$(bin)/python docs/generate_engine_profile.py
	$(bin)/python docs/generate_kv_memory.py
	$(bin)/python docs/generate_kernels.py

# Simulated against the measured runs below $SIMLLM_MEASURED.
accuracy: $(venv)/.installed
	$(bin)/python docs/generate_accuracy.py

# The same for models that the engine's constants were not fitted on; fits them anew, which takes minutes.
held-out: $(venv)/.installed
	$(bin)/python docs/generate_held_out.py

# What the pages say of the public traces below $SIMLLM_TRACES: the fit of ServeGen's reasoning clients, hit rates.
traces: $(venv)/.installed
	$(bin)/python docs/generate_servegen.py
	$(bin)/python docs/generate_kv_cache.py

# What others have published, simulated: docs/reproductions.yaml and the page beside it.
reproductions: $(venv)/.installed
	$(bin)/python benchmarks/reproduce.py

bench: compiled
	$(bin)/python benchmarks/simulator.py

# Installing compiles the hot modules where there is a C compiler; this does it again once a source of them has changed,
# for until then they run in Python. Fails if they do not compile.
compiled: $(venv)/.installed-dev
	$(is_compiled) || $(bin)/python setup.py --quiet build_ext --inplace
	$(bin)/simllm --version

clean:
	rm -rf $(venv) build compiled dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

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
