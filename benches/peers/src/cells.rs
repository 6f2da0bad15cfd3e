//! The columns: which tokens are sent, and how a service ought to answer them.

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
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) algorithm: Algorithm,
}

pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519];

/// All columns, in their order.
pub(crate) fn all() -> Vec<Cell> {
    let thrice = |kind| ALGORITHMS.map(|algorithm| Cell { kind, algorithm });
    let once = |kind| Cell { kind, algorithm: Algorithm::RS256 };
    let mut cells = Vec::new();
    cells.extend([Kind::One, Kind::Many, Kind::BadSignature].into_iter().flat_map(thrice));
    cells.extend([Kind::Expired, Kind::Garbage, Kind::NoToken].map(once));
    cells
}

/// What peers call the algorithm: the name that RFC 9864 deprecates, because they know no other.
pub(crate) fn name(algorithm: Algorithm) -> &'static str {
    if algorithm == Algorithm::Ed25519 { "EdDSA" } else { algorithm.as_str() }
}

impl Cell {
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

    /// What was answered wrongly, if anything was.
    pub(crate) fn fault(self, statuses: &Statuses) -> Option<u16> {
        let right = if self.valid() { 200..300 } else { 400..500 };
        statuses.keys().copied().find(|status| !right.contains(status))
    }

    pub(crate) fn tokens(self, provider: &Provider, many: usize) -> Vec<Option<String>> {
        let sign = || honest(provider, self.algorithm).sign();
        match self.kind {
            Kind::One => vec![Some(sign())],
            Kind::Many => (0..many).map(|_| Some(sign())).collect(),
            Kind::BadSignature => vec![Some(crossed(&sign(), &sign()))],
            Kind::Expired => vec![Some(honest(provider, self.algorithm).expired().sign())],
            Kind::Garbage => vec![Some("A".repeat(1000))],
            Kind::NoToken => vec![None],
        }
    }
}

/// A token that has every claim some peer insists on: the RFC 9068 profile, and Keycloak's.
fn honest(provider: &Provider, algorithm: Algorithm) -> TokenBuilder {
    let since = SystemTime::now() - Duration::from_secs(60);
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let token = provider.token().algorithm(algorithm).typ(Some("at+jwt"));
    token
        .header("alg", name(algorithm))
        .scope("profile email")
        .claim("nbf", since)
        .claim("client_id", "peers")
        .claim("azp", "peers")
        .claim("typ", "Bearer")
        .claim("email_verified", true)
}

/// One token under the signature of another: as dear to refuse as the real one is to accept. A
/// signature of zeros would not do, since ECDSA refuses it unseen.
fn crossed(token: &str, other: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let signature = other.rsplit_once('.').map_or(other, |(_, signature)| signature);
    format!("{signed}.{signature}")
}
