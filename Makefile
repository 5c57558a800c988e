# Every verb sets up what it needs in .venv first, and quickly where that is done.
.DEFAULT_GOAL := help
.PHONY: help demo run test lint contract matrix lock bench

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
LESSON := bench/lesson
LESSON_READY := $(LESSON)/node_modules/.ready
PORT ?= 8000
RELEASES ?= trixie forky
# For every Python and machine that is supported, from the oldest on; a version that is locked stays.
LOCK := uv pip compile --quiet --system-certs --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock"
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)

help: ## list the verbs
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: $(READY) ## run the main job and check it; RABBITMQ_URL=… DATABASE_URL=… name real servers
	@folder=$$(mktemp -d); VAR_DIR=$$folder python manage.py demo; status=$$?; rm -rf $$folder; exit $$status

run: $(READY) ## start web, worker and beat together; Ctrl-C stops them all; PORT=8000
	@python manage.py run --port $(PORT)

test: $(READY) ## run all tests, on PostgreSQL and RabbitMQ and on the embedded default; COVERAGE=true
	@python -m tests.servers --forgetful tests/run

matrix: $(READY) ## run the tests on other versions, as root; ARGS="tests/acceptance -k …" RELEASES=trixie
	@RELEASES="$(RELEASES)" python -m tests.matrix $(ARGS)

lint: $(READY) ## check format, style, types, import contracts, migrations and the published contract
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	VAR_DIR=$$(mktemp -d) python manage.py makemigrations --check --dry-run
	VAR_DIR=$$(mktemp -d) python manage.py write_contract --check

contract: $(READY) ## write docs/contract/ and the tables of docs/events.md from the types
	@VAR_DIR=$$(mktemp -d) python manage.py write_contract

lock: $(READY) ## write requirements*.txt from requirements*.in; ARGS="--upgrade-package celery"
	$(LOCK) requirements.in -o requirements.txt $(ARGS)
	$(LOCK) requirements-dev.in -o requirements-dev.txt $(ARGS)
	$(LOCK) requirements-bench.in -o requirements-bench.txt $(ARGS)

bench: $(BENCH_READY) $(LESSON_READY) ## measure speed and CPU time against others; ARGS="--workload hot --contender platform"
	@export PATH=$(CURDIR)/$(BENCH_VENV)/bin:$$PATH; python -m tests.servers python -m bench $(ARGS)

$(READY): requirements-dev.txt
	@echo "Setting up $(VENV) …"
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(BENCH_READY): requirements-bench.txt
	@echo "Setting up $(BENCH_VENV) …"
	@test -x $(BENCH_VENV)/bin/python || python3 -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(LESSON_READY): $(LESSON)/package-lock.json
	@cd $(LESSON) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
