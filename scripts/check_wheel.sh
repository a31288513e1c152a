#!/usr/bin/env bash
# Build the source distribution and the wheel, check them, and use the wheel in an environment in which nothing else is installed.
#   scripts/check_wheel.sh [PYTHON]     PYTHON has build, twine and all that the package needs (.venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --no-isolation --outdir "$work/dist" . > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m twine check --strict "$work"/dist/*

# The wheel alone is installed; torch and the rest are those of PYTHON, so that they are not downloaded again. What is looked
# for comes from the new environment first: its site-packages stands before the borrowed one.
"$python" -m venv --without-pip "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$site" "$work"/dist/*.whl
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/borrowed.pth"

cp assets/demo.mp4 "$work/in.mp4"
cd "$work"
PYTHONPATH='' venv/bin/python - <<'CODE'
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import skipvsr

place = Path(skipvsr.__file__)
assert place.is_relative_to(Path(sys.prefix)), f"the package is not the wheel's: {place}"
assert skipvsr.__version__ == version("skipvsr")
command = [sys.executable, "-m", "skipvsr", "upscale", "in.mp4", "out.mp4", "--end", "0.2", "--json"]
done = subprocess.run(command, capture_output=True, text=True, check=True)
report = json.loads(done.stdout.splitlines()[-1])
assert report["event"] == "report" and report["frames"] > 0, report
assert report["output_size"] == [448, 320], report
assert Path("out.mp4").stat().st_size > 1000
print(f"the wheel of skipvsr {skipvsr.__version__} upscaled {report['frames']} frames with its own weights")
CODE
