# make demo, make test: each sets up by itself (Python >= 3.11, git, make, a package registry).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where Python may not write what it compiles (containers), every start would compile anew: 30 s.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)
export OMP_NUM_THREADS ?= 2

.PHONY: demo test slow check format data prior forecaster setup clean

demo: setup
	$(BIN)/gapzoo demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data: setup
	$(BIN)/gapzoo build-data

prior: setup
	$(BIN)/gapzoo train recipes/unet_small.speedy-t21-v1.yaml
	$(BIN)/gapzoo train recipes/unet_small.speedy-t21-v2.yaml
	$(BIN)/gapzoo train recipes/unet_small.speedy-t21-v3.yaml
	$(BIN)/gapzoo train recipes/unet_small.speedy-t21-v4.yaml

forecaster: setup
	$(BIN)/gapzoo train recipes/convcast_small.speedy-t21-v1.yaml
	$(BIN)/gapzoo train recipes/convcast_small.speedy-t21-v2.yaml
	$(BIN)/gapzoo train recipes/convcast_small.speedy-t21-v3.yaml

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c "import uv" 2>/dev/null || $(PYTHON) -m pip install --quiet --user uv \
		|| $(PYTHON) -m pip install --quiet uv
	test -x $(BIN)/python || $(PYTHON) -m uv venv --quiet --python $(PYTHON) $(VENV)
	UV_HTTP_TIMEOUT=300 $(PYTHON) -m uv pip install $(COMPILE) --python $(BIN)/python -e ".[speedy,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo
