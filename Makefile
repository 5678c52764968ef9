# `make demo` and `make test` need Python 3.10 or newer, git and make; they set up the rest themselves, once, in .venv.
# Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo check test quick lint format types fmt micro experiments soak test-lowest browser-tools
.PHONY: newest-frontend comfy-cli ray mutants
.PHONY: templates workflows words pictures inputs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: $(READY) ## make the virtual environment (the others do it when it is missing)

$(READY): requirements.txt requirements-dev.txt constraints-dev.txt tools/setup_env.py
	@$(PYTHON) tools/setup_env.py $(VENV) $(if $(LOWEST),--lowest)
	@touch $@

demo: $(READY) ## run five families of tasks on the built-in checkpoint; pictures in out/demo
	$(PY) -m omnialpha demo --out out/demo

test: $(READY) ## all tests; those for ComfyUI and its frontend are skipped, loudly, where those are missing
	$(PY) -m pytest $(PYTEST)

quick: $(READY) ## the tests that need neither ComfyUI nor much time
	$(PY) -m pytest -m "not slow and not comfy and not browser"

mutants: $(READY) ## do the tests notice changes in the rooms that compute? MUTATE="--each 5 omnialpha.metrics"; an hour
	OMP_NUM_THREADS=1 $(PY) tools/mutate.py $(MUTATE)

soak: $(READY) ## what batches survive: killed servers and clients, 500 jobs (needs ComfyUI; an hour or more on two cores)
	$(PY) tools/soak.py

test-lowest: ## the tests with the oldest packages that requirements.txt allows (Python 3.10 or 3.11)
	$(MAKE) test VENV=.venv-lowest LOWEST=1

check: lint format types quick ## what every change has to pass: lint, format, types and the quick tests

lint: $(READY) ## ruff's rules
	$(PY) -m ruff check .

format: $(READY) ## does ruff's format hold? `make fmt` makes it so
	$(PY) -m ruff format --check .

types: $(READY) ## pyright, basic, on the library and the nodes
	$(PY) -m pyright

fmt: $(READY) ## let ruff repair what it can: import order, simple findings, format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

browser-tools: tools/node_modules/playwright-core/package.json ## playwright-core for the frontend tests (needs npm)

tools/node_modules/playwright-core/package.json: tools/package.json
	npm install --prefix tools --no-package-lock --no-fund --no-audit --loglevel=error
	@touch $@

newest-frontend: $(READY) ## the newest frontend from PyPI, unpacked to .cache, for the tests that use it beside ComfyUI's own
	$(PY) tools/fetch_frontend.py

comfy-cli: ## comfy-cli in a virtual environment of its own, for the tests that let it judge workflows and pack
	$(PYTHON) -m venv .venv-comfy-cli
	.venv-comfy-cli/bin/python -m pip install --quiet comfy-cli

ray: $(READY) ## Ray, for the tests of batches on a cluster; without it they are skipped
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints-dev.txt -r requirements-ray.txt

templates: $(READY) ## make the workflows and blueprints that tables describe; make workflows comes after it
	PYTHONPATH=. $(PY) tools/make_workflows.py
	PYTHONPATH=. $(PY) tools/make_blueprints.py

words: $(READY) ## locales/en from the nodes, and the tables and pictures of the help pages
	PYTHONPATH=. $(PY) tools/make_locales.py
	PYTHONPATH=. $(PY) tools/make_help.py

workflows: $(READY) ## export workflows/*.json to workflows/api through the real frontend
	$(PY) tools/export_workflows.py

micro: $(READY) ## retrain the built-in checkpoint from nothing, in runs/ (needs npm; hours on two cores)
	npm install --prefix runs --no-package-lock --no-fund --no-audit --ignore-scripts @lobehub/fluent-emoji-3d unicode-emoji-json
	$(PY) -m omnialpha data build configs/micro/triplets.yaml --packages runs/node_modules --out data/triplets
	$(PY) -m omnialpha data build configs/micro/portraits.yaml --packages runs/node_modules --out data/portraits
	$(PY) -m omnialpha data build configs/micro/test.yaml --packages runs/node_modules --out data/test
	$(PY) -m omnialpha data filter data/triplets
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc-per-node 2 -m omnialpha train vae configs/micro/vae.yaml --threads 1 --out runs/vae-run
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc-per-node 2 -m omnialpha train vae configs/micro/vae-more.yaml --threads 1 --out runs/vae-more
	OMP_NUM_THREADS=1 $(PY) -m omnialpha train vae configs/micro/vae-decoder.yaml --threads 1 --out runs/vae-last
	$(PY) -m omnialpha train cache configs/micro/cache.yaml --out runs/cache
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc-per-node 2 -m omnialpha train transformer configs/micro/transformer.yaml --threads 1 --out runs/micro
	OMP_NUM_THREADS=1 $(PY) -m omnialpha train transformer configs/micro/transformer-more.yaml --threads 1 --out runs/micro-more
	OMP_NUM_THREADS=1 $(PY) -m omnialpha train transformer configs/micro/transformer-last.yaml --threads 1 --out runs/micro-last
	@echo "The checkpoint is runs/micro-last/checkpoint; python -m omnialpha demo --checkpoint runs/micro-last/checkpoint"

experiments: $(READY) ## train and measure what docs/experiments.md reports, with what `make micro` made (hours)
	PYTHONPATH=. $(PY) tools/experiments.py

pictures: $(READY) ## remake the pictures of README and docs with the built-in checkpoint
	$(PY) tools/make_pictures.py

inputs: $(READY) ## redraw the pictures the workflows open; needs EMOJI=node_modules folder, see tools/make_inputs.py
	PYTHONPATH=. $(PY) tools/make_inputs.py $(EMOJI)

clean: ## remove the virtual environment and everything made
	rm -rf $(VENV) .venv-lowest .venv-comfy-cli .cache out tools/node_modules .pytest_cache .ruff_cache .hypothesis
