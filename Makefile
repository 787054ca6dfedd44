# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help demo test check faults bench lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# The environment is made anew when a lock file changes; hashes are checked, nothing is resolved on your machine.
$(VENV)/.run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("crm-sync needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 demo" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: on Debian and Ubuntu run  apt-get install python3-venv"; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) (once, about a minute) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock requirements-recordings.lock
	@echo "Installing the locked test tools into $(VENV) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements-recordings.lock
	@touch $@

demo: $(VENV)/.run ## the main job on the built-in sandbox, no account needed
	@$(BIN)/crm-sync demo

test: $(VENV)/.dev ## all tests, on SQLite and on PostgreSQL
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/.dev ## format, lint, types, imports, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

faults: $(VENV)/.dev ## kill the process at every named point, restart it, and compare with Apollo's ledger (about 20 minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/.dev ## the benchmark suite on the sandbox; prints ratios and writes bench/out/latest.json
	@$(BIN)/python -m bench $(ARGS)

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --upgrade -q -o requirements.lock
	uv pip compile --group web --universal --python-version 3.11 --generate-hashes --no-header --upgrade -q -c requirements.lock -o requirements-web.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header --upgrade -q -c requirements.lock -c requirements-web.lock -o requirements-dev.lock
	echo 'cumulusci==4.10.1' | uv pip compile - --no-deps --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements-recordings.lock

clean: ## remove what the targets above made
	rm -rf $(VENV) bench/out tests/faults/out *.egg-info
