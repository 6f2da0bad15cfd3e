//! [`TrustPolicy`]: the policy as a value, read whole or not at all.

use serde::{Deserialize, Deserializer, Serialize};

use super::fault::{Faults, PolicyError, PolicyFault};
use super::rule::Grant;
use super::time::{Expiry, Period};
use super::tree::{Lines, Node};
use super::{lint, parse};
use crate::config::{Algorithm, IssuerConfig, TENANT_PLACEHOLDER};
use crate::identity::{ClaimsMapping, IdentityKind};

/// Which foreign tokens are believed, as whom, in which tenant and with which scopes (feature `trust`).
///
/// Read from [TOML](Self::from_toml) or [JSON](Self::from_json), or with `serde` from whatever an
/// admin UI stores; there is one schema, described in the
/// module's manual. A policy that exists has passed every check. It does nothing by itself: hand it to
/// [`TrustEvaluator`](super::TrustEvaluator).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TrustPolicy {
    #[serde(rename = "trust")]
    pub(super) trusts: Vec<Trust>,
    #[serde(skip)]
    warnings: Vec<PolicyFault>,
}

impl TrustPolicy {
    /// Reads a policy in TOML.
    ///
    /// # Errors
    /// Everything that is wrong with it at once, each with its line and what to do: no TOML,
    /// unknown and missing fields, and whatever would trust more than it seems to.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Self::of(&Node::from_toml(text)?)
    }

    /// Reads a policy in JSON, which has the same fields.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml). A number with a fraction counts as unreadable.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        Self::of(&Node::from_json(text)?)
    }

    fn of(tree: &Node) -> Result<Self, PolicyError> {
        let (faults, warnings) = (Faults::default(), Faults::default());
        let trusts = parse::policy(tree, &faults);
        lint::check(&trusts, &faults, &warnings);
        PolicyError::from_faults(lint::placeholders(tree).before(faults))?;
        Ok(Self { trusts, warnings: warnings.into_vec() })
    }

    /// The ids of the trusts, in the order written.
    pub fn trust_ids(&self) -> impl Iterator<Item = &str> {
        self.trusts.iter().map(|trust| trust.id.as_str())
    }

    /// What is allowed and looks like a mistake, such as a rule that relies on a client id alone.
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }

    /// What is wrong with the policy in a service that itself trusts the issuers `own`: an issuer
    /// of ours is nobody foreign, and a policy must not give its tokens other scopes.
    pub(super) fn check_own(&self, own: &[String]) -> Result<(), PolicyError> {
        let faults = Faults::default();
        let is_own = |trust: &&Trust| own.iter().any(|own| stands_for(own, &trust.issuer));
        for trust in self.trusts.iter().filter(is_own) {
            let problem =
                "is this service's own issuer, whose tokens need no exchange: remove the trust";
            faults.note(trust.lines.own, format!("trust.{}.issuer", trust.id), problem);
        }
        PolicyError::from_faults(faults)
    }
}

/// Whether `own` is this issuer, or the template of per-tenant issuers of which this is one.
fn stands_for(own: &str, issuer: &str) -> bool {
    let (own, issuer) = (own.trim_end_matches('/'), issuer.trim_end_matches('/'));
    match own.split_once(TENANT_PLACEHOLDER) {
        None => own == issuer,
        Some((before, after)) => {
            issuer.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
        }
    }
}

/// Checked as a text is; there are no lines.
impl<'de> Deserialize<'de> for TrustPolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        Self::of(&Node::from_value(&value)).map_err(serde::de::Error::custom)
    }
}

/// One source of tokens: whose signature counts, and what every token of it must say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trust {
    pub(super) id: String,
    pub(super) issuer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) discovery_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jwks: Option<Jwks>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) audiences: Vec<String>,
    pub(super) max_lifetime: Period,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_age: Option<Period>,
    pub(super) leeway: Period,
    pub(super) single_use_jti: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<Expiry>,
    pub(super) mode: Mode,
    pub(super) named_only: bool,
    pub(super) allow_loopback_http: bool,
    #[serde(rename = "grant", skip_serializing_if = "Vec::is_empty")]
    pub(super) grants: Vec<Grant>,
    #[serde(skip)]
    pub(super) lines: Lines,
}

/// Where keys come from when not by discovery.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Jwks {
    Fetched {
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bearer_file: Option<String>,
    },
    Inline {
        inline: String,
    },
}

/// Whether a trust counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Enforce,
    /// Everything is judged and logged, and nothing is granted.
    Audit,
}

impl Trust {
    /// How its tokens are verified. The claims are read by the rules, not by a mapping: what a
    /// platform calls `tenant_id` or `roles` is nothing to us.
    pub(super) fn issuer_config(&self) -> IssuerConfig {
        let mut claims = ClaimsMapping { kind: Some(IdentityKind::Workload), ..Default::default() };
        for paths in [
            &mut claims.tenant_id,
            &mut claims.partner_id,
            &mut claims.display_name,
            &mut claims.email,
            &mut claims.scopes,
            &mut claims.roles,
            &mut claims.groups,
        ] {
            paths.clear();
        }
        let mut config = IssuerConfig::new(&self.issuer)
            .algorithms(self.algorithms.iter().copied())
            .leeway(self.leeway.0)
            .claims(claims)
            .allow_loopback_http(self.allow_loopback_http);
        config.audience.clone_from(&self.audiences);
        config.discovery_url.clone_from(&self.discovery_url);
        match &self.jwks {
            Some(Jwks::Fetched { url, ca_file, bearer_file }) => {
                config.jwks_uri = Some(url.clone());
                config.key_access.ca_file = ca_file.as_ref().map(Into::into);
                config.key_access.bearer_file = bearer_file.as_ref().map(Into::into);
            }
            Some(Jwks::Inline { inline }) => config.inline_keys = Some(inline.as_str().into()),
            None => {}
        }
        config
    }
}
