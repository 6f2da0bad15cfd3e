//! [`SessionOwner`]: whose a stored session is, and the labels under which the store finds it.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::exchange::{AccessToken, text_claim};
use crate::identity::{Identity, TenantId};
use crate::revocation::Revocation;
use crate::session::store::{SessionLabel, SessionSelector};
use crate::support::seal::SealingKeys;

/// The user of a session, and the provider's session that it began in. It is sealed beside the tokens, so that the
/// server knows whose session it ends without the session's cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionOwner {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) tenant: Option<String>,
    /// The `sid` of the provider's session (OpenID Connect Back-Channel Logout 1.0 §2.1).
    pub(crate) provider_session: Option<String>,
    /// The subject of the ID token, if it differs. The provider's logout tokens have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id_token_subject: Option<String>,
}

/// The sessions to list or to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// Those of a user in one tenant, or without a tenant.
    User { issuer: &'a str, subject: &'a str, tenant: Option<&'a str> },
    /// Those of a subject in any tenant.
    Subject { issuer: &'a str, subject: &'a str },
    /// Those that began in one session of the provider.
    ProviderSession { issuer: &'a str, session: &'a str },
}

impl SessionOwner {
    /// Returns the owner of a session that begins with these tokens. The ID token names the provider's session.
    pub(in crate::session) fn new(user: &Identity, token: &AccessToken) -> Self {
        let of_id_token = |name| token.id_token().and_then(|token| text_claim(token, name));
        let session = of_id_token("sid").or_else(|| user.session_id().map(str::to_owned));
        Self {
            issuer: user.issuer().to_owned(),
            subject: user.subject().to_owned(),
            tenant: user.tenant_id().map(|tenant| tenant.as_str().to_owned()),
            provider_session: session,
            id_token_subject: of_id_token("sub").filter(|subject| subject != user.subject()),
        }
    }

    /// Returns the labels of a new session, under the first of the keys.
    pub(super) fn labels(
        &self,
        provider: &str,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Vec<SessionLabel> {
        let Self { issuer, subject, tenant, provider_session, id_token_subject } = self;
        let at_provider = id_token_subject.as_deref().unwrap_or(subject);
        let whose = [
            Some(Whose::User { issuer, subject, tenant: tenant.as_deref() }),
            Some(Whose::Subject { issuer, subject }),
            Some(Whose::Subject { issuer: provider, subject: at_provider }),
            provider_session
                .as_deref()
                .map(|session| Whose::ProviderSession { issuer: provider, session }),
        ];
        let mut labels = Vec::new();
        for whose in whose.into_iter().flatten() {
            if let Some(label) = whose.labels(keys, clock).first()
                && !labels.contains(label)
            {
                labels.push(*label);
            }
        }
        labels
    }
}

impl<'a> Whose<'a> {
    /// Returns the sessions of a user in the user's tenant.
    pub(crate) fn of(user: &'a Identity) -> Self {
        let tenant = user.tenant_id().map(TenantId::as_str);
        Self::User { issuer: user.issuer(), subject: user.subject(), tenant }
    }

    /// Returns what refuses the tokens of these users.
    pub(super) fn revocation(&self) -> Option<Revocation> {
        match *self {
            Self::User { issuer, subject, tenant: None } => {
                Some(Revocation::subject_without_tenant(issuer, subject))
            }
            Self::User { issuer, subject, tenant: Some(tenant) } => {
                Some(Revocation::subject(issuer, subject).in_tenant(tenant.parse().ok()?))
            }
            Self::Subject { issuer, subject } => Some(Revocation::subject(issuer, subject)),
            Self::ProviderSession { .. } => None,
        }
    }

    /// Selects the sessions, also those that began under the other sealing key.
    pub(super) fn selector(&self, keys: &SealingKeys, clock: &dyn Clock) -> SessionSelector {
        SessionSelector::any_of(self.labels(keys, clock))
    }

    /// Returns the label under each of the keys.
    fn labels(&self, keys: &SealingKeys, clock: &dyn Clock) -> Vec<SessionLabel> {
        let labels = match *self {
            Self::User { issuer, subject, tenant: None } => {
                keys.labels(["user", issuer, subject], clock)
            }
            Self::User { issuer, subject, tenant: Some(tenant) } => {
                keys.labels(["user in tenant", issuer, subject, tenant], clock)
            }
            Self::Subject { issuer, subject } => keys.labels(["subject", issuer, subject], clock),
            Self::ProviderSession { issuer, session } => {
                keys.labels(["provider session", issuer, session], clock)
            }
        };
        labels.into_iter().map(SessionLabel::from_bytes).collect()
    }
}
