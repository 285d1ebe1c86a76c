# Everything here starts from a fresh clone with Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
CODE := dashboard gateway accounts manage.py
# Checks need settings, not a gateway: their secrets live beside the environment and are used for nothing else.
CHECK := env VAR_DIR=$(VENV)/check-var SECURE_COOKIES=1 DEBUG=0
# What is tested on PostgreSQL too: whatever writes in transactions, or asks in SQL of its own.
ON_POSTGRESQL := tests/gateway/ledger tests/gateway/test_partitioning.py tests/gateway/test_patience.py \
	tests/gateway/test_services.py tests/gateway/test_snapshot.py tests/gateway/test_queries.py \
	tests/gateway/test_reconcile.py tests/gateway/test_news.py tests/gateway/test_delivery.py \
	tests/accounts/services tests/accounts/test_services.py tests/accounts/test_queries.py \
	tests/accounts/test_audit.py tests/accounts/test_models.py tests/accounts/test_tokens.py \
	tests/accounts/test_turns.py tests/accounts/test_uses.py tests/accounts/test_reminders.py \
	tests/accounts/test_webhooks.py tests/dashboard/test_idempotency.py
# A package of which nothing is known fails, rather than pass for a safe one.
AUDIT := $(BIN)/pip-audit --strict --no-deps --disable-pip
# Two processes, which share no test file: much of a run is waiting.
SIDE_BY_SIDE := -n 2 --dist loadfile
SECONDS ?= 3600
# Where the samples of a soak go, for a plot.
SOAKED := var/soak
# Beside the other environment, whose packages it sees: what mutmut brings would change what the tests run.
MUTMUT := .venv-mutants/bin/mutmut
MESSAGE = Penstock needs Python 3.11 or newer, and $(PYTHON) is not: install it, or name one with make $(MAKECMDGOALS) PYTHON=/path/to/python3

.DEFAULT_GOAL := help
.PHONY: help run test check prove soak mutants audit bench bench-full peers screenshots messages fmt

help: ## Show what can be made
	@echo "Penstock. Make one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Run the gateway on http://localhost:8000 (HOST, PORT and VAR_DIR change that)
	@exec $(BIN)/python manage.py up

test: $(VENV)/.dev ## Run the tests
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not prove"
	PENSTOCK_TESTS_ON=postgresql $(BIN)/pytest $(SIDE_BY_SIDE) -m "not prove" $(ON_POSTGRESQL)

check: $(VENV)/.dev ## Check format, lint, types, import layers, migrations and deployment settings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(CHECK) $(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(CHECK) $(BIN)/python manage.py makemigrations --check --dry-run
	$(CHECK) $(BIN)/python manage.py check --deploy

prove: $(VENV)/.dev ## Run every test and the long proofs in full, and write docs/reliability.md
	$(BIN)/pytest -m "prove or not prove"
	PENSTOCK_TESTS_ON=postgresql $(BIN)/pytest -m prove $(ON_POSTGRESQL)

soak: $(VENV)/.dev ## Run mixed traffic with faults for an hour (SECONDS changes that), and say whether anything grows
	@mkdir -p $(SOAKED)
	SOAK_SECONDS=$(SECONDS) SOAK_FOLDER=$(SOAKED) $(BIN)/pytest -m prove -s tests/system/test_soak.py

mutants: $(MUTMUT) ## Change the code of money, breakers and keys in small ways, and say which changes no test notices
	PYTEST_PLUGINS=tests.rerun nice -n 19 $(MUTMUT) run --max-children 1
	@$(BIN)/python -m tests.mutants $(MUTMUT)

audit: $(VENV)/.dev ## Look for known vulnerabilities of what is locked (needs PyPI itself, or a mirror with its data)
	@echo 'django==3.2.0' > $(VENV)/known-bad.txt
	@$(AUDIT) -r $(VENV)/known-bad.txt 2>&1 | grep -q 'CVE-\|PYSEC-\|GHSA-' || { echo "Nothing was audited: no vulnerability is known even of Django 3.2.0, so there is no data." >&2; exit 1; }
	$(AUDIT) -r requirements/run.txt

peers: $(VENV)/.dev ## Install the peers that the benchmarks measure beside the gateway
	$(BIN)/python -m benchmarks.installing

bench: $(VENV)/.dev ## Measure what a call costs, in three minutes, and print it
	$(BIN)/python -m benchmarks.run

bench-full: $(VENV)/.dev ## Measure everything, in 25 minutes, and write docs/performance.md with its plots
	$(BIN)/python -m benchmarks.run --full

screenshots: $(VENV)/.dev ## Photograph every page in both themes, on a phone and on a desk, into var/screenshots
	@$(BIN)/python -m tests.pages.photograph

messages: $(VENV)/.dev ## Gather what people read for translators, and compile their work (needs gettext)
	@command -v msgfmt >/dev/null || { echo "Translations need gettext (Debian: gettext)." >&2; exit 1; }
	@mkdir -p locale
	@$(CHECK) $(BIN)/python manage.py makemessages --locale ja --domain django --extension html,txt,py --no-location --no-wrap --ignore .venv --ignore var --ignore tests
	@$(CHECK) $(BIN)/python manage.py makemessages --locale ja --domain djangojs --no-location --no-wrap --ignore .venv --ignore var --ignore tests
	@$(CHECK) $(BIN)/python manage.py compilemessages --locale ja --ignore .venv

fmt: $(VENV)/.dev ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(MESSAGE)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make an environment: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	@touch $@

$(VENV)/.run: requirements/run.txt | $(VENV)/.made
	@echo "Installing what requirements/run.txt names; the next start is quick." >&2
	@$(PIP) -r requirements/run.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(VENV)/.made
	@echo "Installing what requirements/dev.txt names; the next time is quick." >&2
	@$(PIP) -r requirements/dev.txt
	@touch $@ $(VENV)/.run

$(MUTMUT): requirements/mutants.txt $(VENV)/.dev
	@$(BIN)/python -m venv .venv-mutants
	@.venv-mutants/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/mutants.txt
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(.venv-mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	@touch $@
