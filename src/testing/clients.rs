//! [`Client`] and [`User`]: who may use the token endpoint.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::secret::Secret;

/// An OAuth client, for [`Issuer::register_client`](super::Issuer::register_client).
///
/// Without [`scopes`](Client::scopes) it may ask for none.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) id: String,
    pub(super) secret: Option<Secret>,
    pub(super) scopes: Vec<String>,
}

impl Client {
    /// A confidential client.
    pub fn new(id: &str, secret: &str) -> Self {
        Self { id: id.to_owned(), secret: Some(secret.into()), scopes: Vec::new() }
    }

    /// A client without a secret (RFC 6749 §2.1). It cannot use the client-credentials grant.
    pub fn public(id: &str) -> Self {
        Self { id: id.to_owned(), secret: None, scopes: Vec::new() }
    }

    /// What it may ask for, separated by spaces. It gets all of it when it does not ask.
    pub fn scopes(mut self, scopes: &str) -> Self {
        self.scopes = scopes.split_ascii_whitespace().map(str::to_owned).collect();
        self
    }
}

/// A user with a password, for [`Issuer::register_user`](super::Issuer::register_user).
///
/// Tokens carry the claims of [`Issuer::token`](super::Issuer::token) with the name and those set
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
