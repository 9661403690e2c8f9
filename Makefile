# Two commands on a fresh machine: `make demo` (needs Python and pip alone) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEXT := .venv-next
IN_TEST := not three_brokers and not languages and not clickhouse and not collector and not frameworks
CORE_SUITES := $(addprefix tests/integration/test_,worker_crashes.py hostile_records.py slow_broker.py little_cpu.py $(addsuffix .py,\
	$(addprefix kafka_,worker_crashes zombie rebalance recovery broker_restart many_partitions)))
# Bytecode is kept, although images of containers often forbid it: else each process of a run compiles every module.
unexport PYTHONDONTWRITEBYTECODE
QUICK := tests/unit tests/contracts $(filter-out tests/test_docs.py,$(wildcard tests/test_*.py))

.PHONY: demo test quick test-cores test-native test-next-aiokafka test-frameworks test-three-brokers test-languages test-clickhouse test-collector lint docs native fuzz bench bench-collector kafka lock clean

demo: $(VENV)/.demo            ## the whole pipeline on real agents, in separate processes
	$(BIN)/prela-stream demo

test: $(VENV)/.dev $(VENV)/.native chromium lint        ## every check: lint, types, layers, tests, coverage; with Java and Maven on a real Kafka
	-@$(BIN)/python -m deploy.kafka --prepare
	$(if $(filter true,$(CI)),$(MAKE) test-native)
	$(BIN)/python -m pytest -q -n 2 --dist load -m browser tests/integration/browser
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m "not browser and $(IN_TEST)" --cov --cov-report=term:skip-covered

.PHONY: screenshots
screenshots: $(VENV)/.dev chromium   ## the pictures of the README, from the demo's traces
	$(BIN)/python -m tools.screenshots

.PHONY: chromium
chromium:                      ## Debian's Chromium, for the tests of the web page; installed if this is root's Debian
	@if command -v chromium >/dev/null || ! command -v apt-get >/dev/null; then true; \
	elif [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else echo "Chromium is missing: the tests of the web page are skipped. Install it: sudo apt-get install chromium"; fi

quick: $(VENV)/.dev            ## unit tests, and contract tests on memory and SQLite: within 90 s on two cores
	$(BIN)/python -m pytest -q -n 4 --dist worksteal --hypothesis-profile=quick -m "not slow and not kafka and $(IN_TEST)" $(QUICK)

test-next-aiokafka: $(NEXT)/.dev   ## the private names and the transport contract with the newest aiokafka within the bounds, pre-releases too
	-@$(NEXT)/bin/python -m deploy.kafka --prepare
	$(NEXT)/bin/python -m pytest -q -n 3 --dist worksteal -m "$(IN_TEST)" tests/unit/transport/kafka/test_private_names.py \
		tests/unit/transport/kafka/test_tags.py tests/contracts/test_transport_kafka.py

test-collector: $(VENV)/.dev       ## OTLP to and from a real Collector, with 20 SIGKILLs; needs Go, builds the Collector once
	$(BIN)/python -m pytest -q -m collector tests/integration/test_collector.py

test-languages: $(VENV)/.dev       ## the counting processors of docs/opentelemetry.md with the SDKs of JavaScript, Go and Java
	$(BIN)/python -m pytest -q -m languages

test-frameworks: $(VENV)/.dev      ## agents of every framework below every instrumentor; installs them in venvs with uv
	$(BIN)/python -m pytest -q -n 0 -m frameworks tests/frameworks
	$(BIN)/python -m tools.reference

test-clickhouse: $(VENV)/.dev      ## the sink and reader contracts on ClickHouse, in the process (chdb, 800 MB) or on PRELA_TEST_CLICKHOUSE
	@[ -n "$$PRELA_TEST_CLICKHOUSE" ] || $(BIN)/python -m pip install -q --disable-pip-version-check "chdb>=3.0"
	$(BIN)/python -m pytest -q -m clickhouse tests/contracts/test_clickhouse.py

test-cores: $(VENV)/.dev $(VENV)/.native   ## crashes, zombies, rebalances, late and hostile brokers, little CPU, with worker processes on each core
	-@$(BIN)/python -m deploy.kafka --prepare
	TEST_CORES=all SLOW_BROKER_FULL=1 $(BIN)/python -m pytest -q -n 0 $(CORE_SUITES)

test-three-brokers: $(VENV)/.dev   ## the transport contract on a cluster of three
	$(BIN)/python -m pytest -q -m three_brokers

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

native: $(VENV)/.native        ## build the native core into the environment; needs cargo

test-native:                   ## the unit tests of the native core's parts; needs cargo and a shared libpython
	cd native && cargo test -q

fuzz: $(VENV)/.dev $(VENV)/.native   ## both cores on 20,000 logs, both decoders on 10,000,000 inputs; hours
	$(BIN)/python -m tests.support.core_comparison --logs 20000
	$(BIN)/python -m tests.support.decoder_comparison --inputs 10000000

docs: $(VENV)/.dev             ## write the reference pages (settings, API, command line) from the code
	$(BIN)/python -m tools.reference

bench: $(VENV)/.bench          ## every benchmark, beside its peers; prints JSON
	$(BIN)/python bench/run.py

bench-collector: $(VENV)/.bench $(VENV)/.native   ## the worker and the OpenTelemetry Collector in turns; needs Go, Java, Maven
	$(BIN)/python bench/collector.py

kafka:                         ## a Kafka at 127.0.0.1:9092 until Ctrl-C; needs Java 17 and Maven, no Docker
	$(PYTHON) -m deploy.kafka --port 9092

lock: $(VENV)/.dev             ## renew the pinned versions that development uses
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q --universal --no-annotate --no-header --all-extras --group test -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile -q --universal --no-annotate --no-header --all-extras --group test --group bench -o requirements-bench.lock pyproject.toml

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "installing into $(VENV): prela_stream from this folder, with its extra demo (the Anthropic client, rich, typer, starlette,"
	@echo "uvicorn, prometheus-client and what these need), in the versions of requirements.lock, from your package index"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock -e .
	@touch $@ $(VENV)/.demo

$(NEXT)/.dev: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock -e .
	$(NEXT)/bin/python -m pip install -q --disable-pip-version-check --pre --upgrade "$$(sed -n 's/^    "\(aiokafka[^"]*\)".*/\1/p' pyproject.toml)"
	@touch $@

$(VENV)/.native: $(wildcard native/src/*.rs) native/Cargo.toml native/Cargo.lock | $(VENV)/.dev
	@if command -v cargo >/dev/null; then (cd native && VIRTUAL_ENV=$(CURDIR)/$(VENV) ../$(BIN)/maturin develop --release -q); \
	elif [ "$(CI)" = true ]; then echo "cargo is missing: install Rust, the native core has to be built here"; exit 1; \
	else echo "cargo is missing: the native core is not built, and its tests are skipped"; fi
	@touch $@

$(VENV)/.bench: pyproject.toml requirements-bench.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-bench.lock -e .
	@touch $@

clean:
	rm -rf $(VENV) $(NEXT) .prela .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
