//! [`TrustPolicy`]: a checked policy.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::delegation::Delegation;
use super::fault::{Faults, PolicyError, PolicyFault, Position};
use super::index::TrustIndex;
use super::rule::Grant;
use super::time::{Expiry, Period};
use super::tree::{Node, Positions};
use super::{lint, parse};
use crate::config::{Algorithm, ConfigError, IssuerConfig, KeySetForm, Route, TENANT_PLACEHOLDER};
use crate::identity::{ClaimsMapping, IdentityKind};

/// Rules that give foreign tokens an identity, a tenant and scopes (feature `trust`).
///
/// Read it from [TOML](Self::from_toml), from [JSON](Self::from_json), or from any other format
/// with `serde`. The fields are the same; the [module page](crate::trust) describes them. Every
/// `TrustPolicy` value has passed all checks. Pass it to a
/// [`TrustEvaluator`](super::TrustEvaluator).
///
/// ```
/// use scaikey_auth::trust::{TrustPolicy, presets};
///
/// // A preset is a policy to complete: the placeholders in angle brackets are faults, each with its line.
/// let error = TrustPolicy::from_toml(presets::github_actions()).unwrap_err();
/// assert!(error.faults().iter().all(|fault| fault.line.is_some()));
///
/// let policy = TrustPolicy::from_toml(
///     r#"
///     [[trust]]
///     id = "github"
///     issuer = "https://token.actions.githubusercontent.com"
///     audiences = ["scaivault"]
///     [[trust.grant]]
///     name = "deploy"
///     claims = { repository_id = { eq = "7411" }, ref = { eq = "refs/heads/main" } }
///     map = { identity = "sa:deploy", tenant = "acme", scopes = ["secrets:read"] }
///     "#,
/// )?;
/// assert_eq!(policy.trust_ids().collect::<Vec<_>>(), ["github"]);
/// # Ok::<_, scaikey_auth::trust::PolicyError>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrustPolicy {
    #[serde(rename = "trust")]
    pub(super) trusts: Vec<Trust>,
    #[serde(skip)]
    warnings: Vec<PolicyFault>,
    #[serde(skip)]
    pub(super) index: TrustIndex,
}

/// Compares the trusts. The warnings follow from them, and differ only in their lines.
impl PartialEq for TrustPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.trusts == other.trusts
    }
}

impl TrustPolicy {
    /// The limit of a text, in bytes: 1 MiB. A longer one is a fault.
    pub const MAX_TEXT_BYTES: usize = 1 << 20;

    /// The limit of the trusts of a policy, and of the rules in all of its trusts. More are a fault.
    pub const MAX_RULES: usize = 10_000;

    pub(super) fn new(trusts: Vec<Trust>, warnings: Vec<PolicyFault>) -> Self {
        let index = TrustIndex::of(&trusts);
        Self { trusts, warnings, index }
    }

    /// Reads a policy in TOML. A byte order mark before it has no meaning.
    ///
    /// # Errors
    /// The first 200 faults, each with its place and remedy: invalid TOML, unknown and missing
    /// fields, and rules that would trust more than they appear to. Of a text above 64 KiB that is not TOML,
    /// only the first syntax error is reported.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Self::of(&Node::from_toml(text)?)
    }

    /// Reads a policy in JSON, which has the same fields.
    ///
    /// # Errors
    /// As for [`from_toml`](Self::from_toml), except that only the first syntax error is reported.
    /// A number with a fraction is a fault, and a policy whose [form in TOML](Self::to_toml) is longer than 1 MiB.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        let policy = Self::of(&Node::from_json(text)?)?;
        // Stores keep TOML.
        match policy.to_toml().len() > Self::MAX_TEXT_BYTES {
            true => Err(PolicyError::one(
                Position::default(),
                "the policy",
                "is longer than 1 MiB in TOML, the form in which it is stored: remove what is not needed",
            )),
            false => Ok(policy),
        }
    }

    fn of(tree: &Node) -> Result<Self, PolicyError> {
        let (faults, warnings) = (Faults::default(), Faults::default());
        let trusts = parse::policy(tree, &faults);
        lint::check(&trusts, &faults, &warnings);
        PolicyError::check_none(lint::placeholders(tree).with_faults_on_other_lines(faults))?;
        Ok(Self::new(trusts, warnings.into_vec()))
    }

    /// Returns the ids of the trusts, in the order of the text.
    pub fn trust_ids(&self) -> impl Iterator<Item = &str> {
        self.trusts.iter().map(|trust| trust.id.as_str())
    }

    /// Returns likely mistakes that are allowed, such as a rule that relies on a client id alone.
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }

    /// Rejects a policy that lists one of the service's `own` issuers, because a rule must not
    /// change the scopes of their tokens.
    pub(super) fn reject_own_issuers(&self, own: &[String]) -> Result<(), PolicyError> {
        let faults = Faults::default();
        let is_own = |trust: &&Trust| match &trust.authority {
            Authority::Issuer(issuer) => own.iter().any(|own| covers_issuer(own, issuer)),
            Authority::TrustDomain(_) => false,
        };
        for trust in self.trusts.iter().filter(is_own) {
            let problem =
                "is an issuer of this service, which accepts its tokens directly: remove the trust";
            faults.report(trust.positions.own, format!("trust.{}.issuer", trust.id), problem);
        }
        PolicyError::check_none(faults)
    }
}

/// Returns whether `own` is this issuer, or a pattern for one issuer per tenant that matches it.
fn covers_issuer(own: &str, issuer: &str) -> bool {
    let (own, issuer) = (own.trim_end_matches('/'), issuer.trim_end_matches('/'));
    match own.split_once(TENANT_PLACEHOLDER) {
        None => own == issuer,
        Some((before, after)) => {
            issuer.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
        }
    }
}

/// Runs the same checks as for a text, but without places.
impl<'de> Deserialize<'de> for TrustPolicy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        Self::of(&Node::from_value(&value)).map_err(serde::de::Error::custom)
    }
}

/// The signer of a trust's tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Authority {
    /// The value of `iss`.
    Issuer(String),
    /// The SPIFFE trust domain of `sub`, with the scheme: `spiffe://prod.example`. Its tokens are JWT-SVIDs.
    #[serde(serialize_with = "without_scheme")]
    TrustDomain(String),
}

impl Authority {
    /// Returns the name of the authority: the issuer, or the trust domain with its scheme.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Issuer(name) | Self::TrustDomain(name) => name,
        }
    }

    pub(super) fn is_trust_domain(&self) -> bool {
        matches!(self, Self::TrustDomain(_))
    }
}

fn without_scheme<S: Serializer>(trust_domain: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(trust_domain.strip_prefix("spiffe://").unwrap_or(trust_domain))
}

/// The algorithms of JWT-SVIDs (JWT-SVID §2.1).
pub(super) const SVID_ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A source of tokens: an issuer or a trust domain, its keys, and the conditions that all its tokens must meet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trust {
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) authority: Authority,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) discovery_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jwks: Option<Jwks>,
    /// The keys of a trust domain in the form of a SPIFFE bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<Jwks>,
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
    pub(super) insecure_shared_audience: bool,
    pub(super) allow_loopback_http: bool,
    #[serde(rename = "grant", skip_serializing_if = "Vec::is_empty")]
    pub(super) grants: Vec<Grant>,
    #[serde(rename = "delegation", skip_serializing_if = "Vec::is_empty")]
    pub(super) delegations: Vec<Delegation>,
    #[serde(skip)]
    pub(super) positions: Positions,
}

/// The source of the keys, if they are not found by discovery.
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
    File {
        file: String,
    },
    Inline {
        inline: String,
    },
}

/// The mode of a trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Enforce,
    /// Evaluates and logs each token, but grants nothing.
    Audit,
}

impl Trust {
    /// Returns the faults of the files that the trust names, which the checks of the policy do not read.
    pub(super) fn faults_of_files(&self, error: &ConfigError) -> PolicyError {
        let faults = Faults::default();
        for fault in error.faults() {
            let field = match fault.field.as_str() {
                "issuers[0].keys_file" if self.bundle.is_some() => "bundle",
                "issuers[0].keys_file" => "jwks",
                other => other,
            };
            let place = format!("trust.{}.{field}", self.id);
            faults.report(self.positions.of(field), place, &*fault.problem);
        }
        PolicyError::check_none(faults).err().unwrap_or_else(|| {
            PolicyError::one(self.positions.own, format!("trust.{}", self.id), error.to_string())
        })
    }

    /// Returns the configuration that verifies its tokens. It maps no claims, because only the
    /// rules read them: a platform's `tenant_id` or `roles` have no meaning in this service.
    pub(super) fn issuer_config(&self) -> IssuerConfig {
        let mut claims = ClaimsMapping::default().kind(IdentityKind::Workload);
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
        let mut config = IssuerConfig::new(self.authority.name())
            .algorithms(self.algorithms.iter().copied())
            .leeway(self.leeway.0)
            .claims(claims)
            .allow_loopback_http(self.allow_loopback_http);
        config.audience.clone_from(&self.audiences);
        config.discovery_url.clone_from(&self.discovery_url);
        config.is_trust_domain = self.authority.is_trust_domain();
        if self.bundle.is_some() {
            config.key_set_form = KeySetForm::SpiffeBundle;
        }
        match self.bundle.as_ref().or(self.jwks.as_ref()) {
            Some(Jwks::Fetched { url, ca_file, bearer_file }) => {
                config.jwks_uri = Some(url.clone());
                // A server with a private CA is in the internal network.
                let ignores_proxies = ca_file.is_some();
                let ca_file = ca_file.as_ref().map(Into::into);
                config.key_access.route = Route { ca_file, ignores_proxies };
                config.key_access.bearer_file = bearer_file.as_ref().map(Into::into);
            }
            Some(Jwks::File { file }) => config.keys_file = Some(file.into()),
            Some(Jwks::Inline { inline }) => config.inline_keys = Some(inline.as_str().into()),
            None => {}
        }
        config
    }
}
