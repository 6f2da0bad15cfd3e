#!/usr/bin/env bash
# Runs the tests beside six busy loops for each core, several times: bash tests/loaded.sh [times] [filter...]
#
# A test that depends on real milliseconds fails here. Everything is built first, without load, as by
# `bash tests/all.sh`, whose installation step must have run once. Each run prints one line: what passed and
# failed, and how long it took. The names and the output of what failed are in target/loaded/. The loops end
# with the script, however it ends.
set -uo pipefail
cd "$(dirname "$0")/.."
times=${1:-5}
(($#)) && shift
folder=${CARGO_TARGET_DIR:-target}/loaded
mkdir -p "$folder"

tests=(cargo test --locked --all-features --no-fail-fast)
cargo build --locked --all-features --examples || exit
"${tests[@]}" --no-run || exit

loops=()
trap 'kill "${loops[@]}" 2>/dev/null' EXIT
trap 'exit 1' INT TERM
for ((nth = 0; nth < $(nproc) * 6; nth++)); do
    # Ends by itself, should this script be killed outright.
    (while kill -0 $$ 2>/dev/null; do for ((n = 0; n < 1000000; n++)); do :; done; done) &
    loops+=($!)
done

bad=0
for ((run = 1; run <= times; run++)); do
    log=$folder/run-$run.txt
    begun=$SECONDS
    "${tests[@]}" "$@" >"$log" 2>&1
    code=$?
    read -r passed failed < <(awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
    echo "run $run of $times beside ${#loops[@]} busy loops: $passed passed, $failed failed, $((SECONDS - begun)) s"
    # A binary that does not run, or is ended from outside, counts nothing.
    if ((code)); then
        bad=1
        grep -E '^test .* FAILED$|^error' "$log"
    fi
done
exit $bad
