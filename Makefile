# `make demo` and `make test` set everything up in .venv; nothing else is needed but Python 3.11 and make.
# TORCH_INDEX takes torch from another package index: the address that pytorch.org/get-started shows after --index-url, for a
# small build without CUDA, or for a certain version of CUDA.
TORCH_INDEX ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check wheel format lock clean

demo: $(READY)
	$(BIN)/python scripts/demo.py

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# Build, check, and use the wheel in an environment of its own; then do what the Dockerfile does.
wheel: $(READY)
	scripts/check_wheel.sh $(BIN)/python
	scripts/check_docker.sh $(BIN)/python

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --index-url $(TORCH_INDEX) $(shell grep ^torch== requirements.lock)
endif
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Newest versions that pyproject.toml allows, but for torch, whose version is chosen by hand (CONTRIBUTING.md).
lock:
	scripts/lock.sh $(PYTHON)

clean:
	rm -rf .venv demo runs
