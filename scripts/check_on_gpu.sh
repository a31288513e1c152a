#!/usr/bin/env bash
# What a machine with a GPU is asked when it is at hand for minutes: the tests that need one, then the benchmark.
#   bash scripts/check_on_gpu.sh OUT [WHEELS]
# OUT gets the logs, gpu.json and gpu.png; WHEELS is a folder of packages that the machine lacks (scripts/train_on_gpu.py lists them).
set -u
cd "$(dirname "$0")/.."
out=$1
mkdir -p "$out"
if [ $# -gt 1 ]; then
  site=$(mktemp -d)
  python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$2"/*.whl || exit
  export PYTHONPATH=$site
fi
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
# Without growth and with few rounds: some minutes at most, of which kernels are compiled for one.
timeout 240 python3 -m skipvsr benchmark --device cuda --no-growth --rounds 3 --output "$out/gpu.json" --figure "$out/gpu.png" \
  >"$out/benchmark.log" 2>&1
echo "benchmark: exit status $?"
grep -v '%|' "$out/benchmark.log"
SKIPVSR_REQUIRE_GPU=1 timeout 180 python3 -m pytest -p no:cacheprovider -m "gpu or any_device" tests >"$out/tests.log" 2>&1
status=$?
grep -E '^(FAILED|ERROR)|passed|failed' "$out/tests.log"
exit $status
