//! [`Sessions`]: signed-in browsers, whose tokens stay out of reach of their scripts.

mod cookie;
mod future;
mod keys;
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
use crate::flight::Flights;
use crate::mark::Mark;
use crate::secret::Secret;
use crate::telemetry;
use cookie::CookieName;
use origin::Origins;

pub use future::SessionFuture;
pub use keys::SessionKeys;
pub use layer::{SessionLayer, SessionService};

pub(crate) use cookie::{clear_cookie, read_cookie, set_cookie};
pub(crate) use layer::CurrentSession;

/// How long a session lasts, however often it is renewed.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// Browsers keep no cookie for longer (RFC 6265bis §5.5).
const LONGEST_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// The cookie, less its prefix.
const NAME: &str = "session";

/// Sessions of browsers. Cheap to clone: clones are the same.
///
/// A session is a cookie that holds the tokens, sealed under [`SessionKeys`]: scripts cannot read it
/// (`HttpOnly`), other hosts neither set nor get it (`__Host-`, `Secure`), and no server keeps
/// anything, so that any number of processes with the same keys serve it.
/// [`endpoints`](crate::Endpoints) begin and end sessions, [`layer`](Self::layer) turns the cookie
/// into the `Authorization` header that [`Auth::layer`] judges:
///
/// ```
/// # use scaikey_auth::{Auth, ConfigError, Sessions, TokenExchangeClient};
/// # fn example(auth: Auth, sessions: Sessions, api: axum::Router) -> axum::Router {
/// api.layer(auth.layer()).layer(sessions.layer())
/// # }
/// ```
///
/// From 80 % of its life on, an access token is replaced by way of its refresh token while the
/// request that found it due is served; the answer brings the new cookie. The browser does nothing.
/// Requests that find it due together spend its refresh token once, in all processes whose clients
/// share a cache: with several processes, give them `RedisCache`, or two that find a session due at
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
/// the browser comes back within a minute nothing is lost, later its user signs in again.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    auth: Auth,
    client: TokenExchangeClient,
    keys: SessionKeys,
    name: CookieName,
    life: Duration,
    origins: Origins,
    renewals: Flights<Mark, Result<Option<AccessToken>, ExchangeError>>,
}

/// A session as its cookie tells it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) token: AccessToken,
    /// When its user signed in.
    begun: SystemTime,
    /// In how many cookies it came.
    parts: usize,
}

/// What a request's cookies tell.
pub(crate) enum Told {
    /// There is no session cookie.
    Nothing,
    /// There was a session, or somebody made the cookie up.
    Ended,
    Session(Box<Session>),
}

impl Sessions {
    /// Begins to set sessions up: tokens are renewed by `client` and judged by `auth`.
    pub fn builder(auth: &Auth, client: TokenExchangeClient, keys: SessionKeys) -> SessionsBuilder {
        SessionsBuilder {
            auth: auth.clone(),
            client,
            keys,
            name: NAME.to_owned(),
            life: LIFE,
            origins: Vec::new(),
        }
    }

    /// The layer that turns cookies into `Authorization` headers. It belongs outside of
    /// [`Auth::layer`].
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }

    pub(crate) fn keys(&self) -> &SessionKeys {
        &self.0.keys
    }

    fn origins(&self) -> &Origins {
        &self.0.origins
    }

    /// The cookies of a session that begins now; `None` when the tokens are too large for them.
    pub(crate) fn begin(&self, token: AccessToken) -> Option<Vec<HeaderValue>> {
        let begun = self.0.auth.now();
        self.cookies(&Session { token, begun, parts: 0 })
    }

    pub(crate) fn read(&self, headers: &HeaderMap) -> Told {
        let Some((sealed, parts)) = self.0.name.read(headers) else { return Told::Nothing };
        match self.open(&sealed, parts) {
            Some(session) => Told::Session(Box::new(session)),
            None => Told::Ended,
        }
    }

    /// The refresh token a session ends with. One that is being renewed has another in a moment,
    /// which must not outlive it.
    pub(crate) async fn last_refresh_token(&self, session: &Session) -> Option<Secret> {
        let renewed = match self.freshness(session) {
            Freshness::Fresh => None,
            _ => self.renew(session),
        };
        let renewed = match renewed {
            Some(renewal) => renewal.await.ok().flatten(),
            None => None,
        };
        renewed.as_ref().unwrap_or(session).token.refresh_token().cloned()
    }

    /// Takes the cookies away from the browser.
    pub(crate) fn clear(&self) -> Vec<HeaderValue> {
        self.0.name.clear(0)
    }

    fn open(&self, sealed: &str, parts: usize) -> Option<Session> {
        let clock = &**self.0.auth.clock();
        let plain = self.0.keys.open(self.0.name.as_str(), sealed)?;
        let (begun, token) = plain.split_at_checked(size_of::<f64>())?;
        let begun = Duration::try_from_secs_f64(f64::from_be_bytes(begun.try_into().ok()?)).ok()?;
        let begun = SystemTime::UNIX_EPOCH.checked_add(begun)?;
        let age = clock.now().duration_since(begun).unwrap_or_default();
        let token = AccessToken::from_octets(token, clock)?;
        (age < self.0.life).then_some(Session { token, begun, parts })
    }

    /// `None` when they would be too large, or when there are no random numbers.
    fn cookies(&self, session: &Session) -> Option<Vec<HeaderValue>> {
        let clock = &**self.0.auth.clock();
        let mut plain = session.token.to_octets(clock);
        plain.splice(0..0, unix_time(session.begun).to_be_bytes());
        let ends = session.begun + self.0.life;
        let sealed = self.0.keys.seal(self.0.name.as_str(), &plain, ends)?;
        let left = ends.duration_since(clock.now()).unwrap_or_default();
        let cookies = self.0.name.set(&sealed, left, session.parts);
        if cookies.is_none() {
            telemetry::session_too_large(sealed.len());
        }
        cookies
    }

    fn freshness(&self, session: &Session) -> Freshness {
        session.token.freshness_to_the_end(&**self.0.auth.clock())
    }

    /// Starts to renew a session, once for all its requests. `None` if it has nothing to be renewed
    /// with; what comes is `None` if the provider ended it.
    fn renew(
        &self,
        session: &Session,
    ) -> Option<impl Future<Output = Result<Option<Session>, ExchangeError>> + Send + 'static> {
        let refresh = session.token.refresh_token()?.clone();
        let (had, client) = (session.token.clone(), self.0.client.clone());
        let mark = Mark::of(refresh.expose().as_bytes());
        let seat = self.0.renewals.board(mark, move || renewed(client, had, refresh));
        let (begun, parts) = (session.begun, session.parts);
        Some(async move {
            let ended = || ExchangeError::unavailable(None, "the renewal ended unfinished");
            let token = seat.landed().await.unwrap_or_else(|| Err(ended()))?;
            Ok(token.map(|token| Session { token, begun, parts }))
        })
    }
}

/// The next token of a session; `None` if the provider takes its refresh token no more, or gives
/// somebody else's. Whatever else goes wrong is not the session's fault, and does not end it.
async fn renewed(
    client: TokenExchangeClient,
    had: AccessToken,
    refresh: Secret,
) -> Result<Option<AccessToken>, ExchangeError> {
    let outcome = client.refresh(&RefreshRequest::new(refresh.clone())).await;
    let token = match outcome {
        Err(error) => match error.oauth() {
            Some(OAuthError::InvalidGrant | OAuthError::InvalidRequest) => return Ok(None),
            _ => return Err(error),
        },
        Ok(token) if !token.is_of_the_same(&had) => return Ok(None),
        Ok(token) => token,
    };
    // Absent, the one used stays good (RFC 6749 §6).
    Ok(Some(match token.refresh_token() {
        Some(_) => token,
        None => token.with_refresh_token(Some(refresh)),
    }))
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { keys, name, life, origins, .. } = &*self.0;
        f.debug_struct("Sessions")
            .field("keys", keys)
            .field("cookie", &name.as_str())
            .field("life", life)
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
    keys: SessionKeys,
    name: String,
    life: Duration,
    origins: Vec<String>,
}

impl SessionsBuilder {
    /// Names the cookie: `__Host-` and this. Default `session`. Services on one host need
    /// different names.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a session lasts from sign-in, however often its tokens are renewed. Default 12
    /// hours; at most 400 days.
    pub fn life(mut self, life: Duration) -> Self {
        self.life = life;
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
        let name = CookieName::new(&self.name);
        if name.is_none() {
            faults.push(Fault::new("cookie_name", "has characters a cookie's name cannot have"));
        }
        if self.life.is_zero() || self.life > LONGEST_LIFE {
            faults.push(Fault::new("life", "is not between a moment and 400 days"));
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
            life: self.life,
            origins,
            renewals: Flights::default(),
        })))
    }
}
