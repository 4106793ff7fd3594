#!/usr/bin/env bash
# Build, test and benchmark in one call, on a machine with torch and a compiler but no network.
#
#     bash bench/gpu_run.sh [RESULTS_FOLDER]      (default: bench/results/gpu)
#
# Every part runs even where one before it failed; the exit code is that of the first failure.
set -uo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-bench/results/gpu}")
mkdir -p "$results"
status=0

run() {
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$results/$name.log"
    local code=${PIPESTATUS[0]}
    [ "$status" != 0 ] || status=$code
    echo "== $name: exit $code"
}

# What the package needs and the machine lacks is reported, not fetched.
run build python3 -m pip install --no-build-isolation --no-deps --no-index --editable .
run info python3 -m dtg_restore.cli info
run tests-gpu python3 -m pytest -m gpu -q
run tests-kernels python3 -m pytest tests/kernels -q
run bench-kernels python3 -m dtg_restore.bench.kernels --all-cases --json "$results/kernels.json"
run bench-step python3 -m dtg_restore.bench.step --json "$results/step.json"
run bench-roofline python3 -m dtg_restore.bench.roofline --json "$results/roofline.json"
run bench-throughput python3 -m dtg_restore.bench.throughput --json "$results/throughput.json"
run bench-wan python3 -m dtg_restore.bench.wan step --sizes 1.3B 14B --json "$results/wan_step.json"
run demo python3 -m dtg_restore.cli restore assets/demo.mp4 "$results/demo.mp4" --overwrite \
    --progress plain --report "$results/demo.json"
exit "$status"
