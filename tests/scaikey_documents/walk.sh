#!/bin/sh
# Follows the two ScaiKey documents that this crate implements, line by line, with the `service` example.
#
# `cargo test --test examples seeds` starts a provider and the service, runs this script and compares its
# output with walk.txt. To run it by hand, set BASE, ISSUER, USER, PASS, CODE, VERIFIER, SELF_TOKEN and
# WORKLOAD_TOKEN.
set -eu

# Replaces values that differ between runs by names.
replace_variable_values() {
    sed -E \
        -e 's/eyJ[A-Za-z0-9_.-]+/<jwt>/g' \
        -e 's/"refresh_token":"[^"]+"/"refresh_token":"<refresh token>"/' \
        -e 's/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/<uuid>/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z/<time>/g' \
        -e 's/"(exp|iat|auth_time)":[0-9]+/"\1":<seconds>/g' \
        -e 's/"jti":"[^"]+"/"jti":"<jti>"/; s/"sid":"[^"]+"/"sid":"<sid>"/' \
        -e 's/(state|nonce|code_challenge)=[A-Za-z0-9_-]{43}/\1=<43 characters>/g' \
        -e "s#$(echo "$ISSUER" | sed 's#/#%2F#g; s#:#%3A#g')#<issuer>#g" \
        -e "s#$ISSUER#<issuer>#g" \
        -e "s#$(echo "$BASE" | sed 's#/#%2F#g; s#:#%3A#g')#<base>#g"
}

# Runs a step of the documents: its title, then the arguments of curl. Prints body and status.
step() {
    printf '\n== %s\n' "$1"
    shift
    curl -sS -w '\n%{http_code}\n' "$@" | replace_variable_values
}

member() { sed -E "s/.*\"$1\":\"([^\"]+)\".*/\1/"; }

printf '# Authenticate with ScaiKey\n'

printf '\n== 1. The client redirects to ScaiKey\n'
curl -sS -o /dev/null -w '%{http_code} %{redirect_url}\n' "$BASE/v1/auth/login" | replace_variable_values

step '4. The code is exchanged for tokens' -X POST "$BASE/v1/auth/login" \
    -d "code=$CODE" -d "code_verifier=$VERIFIER"
step '4. and only once' -X POST "$BASE/v1/auth/login" \
    -d "code=$CODE" -d "code_verifier=$VERIFIER"

TOKENS=$(curl -sS -X POST "$BASE/v1/auth/token" \
    -H "Content-Type: application/x-www-form-urlencoded" \
    -d "grant_type=password" -d "username=$USER" -d "password=$PASS")
printf '\n== Get a token programmatically\n%s\n' "$TOKENS" | replace_variable_values
TOKEN=$(echo "$TOKENS" | member access_token)
REFRESH=$(echo "$TOKENS" | member refresh_token)

step '5. The access token is sent with every request' -H "Authorization: Bearer $TOKEN" "$BASE/me"

step 'Refresh' -X POST "$BASE/v1/auth/refresh" \
    -H "Content-Type: application/x-www-form-urlencoded" \
    -d "refresh_token=$REFRESH"

step 'Register' -X POST "$BASE/v1/auth/register" -H "Authorization: Bearer $TOKEN"
step 'Register once more' -X POST "$BASE/v1/auth/register" -H "Authorization: Bearer $TOKEN"

step 'Token exchange (RFC 8693) for a plugin' -H "Authorization: Bearer $TOKEN" \
    "$BASE/downstream/scaidrive"
step 'and from the cache' -H "Authorization: Bearer $TOKEN" "$BASE/downstream/scaidrive"

step 'Service tokens (background tasks)' -H "Authorization: Bearer $SELF_TOKEN" \
    "$BASE/service-token/tenant-1"

printf '\n# Authentication reference\n'

step 'GET /v1/auth/whoami' -H "Authorization: Bearer $TOKEN" "$BASE/v1/auth/whoami"
step 'GET /v1/auth/whoami, without a token' "$BASE/v1/auth/whoami"

step 'POST /v1/auth/introspect' -X POST "$BASE/v1/auth/introspect" \
    -H "Authorization: Bearer $SELF_TOKEN" \
    -H "Content-Type: application/json" \
    -d "{\"token\": \"$TOKEN\"}"
step 'POST /v1/auth/introspect, with an invalid token' -X POST "$BASE/v1/auth/introspect" \
    -H "Authorization: Bearer $SELF_TOKEN" \
    -H "Content-Type: application/json" \
    -d '{"token": "token-to-introspect"}'
step 'POST /v1/auth/introspect, without the scope' -X POST "$BASE/v1/auth/introspect" \
    -H "Authorization: Bearer $TOKEN" \
    -H "Content-Type: application/json" \
    -d "{\"token\": \"$TOKEN\"}"

step 'POST /v1/auth/exchange' -X POST "$BASE/v1/auth/exchange" \
    -H "Content-Type: application/json" \
    -d "{
    \"grant_type\": \"token_exchange\",
    \"subject_token\": \"$WORKLOAD_TOKEN\",
    \"subject_token_type\": \"urn:ietf:params:oauth:token-type:jwt\",
    \"audience\": \"scaiwave\",
    \"resource\": \"https://scaiwave.example\"
  }"
