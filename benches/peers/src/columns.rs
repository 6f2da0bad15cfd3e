//! The columns: the tokens to send, and the expected answers.

use std::time::{Duration, SystemTime};

use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{Provider, TokenBuilder};

use crate::protocol::Statuses;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    One,
    Many,
    BadSignature,
    Expired,
    Garbage,
    NoToken,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) kind: Kind,
    pub(crate) algorithm: Algorithm,
}

pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519];

/// Returns all columns in order.
pub(crate) fn all() -> Vec<Column> {
    let thrice = |kind| ALGORITHMS.map(|algorithm| Column { kind, algorithm });
    let once = |kind| Column { kind, algorithm: Algorithm::RS256 };
    let mut columns = Vec::new();
    columns.extend([Kind::One, Kind::Many, Kind::BadSignature].into_iter().flat_map(thrice));
    columns.extend([Kind::Expired, Kind::Garbage, Kind::NoToken].map(once));
    columns
}

/// Returns the algorithm name that peers support: for Ed25519 `EdDSA`, which RFC 9864 deprecates.
pub(crate) fn name(algorithm: Algorithm) -> &'static str {
    if algorithm == Algorithm::Ed25519 { "EdDSA" } else { algorithm.as_str() }
}

impl Column {
    pub(crate) fn title(self) -> String {
        match self.kind {
            Kind::Expired => "expired".to_owned(),
            Kind::Garbage => "garbage".to_owned(),
            Kind::NoToken => "no token".to_owned(),
            _ => name(self.algorithm).to_owned(),
        }
    }

    pub(crate) fn valid(self) -> bool {
        matches!(self.kind, Kind::One | Kind::Many)
    }

    /// Returns a wrong status, if there is one.
    pub(crate) fn fault(self, statuses: &Statuses) -> Option<u16> {
        let expected = if self.valid() { 200..300 } else { 400..500 };
        statuses.keys().copied().find(|status| !expected.contains(status))
    }

    pub(crate) fn tokens(self, provider: &Provider, many: usize) -> Vec<Option<String>> {
        let sign = || full_token(provider, self.algorithm).sign();
        match self.kind {
            Kind::One => vec![Some(sign())],
            Kind::Many => (0..many).map(|_| Some(sign())).collect(),
            Kind::BadSignature => vec![Some(with_signature_of(&sign(), &sign()))],
            Kind::Expired => vec![Some(full_token(provider, self.algorithm).expired().sign())],
            Kind::Garbage => vec![Some("A".repeat(1000))],
            Kind::NoToken => vec![None],
        }
    }
}

/// Builds a token with every claim that a peer requires: those of RFC 9068 and of Keycloak.
fn full_token(provider: &Provider, algorithm: Algorithm) -> TokenBuilder {
    let since = SystemTime::now() - Duration::from_secs(60);
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let token = provider.token().algorithm(algorithm).typ(Some("at+jwt"));
    token
        .header("alg", name(algorithm))
        .roles(["docs_internal", "tenant_admin"])
        .groups(["group-eng", "group-sre"])
        .scope("profile email")
        .claim("nbf", since)
        .claim("client_id", "peers")
        .claim("azp", "peers")
        .claim("typ", "Bearer")
        .claim("email_verified", true)
}

/// Combines a token with the signature of another. It is as expensive to reject as a valid token is
/// to accept; ECDSA rejects a signature of zeros without a verification.
fn with_signature_of(token: &str, other: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let signature = other.rsplit_once('.').map_or(other, |(_, signature)| signature);
    format!("{signed}.{signature}")
}
