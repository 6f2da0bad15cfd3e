//! [`TokenEndpoint`]: requests to the provider's token, revocation and metadata endpoints.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::builder::Settings;
use super::contract;
use super::end_session::EndSessionSearch;
use super::request::TokenRequest;
use super::{AccessToken, ExchangeError, OAuthError};
use crate::clock::{sleep, with_timeout};
use crate::config::TENANT_PLACEHOLDER;
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::issuer::{
    ClientAuth, ClientRequest, Endpoints, FetchError, Http, Issuers, Limits, RequestError,
};
use crate::revocation::Revocations;
use crate::support::breaker::{ALL_GRANTS, Breaker, Breakers, Delivery, Permit, Transition};
use crate::support::retry::Backoff;
use crate::support::telemetry;

/// The largest answer that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// The time after which metadata is read again.
pub(super) const METADATA_TTL: Duration = Duration::from_secs(3600);

/// The labels, in the field `grant` of log events, of requests other than token requests.
const METADATA: &str = "metadata";
const REVOCATION: &str = "revocation";
const TOKEN_URLS: &str = "token_urls";

/// A lookup of the token endpoint of each tenant. Needed when the URL cannot be derived from the
/// tenant's id.
///
/// ScaiKey, for example, uses the tenant's *slug* in the URL.
///
/// Harmless mistake: a lookup that fails. Mistake that lets an attacker in: a wrong URL, because its
/// server receives the service's credentials and the users' tokens.
///
/// ```
/// use std::collections::HashMap;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::TokenUrls;
/// use scaikey_auth::{TenantId, TokenExchangeClient};
///
/// /// The slug of each tenant.
/// #[derive(Debug)]
/// struct Slugs(HashMap<TenantId, String>);
///
/// #[async_trait::async_trait]
/// impl TokenUrls for Slugs {
///     async fn token_url(&self, tenant: &TenantId) -> Result<Option<String>, BoxError> {
///         let slug = self.0.get(tenant);
///         Ok(slug.map(|slug| format!("https://scaikey.example/tenants/{slug}/oauth/token")))
///     }
/// }
///
/// let slugs = Slugs(HashMap::new());
/// let builder = TokenExchangeClient::builder("https://scaikey.example").token_urls(slugs);
/// ```
#[async_trait]
pub trait TokenUrls: std::fmt::Debug + Send + Sync + 'static {
    /// Returns the URL for this tenant, or `None` if there is no such tenant.
    ///
    /// # Errors
    /// The lookup failed. The token request then fails with
    /// [`Unavailable`](super::ExchangeError::Unavailable).
    async fn token_url(&self, tenant: &TenantId) -> Result<Option<String>, BoxError>;
}

/// The source of the token endpoint's URL.
#[derive(Debug, Clone)]
pub(super) enum TokenUrlSource {
    Metadata,
    Fixed(Url),
    /// A URL with `{tenant_id}`.
    Template(String),
    PerTenant(Arc<dyn TokenUrls>),
}

/// The provider's endpoints, with the client's credentials and circuit breakers.
#[derive(Debug)]
pub(super) struct TokenEndpoint {
    pub(super) http: Http,
    pub(super) settings: Settings,
    /// The URLs at which the metadata may be, in the order in which they are tried.
    pub(super) metadata_urls: Vec<Url>,
    /// The issuer identifier, as in the metadata.
    pub(super) name: String,
    pub(super) auth: ClientAuth,
    pub(super) token_url_source: TokenUrlSource,
    pub(super) revocation_url: Option<Url>,
    pub(super) authorization_url: Option<Url>,
    pub(super) end_session_url: Option<Url>,
    pub(super) breakers: Breakers,
    /// The endpoints from the metadata, and the monotonic time at which they were read.
    pub(super) metadata: Mutex<Option<(Duration, Arc<Endpoints>)>>,
    /// The search for the end-session endpoint in further metadata, if that above does not name it.
    pub(super) end_session: EndSessionSearch,
    /// The issuers with which the metadata is shared.
    pub(super) issuers: OnceLock<Issuers>,
    /// The revocations that subject and actor tokens are judged by.
    pub(super) revocations: OnceLock<Revocations>,
}

impl TokenEndpoint {
    /// Requests a token through the circuit breaker, and verifies that it is the requested one.
    pub(super) async fn fetch(
        &self,
        request: &TokenRequest<'_>,
    ) -> Result<AccessToken, ExchangeError> {
        let name = request.name();
        let not_sent = |reason| {
            move |error: ExchangeError| {
                telemetry::token_request_not_sent(name, reason, &error);
                error
            }
        };
        let url = self.token_url(request.tenant()).await.map_err(not_sent("no_endpoint"))?;
        let breaker = self.breakers.of(url.as_str());
        let grant = (!request.is_from_anonymous_caller()).then_some(name);
        let permit = self.permit(&breaker, grant).map_err(not_sent("breaker_open"))?;
        let fill = |form: &mut Serializer<'_, String>| request.write(form, &self.settings);
        let (delivery, answer) = self.post(&url, permit, fill, request.is_idempotent()).await;
        let token = answer.and_then(|body| self.read(request, &body));
        let error = token.as_ref().err();
        self.log_outage(&url, &breaker, name, delivery, error);
        if delivery == Delivery::NotAuthenticated {
            return token.map_err(not_sent("client_auth"));
        }
        let outcome = error.map_or("ok", ExchangeError::kind);
        telemetry::token_request_ended(name, outcome, error.map(|error| error as _));
        token
    }

    /// Revokes a token at the provider (RFC 7009).
    pub(super) async fn revoke(&self, token: &str) -> Result<(), ExchangeError> {
        let url = match &self.revocation_url {
            Some(url) => url.clone(),
            None => {
                self.endpoints().await?.revocation.clone().ok_or(ExchangeError::NotConfigured(
                    "the provider's metadata has no revocation_endpoint; set revocation_url",
                ))?
            }
        };
        let fill = |form: &mut Serializer<'_, String>| {
            form.append_pair("token", token);
        };
        let breaker = self.breakers.of(url.as_str());
        // No grant: an anonymous caller may have sent the token.
        let permit = self.permit(&breaker, None)?;
        let (delivery, answer) = self.post(&url, permit, fill, true).await;
        self.log_outage(&url, &breaker, REVOCATION, delivery, answer.as_ref().err());
        answer.map(drop)
    }

    /// Returns whether the URL of the token endpoint depends on the tenant.
    pub(super) fn is_per_tenant(&self) -> bool {
        matches!(self.token_url_source, TokenUrlSource::Template(_) | TokenUrlSource::PerTenant(_))
    }

    /// Returns whether the URL of the token endpoint must be read from the metadata.
    pub(super) fn needs_metadata(&self) -> bool {
        matches!(self.token_url_source, TokenUrlSource::Metadata)
    }

    /// Returns an upper bound for the time that [`fetch`](Self::fetch) takes: three times the time
    /// limit, because it may read the metadata or look up the tenant's URL before the request.
    pub(super) fn max_duration(&self) -> Duration {
        self.settings.timeout.saturating_mul(3)
    }

    /// Parses the answer to a token request, and verifies the token.
    fn read(&self, request: &TokenRequest<'_>, body: &[u8]) -> Result<AccessToken, ExchangeError> {
        let mut token = AccessToken::parse(body, &*self.settings.clock)?;
        if let (None, Some(lifetime)) = (token.lifetime(), self.settings.default_lifetime) {
            token = token.with_lifetime(lifetime);
        }
        contract::verify(request, &token, &self.settings.answer).map(|()| token)
    }

    /// Posts a form with client authentication. Returns how far the request got, and the body of a 200
    /// answer. Retries once after a failure without `Retry-After`, if the connection failed or the
    /// request is idempotent.
    async fn post(
        &self,
        url: &Url,
        permit: Permit,
        fill: impl Fn(&mut Serializer<'_, String>),
        is_idempotent: bool,
    ) -> (Delivery, Result<Vec<u8>, ExchangeError>) {
        let attempts = async {
            let (delivery, first) = self.attempt(url, &fill).await;
            let again = matches!(first, Err(ExchangeError::Unavailable { retry_after: None, .. }))
                && (is_idempotent || delivery == Delivery::NotConnected)
                && delivery != Delivery::NotAuthenticated;
            if !again {
                return (delivery, first);
            }
            telemetry::token_request_repeated("unavailable");
            sleep(Backoff::REPEAT.wait(1)).await;
            self.attempt(url, &fill).await
        };
        let (delivery, outcome) =
            with_timeout(self.settings.timeout, attempts).await.unwrap_or_else(|| {
                let problem = format!("{url} did not answer within {:?}", self.settings.timeout);
                (Delivery::NoAnswer, Err(ExchangeError::provider_unavailable(None, problem)))
            });
        match permit.record(delivery, counted_failure(&outcome)) {
            Transition::Opened(grant, pause) => {
                telemetry::token_endpoint_breaker_opened(url.as_str(), grant, pause);
            }
            Transition::Closed => telemetry::token_endpoint_breaker_closed(url.as_str()),
            Transition::None => {}
        }
        (delivery, outcome)
    }

    /// Permits a request, unless the breaker is open.
    fn permit(
        &self,
        breaker: &Arc<Breaker>,
        grant: Option<&'static str>,
    ) -> Result<Permit, ExchangeError> {
        breaker.permit(grant, &self.settings.clock).map_err(|wait| {
            let problem = "requests failed recently, so the circuit breaker is open";
            ExchangeError::provider_unavailable(Some(wait), problem)
        })
    }

    /// Sends one request. Returns how far it got, and the body of a 200 answer.
    async fn attempt(
        &self,
        url: &Url,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> (Delivery, Result<Vec<u8>, ExchangeError>) {
        let request = ClientRequest {
            http: &self.http,
            auth: &self.auth,
            issuer: &self.name,
            url,
            accept: "application/json",
            limits: Limits { deadline: self.settings.timeout, max_bytes: MAX_BYTES },
            route: &self.settings.route,
            now: self.settings.clock.now(),
        };
        match request.send(fill).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                (Delivery::Answered(answer.status), Ok(answer.body))
            }
            Ok(answer) => {
                let error = ExchangeError::of(answer.status, answer.retry_after, &answer.body);
                (Delivery::Answered(answer.status), Err(error))
            }
            Err(RequestError::NoCredentials(error)) => {
                (Delivery::NotAuthenticated, Err(error.into()))
            }
            Err(RequestError::NoAnswer(error)) => {
                let delivery = match error {
                    FetchError::Unconnected(_) | FetchError::Ca(_) => Delivery::NotConnected,
                    _ => Delivery::NoAnswer,
                };
                (delivery, Err(ExchangeError::provider_unavailable(None, format!("{url} {error}"))))
            }
        }
    }

    /// Logs once when the endpoint starts to fail, and once when it recovers. A failure that a caller's
    /// invalid credential caused is not logged.
    fn log_outage(
        &self,
        url: &Url,
        breaker: &Breaker,
        grant: &'static str,
        delivery: Delivery,
        error: Option<&ExchangeError>,
    ) {
        let failure = error.and_then(|error| Some((error, log_scope(error, delivery, grant)?)));
        // An answer ends an outage of the whole endpoint, even if the answer is an error for one grant.
        let is_answered = matches!(delivery, Delivery::Answered(_));
        if is_answered && failure.is_none_or(|(_, scope)| scope != ALL_GRANTS) {
            self.log_outage_of(url.as_str(), breaker, ALL_GRANTS, None);
        }
        match failure {
            Some((error, scope)) => self.log_outage_of(url.as_str(), breaker, scope, Some(error)),
            None => self.log_outage_of(url.as_str(), breaker, grant, None),
        }
    }

    pub(super) fn log_outage_of(
        &self,
        url: &str,
        breaker: &Breaker,
        grant: &'static str,
        failure: Option<&ExchangeError>,
    ) {
        let outage = breaker.outage(grant);
        match failure {
            Some(error) if outage.record_failure(error, self.settings.clock.elapsed()) => {
                telemetry::token_endpoint_failed(url, grant, error);
            }
            None if outage.record_success(|| self.settings.clock.elapsed()) => {
                telemetry::token_endpoint_recovered(url, grant)
            }
            _ => {}
        }
    }

    async fn token_url(&self, tenant: Option<&TenantId>) -> Result<Url, ExchangeError> {
        match &self.token_url_source {
            TokenUrlSource::Metadata => return Ok(self.endpoints().await?.token.clone()),
            TokenUrlSource::Fixed(url) => return Ok(url.clone()),
            TokenUrlSource::Template(_) | TokenUrlSource::PerTenant(_) => {}
        }
        let url = self.tenant_token_url(tenant).await;
        let breaker = self.breakers.of(&self.name);
        self.log_outage_of(&self.name, &breaker, TOKEN_URLS, url.as_ref().err());
        url
    }

    async fn tenant_token_url(&self, tenant: Option<&TenantId>) -> Result<Url, ExchangeError> {
        let misconfigured = ExchangeError::NotConfigured;
        let tenant = tenant.ok_or(misconfigured(
            "the URL of the token endpoint depends on the tenant: set the tenant in the request",
        ))?;
        let url = match &self.token_url_source {
            TokenUrlSource::Metadata | TokenUrlSource::Fixed(_) => None,
            TokenUrlSource::Template(url) => {
                Some(url.replace(TENANT_PLACEHOLDER, &segment(tenant)?))
            }
            TokenUrlSource::PerTenant(urls) => {
                let found = with_timeout(self.settings.timeout, urls.token_url(tenant)).await;
                let found = found.unwrap_or_else(|| Err("it did not answer in time".into()));
                let failed = |error| {
                    format!(
                        "the URL of the tenant's token endpoint could not be looked up: {error}"
                    )
                };
                found.map_err(|error| ExchangeError::unavailable(None, failed(error)))?
            }
        };
        let url = url.ok_or(misconfigured("there is no token endpoint for this tenant"))?;
        let url = Url::parse(&url).ok().filter(|url| self.settings.plain_http.allows(url));
        url.ok_or(misconfigured("the tenant's token endpoint is neither https nor http with an allowed host (allow_loopback_http, insecure_http_hosts)"))
    }

    /// Returns the endpoints from the metadata, which is read again after an hour. If that fails, the
    /// previous endpoints are used for another hour.
    pub(super) async fn endpoints(&self) -> Result<Arc<Endpoints>, ExchangeError> {
        if let Some(issuers) = self.issuers.get().filter(|_| !self.http.is_own()) {
            let Settings { plain_http, route, .. } = &self.settings;
            let urls = &self.metadata_urls;
            if let Some(shared) = issuers.endpoints(&self.name, urls, plain_http, route).await {
                return Ok(shared);
            }
        }
        let lock = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        let (cached, now) = (lock().clone(), self.settings.clock.elapsed());
        if let Some((read_at, endpoints)) = &cached
            && now.saturating_sub(*read_at) < METADATA_TTL
        {
            return Ok(endpoints.clone());
        }
        let endpoints = match (self.fetch_metadata().await, cached) {
            (Ok(endpoints), _) => Arc::new(endpoints),
            (Err(_), Some((_, endpoints))) => endpoints,
            (Err(error), None) => return Err(error),
        };
        *lock() = Some((now, endpoints.clone()));
        Ok(endpoints)
    }

    async fn fetch_metadata(&self) -> Result<Endpoints, ExchangeError> {
        let breaker = self.breakers.of(&self.name);
        let permit = self.permit(&breaker, Some(METADATA))?;
        let limits = Limits { deadline: self.settings.timeout, max_bytes: MAX_BYTES };
        let Settings { plain_http, route, .. } = &self.settings;
        let answer =
            self.http.endpoints(&self.metadata_urls, &self.name, plain_http, route, limits);
        let answer = with_timeout(self.settings.timeout, answer).await;
        let answer = answer.unwrap_or_else(|| Err("the metadata did not arrive in time".into()));
        let endpoints =
            answer.map_err(|problem| ExchangeError::provider_unavailable(None, problem));
        permit.record(Delivery::NoAnswer, counted_failure(&endpoints));
        self.log_outage_of(&self.name, &breaker, METADATA, endpoints.as_ref().err());
        endpoints
    }
}

/// Returns the `Retry-After` of a failure that counts for the breaker.
fn counted_failure<T>(outcome: &Result<T, ExchangeError>) -> Option<Option<Duration>> {
    match outcome {
        Err(ExchangeError::Unavailable { retry_after, .. }) => Some(*retry_after),
        _ => None,
    }
}

/// Returns the label under which a failure is logged: [`ALL_GRANTS`] or `grant`. Returns `None` if a
/// caller's credential caused the failure, which is then not logged.
fn log_scope(
    error: &ExchangeError,
    delivery: Delivery,
    grant: &'static str,
) -> Option<&'static str> {
    use OAuthError::{InvalidClient, UnauthorizedClient, UnsupportedGrantType};
    match error {
        ExchangeError::Unavailable { .. }
            if delivery.is_endpoint_failure() || delivery == Delivery::NotAuthenticated =>
        {
            Some(ALL_GRANTS)
        }
        ExchangeError::ClientAuth(_)
        | ExchangeError::Refused { error: Some(InvalidClient), .. } => Some(ALL_GRANTS),
        ExchangeError::Refused {
            error: Some(UnauthorizedClient | UnsupportedGrantType) | None,
            ..
        }
        | ExchangeError::Unavailable { .. }
        | ExchangeError::InvalidAnswer(_)
        | ExchangeError::NotConfigured(_) => Some(grant),
        ExchangeError::Refused { error: Some(_), .. } | ExchangeError::Revoked => None,
    }
}

/// Encodes a tenant as one path segment. Rejects an id that consists of dots: `.` and `..` would change
/// the path, and cannot be encoded.
fn segment(tenant: &TenantId) -> Result<String, ExchangeError> {
    if tenant.as_str().bytes().all(|b| b == b'.') {
        return Err(ExchangeError::NotConfigured("this tenant id cannot be part of a URL"));
    }
    Ok(byte_serialize(tenant.as_str().as_bytes()).collect())
}
