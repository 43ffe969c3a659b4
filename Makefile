# `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
START := $(shell date +%s)
TOOK = @echo "make $@: $$(( $$(date +%s) - $(START) )) s"
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo check test test-all lint proto release-contract clients bench mutants serve clean

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: .venv/run.stamp ## from nothing to a finished solve, with the service killed in the middle
	@$(BIN)/edbjobs demo

check: lint ## lint, types and unit tests; under 90 s
	$(BIN)/pytest -q -n $(WORKERS) -m unit
	$(TOOK)

test: lint tests/buf/node_modules/.stamp tests/socketio-js/node_modules/.stamp ## lint and all tests that need no system packages
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m 'not system'
	$(TOOK)

test-all: test ## make test, then the tests that need system packages: SLURM, browsers, nginx, C++, C#
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m system
	$(TOOK)

lint: .venv/dev.stamp ## ruff, mypy --strict, the layers of imports, and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/check_words.py

proto: .venv/dev.stamp tests/buf/node_modules/.stamp ## generate the Python stubs, docs/api.md and the image for the TypeScript client
	$(BIN)/python scripts/regenerate.py client/python
	$(BIN)/python scripts/apidoc.py docs/api.md
	tests/buf/node_modules/.bin/buf build protos -o protos/edbjobs.binpb

release-contract: tests/buf/node_modules/.stamp ## at a release only: from now on no change may break the contract as it is
	tests/buf/node_modules/.bin/buf build protos -o tests/buf/released.binpb

clients: .venv/dev.stamp ## build the C++, C# and TypeScript clients in build/clients; missing tools are named
	cd tests && ../$(BIN)/python -m interop.build ../build/clients

bench: .venv/dev.stamp ## measure; prints each figure beside its floor
	cd tests && ../$(BIN)/python -m bench

mutants: .venv/dev.stamp ## nightly: faults in the core that no test finds, by mutmut; MUTANTS='edbjobs_server.core.queue*' tries one module
	@$(BIN)/python -m pip install -qq --group mutants
	rm -rf build/mutants && mkdir -p build/mutants/edbjobs_server
	cp -r server/edbjobs_server/core server/edbjobs_server/__init__.py build/mutants/edbjobs_server
	cp -r tests pyproject.toml build/mutants
	cd build/mutants && ../../$(BIN)/mutmut run $(MUTANTS) && ../../$(BIN)/mutmut results

serve: .venv/run.stamp ## run the service with the demo solver, in the foreground
	$(BIN)/edbjobs serve --demo-solver

clean: ## remove everything that was made here
	rm -rf .venv tests/buf/node_modules tests/socketio-js/node_modules dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@echo 'Making .venv with what edbjobs needs; this takes a minute.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade pip

.venv/run.stamp: pyproject.toml | .venv/bin/python
	@$(BIN)/python -m pip install -qq --editable '.[server,cli]'
	@touch $@

.venv/dev.stamp: pyproject.toml server/compat/pyproject.toml | .venv/bin/python
	@$(BIN)/python -m pip install -qq --editable '.[server,cli]' --editable server/compat --group dev
	@touch $@ .venv/run.stamp

# Without npm the contract's checks are skipped by name (and are an error in CI).
tests/buf/node_modules/.stamp: tests/buf/package.json
	@if command -v npm >/dev/null; then cd tests/buf && npm install --silent && touch node_modules/.stamp; \
	else echo "npm is missing: buf's checks of the contract will be skipped"; fi

tests/socketio-js/node_modules/.stamp: tests/socketio-js/package-lock.json
	@if command -v npm >/dev/null; then cd tests/socketio-js && npm ci --silent && touch node_modules/.stamp; \
	else echo "npm is missing: the tests with the Socket.IO client of npm will be skipped"; fi
