//! [`TrustIndex`]: finds the trust of a token without a comparison with every trust.

use std::collections::HashMap;

use super::outcome::DenialReason;
use super::policy::{Authority, Trust};
use crate::error::InvalidToken;
use crate::identity::spiffe_id;
use crate::support::json::Value;

/// The places of trusts in their list, by id, and by signer and audience.
#[derive(Debug, Clone, Default)]
pub(super) struct TrustIndex {
    by_id: HashMap<String, usize>,
    issuers: BySigner,
    trust_domains: BySigner,
}

/// The trusts of a signer that callers need not name, by audience. The linter rejects two trusts with the
/// same signer and a common audience.
type BySigner = HashMap<String, HashMap<String, usize>>;

impl TrustIndex {
    pub(super) fn of(trusts: &[Trust]) -> Self {
        let mut index = Self::default();
        for (nth, trust) in trusts.iter().enumerate() {
            index.by_id.insert(trust.id.clone(), nth);
            if trust.named_only {
                continue;
            }
            let signers = match &trust.authority {
                Authority::Issuer(_) => &mut index.issuers,
                Authority::TrustDomain(_) => &mut index.trust_domains,
            };
            let audiences = signers.entry(trust.authority.name().to_owned()).or_default();
            audiences.extend(trust.audiences.iter().map(|audience| (audience.clone(), nth)));
        }
        index
    }

    /// Returns the place of the trust with this id.
    pub(super) fn named(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Returns the place of the trust that the caller names, or else of the one that matches the token's
    /// audience, and its issuer or the trust domain of its subject. These claims are not verified yet.
    pub(super) fn find(
        &self,
        trust_id: Option<&str>,
        claims: Value<'_>,
    ) -> Result<usize, DenialReason> {
        if let Some(id) = trust_id {
            return self.named(id).ok_or(DenialReason::UnknownTrust);
        }
        let Signer { issuer, trust_domain } = Signer::of(claims)?;
        let signers = [
            issuer.and_then(|name| self.issuers.get(name)),
            trust_domain.and_then(|name| self.trust_domains.get(name)),
        ];
        let mut found = None;
        for audiences in signers.into_iter().flatten() {
            for nth in audiences_of(claims).filter_map(|audience| audiences.get(audience)) {
                if found.is_some_and(|earlier| earlier != *nth) {
                    return Err(DenialReason::AmbiguousTrusts);
                }
                found = Some(*nth);
            }
        }
        found.ok_or(DenialReason::NoMatchingTrust)
    }
}

fn audiences_of<'d>(claims: Value<'d>) -> impl Iterator<Item = &'d str> {
    let aud = claims.get("aud");
    let list = aud.filter(|aud| aud.is_list()).map(Value::children);
    let one = aud.filter(|aud| !aud.is_list());
    one.into_iter().chain(list.into_iter().flatten()).filter_map(Value::as_str)
}

/// The signer that unverified claims name: the issuer, the trust domain of the subject, or both.
pub(super) struct Signer<'c> {
    issuer: Option<&'c str>,
    trust_domain: Option<&'c str>,
}

impl<'c> Signer<'c> {
    pub(super) fn of(claims: Value<'c>) -> Result<Self, InvalidToken> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(iss) => Some(iss.as_str().ok_or(InvalidToken::MalformedClaim("iss"))?),
        };
        let subject = claims.get("sub").and_then(Value::as_str);
        let trust_domain = subject.and_then(spiffe_id::trust_domain);
        match issuer.or(trust_domain) {
            Some(_) => Ok(Self { issuer, trust_domain }),
            None => Err(InvalidToken::MissingClaim("iss")),
        }
    }

    /// Returns whether a trust is about this signer. A JWT-SVID may have an `iss`, which says nothing about
    /// the keys.
    pub(super) fn is(&self, trust: &Trust) -> bool {
        match &trust.authority {
            Authority::Issuer(name) => self.issuer == Some(name),
            Authority::TrustDomain(name) => self.trust_domain == Some(name),
        }
    }
}
