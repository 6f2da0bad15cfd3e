//! Revocations: tokens that are refused although they have not expired, over sockets.

mod actors;
mod entry_points;
mod lifetimes;
mod limits;
mod log;
mod refill;
mod room;
mod settings;
mod targets;
mod telemetry;
mod times;
#[cfg(feature = "trust")]
mod workloads;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scaikey_auth::Auth;
use scaikey_auth::clock::Clock;
use scaikey_auth::revocation::{Revocation, Revocations, RevocationsBuilder};
use scaikey_auth::testing::TokenBuilder;

use crate::support::{Answer, Server, Spy, World};

/// A service with revocations.
struct Revocable {
    world: Arc<World>,
    auth: Auth,
    server: Server,
    spy: Spy,
}

impl Revocable {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(set: impl FnOnce(RevocationsBuilder) -> RevocationsBuilder) -> Self {
        let world = World::new().await;
        // Whole seconds, as in tokens.
        let since = world.clock.now().duration_since(UNIX_EPOCH).unwrap();
        world.clock.set_wall(UNIX_EPOCH + Duration::from_secs(since.as_secs()));
        Self::of(&Arc::new(world), set).await
    }

    /// Returns one of several services that share a provider and a clock.
    async fn of(
        world: &Arc<World>,
        set: impl FnOnce(RevocationsBuilder) -> RevocationsBuilder,
    ) -> Self {
        let revocations = set(Revocations::builder().clock(world.clock.clone())).build();
        let auth = world.auth().revocations(revocations).build().unwrap();
        let spy = Spy::default();
        let server = Server::axum(spy.app().layer(auth.layer())).await;
        Self { world: world.clone(), auth, server, spy }
    }

    fn issuer(&self) -> String {
        self.world.provider.issuer()
    }

    fn token(&self) -> TokenBuilder {
        self.world.provider.token()
    }

    fn now(&self) -> SystemTime {
        self.world.clock.now()
    }

    fn advance(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }

    async fn revoke(&self, revocation: Revocation) {
        self.auth.revocations().revoke(revocation).await.unwrap();
    }

    async fn get(&self, token: &str) -> Answer {
        self.server.get_as("/", token).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.get(token).await.status
    }
}
