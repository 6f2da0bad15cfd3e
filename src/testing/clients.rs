//! [`Client`] and [`User`]: who may use the token endpoint.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::keys::SigningKey;
use crate::support::secret::Secret;

/// An OAuth client, for [`TestIssuer::register_client`](super::TestIssuer::register_client) (feature `testing`).
///
/// Without [`scopes`](Client::scopes) it may ask for none, without
/// [`may_exchange`](Client::may_exchange) it may exchange no token.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) id: String,
    pub(super) credential: ClientCredential,
    pub(super) scopes: Vec<String>,
    pub(super) exchange_policies: Vec<ExchangePolicy>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) lifetime: Option<Duration>,
    pub(super) sends_expires_in: bool,
}

/// How a client shows who it is.
#[derive(Debug, Clone)]
pub(super) enum ClientCredential {
    /// By nothing but its name (RFC 6749 §2.1).
    None,
    /// `client_secret_basic` or `client_secret_post`.
    Secret(Secret),
    /// `private_key_jwt`.
    Key(SigningKey),
}

/// What a client may exchange a token for.
#[derive(Debug, Clone)]
pub(super) struct ExchangePolicy {
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
}

impl Client {
    /// A confidential client with a secret: `client_secret_basic` or `client_secret_post`.
    pub fn new(id: &str, secret: &str) -> Self {
        Self::with_credential(id, ClientCredential::Secret(secret.into()))
    }

    /// A confidential client with a key: `private_key_jwt` (RFC 7523 §2.2).
    pub fn with_key(id: &str, key: &SigningKey) -> Self {
        Self::with_credential(id, ClientCredential::Key(key.clone()))
    }

    /// A client without a secret (RFC 6749 §2.1). It can neither act for itself (the
    /// client-credentials grant) nor exchange tokens.
    pub fn public(id: &str) -> Self {
        Self::with_credential(id, ClientCredential::None)
    }

    fn with_credential(id: &str, credential: ClientCredential) -> Self {
        Self {
            id: id.to_owned(),
            credential,
            scopes: Vec::new(),
            exchange_policies: Vec::new(),
            redirect_uris: Vec::new(),
            lifetime: None,
            sends_expires_in: true,
        }
    }

    /// What it may ask for, separated by spaces. It gets all of it when it does not ask.
    pub fn scopes(mut self, scopes: &str) -> Self {
        self.scopes = list(scopes);
        self
    }

    /// Where browsers may be sent back to after a sign-in, letter for letter. May be repeated.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Lets it exchange tokens for one with this `aud` (or `resource`) and, when it does not ask
    /// for fewer, these scopes.
    pub fn may_exchange(mut self, audience: &str, scopes: &str) -> Self {
        self.exchange_policies
            .push(ExchangePolicy { audience: audience.to_owned(), scopes: list(scopes) });
        self
    }

    /// How long its access tokens live, in whole seconds. Default: what
    /// [`TestIssuer::set_token_lifetime`](super::TestIssuer::set_token_lifetime) says.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Leaves `expires_in` out of its answers.
    pub fn without_expires_in(mut self) -> Self {
        self.sends_expires_in = false;
        self
    }

    pub(super) fn is_public(&self) -> bool {
        matches!(self.credential, ClientCredential::None)
    }
}

fn list(scopes: &str) -> Vec<String> {
    scopes.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A user, for [`TestIssuer::register_user`](super::TestIssuer::register_user) (feature `testing`).
///
/// Tokens carry the claims of [`TestIssuer::token`](super::TestIssuer::token) with the name and those set
/// here in their place.
#[derive(Debug, Clone)]
pub struct User {
    pub(super) name: String,
    pub(super) password: Secret,
    pub(super) claims: Map<String, Value>,
}

impl User {
    /// A user whose `sub` is `{name}-id`.
    pub fn new(name: &str, password: &str) -> Self {
        let user = Self { name: name.to_owned(), password: password.into(), claims: Map::new() };
        user.claim("sub", format!("{name}-id")).claim("preferred_username", name)
    }

    /// Puts a claim into the user's tokens.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }
}

/// The clients and users of one issuer. A later registration replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Registry {
    clients: Mutex<Vec<Arc<Client>>>,
    users: Mutex<Vec<Arc<User>>>,
}

impl Registry {
    pub(super) fn add_client(&self, client: Client) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|known| known.id != client.id);
        clients.push(Arc::new(client));
    }

    pub(super) fn add_user(&self, user: User) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|known| known.name != user.name);
        users.push(Arc::new(user));
    }

    pub(super) fn client(&self, id: &str) -> Option<Arc<Client>> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().find(|client| client.id == id).cloned()
    }

    pub(super) fn user(&self, name: &str) -> Option<Arc<User>> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().find(|user| user.name == name).cloned()
    }
}
