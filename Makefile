# Everything runs from .venv, which the targets build and reuse.
PYTHON ?= python3
PY := .venv/bin/python
DATA ?= ./var
PORT ?= 8000
export DATA PORT

.PHONY: setup demo up test pages screenshots faults test-quick conformance fleets vendors check bench bench-million apt clean

setup: .venv/.site

.venv/.site: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Holdfast needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "$(PYTHON) cannot make a venv; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing (the embedded ClickHouse is large; this takes a minute once)"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[site]'
	@touch $@

.venv/.dev: .venv/.site
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[site,fleets,dev]'
	@touch $@

# Debian's bubblewrap (provider local) and Chromium (browser tests), where we may.
apt:
	@.ci/apt

demo: .venv/.site
	@$(PY) manage.py demo $(if $(EXIT),--exit)

up: .venv/.site
	@$(PY) manage.py up

# In the order of the files: Runs, which mostly wait, are not left to the end.
test: .venv/.dev apt
	@$(PY) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

# Every fault in every phase it can strike; writes docs/reliability.md. Half an hour.
faults: .venv/.dev
	@$(PY) -m tests.faults

# Every page in all four combinations of width and colours, and 1,000 Shards.
pages: .venv/.dev apt
	@ALL_PAGES=1 $(PY) -m pytest -q tests/browser/test_pages.py

# The main pages, as docs/pages.md shows them.
screenshots: .venv/.dev apt
	@$(PY) -m pytest -q tests/browser/shots.py

# All but the Runs, real sandboxes and the browser.
test-quick: .venv/.dev
	@$(PY) -m pytest -q -m 'not e2e and not browser and not sandboxes'

# The harness against known truth: some 20 minutes. SEEDS=n, LARGE=n for fewer.
SEEDS ?= 20
LARGE ?= 3
conformance: .venv/.dev
	@$(PY) -m pytest -q -m conformance
	@SHARD_EXAMPLES=3000 $(PY) -m pytest -q --timeout=0 tests/shardagent/test_shard_life.py
	@JUDGEMENT_EXAMPLES=500 $(PY) -m pytest -q --timeout=0 tests/runs/clickhouse/test_judgement.py
	@$(PY) manage.py certify --first 1 --seeds $(SEEDS) --sandboxes 1000
	@$(PY) manage.py certify --first 1 --seeds $(LARGE) --sandboxes 10000

# Machines in network namespaces and stand-ins of engines; a quarter of an hour, as root.
fleets: .venv/.dev apt
	@$(PY) -m pytest -q -m fleets

.venv/.vendors: .venv/.dev constraints-vendors.txt
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt \
	  -c constraints-vendors.txt -e '.[site,dev,vendors]'
	@touch $@

# The vendors' real SDKs and ours against the stand-ins, then whole Runs of 300
# sandboxes at each. Installs the vendors' packages; some ten minutes.
vendors: .venv/.vendors
	@$(PY) -m pytest -q -m vendors tests/vendors

# Every figure beside its aim; QUICK=1 takes some two minutes. Writes bench/latest.json.
# RECORD=1 also writes runs/overhead.json (idle machine, with the vendors' packages).
bench: .venv/.dev
	@$(PY) -m bench

# A Run of a million simulated sandboxes, queries and pages of such: some 36 minutes.
bench-million: .venv/.dev
	@$(PY) -m bench million

check: .venv/.dev
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) manage.py makemigrations --check --dry-run

clean:
	rm -rf .venv build dist *.egg-info
