//! [`SessionOwner`]: whose a stored session is, and the labels under which the store finds it.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::exchange::{AccessToken, text_claim};
use crate::identity::{Identity, TenantId};
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
    pub(super) fn new(user: &Identity, token: &AccessToken) -> Self {
        let from_id_token = token.id_token().and_then(|token| text_claim(token, "sid"));
        Self {
            issuer: user.issuer().to_owned(),
            subject: user.subject().to_owned(),
            tenant: user.tenant_id().map(|tenant| tenant.as_str().to_owned()),
            provider_session: from_id_token.or_else(|| user.session_id().map(str::to_owned)),
        }
    }

    /// Returns the labels of a new session, under the first of the keys. The provider may name the subject of the ID
    /// token differently from that of the access token; its logout tokens have the former.
    pub(super) fn labels(
        &self,
        token: &AccessToken,
        provider: &str,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Vec<SessionLabel> {
        let Self { issuer, subject, tenant, provider_session } = self;
        let subject_of_id_token = token.id_token().and_then(|token| text_claim(token, "sub"));
        let whose = [
            Some(Whose::User { issuer, subject, tenant: tenant.as_deref() }),
            Some(Whose::Subject { issuer, subject }),
            subject_of_id_token
                .as_deref()
                .map(|subject| Whose::Subject { issuer: provider, subject }),
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
