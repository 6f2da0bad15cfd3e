//! [`Revocation`]: what is revoked.

use std::time::SystemTime;

use super::key::{Key, Kind};
use crate::identity::TenantId;

/// What is revoked: a token, a session, or all tokens of a subject, client, tenant or issuer.
///
/// A token or session is refused by its id alone. All others refuse the tokens that were issued before a
/// [time](Self::issued_before), so that a new sign-in works again.
///
/// Ids are unique only within an issuer, so each revocation has one: the `iss` of the tokens, unchanged.
///
/// ```
/// use scaikey_auth::Auth;
/// use scaikey_auth::revocation::{Revocation, RevokeError};
///
/// /// An administrator removes a user from a tenant.
/// async fn removed(auth: &Auth, tenant: &str, user: &str) -> Result<(), Box<dyn std::error::Error>> {
///     let issuer = "https://scaikey.example";
///     auth.revocations().revoke(Revocation::subject(issuer, user).in_tenant(tenant.parse()?)).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is in force after `Revocations::revoke`"]
pub struct Revocation {
    pub(super) issuer: Box<str>,
    pub(super) target: Target,
    pub(super) issued_before: Option<SystemTime>,
    pub(super) until: Option<SystemTime>,
    /// The time of [`revoke`](super::Revocations::revoke), if the caller set no end. Each process then knows how long
    /// its tokens and sessions live.
    pub(super) made_at: Option<SystemTime>,
}

/// The tokens that a [`Revocation`] refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Token {
        id: Box<str>,
        subject: Option<Box<str>>,
    },
    /// `is_dated`: only those that were issued before.
    Session {
        id: Box<str>,
        subject: Option<Box<str>>,
        is_dated: bool,
    },
    Subject {
        id: Box<str>,
        tenant: Option<TenantId>,
    },
    SubjectWithoutTenant {
        id: Box<str>,
    },
    Client {
        id: Box<str>,
        tenant: Option<TenantId>,
    },
    Tenant(TenantId),
    Issuer,
}

impl Revocation {
    fn new(issuer: impl Into<Box<str>>, target: Target) -> Self {
        let issuer = issuer.into();
        Self { issuer, target, issued_before: None, until: None, made_at: None }
    }

    /// Revokes one token: its `jti`, as in [`Identity::token_id`](crate::Identity::token_id).
    pub fn token(issuer: impl Into<Box<str>>, jti: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Token { id: jti.into(), subject: None })
    }

    /// Revokes all tokens of a session at the issuer: its `sid`, as in
    /// [`Identity::session_id`](crate::Identity::session_id).
    ///
    /// Many issuers put no `sid` into access tokens. Add [`of_subject`](Self::of_subject) to refuse those, too.
    pub fn session(issuer: impl Into<Box<str>>, sid: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Session { id: sid.into(), subject: None, is_dated: false })
    }

    /// Revokes the tokens of a session at the issuer that were issued before. The session may go on, with the same
    /// `sid`, and browser sessions that began in it do. A [subject](Self::of_subject) only serves to merge entries.
    pub(crate) fn tokens_of_session(issuer: impl Into<Box<str>>, sid: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Session { id: sid.into(), subject: None, is_dated: true })
    }

    /// Revokes all tokens of a subject that name no tenant.
    pub(crate) fn subject_without_tenant(
        issuer: impl Into<Box<str>>,
        subject: impl Into<Box<str>>,
    ) -> Self {
        Self::new(issuer, Target::SubjectWithoutTenant { id: subject.into() })
    }

    /// Revokes all tokens of a user or service account: its subject, as in
    /// [`Identity::subject`](crate::Identity::subject). Also those in which it is the
    /// [actor](crate::Identity::actor). In all tenants, unless [`in_tenant`](Self::in_tenant)
    /// names one.
    pub fn subject(issuer: impl Into<Box<str>>, subject: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Subject { id: subject.into(), tenant: None })
    }

    /// Revokes all tokens that were issued to a client, as in
    /// [`Identity::client_id`](crate::Identity::client_id), or in which it is the
    /// [actor](crate::Identity::actor). In all tenants, unless [`in_tenant`](Self::in_tenant)
    /// names one.
    pub fn client(issuer: impl Into<Box<str>>, client_id: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Client { id: client_id.into(), tenant: None })
    }

    /// Revokes all tokens of a tenant.
    pub fn tenant(issuer: impl Into<Box<str>>, tenant: TenantId) -> Self {
        Self::new(issuer, Target::Tenant(tenant))
    }

    /// Revokes all tokens of an issuer, for example after its signing key was stolen.
    pub fn issuer(issuer: impl Into<Box<str>>) -> Self {
        Self::new(issuer, Target::Issuer)
    }

    /// Names the subject of a [`session`](Self::session) or [`token`](Self::token). Has no effect on others.
    ///
    /// The revocation of a session then also refuses tokens of this subject that have no `sid` and were
    /// [issued before](Self::issued_before). And when the index is full, entries of sessions and tokens with a
    /// subject can be merged into one of the subject.
    pub fn of_subject(mut self, of: impl Into<Box<str>>) -> Self {
        if let Target::Token { subject, .. } | Target::Session { subject, .. } = &mut self.target {
            *subject = Some(of.into());
        }
        self
    }

    /// Limits a [`subject`](Self::subject) or [`client`](Self::client) to tokens of one tenant. Has no effect on
    /// others: the ids of tokens and sessions are unique within an issuer, so an administrator of one tenant must
    /// not choose them.
    pub fn in_tenant(mut self, id: TenantId) -> Self {
        if let Target::Subject { tenant, .. } | Target::Client { tenant, .. } = &mut self.target {
            *tenant = Some(id);
        }
        self
    }

    /// Sets the time before which the refused tokens were issued (`iat`). Default, and the latest time that
    /// counts: now. A token without `iat` counts as issued before. A [`session`](Self::session) or
    /// [`token`](Self::token) is refused whatever its `iat`, unless its entry was merged into one of the subject: then
    /// only if it was issued before the merge.
    ///
    /// For a browser session of this service, the time of its sign-in counts in place of `iat`, so it ends although its
    /// tokens are renewed later.
    ///
    /// A few seconds are added, because clocks differ: see
    /// [`leeway`](super::RevocationsBuilder::leeway).
    pub fn issued_before(mut self, time: SystemTime) -> Self {
        self.issued_before = Some(time);
        self
    }

    /// Sets the time at which the revocation is forgotten, because the refused tokens have expired, in all processes.
    /// Default: now and the [longest lifetime of a token](super::RevocationsBuilder::token_lifetime) of the issuer, or
    /// of a browser session if it may mean one. A process that reads it from the log adds its own lifetimes.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// Returns whether tokens are refused whatever their `iat`.
    pub(super) fn is_timeless(&self) -> bool {
        matches!(self.target, Target::Token { .. } | Target::Session { is_dated: false, .. })
    }

    /// Returns the issuer.
    pub(crate) fn iss(&self) -> &str {
        &self.issuer
    }

    /// Returns the time before which the refused tokens were issued. `None`: now.
    pub(crate) fn issued_before_or_now(&self) -> Option<SystemTime> {
        self.issued_before
    }

    /// Returns the tokens that are refused.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the main kind, for logs.
    pub(super) fn kind(&self) -> Kind {
        match &self.target {
            Target::Token { .. } => Kind::Token,
            Target::Session { .. } => Kind::Session,
            Target::Subject { tenant: None, .. } => Kind::Subject,
            Target::Subject { tenant: Some(_), .. } => Kind::SubjectInTenant,
            Target::SubjectWithoutTenant { .. } => Kind::SubjectWithoutTenant,
            Target::Client { tenant: None, .. } => Kind::Client,
            Target::Client { tenant: Some(_), .. } => Kind::ClientInTenant,
            Target::Tenant(_) => Kind::Tenant,
            Target::Issuer => Kind::Issuer,
        }
    }

    /// Returns the keys of the entries, each with its kind. The first is the main one.
    pub(super) fn keys(&self) -> Vec<(Kind, Key)> {
        let kind = self.kind();
        let key = |kind, ids: &[&str]| (kind, Key::new(kind, &self.issuer, ids));
        match &self.target {
            Target::Session { id, subject: Some(subject), is_dated: false } => {
                vec![key(kind, &[id]), key(Kind::SubjectWithoutSession, &[subject])]
            }
            Target::Token { id, .. }
            | Target::Session { id, .. }
            | Target::SubjectWithoutTenant { id } => vec![key(kind, &[id])],
            Target::Subject { id, tenant } | Target::Client { id, tenant } => match tenant {
                Some(tenant) => vec![key(kind, &[tenant.as_str(), id])],
                None => vec![key(kind, &[id])],
            },
            Target::Tenant(tenant) => vec![key(kind, &[tenant.as_str()])],
            Target::Issuer => vec![key(kind, &[])],
        }
    }

    /// Returns the key of the subject into whose entry those of this revocation may be merged.
    pub(super) fn subject_key(&self) -> Option<Key> {
        let (Target::Token { subject, .. } | Target::Session { subject, .. }) = &self.target else {
            return None;
        };
        subject.as_deref().map(|subject| Key::new(Kind::Subject, &self.issuer, &[subject]))
    }
}
