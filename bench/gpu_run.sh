#!/usr/bin/env bash
# Build, test and benchmark in one call, on a machine with torch and a compiler but no network.
#
#     bash bench/gpu_run.sh [RESULTS_FOLDER [SECONDS]]      (default: bench/results/gpu 590)
#
# Every part runs even where one before it failed, and is ended where its own limit, or what is left
# of all SECONDS, is used up; what it had written by then stays.  The exit code is that of the first
# failure (124: ended at its limit).  Limits are for an H100; fewer SECONDS shorten all of them.
set -uo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-bench/results/gpu}")
total=${2:-590}
mkdir -p "$results"
status=0

# run NAME LIMIT COMMAND...: LIMIT in seconds of the default total.
run() {
    local name=$1 limit=$(($2 * total / 590)) left=$((total - SECONDS))
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "== $name: left out, no time is left"
        [ "$status" != 0 ] || status=124
        return
    fi
    [ "$limit" -lt "$left" ] || limit=$left
    echo "== $name (at most $limit s)"
    local begin=$SECONDS
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$results/$name.log"
    local code=${PIPESTATUS[0]}
    [ "$status" != 0 ] || status=$code
    printf '\n== %s\n' "$name: exit $code after $((SECONDS - begin)) s"
}

bench() {
    local name=$1 limit=$2 module=$3
    shift 3
    run "bench-$name" "$limit" python3 -m "dtg_restore.bench.$module" "$@"
}

preset=wan-1.3b models=1.3B
if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    preset=mini models=tiny # to try this script where there is no GPU
fi

# What the package needs and the machine lacks is reported, not fetched.
run build 120 python3 -m pip install --no-build-isolation --no-deps --no-index --editable .
run info 30 python3 -m dtg_restore.cli info
run tests-gpu 90 python3 -m pytest -m gpu -q
run tests-kernels 60 python3 -m pytest tests/kernels -q -x
# TensorRT comes with few images: what needs it says why it was left out, and fails nothing.
if python3 -c 'import sys; from dtg_restore.engine.runtimes.tensorrt import reasons
sys.exit("== tensorrt: left out, " + "; ".join(reasons()) if reasons() else 0)'; then
    bundle=$(mktemp -d)/mini
    run tests-tensorrt 90 python3 -m pytest -m tensorrt -q
    run export-tensorrt 60 python3 -m dtg_restore.cli export --to tensorrt --output "$bundle"
    run demo-tensorrt 30 python3 -m dtg_restore.cli restore assets/demo.mp4 \
        "$results/demo_tensorrt.mp4" --bundle "$bundle" --overwrite --progress plain \
        --report "$results/demo_tensorrt.json"
fi
bench kernels 120 kernels --rounds 10 --dtypes bfloat16 float32 --json "$results/kernels.json"
bench step 40 step --models mini small --rounds 3 --json "$results/step.json"
bench step-large 40 step --models "$models" --rounds 2 --json "$results/step_large.json"
bench engines 60 engines --rounds 2 --json "$results/engines.json"
bench roofline 60 roofline --rounds 3 --json "$results/roofline.json"
bench throughput 40 throughput --rounds 1 --frames 16 28 52 --widths 192 --tiles 64 \
    --json "$results/throughput.json"
run demo 30 python3 -m dtg_restore.cli restore assets/demo.mp4 "$results/demo.mp4" --overwrite \
    --progress plain --report "$results/demo.json"
# The longest part comes last: it has what is left, and writes after every row.
bench peers 300 peers --preset "$preset" --rounds 1 --part-rounds 2 --out "$results/peers.json"
exit "$status"
