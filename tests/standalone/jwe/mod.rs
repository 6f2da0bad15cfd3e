//! Encrypted tokens. They are encrypted by `josekit`, and opened by services on real sockets.

mod attacks;
mod decrypters;
mod rotation;
mod settings;
mod tokens;
mod vectors;

use axum::Router;
use axum::routing::get;
use scaikey_auth::{Auth, AuthError, Identity, IssuerConfig};

use crate::support::jwe::{KeyPair, decryption_keys};
use crate::support::{Server, World};

/// A provider, and a service that opens its tokens.
struct Service {
    world: World,
    auth: Auth,
    server: Server,
}

impl Service {
    /// Starts a service that has these keys.
    async fn new<'k>(keys: impl IntoIterator<Item = &'k KeyPair>) -> Self {
        let keys = decryption_keys(keys);
        Self::with(|issuer| issuer.decrypt(keys)).await
    }

    async fn with(configure: impl FnOnce(IssuerConfig) -> IssuerConfig) -> Self {
        let world = World::new().await;
        let auth = world.auth_with(configure(world.issuer())).build().unwrap();
        let server = serve(&auth).await;
        Self { world, auth, server }
    }

    fn signed(&self) -> String {
        self.world.provider.token().sign()
    }

    async fn outcome(&self, token: &str) -> &'static str {
        outcome(&self.auth, &self.server, token).await
    }
}

async fn serve(auth: &Auth) -> Server {
    let subject = |identity: Identity| async move { identity.subject().to_owned() };
    Server::axum(Router::new().route("/", get(subject)).layer(auth.layer())).await
}

/// Sends the token to the server. Returns the reason for which it is refused, or `accepted`.
async fn outcome(auth: &Auth, server: &Server, token: &str) -> &'static str {
    let status = server.get_as("/", token).await.status;
    match auth.authenticate(token).await {
        Ok(_) => {
            assert_eq!(status, 200);
            "accepted"
        }
        Err(error) => {
            assert_eq!(status, error.status().as_u16(), "{error}");
            error.reason()
        }
    }
}

/// Returns the error for the token, as the log has it.
async fn error(auth: &Auth, token: &str) -> String {
    match auth.authenticate(token).await {
        Err(AuthError::InvalidToken(error)) => error.to_string(),
        other => panic!("{:?}", other.map(|context| context.identity().subject().to_owned())),
    }
}
