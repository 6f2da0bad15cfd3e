//! Signed-in browsers, whose tokens stay out of reach of their scripts (feature `endpoints`, on by
//! default).
//!
//! [`Sessions`] keeps the tokens in sealed cookies, and renews them; [`Sessions::layer`] turns the cookies
//! into the `Authorization` header that the layer inside of it judges. The
//! [`endpoints`](crate::endpoints) begin and end sessions.
//!
//! How it fits together: [manual::endpoints](crate::manual::endpoints).

mod after_response;
mod cookie;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod layer;
mod origin;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};

use crate::auth::Auth;
use crate::clock::unix_time;
use crate::config::{ConfigError, Fault};
use crate::exchange::{
    AccessToken, ExchangeError, Freshness, OAuthError, RefreshRequest, TokenExchangeClient,
};
use crate::gate::Pending;
use crate::support::mac::Mac;
use crate::support::seal::{Purpose, SealingKeys};
use crate::support::secret::Secret;
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry;
use cookie::{CookieId, CookieNames, CookiePrefix, Session};
use origin::Origins;

pub use layer::{SessionLayer, SessionService};

pub(crate) use cookie::{clear_cookie, cookies_named, is_cookie_name, set_cookie};
pub(crate) use layer::CurrentSession;

/// How long a session lasts, however often it is renewed.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Browsers keep no cookie for longer (RFC 6265bis §5.5).
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// What the names of the cookies begin with, behind `__Host-`.
const DEFAULT_COOKIE_NAME: &str = "session";

/// How long an answer waits for the new cookies.
const DEFAULT_RENEWAL_WAIT: Duration = Duration::from_secs(3);

/// A token with less left may expire before the service behind has looked at it: its `exp` is in
/// whole seconds, and clocks differ.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// With less left than this, only the next token will do.
const MIN_REMAINING: Duration = Duration::from_secs(1);

/// Sessions of browsers. Cheap to clone: clones are the same.
///
/// A session is a few cookies that hold the tokens, sealed under [`SealingKeys`]: scripts cannot read
/// them (`HttpOnly`), other hosts neither set nor get them (`__Host-`, `Secure`), and no server keeps
/// anything, so that any number of processes with the same keys serve it.
/// [`endpoints`](crate::endpoints::Endpoints) begin and end sessions, [`layer`](Self::layer) turns the cookies
/// into the `Authorization` header that [`Auth::layer`] judges:
///
/// ```
/// use axum::Router;
/// use scaikey_auth::exchange::SealingKeys;
/// use scaikey_auth::session::Sessions;
/// use scaikey_auth::{Auth, ConfigError, Secret, TokenExchangeClient};
///
/// /// `keys`: made by `openssl rand -base64 32`, the same in all processes.
/// fn app(
///     auth: &Auth,
///     client: TokenExchangeClient,
///     keys: &Secret,
///     api: Router,
/// ) -> Result<Router, ConfigError> {
///     let sessions = Sessions::builder(auth, client, SealingKeys::parse(keys)?).build()?;
///     Ok(api.layer(auth.layer()).layer(sessions.layer()))
/// }
/// ```
///
/// From 80 % of its life on, an access token is replaced by way of its refresh token while the
/// request that found it due is served; the answer brings the new cookies. The browser does nothing.
/// A request that comes in the last five seconds of the token waits for the next one instead, until a
/// second is left: then it is served with the present one.
///
/// Each session has cookies of its own, so answers may arrive in any order: one that was under way
/// when its user signed out, or when another user signed in, changes nothing.
///
/// Requests that find it due together spend its refresh token once, in all processes whose clients
/// share a cache: with several processes, give them [`RedisCache`](crate::exchange::RedisCache), or two that find a session due at
/// once end it at a provider that rotates refresh tokens.
///
/// Since browsers send cookies by themselves, requests that may change something must come from the
/// service's own pages: `Sec-Fetch-Site: same-origin`, or an `Origin` that is the `Host` asked or
/// one of [`trusted_origin`](SessionsBuilder::trusted_origin); anything else is 403. So are requests
/// to open a web socket.
///
/// What this cannot do: end a session everywhere at once. Who copied the cookie before its user
/// signed out can use its access token until that expires; the refresh token is revoked at the
/// provider. And an answer that never reached the browser takes the new refresh token with it: if
/// the browser comes back within a minute nothing is lost, later its user signs in again. Tokens that
/// outgrow the cookies end the session, and are revoked: the log says so.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    auth: Auth,
    client: TokenExchangeClient,
    keys: SealingKeys,
    name: CookiePrefix,
    lifetime: Duration,
    renewal_wait: Duration,
    origins: Origins,
    renewals: SingleFlight<Mac, Result<Option<AccessToken>, ExchangeError>>,
}

/// What comes of a renewal; `None` if the session is over.
type RenewalResult = Result<Option<Session>, ExchangeError>;

impl Session {
    fn with(&self, token: AccessToken) -> Self {
        Self { token, started_at: self.started_at, id: self.id.next() }
    }
}

impl Sessions {
    /// Begins to set sessions up: tokens are renewed by `client` and judged by `auth`.
    pub fn builder(auth: &Auth, client: TokenExchangeClient, keys: SealingKeys) -> SessionsBuilder {
        client.share_metadata(auth.issuers());
        SessionsBuilder {
            auth: auth.clone(),
            client,
            keys,
            name: DEFAULT_COOKIE_NAME.to_owned(),
            lifetime: DEFAULT_LIFETIME,
            renewal_wait: DEFAULT_RENEWAL_WAIT,
            origins: Vec::new(),
        }
    }

    /// The layer that turns cookies into `Authorization` headers. It belongs outside of
    /// [`Auth::layer`].
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }

    pub(crate) fn keys(&self) -> &SealingKeys {
        &self.0.keys
    }

    fn origins(&self) -> &Origins {
        &self.0.origins
    }

    /// The cookies of a session that begins now; `None` when the tokens are too large for them.
    /// Those of an earlier session are cleared by the layer.
    pub(crate) fn begin(&self, token: AccessToken) -> Option<Vec<HeaderValue>> {
        let started_at = self.0.auth.now();
        let session = Session { token, started_at, id: CookieId::new(started_at)? };
        let mut cookies = vec![self.0.name.marker_cookie(&session.id, self.0.lifetime)?];
        cookies.extend(self.cookies(&session)?);
        Some(cookies)
    }

    /// Ends a session in the browser. The layer clears what belongs to it.
    pub(crate) fn end(&self, session: &Session) -> Option<HeaderValue> {
        self.0.name.clear_marker(&session.id)
    }

    /// The session that a request's cookies tell, if there is one, and what they are.
    fn read(&self, headers: &HeaderMap) -> (Option<Session>, CookieNames) {
        self.0.name.read(headers, |id, sealed| self.open(id, sealed))
    }

    /// Revokes what a session ends with at the provider. The token of one that is being renewed has a
    /// successor in a moment, which must not outlive it.
    pub(crate) async fn revoke(&self, session: &Session) -> Result<(), ExchangeError> {
        let renewal = match self.freshness(session) {
            Freshness::Fresh => None,
            _ => self.renew(session),
        };
        let renewed = match renewal {
            Some(renewal) => {
                let renewed = renewal.await;
                let what = "the successor of a refresh token";
                self.0.client.log_revocation(what, renewed.as_ref().err());
                renewed
            }
            None => Ok(None),
        };
        let last = renewed.ok().flatten();
        match last.as_ref().unwrap_or(session).token.refresh_token() {
            Some(token) => revoke(&self.0.client, token).await,
            None => Ok(()),
        }
    }

    fn open(&self, id: &CookieId, sealed: &str) -> Option<Session> {
        let clock = &**self.0.auth.clock();
        let plain = self.0.keys.open(Purpose::Session, &self.0.name.data(id), sealed)?;
        let (started_at, token) = plain.split_at_checked(size_of::<f64>())?;
        let started_at =
            Duration::try_from_secs_f64(f64::from_be_bytes(started_at.try_into().ok()?)).ok()?;
        let started_at = SystemTime::UNIX_EPOCH.checked_add(started_at)?;
        let age = clock.now().duration_since(started_at).unwrap_or_default();
        let token = AccessToken::from_bytes(token, clock)?;
        (age < self.0.lifetime).then(|| Session { token, started_at, id: id.clone() })
    }

    /// The data cookies. `None` when they would be too large, or when there are no random numbers.
    fn cookies(&self, session: &Session) -> Option<Vec<HeaderValue>> {
        let clock = &**self.0.auth.clock();
        let mut plain = session.token.to_bytes(clock);
        plain.splice(0..0, unix_time(session.started_at).to_be_bytes());
        let ends = session.started_at + self.0.lifetime;
        let name = self.0.name.data(&session.id);
        let sealed = self.0.keys.seal(Purpose::Session, &name, &plain, ends)?;
        let left = ends.duration_since(clock.now()).unwrap_or_default();
        let cookies = self.0.name.data_cookies(&session.id, &sealed, left);
        if cookies.is_none() {
            telemetry::session_too_large(sealed.len());
        }
        cookies
    }

    /// Whether the access token may expire before it is judged.
    fn is_about_to_expire(&self, session: &Session) -> bool {
        let left = session.token.remaining(&**self.0.auth.clock());
        left.is_some_and(|left| left < EXPIRY_MARGIN)
    }

    /// How long a request waits for its session to be renewed: while its token serves, and without end
    /// of its own where it does not. Then the client's own limits count.
    fn max_renewal_wait(&self, session: &Session) -> Duration {
        let left = session.token.remaining(&**self.0.auth.clock()).unwrap_or_default();
        let spare = left.saturating_sub(MIN_REMAINING);
        if spare.is_zero() { Duration::MAX } else { spare }
    }

    fn freshness(&self, session: &Session) -> Freshness {
        session.token.freshness_until_expiry(&**self.0.auth.clock())
    }

    /// Starts to renew a session, once for all its requests. `None` if it has nothing to be renewed
    /// with.
    fn renew(&self, session: &Session) -> Option<Pending<RenewalResult>> {
        let refresh = session.token.refresh_token()?.clone();
        let (sessions, had) = (self.clone(), session.clone());
        let mac = Mac::of(refresh.expose().as_bytes());
        let waiter = self.0.renewals.run(mac, move || sessions.spend_refresh_token(had, refresh));
        let session = session.clone();
        Some(Box::pin(async move {
            let ended = || ExchangeError::unavailable(None, "the renewal ended unfinished");
            let token = waiter.wait().await.unwrap_or_else(|| Err(ended()))?;
            Ok(token.map(|token| session.with(token)))
        }))
    }

    /// The next token of a session; `None` if the session is over: the provider takes its refresh
    /// token no more, or gives what the session cannot go on with, which is revoked. Whatever else
    /// goes wrong is not the session's fault, and does not end it.
    async fn spend_refresh_token(
        self,
        had: Session,
        refresh: Secret,
    ) -> Result<Option<AccessToken>, ExchangeError> {
        let client = &self.0.client;
        let token = match client.refresh(&RefreshRequest::new(refresh.clone())).await {
            Ok(token) => token,
            Err(error) => match error.oauth() {
                Some(OAuthError::InvalidGrant | OAuthError::InvalidRequest) => {
                    telemetry::session_ended("refresh_token_refused");
                    return Ok(None);
                }
                _ => return Err(error),
            },
        };
        // Absent, the one used stays good (RFC 6749 §6).
        let token = match token.refresh_token() {
            Some(_) => token,
            None => token.with_refresh_token(Some(refresh)),
        };
        let reason = if !token.has_same_subject_as(&had.token) {
            "tokens_of_another_user"
        } else if self.cookies(&had.with(token.clone())).is_none() {
            "tokens_too_large"
        } else {
            return Ok(Some(token));
        };
        telemetry::session_ended(reason);
        if let Some(token) = token.refresh_token() {
            // What was not revoked is in the log; the session is over all the same.
            let _ = revoke(client, token).await;
        }
        Ok(None)
    }
}

/// Revokes a token at the provider. What was not revoked is told to the operator: it lives on.
pub(crate) async fn revoke(
    client: &TokenExchangeClient,
    token: &Secret,
) -> Result<(), ExchangeError> {
    let outcome = client.revoke(token).await;
    client.log_revocation("a refresh token", outcome.as_ref().err());
    outcome
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { keys, name, lifetime, origins, .. } = &*self.0;
        f.debug_struct("Sessions")
            .field("keys", keys)
            .field("cookie", &name.as_str())
            .field("lifetime", lifetime)
            .field("origins", origins)
            .finish_non_exhaustive()
    }
}

/// Sets up [`Sessions`]. Made by [`Sessions::builder`].
#[derive(Debug)]
#[must_use = "there are no sessions before `build()`"]
pub struct SessionsBuilder {
    auth: Auth,
    client: TokenExchangeClient,
    keys: SealingKeys,
    name: String,
    lifetime: Duration,
    renewal_wait: Duration,
    origins: Vec<String>,
}

impl SessionsBuilder {
    /// CookieNames the cookies: all begin with `__Host-` and this. Default `session`. Services on one host
    /// need different names, and different [prefixes](crate::endpoints::SignIn::cookie_prefix) for sign-ins.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a session lasts from sign-in, however often its tokens are renewed. Default 12
    /// hours; at most 400 days.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// How long an answer that is ready waits for the renewal that its request began. Default 3
    /// seconds. A renewal that comes later is kept for a minute, and goes with another answer of that
    /// time; if there is none, the user signs in again.
    pub fn renewal_wait(mut self, patience: Duration) -> Self {
        self.renewal_wait = patience;
        self
    }

    /// Lets pages of another origin (`https://app.example`) send requests with the cookie. May be
    /// repeated. Browsers send it from the same site only.
    pub fn trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// When the name cannot be a cookie's, an origin is none, or a session would not last.
    pub fn build(self) -> Result<Sessions, ConfigError> {
        let mut faults = Vec::new();
        let name = CookiePrefix::new(&self.name);
        if name.is_none() {
            faults.push(Fault::new("cookie_name", "has characters a cookie's name cannot have"));
        }
        if self.lifetime.is_zero() || self.lifetime > MAX_LIFETIME {
            faults.push(Fault::new("lifetime", "is not between a moment and 400 days"));
        }
        let origins = Origins::new(&self.origins, &mut faults);
        let Some(name) = name.filter(|_| faults.is_empty()) else {
            let none = || ConfigError::one(Fault::new("sessions", "cannot be set up"));
            return Err(ConfigError::from_faults(faults).err().unwrap_or_else(none));
        };
        Ok(Sessions(Arc::new(Inner {
            auth: self.auth,
            client: self.client,
            keys: self.keys,
            name,
            lifetime: self.lifetime,
            renewal_wait: self.renewal_wait,
            origins,
            renewals: SingleFlight::default(),
        })))
    }
}
