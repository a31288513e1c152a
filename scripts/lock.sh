#!/usr/bin/env bash
# Write requirements.lock: every package of the package and its dev extra, pinned, as pip resolves them today.
#   scripts/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
torch="torch==2.13.0"
vapoursynth="vapoursynth==81"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$torch" hatchling editables
"$work/venv/bin/python" -m pip install --quiet ".[dev]"
{
  echo "# Made by scripts/lock.sh; do not edit."
  # A local version label (+cpu) belongs to where torch came from, not to the requirement.
  "$work/venv/bin/python" -m pip freeze --exclude skipvsr | sed 's/+cpu//; s/^triton==.*/&; sys_platform == "linux"/' | grep -vi '^vapoursynth=='
  # It has packages for Python 3.12 and later alone; scripts/install_vapoursynth.sh has it for 3.11.
  echo "$vapoursynth; python_version >= \"3.12\""
} > requirements.lock
