# make demo: environment, training on dates, score, translations, heatmaps.   make test: environment, tests.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
WORKDIR ?= runs/demo

.PHONY: demo test slow lint format environment
.DEFAULT_GOAL := demo

demo: environment
	$(RUN) main.py --config=configs/translation.py --workdir=$(WORKDIR)

test: environment
	$(RUN) -m pytest -n 2 --dist loadfile

MEASURED = tests/train/test_memory.py tests/train/test_start.py

slow: environment
	$(RUN) -m pytest -m slow $(MEASURED)
	$(RUN) -m pytest -m slow -n 2 --dist loadfile $(MEASURED:%=--ignore=%)

lint: environment
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

format: environment
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

environment: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: sudo apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; give a newer one with make PYTHON=python3.12 (sudo apt install python3.12 python3.12-venv)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "venv is missing: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -e .
	@touch $@
