# Everything runs in a virtual environment of its own, .venv, which the first command makes.
PYTHON ?= python3
BIN := .venv/bin
DEMO_READY := .venv/.demo-ready
READY := .venv/.ready
# The tests commit thousands of small files durably: a folder in memory, where the system has
# one, takes a third of the time of a disk that syncs them. Two processes, or one per core.
MEMORY := $(shell test -d /dev/shm && test -w /dev/shm && echo /dev/shm)
TESTS_IN := $(or $(TEST_FOLDER),$(MEMORY),$(or $(TMPDIR),/tmp))
PYTEST = TMPDIR="$$(mktemp -d "$(TESTS_IN)/featcache-tests-XXXXXX")" && chmod 755 "$$TMPDIR" && export TMPDIR && \
  trap 'rm -rf "$$TMPDIR"' EXIT && $(BIN)/python -m pytest
PROCESSES ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-faults test-coverage test-browser check package bench bench-smoke bench-perf bench-dogs-size train-pocket clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1|/' | column -t -s '|'

# What the package and its report need; the tools that test it come on top.
$(DEMO_READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[report]'
	@touch $(DEMO_READY)

$(READY): $(DEMO_READY)
	$(BIN)/python -m pip install --quiet -e '.[test,check,report]'
	@touch $(READY)

demo: $(DEMO_READY)  ## extract, train heads, fine-tune and compare them, on drawn dogs; no network
	$(BIN)/python -m bench --backbones pocket --finetune pocket:0.4 --epochs 20 --baselines \
	  --few-shot --test-size 0.75 --report results/demo
	@echo
	@echo 'Run it again: nothing is computed twice. Next, your own photos, one folder per class:'
	@echo '  .venv/bin/python -m bench --data photos/ --backbones resnet50 --report results/photos'

test: $(READY)  ## run the quick tests (minutes)
	$(PYTEST) -n $(PROCESSES) --dist worksteal

test-slow: $(READY)  ## run the slow tests as well: every backbone of the table
	$(PYTEST) -n $(PROCESSES) --dist worksteal -m 'not network and not browser'

test-faults: $(READY)  ## kills, power losses, flipped bits and failing calls by the thousand
	export FEATCACHE_FAULTS=full && $(PYTEST) -n $(PROCESSES) --dist worksteal tests/faults -rP

# What a row, its name and its label depend on.
CORE := featcache/store/*,featcache/hdf5/*,featcache/gc/*,featcache/data/*,featcache/bundle/*,$\
  featcache/_io/atomic.py,featcache/_io/own_files.py,featcache/_io/stored_zip.py,$\
  featcache/_io/names.py,featcache/backbones/spec.py,featcache/backbones/architecture.py,$\
  featcache/backbones/function_hash.py,featcache/images/image_file.py
test-coverage: $(READY)  ## every branch of the store, key, data sets and bundles; 95 % of all
	$(PYTEST) --cov --cov-report=term --cov-fail-under=95
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100

test-browser: $(READY)  ## open the report in a real browser; installs Chromium where it may
	@command -v chromedriver >/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq chromium chromium-driver) >/dev/null 2>&1 || \
	  echo 'No Chromium and no permission to install it: the browser tests will skip.'
	$(BIN)/python -m pytest tests/browser -m browser -rs

check: $(READY)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports setup.cfg

package: $(READY)  ## build wheel and sdist, and run the wheel in an environment of its own
	rm -rf dist build
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet dist/*.whl
	cd build && FEATCACHE_CACHE="$$PWD/cache" clean/bin/featcache extract pocket --no-progress
	cd build && clean/bin/featcache bench --help >/dev/null && clean/bin/python -m pip check

bench: $(DEMO_READY)  ## compare heads on real photos: make bench DATA=photos/
	$(BIN)/python -m bench $(if $(DATA),--data $(DATA)) $(ARGS)

WEIGHTS ?= random
bench-smoke: $(DEMO_READY)  ## the reference networks and fine-tunes on few drawn dogs: WEIGHTS=imagenet
	$(BIN)/python -m bench --drawn 4x20 --backbones vgg19,resnet50,inception_resnet_v2 \
	  --heads logistic,dense --finetune vgg19-frozen --finetune resnet50-40 \
	  --finetune inception_resnet_v2-80 --epochs 2 --weights $(WEIGHTS) --report results/smoke

bench-perf: $(READY)  ## speed against peers and limits, side by side (an hour)
	$(BIN)/python -m bench.perf $(ARGS)

bench-dogs-size: $(READY)  ## 20,520 drawn photos of 120 breeds through every stage
	$(BIN)/python -m bench.perf.dogs_size

train-pocket: $(DEMO_READY)  ## train the weights of pocket again (half an hour on 2 cores)
	$(BIN)/python -m bench.tools.train_pocket --out results/pocket.npz

clean:  ## remove the virtual environment and caches of tools
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info build
