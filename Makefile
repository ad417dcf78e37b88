# Everything a newcomer types. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/default
PROFILE ?= cpu

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("fedward needs Python 3.11 or 3.12, this is %s.%s; set PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] < (3, 13) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,ray,deploy]'
	@touch $@

simulate: $(STAMP) ## ten hospitals train one model on made CT; report and model in runs/default
	$(BIN)/fedward simulate --out $(OUT) --fresh

test: $(STAMP) ## the whole suite
	$(BIN)/python -m pytest -n auto

check: $(STAMP) ## the whole gate: format, lint, types, imports, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto

fuzz: $(STAMP) ## a million mutated messages to both roles of secure aggregation, anew each time (nightly)
	FUZZ_MESSAGES=$${FUZZ_MESSAGES:-1000000} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest -n auto tests/attacks/test_fuzz.py

bench: $(STAMP) ## seconds and megabytes beside the limit and beside the peers
	$(BIN)/python -m simulations.benchmarks.engine

bundle: $(STAMP) ## all that an installation needs in one folder, and its list of components; PROFILE=cuda for a GPU
	PYTHON=$(BIN)/python deploy/locked/bundle.sh $(PROFILE) runs/bundle-$(PROFILE) $(BUNDLE_OPTIONS)
	PYTHON=$(BIN)/python runs/bundle-$(PROFILE)/install.sh $(CURDIR)/runs/installed-$(PROFILE)
	deploy/locked/sbom.sh runs/installed-$(PROFILE)/bin/python runs/bundle-$(PROFILE).cdx.json

sbom: $(STAMP) ## the list of components of this environment, in CycloneDX: runs/sbom.cdx.json
	@mkdir -p runs
	deploy/locked/sbom.sh $(BIN)/python runs/sbom.cdx.json

e2e: $(STAMP) ## seven hospitals as deployed, a death in every round; as root in network namespaces, else on loopback
	$(BIN)/python -m simulations.rig.journey

rig: $(STAMP) ## the full sweep: every failpoint twenty times on the engine and twice on the rig, dead processes, cut-off hospitals, bad lines
	$(BIN)/python -m simulations.rig.kill_sweep --times 20
	$(BIN)/python -m simulations.rig.strikes --times 2
	$(BIN)/python -m simulations.rig.journey
	$(BIN)/python -m simulations.rig.journey --partitions
	$(BIN)/python -m simulations.rig.lines

.PHONY: rig e2e bundle sbom help simulate test check fuzz bench
