//! [`GrantStore`]: issued codes, sessions and refresh tokens, and their state.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::clients::User;
use super::super::keys::base64url;
use super::OAuthError;
use crate::support::crypto;

/// The grants of an issuer.
#[derive(Debug, Default)]
pub(in super::super) struct GrantStore(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    codes: HashMap<String, Code>,
    /// Each with its session and whether it was used.
    refresh_tokens: HashMap<String, (Arc<Session>, bool)>,
    /// The claims of opaque access tokens.
    opaque_tokens: HashMap<String, Map<String, Value>>,
    /// Ids of revoked sessions and `jti`s of revoked access tokens.
    revoked: HashSet<String>,
    assertions: HashSet<(String, String)>,
    granted: HashMap<String, u64>,
    reuses: u64,
    keeps_refresh_tokens: bool,
    /// The browsers that signed in, by the value of their cookie, if they are remembered.
    sign_ins: HashMap<String, SignIn>,
    /// The classes (`acr`) that the sign-in page reaches.
    acr_values: Vec<String>,
    has_single_sign_on: bool,
    lifetime: Option<Duration>,
}

/// A user who signed in with a browser.
#[derive(Debug, Clone)]
pub(super) struct SignIn {
    pub(super) user: Arc<User>,
    /// The class of the authentication (`acr`), if it has one.
    pub(super) acr: Option<String>,
    /// The time of the authentication, in Unix seconds.
    pub(super) at: u64,
}

/// A signed-in user at a client. Its refresh tokens form one family (RFC 9700 §4.14.2).
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) client: String,
    pub(super) user: Arc<User>,
    pub(super) scope: String,
    pub(super) acr: Option<String>,
    /// The time of the sign-in, in Unix seconds.
    pub(super) began: u64,
}

impl Session {
    pub(super) fn new(client: &str, sign_in: SignIn, scope: String) -> Arc<Self> {
        let SignIn { user, acr, at } = sign_in;
        let (id, client) = (random("session"), client.to_owned());
        Arc::new(Self { id, client, user, scope, acr, began: at })
    }
}

/// An authorization code and the values that it is bound to.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) session: Arc<Session>,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) expires_at: u64,
    pub(super) used: bool,
}

impl GrantStore {
    pub(super) fn add_code(&self, code: Code) -> String {
        let name = random("code");
        self.entries().codes.insert(name.clone(), code);
        name
    }

    /// Uses up a code that `matches` accepts. A second use revokes the session (RFC 6749 §4.1.2).
    pub(super) fn spend_code(
        &self,
        name: &str,
        matches: impl FnOnce(&Code) -> bool,
    ) -> Result<(Arc<Session>, Option<String>), OAuthError> {
        let mut entries = self.entries();
        let Entries { codes, revoked, .. } = &mut *entries;
        let refused = |why| Err(OAuthError::new("invalid_grant", why));
        match codes.get_mut(name) {
            None => refused("unknown code"),
            Some(code) if !matches(code) => {
                refused("the code has expired or belongs to another request")
            }
            Some(code) if code.used => {
                revoked.insert(code.session.id.clone());
                refused("code already used")
            }
            Some(code) => {
                code.used = true;
                Ok((Arc::clone(&code.session), code.nonce.clone()))
            }
        }
    }

    pub(super) fn set_single_sign_on(&self, on: bool) {
        self.entries().has_single_sign_on = on;
    }

    /// Remembers a browser, if there is single sign-on. Returns the value of its cookie.
    pub(super) fn add_sign_in(&self, sign_in: &SignIn) -> Option<String> {
        let mut entries = self.entries();
        let id = entries.has_single_sign_on.then(|| random("sign-in"))?;
        entries.sign_ins.insert(id.clone(), sign_in.clone());
        Some(id)
    }

    pub(super) fn sign_in(&self, id: &str) -> Option<SignIn> {
        let entries = self.entries();
        entries.sign_ins.get(id).filter(|_| entries.has_single_sign_on).cloned()
    }

    pub(super) fn set_acr_values(&self, values: Vec<String>) {
        self.entries().acr_values = values;
    }

    pub(super) fn acr_values(&self) -> Vec<String> {
        self.entries().acr_values.clone()
    }

    pub(super) fn end_sign_in(&self, id: &str) {
        self.entries().sign_ins.remove(id);
    }

    /// Creates a refresh token for a session.
    pub(super) fn add_refresh_token(&self, session: &Arc<Session>) -> String {
        let token = random("refresh");
        self.entries().refresh_tokens.insert(token.clone(), (Arc::clone(session), false));
        token
    }

    /// Uses a refresh token. If tokens rotate, it is used up, and a second use revokes the session.
    pub(super) fn spend_refresh_token(
        &self,
        token: &str,
        client: &str,
    ) -> Result<Arc<Session>, OAuthError> {
        let mut entries = self.entries();
        let Entries { refresh_tokens, revoked, reuses, keeps_refresh_tokens, .. } = &mut *entries;
        let refused = |why| Err(OAuthError::new("invalid_grant", why));
        match refresh_tokens.get_mut(token) {
            None => refused("unknown refresh token"),
            Some((session, _)) if session.client != client => {
                refused("the token belongs to another client")
            }
            Some((session, true)) => {
                *reuses += 1;
                revoked.insert(session.id.clone());
                refused("refresh token already used")
            }
            Some((session, _)) if revoked.contains(&session.id) => {
                refused("the session was revoked")
            }
            Some((session, used)) => {
                *used = !*keeps_refresh_tokens;
                Ok(Arc::clone(session))
            }
        }
    }

    /// Returns the session of a usable refresh token.
    pub(super) fn live_session(&self, token: &str) -> Option<Arc<Session>> {
        let entries = self.entries();
        let (session, used) = entries.refresh_tokens.get(token)?;
        (!used && !entries.revoked.contains(&session.id)).then(|| Arc::clone(session))
    }

    /// Returns the session of a refresh token, usable or not.
    pub(super) fn session(&self, token: &str) -> Option<Arc<Session>> {
        self.entries().refresh_tokens.get(token).map(|(session, _)| Arc::clone(session))
    }

    /// Creates an opaque access token with these claims.
    pub(in super::super) fn add_opaque_token(
        &self,
        prefix: &str,
        claims: Map<String, Value>,
    ) -> String {
        let token = format!("{prefix}{}", random_text());
        self.entries().opaque_tokens.insert(token.clone(), claims);
        token
    }

    /// Returns the claims of an opaque access token, valid or not.
    pub(in super::super) fn opaque_claims(&self, token: &str) -> Option<Map<String, Value>> {
        self.entries().opaque_tokens.get(token).cloned()
    }

    /// Revokes a session by its id, or an access token by its `jti`.
    pub(super) fn revoke(&self, id: &str) {
        self.entries().revoked.insert(id.to_owned());
    }

    pub(super) fn is_revoked(&self, id: &str) -> bool {
        self.entries().revoked.contains(id)
    }

    /// Records an assertion, and returns whether it is new.
    pub(super) fn record_assertion(&self, client: &str, jti: &str) -> bool {
        self.entries().assertions.insert((client.to_owned(), jti.to_owned()))
    }

    pub(super) fn count_grant(&self, grant_type: &str) {
        *self.entries().granted.entry(grant_type.to_owned()).or_default() += 1;
    }

    pub(super) fn granted(&self, grant_type: &str) -> u64 {
        self.entries().granted.get(grant_type).copied().unwrap_or_default()
    }

    pub(super) fn reuses(&self) -> u64 {
        self.entries().reuses
    }

    pub(super) fn keep_refresh_tokens(&self, keep: bool) {
        self.entries().keeps_refresh_tokens = keep;
    }

    pub(super) fn keeps_refresh_tokens(&self) -> bool {
        self.entries().keeps_refresh_tokens
    }

    pub(super) fn set_lifetime(&self, lifetime: Option<Duration>) {
        self.entries().lifetime = lifetime;
    }

    pub(in super::super) fn lifetime(&self) -> Option<Duration> {
        self.entries().lifetime
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an unguessable name with this prefix.
fn random(prefix: &str) -> String {
    format!("{prefix}-{}", random_text())
}

#[expect(clippy::expect_used, reason = "a test tool cannot continue without a random source")]
fn random_text() -> String {
    base64url(crypto::random::<32>().expect("the system has random numbers"))
}
