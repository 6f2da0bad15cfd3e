//! The rows of the tables: who is compared, and what they do more or less than scaikey-auth.

/// One row.
pub(crate) struct Row {
    /// What the child calls it.
    pub(crate) name: &'static str,
    /// The cargo feature that builds its child.
    pub(crate) feature: &'static str,
    /// The package, for its version.
    pub(crate) package: &'static str,
    /// What else the reader calls it.
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
}

/// What the others are compared with: tokens seen before.
pub(crate) const KNOWN: usize = 0;
/// Likewise: every token as if it were new.
pub(crate) const FIRST_SEEN: usize = 1;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "scaikey-known",
        feature: "scaikey",
        package: "scaikey-auth",
        title: "scaikey-auth",
        note: "the default: remembers tokens it has verified, finds the tenant, sees rotated and \
               withdrawn keys; aws-lc",
    },
    Row {
        name: "scaikey-first-seen",
        feature: "scaikey",
        package: "scaikey-auth",
        title: "scaikey-auth, every token new",
        note: "the same with `verified_tokens_bytes(0)`: every request verifies the signature",
    },
    Row {
        name: "hand-written",
        feature: "hand-written",
        package: "jsonwebtoken",
        title: "by hand with jsonwebtoken",
        note: "issuer, audience, expiry; the keys it started with for ever, no tenant, 401 without \
               a challenge; aws-lc",
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
        note: "an axum extractor: its bare service is a router; issuer, audience, expiry; one \
               family of algorithms for each decoder, so a service for each here; an unknown key \
               waits for the hourly refresh; RustCrypto",
    },
    Row {
        name: "axum-keycloak-auth",
        feature: "axum-keycloak-auth",
        package: "axum-keycloak-auth",
        title: "axum-keycloak-auth",
        note: "a router; audience and expiry but no issuer; takes the algorithm from the token \
               and tries every key; never sees a rotated key; its own type of claims; ring",
    },
    Row {
        name: "axum-jwks",
        feature: "axum-jwks",
        package: "axum-jwks",
        title: "axum-jwks",
        note: "an axum extractor: a router; RSA alone; audience and expiry but no issuer; keys \
               fetched once; clones its keys for every request; ring",
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
        note: "issuer, audience, expiry, type, scopes; keys handed in, refetched when unknown; no \
               tenant; ring",
    },
    Row {
        name: "huskarl",
        feature: "huskarl",
        package: "huskarl-axum",
        title: "huskarl-axum",
        note: "a router; the RFC 9068 profile: issuer, audience, expiry, type, client; looks for \
               bound tokens (DPoP, mTLS), too; sees rotated keys; hands over the claims of the profile \
               and no others; no tenant; RustCrypto",
    },
];
