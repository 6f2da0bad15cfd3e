//! The rows of the tables: the compared crates, and their differences from scaikey-auth.

/// One row.
pub(crate) struct Row {
    /// The name that the child knows.
    pub(crate) name: &'static str,
    /// The cargo feature that builds its child.
    pub(crate) feature: &'static str,
    /// The package whose version is shown.
    pub(crate) package: &'static str,
    /// The name in the tables.
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
}

/// The reference row with cached tokens.
pub(crate) const CACHED: usize = 0;
/// The reference row without a cache: every token is verified.
pub(crate) const UNCACHED: usize = 1;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "scaikey-cached",
        feature: "scaikey",
        package: "scaikey-auth",
        title: "scaikey-auth",
        note: "the default: caches verified tokens, resolves the tenant, follows key rotation and \
               removal; aws-lc",
    },
    Row {
        name: "scaikey-uncached",
        feature: "scaikey",
        package: "scaikey-auth",
        title: "scaikey-auth, cache off",
        note: "the same with `verified_tokens_bytes(0)`: every request verifies the signature",
    },
    Row {
        name: "hand-written",
        feature: "hand-written",
        package: "jsonwebtoken",
        title: "hand-written, with jsonwebtoken",
        note: "issuer, audience, expiry; keys fetched once; no tenant; 401 without a challenge; \
               aws-lc",
    },
    Row {
        name: "jwt-authorizer",
        feature: "jwt-authorizer",
        package: "jwt-authorizer",
        title: "jwt-authorizer",
        note: "issuer, audience, expiry; keys in memory here, so none is rotated; no tenant; ring",
    },
    Row {
        name: "tower-oauth2-aws-lc",
        feature: "tower-oauth2-aws-lc",
        package: "tower-oauth2-resource-server",
        title: "tower-oauth2-resource-server, aws-lc",
        note: "issuer, audience, expiry; keys in memory here, so none is rotated; an issuer is a \
               tenant; jsonwebtoken's aws-lc",
    },
    Row {
        name: "tower-oauth2-rust-crypto",
        feature: "tower-oauth2-rust-crypto",
        package: "tower-oauth2-resource-server",
        title: "tower-oauth2-resource-server, RustCrypto",
        note: "the same with its default crypto",
    },
    Row {
        name: "axum-jwt-auth",
        feature: "axum-jwt-auth",
        package: "axum-jwt-auth",
        title: "axum-jwt-auth",
        note: "an axum extractor; bare service: a router; issuer, audience, expiry; one algorithm \
               family per decoder, so one service for each here; an unknown key waits for the \
               hourly refresh; RustCrypto",
    },
    Row {
        name: "axum-keycloak-auth",
        feature: "axum-keycloak-auth",
        package: "axum-keycloak-auth",
        title: "axum-keycloak-auth",
        note: "bare service: a router; audience and expiry but not the issuer; takes the algorithm \
               from the token and tries every key; does not follow key rotation; its own claims \
               type; ring",
    },
    Row {
        name: "axum-jwks",
        feature: "axum-jwks",
        package: "axum-jwks",
        title: "axum-jwks",
        note: "an axum extractor; bare service: a router; RSA only; audience and expiry but not the \
               issuer; keys fetched once; clones its keys for every request; ring",
    },
    Row {
        name: "aliri",
        feature: "aliri",
        package: "aliri_tower",
        title: "aliri_tower",
        note: "issuer, audience, expiry; no EdDSA; ES256 needs OpenSSL's headers to build; keys in \
               memory here; ring",
    },
    Row {
        name: "oauth-resource-server",
        feature: "oauth-resource-server",
        package: "oauth-resource-server",
        title: "oauth-resource-server",
        note: "issuer, audience, expiry, type, scopes; initial keys configured, fetched again for an unknown key; no \
               tenant; ring",
    },
    Row {
        name: "huskarl",
        feature: "huskarl",
        package: "huskarl-axum",
        title: "huskarl-axum",
        note: "bare service: a router; the RFC 9068 profile: issuer, audience, expiry, type, client; \
               also checks bound tokens (DPoP, mTLS); follows key rotation; provides only the \
               claims of the profile; no tenant; RustCrypto",
    },
];
