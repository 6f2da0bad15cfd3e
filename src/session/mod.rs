//! Browser sessions, whose tokens no script can read (feature `endpoints`, on by default).
//!
//! [`Sessions`] stores tokens in sealed cookies or in a [store](SessionStore), and renews them. [`Sessions::layer`]
//! turns the cookies into the `Authorization` header that the inner layer verifies. The [`endpoints`](crate::endpoints)
//! start and end sessions.
//!
//! See also: [manual::endpoints](crate::manual::endpoints), [manual::sessions](crate::manual::sessions).

mod builder;
mod content;
mod cookie;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod judging;
mod layer;
mod origin;
mod response_cookies;
mod sign_in_redirect;
mod step_up;
mod store;
mod stored;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request};
use url::Url;
use zeroize::Zeroizing;

use crate::auth::Auth;
use crate::error::{AuthError, InvalidToken};
use crate::exchange::{
    AccessToken, EndSessionRequest, ExchangeError, Freshness, OAuthError, RefreshRequest,
    TokenExchangeClient, has_readable_claims, has_same_claim, has_same_subject, until_exp,
};
use crate::gate::BoxFuture;
use crate::identity::{ClaimsMapping, Identity};
use crate::layer::RequestHead;
use crate::support::bounded::Bounded;
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::media_type::is_form;
use crate::support::seal::{Purpose, SealingKeys};
use crate::support::secret::Secret;
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry;
use crate::validator::{SessionIdTokens, signed_token};
use content::Content;
use cookie::{CookieId, CookieNames, CookiePrefix, UserHash, has_room_for_id_token};
use origin::Origins;
use sign_in_redirect::Redirect;
use stored::{SessionOwner, StoredSessions};

pub use builder::SessionsBuilder;
pub use layer::{SessionLayer, SessionService};
#[cfg(feature = "redis")]
pub use store::RedisSessions;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::SqlSessions;
pub use store::{
    MemorySessions, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
};

pub(crate) use cookie::{
    SameSite, Session, clear_cookie, cookies_named, is_cookie_name, set_cookie, set_cookie_for,
};
pub(crate) use layer::{CurrentSession, EndedSession};
pub(crate) use sign_in_redirect::SignInRedirect;
pub(crate) use step_up::{SignInNeeds, StepUpRequest};
pub(crate) use stored::{
    EndReason, ListedSession, OlderSessions, Started, UnavailableSession, Whose,
};

/// Default name of the cookies, without `__Host-`.
const DEFAULT_COOKIE_NAME: &str = "session";

/// Remaining lifetime below which a request waits for the renewal: the token may expire before the
/// service verifies it, because `exp` has whole seconds and clocks differ.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// Age below which a session that cannot be used does not lead to another sign-in. Longer than a sign-in that
/// needs no input, or a browser would be redirected without end.
const MIN_AGE_FOR_SIGN_IN: Duration = Duration::from_secs(60);

/// Remaining lifetime that is left for the request after it has waited for the renewal.
const MIN_REMAINING: Duration = Duration::from_secs(1);

/// Browser sessions. Cheap to clone: clones share one state.
///
/// A session is a set of cookies that hold the tokens, sealed with [`SealingKeys`]. Scripts cannot
/// read them (`HttpOnly`), and other hosts can neither set nor receive them (`__Host-`, `Secure`).
/// The server stores nothing, so any number of processes with the same keys can serve a session. With a
/// [`store`](SessionsBuilder::store), the tokens are on the server, and the server can end a session: see
/// [manual::sessions](crate::manual::sessions).
/// The [`endpoints`](crate::endpoints::Endpoints) start and end sessions. [`layer`](Self::layer)
/// turns the cookies into the `Authorization` header that [`Auth::layer`] verifies:
///
/// ```
/// use axum::Router;
/// use scaikey_auth::exchange::SealingKeys;
/// use scaikey_auth::session::Sessions;
/// use scaikey_auth::{Auth, ConfigError, Secret, TokenExchangeClient};
///
/// /// `keys`: from `openssl rand -base64 32`, the same in all processes.
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
/// **Renewal.** When 80 % of an access token's lifetime has passed, the next request also starts
/// its renewal with the refresh token. The response waits for it (at most
/// [`renewal_wait`](SessionsBuilder::renewal_wait)) and sets the new cookies, so pages need no
/// script. In the last five seconds of a token, a request waits for the renewal. When one second is
/// left, it continues with the current token. An opaque token is renewed only if the provider says
/// its lifetime (`expires_in`).
///
/// **Order of responses.** Each session has its own cookies, so responses may arrive in any order.
/// A response that is still on its way when the user signs out, or when another user signs in,
/// changes nothing.
///
/// **Concurrent requests.** Concurrent requests use a refresh token once, in all processes whose
/// clients share a cache. With several processes, use a
/// [`RedisCache`](crate::exchange::RedisCache). Without it, two of them may use the same token, and
/// a provider that rotates refresh tokens then ends the session.
///
/// **Cross-site requests.** Browsers send cookies with requests that other sites cause. A request
/// that may change state, or that opens a web socket, must therefore come from a page of the
/// service: `Sec-Fetch-Site: same-origin` (or `none`, for the user's own requests), or, without
/// this header, an `Origin` with the request's host. A
/// [`trusted_origin`](SessionsBuilder::trusted_origin) is always accepted. Other requests get 403.
///
/// **Revocation.** A session ends when a [revocation](crate::revocation) means it, by its subject, tenant, client,
/// issuer or the provider's session, and began before. Its tokens are then not renewed. A sign-out refuses the access
/// token of the session, by its `jti`, or else those of the provider's session (`sid`) that were issued before.
///
/// A sign-out of a session in cookies makes all copies of the cookies worthless, in each process that shares the
/// revocations.
///
/// **Limitations, without a store.** After a restart, or in a process that does not share the revocations, a copy of
/// the cookies made before sign-out works until its access token expires, and longer if the provider could not revoke
/// the refresh token. A session whose access token this service cannot read, and without an ID token in its cookies, is
/// not judged by its user. If a response with new cookies does not reach the browser, the next request within one
/// minute gets them again; after that, the user has to sign in again. If renewed tokens are too large for the cookies,
/// they are revoked, the session ends, and this is logged.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    auth: Auth,
    client: TokenExchangeClient,
    keys: SealingKeys,
    cookies: CookiePrefix,
    lifetime: Duration,
    renewal_wait: Duration,
    origins: Origins,
    /// The validator of ID tokens, if these name the users.
    id_tokens: Option<Arc<SessionIdTokens>>,
    /// Where the provider redirects browsers after a sign-out there.
    post_logout_redirect_uri: Option<String>,
    renewals: SingleFlight<Mac, Result<Option<Renewed>, ExchangeError>>,
    /// The store, unless the tokens are in the cookies.
    stored: Option<StoredSessions>,
    /// The owners of sessions in cookies, by the access token. Only used while a revocation may mean sessions.
    owners: Bounded<Mac, Arc<SessionOwner>, BuildMacHasher>,
    /// The path of `login`, if the provider answers sign-ins with a form that the browser posts
    /// there. Set by the endpoints that start these sessions.
    form_post_path: OnceLock<String>,
    /// Where browsers without a session sign in. Set by the endpoints that start these sessions.
    sign_in: OnceLock<SignInRedirect>,
}

/// The result of a renewal: the renewed session, or `None` if the session ended.
type RenewalResult = Result<Option<Session>, ExchangeError>;

/// The new tokens of a session, and their user, as in [`Session`].
#[derive(Debug, Clone)]
struct Renewed {
    token: AccessToken,
    user: Option<UserHash>,
}

impl Session {
    /// Returns the session with new tokens. Without a new ID token, the old one is still a hint of the user.
    fn renewed_with(&self, Renewed { token, user }: Renewed) -> Self {
        let id_token = token.id_token().or(self.token.id_token()).cloned();
        let token = token.with_id_token(id_token);
        Self { token, id: self.id.next(), user, ..self.clone() }
    }
}

impl Sessions {
    /// Returns a builder. `client` renews the tokens, and `auth` verifies them.
    pub fn builder(auth: &Auth, client: TokenExchangeClient, keys: SealingKeys) -> SessionsBuilder {
        SessionsBuilder::new(auth, client, keys)
    }

    /// Returns the layer that turns cookies into `Authorization` headers. Place it outside
    /// [`Auth::layer`].
    pub fn layer(&self) -> SessionLayer {
        SessionLayer::new(self.clone())
    }

    /// Returns whether both use the same cookies and the same client.
    fn are_same_as(&self, other: &Self) -> bool {
        let of = |it: &Self| {
            let Inner { cookies, client, .. } = &*it.0;
            [cookies.as_str(), client.issuer(), client.client_id()].map(str::to_owned)
        };
        Arc::ptr_eq(&self.0, &other.0) || of(self) == of(other)
    }

    pub(crate) fn keys(&self) -> &SealingKeys {
        &self.0.keys
    }

    fn origins(&self) -> &Origins {
        &self.0.origins
    }

    /// Lets the provider's page post the answer of a sign-in to `path`. The first endpoints that are
    /// built with these sessions decide.
    pub(crate) fn allow_form_post(&self, path: &str) {
        let _ = self.0.form_post_path.set(path.to_owned());
    }

    /// Returns whether a request may be the provider's answer to a sign-in, in a form that its page
    /// posts. A router may have removed the start of the path that the endpoints see.
    fn is_form_post<Q>(&self, request: &Request<Q>) -> bool {
        self.0.form_post_path.get().is_some_and(|path| {
            request.method() == Method::POST
                && request.uri().path().ends_with(path)
                && is_form(request.headers())
        })
    }

    /// Lets the layer lead browsers without a session to the sign-in. The first endpoints that are built
    /// with these sessions decide.
    pub(crate) fn set_sign_in(&self, redirect: SignInRedirect) {
        let _ = self.0.sign_in.set(redirect);
    }

    /// Returns whether the cookies have the default name.
    pub(crate) fn has_default_cookie_name(&self) -> bool {
        self.0.cookies.as_str().strip_prefix("__Host-") == Some(DEFAULT_COOKIE_NAME)
    }

    /// Returns the redirect to the sign-in for a request without a session. `started_at`: when the session
    /// began that the request cannot use any more.
    fn redirect_to_sign_in<Q>(
        &self,
        request: &Request<Q>,
        started_at: Option<SystemTime>,
    ) -> Option<Redirect> {
        let redirect = self.0.sign_in.get()?;
        if started_at.is_some_and(|at| self.is_too_young_for_sign_in(at)) {
            return None;
        }
        redirect.redirect(RequestHead::of(request))
    }

    fn is_too_young_for_sign_in(&self, started_at: SystemTime) -> bool {
        let age = self.0.auth.now().duration_since(started_at).unwrap_or_default();
        age < MIN_AGE_FOR_SIGN_IN
    }

    /// Starts a session of this user. Returns `None` if the tokens are too large. The layer clears the cookies
    /// of earlier sessions.
    pub(crate) async fn start(
        &self,
        token: AccessToken,
        user: &Identity,
    ) -> Result<Option<Started>, AuthError> {
        let started_at = self.0.auth.now();
        if self.ends_at_provider() && token.id_token().is_none() {
            self.0.client.log_missing_hint("the sign-in has no ID token: request the scope openid");
        }
        let by_access_token = self.0.id_tokens.is_none();
        let hash =
            (by_access_token && !has_readable_claims(token.secret())).then(|| UserHash::of(user));
        let Some(id) = CookieId::new(started_at) else { return Ok(None) };
        let session = Session { token, started_at, id, user: hash, stored: None };
        match self.stored() {
            Some(stored) => self.start_stored(stored, session, user).await,
            None => Ok(self.start_in_cookies(&session)),
        }
    }

    fn start_in_cookies(&self, session: &Session) -> Option<Started> {
        let mut cookies = vec![self.0.cookies.marker_cookie(&session.id, self.0.lifetime)?];
        cookies.extend(self.cookies(session)?);
        Some(Started { cookies, stored: None })
    }

    /// Returns the validator of ID tokens, if these name the users.
    pub(crate) fn id_tokens(&self) -> Option<&Arc<SessionIdTokens>> {
        self.0.id_tokens.as_ref()
    }

    /// Returns tokens that expire no later than the ID token of this identity.
    pub(crate) fn until_expiry_of(&self, identity: &Identity, token: AccessToken) -> AccessToken {
        let clock = &**self.0.auth.clock();
        let left = identity.expires_at().duration_since(clock.now()).unwrap_or_default();
        let left = token.remaining(clock).map_or(left, |own| own.min(left));
        token.with_remaining(left, clock)
    }

    /// Returns tokens that expire with the access token, if only its claims say when, and this service can decrypt
    /// them.
    pub(crate) fn until_own_expiry(&self, token: AccessToken) -> AccessToken {
        let Inner { auth, client, .. } = &*self.0;
        let (clock, text) = (&**auth.clock(), token.secret().expose());
        if token.lifetime().is_some() {
            return token;
        }
        let signed = signed_token(auth.issuers(), clock, client.issuer(), text).ok().flatten();
        match signed.and_then(|signed| until_exp(&signed, clock.now())) {
            Some(left) => token.with_remaining(left, clock),
            None => token,
        }
    }

    fn ends_at_provider(&self) -> bool {
        self.0.post_logout_redirect_uri.is_some()
    }

    /// Returns where the provider redirects browsers after a sign-out there, if sign-outs end its session.
    pub(crate) fn post_logout_redirect_uri(&self) -> Option<&str> {
        self.0.post_logout_redirect_uri.as_deref()
    }

    /// Returns the URL that ends the provider's session. `session` is the one that ended here.
    pub(crate) async fn end_session_url(
        &self,
        session: Option<&Session>,
        state: Option<&str>,
    ) -> Result<Url, ExchangeError> {
        let mut request = EndSessionRequest::new();
        request.id_token_hint = session.and_then(|session| session.token.id_token().cloned());
        request.post_logout_redirect_uri = self.0.post_logout_redirect_uri.clone();
        request.state = state.map(str::to_owned);
        let url = self.0.client.end_session_url(&request).await;
        if matches!(url, Err(ExchangeError::NotConfigured(_))) {
            self.0.client.log_no_end_session_endpoint();
        }
        url
    }

    /// Returns whether a page of the service or of a trusted origin caused the request.
    pub(crate) fn is_from_trusted_page(&self, head: &Parts) -> bool {
        origin::is_from_trusted_page(&head.uri, &head.headers, self.origins())
    }

    /// Returns whether a request has cookies of these sessions, valid or not. Behind the session layer none has.
    pub(crate) fn has_cookies(&self, headers: &HeaderMap) -> bool {
        let (_, names) = self.0.cookies.read(headers, |_, _| None::<()>);
        !names.stale.is_empty()
    }

    /// Reads the session from the cookies of a request, and classifies the cookies.
    fn read(&self, headers: &HeaderMap) -> (Option<Session>, CookieNames) {
        self.0.cookies.read(headers, |id, sealed| self.open(id, sealed))
    }

    /// Revokes the refresh token of a session. If a renewal is due, another request may be running
    /// it, so this joins or starts the renewal and revokes the new refresh token. A session in a store has
    /// ended before, so a renewal that is running revokes its own result.
    pub(crate) async fn revoke(&self, session: &Session) -> Result<(), ExchangeError> {
        let renewal = match self.freshness(session) {
            _ if session.stored.is_some() => None,
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
        if let Some(last) = &last {
            self.refuse_access_token(last).await;
        }
        // Not before: a session that is signed out is not renewed.
        self.refuse_copies(session).await;
        let last = last.as_ref().unwrap_or(session);
        let revoked = match last.token.refresh_token() {
            Some(token) => revoke(&self.0.client, token).await,
            None => Ok(()),
        };
        // Once more, because another request may have asked before the provider knew.
        self.forget_answer(last);
        revoked
    }

    /// Revokes the refresh token of a session that ended before the sign-out, unless the provider has refused it.
    pub(crate) async fn revoke_ended(&self, session: &Session) -> Result<(), ExchangeError> {
        match session.token.refresh_token().filter(|_| self.is_revoked(session)) {
            Some(token) => revoke(&self.0.client, token).await,
            None => Ok(()),
        }
    }

    fn open(&self, id: &CookieId, sealed: &str) -> Option<Session> {
        let clock = &**self.0.auth.clock();
        let plain = self.0.keys.open(Purpose::Session, &self.0.cookies.data(id), sealed, clock)?;
        let Content { started_at, user, token } = content::from_bytes(&plain, clock)?;
        let age = clock.now().duration_since(started_at).unwrap_or_default();
        let id = id.clone();
        (age < self.0.lifetime).then(|| Session { token, started_at, id, user, stored: None })
    }

    /// Returns the data cookies, or `None` if they would be too large or could not be sealed.
    fn cookies(&self, session: &Session) -> Option<Vec<HeaderValue>> {
        let clock = &**self.0.auth.clock();
        let ends = session.started_at.checked_add(self.0.lifetime)?;
        let sealed = match self.sealed_with_id_token(session, ends) {
            Some(sealed) => sealed,
            None if self.0.id_tokens.is_some() => {
                self.sealed(session, session.token.to_bytes_with_id_token(clock), ends)?
            }
            None => self.sealed(session, session.token.to_bytes(clock), ends)?,
        };
        let left = ends.duration_since(clock.now()).unwrap_or_default();
        let cookies = self.0.cookies.data_cookies(&session.id, &sealed, left);
        if cookies.is_none() {
            telemetry::session_too_large(sealed.len());
        }
        cookies
    }

    /// Seals a session with its ID token, if sign-outs need it and it fits.
    fn sealed_with_id_token(&self, session: &Session, ends: SystemTime) -> Option<String> {
        if !self.ends_at_provider() || session.token.id_token().is_none() {
            return None;
        }
        let plain = session.token.to_bytes_with_id_token(&**self.0.auth.clock());
        let sealed = self.sealed(session, plain, ends)?;
        if has_room_for_id_token(&sealed) {
            return Some(sealed);
        }
        self.0.client.log_missing_hint("the cookies of the session have no room for the ID token");
        None
    }

    fn sealed(
        &self,
        session: &Session,
        tokens: Zeroizing<Vec<u8>>,
        ends: SystemTime,
    ) -> Option<String> {
        let plain = content::to_bytes(session.started_at, session.user, tokens);
        let name = self.0.cookies.data(&session.id);
        self.0.keys.seal(Purpose::Session, &name, &plain, ends, &**self.0.auth.clock())
    }

    /// Returns whether the access token may expire before the service verifies it.
    fn is_about_to_expire(&self, session: &Session) -> bool {
        let left = session.token.remaining(&**self.0.auth.clock());
        left.is_some_and(|left| left < EXPIRY_MARGIN)
    }

    /// Returns how long a request waits for the renewal of its session: until one second before the
    /// token expires. After that, only the client's own timeouts apply.
    fn max_renewal_wait(&self, session: &Session) -> Duration {
        let left = session.token.remaining(&**self.0.auth.clock()).unwrap_or_default();
        let spare = left.saturating_sub(MIN_REMAINING);
        if spare.is_zero() { Duration::MAX } else { spare }
    }

    /// Returns the freshness of the token. One that is refused although the session goes on is as good as expired.
    fn freshness(&self, session: &Session) -> Freshness {
        if self.new_token_from(session).is_some_and(|from| from <= self.0.auth.now()) {
            return Freshness::Expired;
        }
        session.token.freshness_until_expiry(&**self.0.auth.clock())
    }

    /// Starts or joins the renewal of a session. Concurrent requests share one renewal. Returns
    /// `None` if there is no refresh token.
    fn renew(&self, session: &Session) -> Option<BoxFuture<RenewalResult>> {
        let refresh = session.token.refresh_token()?.clone();
        let (sessions, previous) = (self.clone(), session.clone());
        let mac = Mac::of(refresh.expose().as_bytes());
        let waiter =
            self.0.renewals.run(mac, move || sessions.use_refresh_token(previous, refresh));
        let session = session.clone();
        Some(Box::pin(async move {
            let ended = || {
                ExchangeError::unavailable(None, "the task that renews the session was cancelled")
            };
            let renewed = waiter.wait().await.unwrap_or_else(|| Err(ended()))?;
            Ok(renewed.map(|renewed| session.renewed_with(renewed)))
        }))
    }

    /// Uses the refresh token. Returns `None` if the session ended: the provider rejects the
    /// refresh token, or the new tokens belong to another user or are too large for cookies, and
    /// are revoked. Other errors do not end the session.
    async fn use_refresh_token(
        self,
        previous: Session,
        refresh: Secret,
    ) -> Result<Option<Renewed>, ExchangeError> {
        let client = &self.0.client;
        if self.is_revoked(&previous) {
            self.count_revoked(&previous);
            return Ok(None);
        }
        let token = match client.refresh(&RefreshRequest::new(refresh.clone())).await {
            Ok(token) => token,
            Err(error) => match error.oauth_error() {
                Some(OAuthError::InvalidGrant | OAuthError::InvalidRequest) => {
                    telemetry::session_ended("refresh_token_refused");
                    return Ok(None);
                }
                _ => return Err(error),
            },
        };
        // An ID token that cannot be opened would be no hint, so the session keeps the one before.
        let opened = with_signed_id_token(&self.0.auth, client, &token);
        let token = opened.unwrap_or_else(|error| {
            telemetry::token_of_session_refused("ID token", AuthError::from(error).reason());
            token.with_id_token(None)
        });
        // Without a new refresh token, the old one stays valid (RFC 6749 §6).
        let token = match token.refresh_token() {
            Some(_) => token,
            None => token.with_refresh_token(Some(refresh)),
        };
        let next = token.refresh_token().cloned();
        let reason = match self.check_renewed(&previous, token).await? {
            Err(reason) => reason,
            Ok(renewed) if !self.has_room_for(&previous.renewed_with(renewed.clone())) => {
                "tokens_too_large"
            }
            // Meanwhile.
            Ok(_) if self.is_revoked(&previous) => "revoked",
            Ok(renewed) => return Ok(Some(renewed)),
        };
        match reason {
            "revoked" => self.count_revoked(&previous),
            _ => telemetry::session_ended(reason),
        }
        if let Some(token) = next {
            // `revoke` logs its failure. The session ends in any case.
            let _ = revoke(client, &token).await;
        }
        Ok(None)
    }

    fn has_room_for(&self, session: &Session) -> bool {
        match &session.stored {
            Some(part) => self.fits_into_store(part, session),
            None => self.cookies(session).is_some(),
        }
    }

    /// Returns the new tokens of a session, or the reason why they are none. Fails if that is unknown.
    async fn check_renewed(
        &self,
        previous: &Session,
        token: AccessToken,
    ) -> Result<Result<Renewed, &'static str>, ExchangeError> {
        let mapping = self.0.client.claims_mapping();
        if !token.has_same_subject_as(&previous.token, mapping) {
            return Ok(Err("tokens_of_another_user"));
        }
        let token = self.until_own_expiry(token);
        let Some(id_tokens) = &self.0.id_tokens else {
            return self.check_user(previous, token).await;
        };
        let outcome = match (token.id_token(), previous.token.id_token()) {
            (Some(new), Some(old)) if !is_successor(new, old, mapping) => {
                return Ok(Err("tokens_of_another_user"));
            }
            (Some(new), _) => {
                id_tokens.renewed_identity(new.expose(), token.secret().expose()).await
            }
            // The provider need not send another one (OpenID Connect Core §12.2). The session ends with it.
            (None, Some(old)) => id_tokens.identity(old.expose()).await,
            (None, None) => Err(InvalidToken::MissingClaim("sub").into()),
        };
        match outcome {
            Ok(identity) => {
                Ok(Ok(Renewed { token: self.until_expiry_of(&identity, token), user: None }))
            }
            Err(error) if error.is_unavailable() => {
                Err(ExchangeError::unavailable(error.retry_after(), "the keys of the ID token"))
            }
            Err(error) => {
                telemetry::token_of_session_refused("ID token", error.reason());
                Ok(Err("id_token_refused"))
            }
        }
    }

    /// Checks that an opaque or encrypted access token is accepted, and belongs to the user of the session.
    async fn check_user(
        &self,
        previous: &Session,
        token: AccessToken,
    ) -> Result<Result<Renewed, &'static str>, ExchangeError> {
        // Two signed tokens were compared. The layer verifies the new one.
        if [&previous.token, &token].iter().all(|it| has_readable_claims(it.secret())) {
            return Ok(Ok(Renewed { token, user: None }));
        }
        // The previous token may have expired, so its user is in the session, unless its claims are readable.
        let before = match previous.user {
            Some(user) => Ok(user),
            None => self.user_of(&previous.token).await,
        };
        let now = match before {
            Ok(_) => self.user_of(&token).await,
            Err(_) => before.clone(),
        };
        match (before, now) {
            (Ok(before), Ok(now)) if before == now => Ok(Ok(Renewed { token, user: Some(now) })),
            (Ok(_), Ok(_)) => Ok(Err("tokens_of_another_user")),
            (Err(error), _) | (_, Err(error)) if error.is_unavailable() => {
                let problem = "the check of the new access token";
                Err(ExchangeError::unavailable(error.retry_after(), problem))
            }
            (Err(error), _) | (_, Err(error)) => {
                telemetry::token_of_session_refused("access token", error.reason());
                Ok(Err("access_token_refused"))
            }
        }
    }

    async fn user_of(&self, token: &AccessToken) -> Result<UserHash, AuthError> {
        let identity = self.0.auth.validate(token.secret().expose()).await?;
        Ok(UserHash::of(&identity))
    }
}

/// Returns whether an ID token is the successor of another (OpenID Connect Core §12.2): of the same user, and with
/// no other nonce.
fn is_successor(new: &Secret, old: &Secret, mapping: &ClaimsMapping) -> bool {
    has_same_subject(new, old, mapping) && has_same_claim(new, old, "nonce")
}

/// Returns the tokens with the signed ID token, if it was encrypted. It is not verified. It is the one that the
/// provider accepts as a hint (OpenID Connect Core §3.1.2.1).
pub(crate) fn with_signed_id_token(
    auth: &Auth,
    client: &TokenExchangeClient,
    token: &AccessToken,
) -> Result<AccessToken, InvalidToken> {
    let Some(id_token) = token.id_token() else { return Ok(token.clone()) };
    let signed = signed_token(auth.issuers(), &**auth.clock(), client.issuer(), id_token.expose())?;
    Ok(match signed {
        Some(signed) => token.clone().with_id_token(Some(signed)),
        None => token.clone(),
    })
}

/// Revokes a token at the provider. Logs a failure, because the token stays valid.
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
        let Inner { keys, cookies, lifetime, origins, stored, .. } = &*self.0;
        f.debug_struct("Sessions")
            .field("keys", keys)
            .field("store", stored)
            .field("cookie", &cookies.as_str())
            .field("lifetime", lifetime)
            .field("origins", origins)
            .finish_non_exhaustive()
    }
}
