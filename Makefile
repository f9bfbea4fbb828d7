# make demo   train, certify, attack, bound, compare and report, from nothing
# make test   the test suite (minutes on two cores; WORKERS=1 for one process)
# Everything runs in .venv, which `make env` creates under constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WORKERS ?= 2

.PHONY: env demo test check-install test-browser test-slow soak lint format docs bench clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,notebooks,huggingface,onnx,ray]'
	# Without their dependencies: torchattacks asks for a years-old requests and a torchvision
	# that it never imports, and would replace torch by another build.
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torchattacks pyautoattack
	touch $(STAMP)

demo: env
	$(BIN)/certify demo

test: env
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check-install:
	$(PYTHON) tests/check_install.py

test-browser: env
	$(BIN)/python -m pytest -m browser tests/browser

test-slow: env
	$(BIN)/python -m pytest -m "slow and not gpu and not browser"

soak: env
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -m soak --timeout 3600

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env
	$(BIN)/python docs/build_api.py

bench: env
	$(BIN)/python benchmarks/certify_cost.py --small

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
