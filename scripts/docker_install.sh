#!/usr/bin/env bash
# What the Dockerfile runs: install this folder's package with the versions of requirements.lock, and check that it starts.
#   scripts/docker_install.sh TORCH_INDEX EXTRAS [PYTHON]     TORCH_INDEX may be empty, EXTRAS is like "train,openvino" or empty
set -euo pipefail
cd "$(dirname "$0")/.."
index=$1 extras=$2 python=${3:-python}

torch=$(grep '^torch==' requirements.lock)
"$python" -m pip install --quiet ${index:+--index-url "$index"} "$torch"
# The lock file only constrains versions here: a container needs no tools for tests.
"$python" -m pip install --quiet --constraint requirements.lock ".${extras:+[$extras]}"
"$python" -m skipvsr models --json > /dev/null
"$python" -m skipvsr --version
