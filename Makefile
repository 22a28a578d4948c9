# Two commands do everything on a machine with Python and make: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install lock check test test-core test-bus test-slow demo clean schemas

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@echo "installing into $(VENV) (about a minute)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# One lock for Python 3.11 to 3.13, with hashes; markers choose per interpreter.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --all-extras --group dev \
	  --no-emit-index-url --quiet --custom-compile-command 'make lock' pyproject.toml -o requirements.lock

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_frame.py

# Two processes at once, one a core; apart also because the Kafka client's threads draw from the global random, which
# property tests must not see. What each printed comes whole, when it has ended; a failure of one ends both with an error.
test: check
	$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-core test-bus

test-core: install
	$(BIN)/python -m pytest -q -m "not slow" tests/unit tests/property tests/simulation

test-bus: install
	$(BIN)/python -m pytest -q -m "not slow" tests/integration tests/e2e

test-slow: install
	$(BIN)/python -m pytest -q -m slow

demo: install
	$(BIN)/regate demo $(if $(DATA),--data $(DATA)) $(if $(SPEED),--speed $(SPEED))

schemas: install
	$(BIN)/python -m regate.daemon.wire.schemas schemas

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
