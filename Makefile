# make demo   fit a table to a fleet, train federated with it and with one rate, write a report
# make test   linters, types, import contracts, tests
# make docs   the documentation as a site, its links checked
# make wheels the full distribution and the light one, in dist/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# One thread per process: a second one beside another busy process slows a step many times over.
export OMP_NUM_THREADS := 1

.PHONY: demo test lint docs wheels clean

# The stamp is newer than pyproject.toml when what is installed is up to date.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1): expected Python 3.11 or newer; run make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs,flower,images,mlflow,postgres,tensorboard,wandb]'
	@touch $@

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	$(BIN)/distreal-dse optimize digits-cnn --fleet extreme --trials 30 --workers 2 \
		--storage sqlite:///$(DEMO)/distreal.db
	$(BIN)/distreal-dse fl compare digits-cnn --front digits-cnn --fleet extreme --name demo \
		--strategies distreal:lr=0.1,distreal-uniform:lr=0.1 --against distreal-uniform --seeds 5 \
		--rounds 120 --devices 30 --cohort 10 --evaluate-every 5 --workers 2 \
		--storage sqlite:///$(DEMO)/distreal.db
	$(BIN)/distreal-dse report --out $(DEMO)/report.html --storage sqlite:///$(DEMO)/distreal.db

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site
	@echo "The site is in build/site."

wheels: $(VENV)/installed
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist light

clean:
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
