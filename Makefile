# Perdure's commands. A fresh machine needs Python 3.11 or later and make, nothing else.

PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3.14 python3,$(shell \
	command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SYSTEM := $(VENV)/.system
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider

.PHONY: demo test unit check format docs bench install clean

demo: $(READY)          ## show the main job on a real, living ZODB
	$(BIN)/python demo/demo.py

test: $(READY) $(SYSTEM)  ## all tests, against the real parts
	$(PYTEST) -n 2 --dist worksteal

unit: $(READY)          ## the tests that take seconds
	$(PYTEST) -m 'not slow'

check: $(READY)         ## format, lint, types, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/documents.py --check

format: $(READY)        ## put code and generated documents in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)          ## write the generated documents
	$(BIN)/python tools/documents.py

bench: $(READY) $(SYSTEM)  ## measure beside repozo, restic, borg and rsync
	$(BIN)/python -m bench $(BENCH)

install: $(READY)       ## the program and what it needs, in .venv

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Perdure needs Python 3.11 or later; none was found"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(SYSTEM): tools/system-packages $(READY)
	tools/system-packages
	@touch $@
