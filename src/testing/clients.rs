//! [`Client`] and [`User`]: the accounts of a test issuer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

#[cfg(feature = "jwe")]
use super::encryption::EncryptionKey;
use super::issuer::TestIssuer;
use super::keys::SigningKey;
use crate::support::secret::Secret;

/// An OAuth client for [`TestIssuer::register_client`](super::TestIssuer::register_client) (feature
/// `testing`).
///
/// By default it may request no scope and exchange no token: see [`scopes`](Client::scopes) and
/// [`may_exchange`](Client::may_exchange).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::testing::{Client, Provider};
///
/// let provider = Provider::start().await;
/// let drive = Client::new("scaidrive", "secret")
///     .scopes("openid offline_access docs:read")
///     .redirect_uri("https://drive.example/v1/auth/login")
///     .may_exchange("scaivault", "secrets:read");
/// provider.register_client(drive);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) id: String,
    pub(super) credential: ClientCredential,
    pub(super) scopes: Vec<String>,
    pub(super) extra_scopes: Vec<String>,
    pub(super) exchange_policies: Vec<ExchangePolicy>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) post_logout_redirect_uris: Vec<String>,
    pub(super) lifetime: Option<Duration>,
    pub(super) sends_expires_in: bool,
    /// The prefix of its access tokens, if they are opaque.
    pub(super) opaque_prefix: Option<String>,
    #[cfg(feature = "jwe")]
    pub(super) id_token_recipient: Option<EncryptionKey>,
    #[cfg(feature = "jwe")]
    pub(super) access_token_recipient: Option<EncryptionKey>,
}

/// The authentication method of a client.
#[derive(Debug, Clone)]
pub(super) enum ClientCredential {
    /// A public client: only its id (RFC 6749 §2.1).
    None,
    /// `client_secret_basic` or `client_secret_post`.
    Secret(Secret),
    /// `private_key_jwt`.
    Key(SigningKey),
    /// A token of another issuer with this subject (RFC 7523 §2.2).
    Federated(Box<TestIssuer>, String),
}

/// The audience and scopes that a client may exchange a token for.
#[derive(Debug, Clone)]
pub(super) struct ExchangePolicy {
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
}

impl Client {
    /// Creates a confidential client with a secret: `client_secret_basic` or `client_secret_post`.
    pub fn new(id: &str, secret: &str) -> Self {
        Self::with_credential(id, ClientCredential::Secret(secret.into()))
    }

    /// Creates a confidential client with a key: `private_key_jwt` (RFC 7523 §2.2).
    pub fn with_key(id: &str, key: &SigningKey) -> Self {
        Self::with_credential(id, ClientCredential::Key(key.clone()))
    }

    /// Creates a confidential client without a secret: it authenticates with a token of `platform` whose
    /// `sub` is `subject`, such as `system:serviceaccount:prod:wave`, and whose only `aud` is the issuer that
    /// the client is registered at (RFC 7523 §2.2). If `subject` is a SPIFFE ID, the token may be a JWT-SVID,
    /// with the assertion type `jwt-spiffe` and without `iss`.
    pub fn federated(id: &str, platform: &TestIssuer, subject: &str) -> Self {
        let platform = Box::new(platform.clone());
        Self::with_credential(id, ClientCredential::Federated(platform, subject.to_owned()))
    }

    /// Creates a public client, without a secret (RFC 6749 §2.1). It can use neither the
    /// client-credentials grant nor token exchange.
    pub fn public(id: &str) -> Self {
        Self::with_credential(id, ClientCredential::None)
    }

    fn with_credential(id: &str, credential: ClientCredential) -> Self {
        Self {
            id: id.to_owned(),
            credential,
            scopes: Vec::new(),
            extra_scopes: Vec::new(),
            exchange_policies: Vec::new(),
            redirect_uris: Vec::new(),
            post_logout_redirect_uris: Vec::new(),
            lifetime: None,
            sends_expires_in: true,
            opaque_prefix: None,
            #[cfg(feature = "jwe")]
            id_token_recipient: None,
            #[cfg(feature = "jwe")]
            access_token_recipient: None,
        }
    }

    /// Sets the scopes that it may request, separated by spaces. It gets all of them if a request
    /// names none.
    pub fn scopes(mut self, scopes: &str) -> Self {
        self.scopes = list(scopes);
        self
    }

    /// Sets the scopes that it gets with every token, requested or not, separated by spaces: some
    /// providers add their default scopes to every answer. Default: none.
    pub fn extra_scopes(mut self, scopes: &str) -> Self {
        self.extra_scopes = list(scopes);
        self
    }

    /// Adds a redirect URI for sign-in. Requests must match it exactly.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Adds a page to which the provider redirects a browser after sign-out. Requests must match it
    /// exactly.
    pub fn post_logout_redirect_uri(mut self, uri: &str) -> Self {
        self.post_logout_redirect_uris.push(uri.to_owned());
        self
    }

    /// Lets it exchange tokens for this `audience` or `resource`, with at most these scopes,
    /// separated by spaces. It gets all of them if a request names none.
    pub fn may_exchange(mut self, audience: &str, scopes: &str) -> Self {
        self.exchange_policies
            .push(ExchangePolicy { audience: audience.to_owned(), scopes: list(scopes) });
        self
    }

    /// Sets the lifetime of its access tokens, rounded down to whole seconds. Default: the
    /// issuer's, see [`TestIssuer::set_token_lifetime`](super::TestIssuer::set_token_lifetime).
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Omits `expires_in` from the token responses to this client.
    pub fn without_expires_in(mut self) -> Self {
        self.sends_expires_in = false;
        self
    }

    /// Makes its access tokens opaque: texts that begin with `prefix`, whose claims only
    /// [introspection](super::TestIssuer::introspection_endpoint) shows. `prefix` may be empty. ID tokens stay
    /// JWTs. Default: access tokens are JWTs. See [`TokenBuilder::opaque`](super::TokenBuilder::opaque) for a
    /// token without a grant.
    pub fn opaque_access_tokens(mut self, prefix: &str) -> Self {
        self.opaque_prefix = Some(prefix.to_owned());
        self
    }

    /// Encrypts its ID tokens for this recipient (`id_token_encrypted_response_alg` of OpenID Connect
    /// Registration; feature `jwe`). Default: they are signed only.
    #[cfg(feature = "jwe")]
    pub fn encrypt_id_tokens(mut self, recipient: &EncryptionKey) -> Self {
        self.id_token_recipient = Some(recipient.clone());
        self
    }

    /// Encrypts its access tokens for this recipient, the service that reads them (feature `jwe`). The provider
    /// itself cannot read them, so it neither introspects nor exchanges them. Default: they are signed only.
    #[cfg(feature = "jwe")]
    pub fn encrypt_access_tokens(mut self, recipient: &EncryptionKey) -> Self {
        self.access_token_recipient = Some(recipient.clone());
        self
    }

    pub(super) fn is_federated(&self) -> bool {
        matches!(self.credential, ClientCredential::Federated(..))
    }

    pub(super) fn is_public(&self) -> bool {
        matches!(self.credential, ClientCredential::None)
    }
}

fn list(scopes: &str) -> Vec<String> {
    scopes.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A user for [`TestIssuer::register_user`](super::TestIssuer::register_user) (feature `testing`).
///
/// The user's tokens have the claims of [`TestIssuer::token`](super::TestIssuer::token), except the
/// claims that are set here. They contain no roles and no groups, unless [`claim`](Self::claim) sets
/// them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::testing::{Provider, User};
///
/// let provider = Provider::start().await;
/// provider.register_user(User::new("bob", "hunter2").claim("roles", vec!["editor"]));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct User {
    pub(super) name: String,
    pub(super) password: Secret,
    pub(super) claims: Map<String, Value>,
}

impl User {
    /// Creates a user whose `sub` is `{name}-id` and whose `preferred_username` is `name`.
    pub fn new(name: &str, password: &str) -> Self {
        let user = Self { name: name.to_owned(), password: password.into(), claims: Map::new() };
        user.claim("sub", format!("{name}-id")).claim("preferred_username", name)
    }

    /// Sets a claim of the user's tokens.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }
}

/// The clients and users of one issuer. Registering an existing name replaces the entry.
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
