//! [`SessionTokens`]: a user's tokens, renewed in time.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{AccessToken, ExchangeError, Freshness, RefreshRequest, TokenExchangeClient};
use crate::identity::TenantId;
use crate::support::retry::{Backoff, Failures};
use crate::support::secret::Secret;
use crate::support::single_flight::SingleFlight;

/// The tokens of one session: what sign-in gave, and what refreshes made of it. Cheap to clone:
/// clones are the same session.
///
/// From 80 % of its life on, the access token is given out while the next one is sought; nobody
/// waits for that before it has expired. A session that nobody uses is not renewed. Several of these
/// (in several processes, with a shared cache) may hold the same refresh token: they end up with
/// the same successors, if they renew within a minute of each other.
#[derive(Debug, Clone)]
pub struct SessionTokens(Arc<Session>);

#[derive(Debug)]
struct Session {
    client: TokenExchangeClient,
    tenant: Option<TenantId>,
    held: ArcSwap<Tokens>,
    renewals: SingleFlight<(), Result<AccessToken, ExchangeError>>,
}

#[derive(Debug)]
struct Tokens {
    access: AccessToken,
    refresh: Option<Secret>,
    /// Renewals that failed while the token was still good.
    failures: Failures,
}

impl SessionTokens {
    /// From what [`TokenExchangeClient::authorization_code`] or another grant gave. Without a
    /// refresh token the session ends with its access token.
    pub fn new(client: TokenExchangeClient, first: AccessToken) -> Self {
        Self::of(client, first, None)
    }

    /// The same where the token endpoint depends on the tenant.
    pub fn in_tenant(client: TokenExchangeClient, first: AccessToken, tenant: TenantId) -> Self {
        Self::of(client, first, Some(tenant))
    }

    fn of(client: TokenExchangeClient, access: AccessToken, tenant: Option<TenantId>) -> Self {
        let refresh = access.refresh_token().cloned();
        let first = Tokens { access, refresh, failures: Failures::default() };
        let (held, renewals) = (ArcSwap::from_pointee(first), SingleFlight::default());
        Self(Arc::new(Session { client, tenant, held, renewals }))
    }

    /// The access token to use now.
    ///
    /// # Errors
    /// When it has expired and no other was to be had: `invalid_grant` means that the user has to
    /// sign in again.
    pub async fn access_token(&self) -> Result<AccessToken, ExchangeError> {
        let session = &self.0;
        let held = session.held.load_full();
        let clock = session.client.cached.clock();
        match held.access.freshness_until_expiry(clock) {
            Freshness::Fresh => Ok(held.access.clone()),
            Freshness::Due => {
                if held.refresh.is_some() && clock.elapsed() >= held.failures.retry_at {
                    drop(session.renewals.run((), || renew(session.clone())));
                }
                Ok(held.access.clone())
            }
            Freshness::Expired => {
                let renewed = session.renewals.run((), || renew(session.clone())).wait().await;
                let ended = || ExchangeError::unavailable(None, "the renewal ended unfinished");
                renewed.unwrap_or_else(|| Err(ended()))
            }
        }
    }

    /// The refresh token as of now, to keep the session elsewhere, or to
    /// [revoke](TokenExchangeClient::revoke) it. It changes with every renewal.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.0.held.load().refresh.clone()
    }
}

/// Refreshes, and keeps what came of it.
async fn renew(session: Arc<Session>) -> Result<AccessToken, ExchangeError> {
    let held = session.held.load_full();
    let clock = session.client.cached.clock();
    if held.access.freshness_until_expiry(clock) == Freshness::Fresh {
        // Another renewal came to its end while this one was begun.
        return Ok(held.access.clone());
    }
    let Some(refresh) = held.refresh.clone() else {
        return Err(ExchangeError::NotConfigured("the session has no refresh token"));
    };
    let outcome = next(&session, &refresh).await;
    let tokens = match &outcome {
        Ok(access) => Tokens {
            access: access.clone(),
            refresh: access.refresh_token().cloned().or(Some(refresh)),
            failures: Failures::default(),
        },
        Err(_) => {
            let mut failures = held.failures;
            failures.add(Backoff::SESSION, None, clock.elapsed());
            Tokens { access: held.access.clone(), refresh: Some(refresh), failures }
        }
    };
    session.held.store(Arc::new(tokens));
    outcome
}

/// What comes after this refresh token. If another process spent it, and what it got has expired
/// since, what comes after that.
async fn next(session: &Session, refresh: &Secret) -> Result<AccessToken, ExchangeError> {
    let request = |refresh: &Secret| {
        let mut request = RefreshRequest::new(refresh.clone());
        request.tenant = session.tenant.clone();
        request
    };
    let first = session.client.refresh(&request(refresh)).await?;
    let clock = session.client.cached.clock();
    match first.refresh_token().filter(|next| *next != refresh) {
        Some(next) if first.freshness_until_expiry(clock) == Freshness::Expired => {
            session.client.refresh(&request(next)).await
        }
        _ => Ok(first),
    }
}
