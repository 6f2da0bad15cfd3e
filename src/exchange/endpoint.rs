//! [`TokenEndpoint`]: one request to the provider, and what becomes of it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::breaker::{ALL, Breaker, Breakers, Change, Permit, Reached};
use super::builder::Settings;
use super::contract;
use super::request::TokenRequest;
use super::{AccessToken, ExchangeError, OAuthError};
use crate::clock::{pause, within};
use crate::config::{TENANT_PLACEHOLDER, is_loopback};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::issuer::{ClientAuth, Endpoints, FetchError, Http, Issuers, Limits};
use crate::support::retry::Backoff;
use crate::support::telemetry;

/// No answer of a token endpoint is larger.
const MAX_BYTES: usize = 1 << 20;

/// How long metadata is believed before it is read again.
const METADATA_LIFE: Duration = Duration::from_secs(3600);

/// Under these names, beside those of grants, requests are told and counted that are for no token.
const METADATA: &str = "metadata";
const REVOCATION: &str = "revocation";
const TOKEN_URLS: &str = "token_urls";

/// Knows the token endpoint of each tenant, when the tenant's id alone does not tell.
///
/// ScaiKey has them under the tenant's *slug*. A closure from the id to the URL will do where
/// nothing must be waited for.
///
/// Harmless mistake: to fail. Attack: to answer with a URL of somebody else, who would get the
/// service's proof and the users' tokens.
#[async_trait]
pub trait TokenUrls: std::fmt::Debug + Send + Sync + 'static {
    /// The URL for this tenant; `None` when there is no such tenant.
    ///
    /// # Errors
    /// When it cannot be told right now.
    async fn token_url(&self, tenant: &TenantId) -> Result<Option<String>, BoxError>;
}

/// Where tokens come from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Where metadata says.
    Learned,
    Fixed(Url),
    /// A URL with the placeholder.
    Template(String),
    PerTenant(Arc<dyn TokenUrls>),
}

/// The provider's endpoints and the way to them.
#[derive(Debug)]
pub(super) struct TokenEndpoint {
    pub(super) http: Http,
    pub(super) settings: Settings,
    /// Where metadata may be.
    pub(super) places: Vec<Url>,
    /// The issuer as its metadata spells it.
    pub(super) name: String,
    pub(super) auth: ClientAuth,
    pub(super) place: Place,
    pub(super) revocation_url: Option<Url>,
    pub(super) authorization_url: Option<Url>,
    pub(super) breakers: Breakers,
    /// What metadata said, and when.
    pub(super) learned: Mutex<Option<(Duration, Arc<Endpoints>)>>,
    /// Who reads the same metadata for the sake of keys.
    pub(super) issuers: OnceLock<Issuers>,
}

impl TokenEndpoint {
    /// Asks for a token, and compares it with what was asked for.
    pub(super) async fn ask(
        &self,
        request: &TokenRequest<'_>,
    ) -> Result<AccessToken, ExchangeError> {
        let name = request.name();
        let withheld = |reason| {
            move |error: ExchangeError| {
                telemetry::token_request_not_sent(name, reason, &error);
                error
            }
        };
        let url = self.token_url(request.tenant()).await.map_err(withheld("no_endpoint"))?;
        let breaker = self.breakers.of(url.as_str());
        let own = (!request.is_from_anonymous_caller()).then_some(name);
        let permit = breaker.permit(own, &self.settings.clock).map_err(withheld("breaker_open"))?;
        let fill = |form: &mut Serializer<'_, String>| request.write(form, &self.settings);
        let (reached, answer) = self.post(&url, permit, fill, request.may_be_repeated()).await;
        let token = answer.and_then(|body| self.read(request, &body));
        let error = token.as_ref().err();
        self.tell(&url, &breaker, name, reached, error);
        if reached == Reached::Nothing {
            return token.map_err(withheld("client_auth"));
        }
        let outcome = error.map_or("ok", ExchangeError::kind);
        telemetry::token_request_ended(name, outcome, error.map(|error| error as _));
        token
    }

    /// Tells the provider to end a token (RFC 7009).
    pub(super) async fn revoke(&self, token: &str) -> Result<(), ExchangeError> {
        let url = match &self.revocation_url {
            Some(url) => url.clone(),
            None => {
                self.endpoints().await?.revocation.clone().ok_or(ExchangeError::NotConfigured(
                    "the provider names no revocation_endpoint; set revocation_url",
                ))?
            }
        };
        let fill = |form: &mut Serializer<'_, String>| {
            form.append_pair("token", token);
        };
        let breaker = self.breakers.of(url.as_str());
        // Anybody may bring a token to be revoked.
        let permit = breaker.permit(None, &self.settings.clock)?;
        let (reached, answer) = self.post(&url, permit, fill, true).await;
        self.tell(&url, &breaker, REVOCATION, reached, answer.as_ref().err());
        answer.map(drop)
    }

    /// Whether it depends on the tenant.
    pub(super) fn is_per_tenant(&self) -> bool {
        matches!(self.place, Place::Template(_) | Place::PerTenant(_))
    }

    /// Whether the token endpoint is found there and nowhere else.
    pub(super) fn needs_metadata(&self) -> bool {
        matches!(self.place, Place::Learned)
    }

    /// The longest that [`ask`](Self::ask) takes.
    pub(super) fn longest(&self) -> Duration {
        self.settings.timeout.saturating_mul(3)
    }

    /// A token, if the answer is one, and the one that was asked for.
    fn read(&self, request: &TokenRequest<'_>, body: &[u8]) -> Result<AccessToken, ExchangeError> {
        let mut token = AccessToken::parse(body, &*self.settings.clock)?;
        if let (None, Some(lifetime)) = (token.lifetime(), self.settings.default_lifetime) {
            token = token.with_lifetime(lifetime);
        }
        contract::verify(request, &token, self.settings.relaxed).map(|()| token)
    }

    /// POSTs a form with the client's proof, which the breaker has permitted. Returns how far it
    /// came, and the body of a 200. A request that was never sent, or that may be repeated, is tried
    /// twice.
    async fn post(
        &self,
        url: &Url,
        permit: Permit,
        fill: impl Fn(&mut Serializer<'_, String>),
        may_be_repeated: bool,
    ) -> (Reached, Result<Vec<u8>, ExchangeError>) {
        let attempts = async {
            let (reached, first) = self.attempt(url, &fill).await;
            let again = matches!(first, Err(ExchangeError::Unavailable { retry_after: None, .. }))
                && (may_be_repeated || reached == Reached::NoConnection);
            if !again {
                return (reached, first);
            }
            telemetry::token_request_repeated();
            pause(Backoff::REPEAT.wait(1)).await;
            self.attempt(url, &fill).await
        };
        let (reached, outcome) =
            within(self.settings.timeout, attempts).await.unwrap_or_else(|| {
                let problem = format!("{url} gave no answer within {:?}", self.settings.timeout);
                (Reached::NoAnswer, Err(ExchangeError::unavailable(None, problem)))
            });
        match permit.note(reached, &outcome) {
            Change::Opened(grant, pause) => {
                telemetry::token_endpoint_breaker_opened(url.as_str(), grant, pause);
            }
            Change::Closed => telemetry::token_endpoint_breaker_closed(url.as_str()),
            Change::None => {}
        }
        (reached, outcome)
    }

    /// One request, and how far it came.
    async fn attempt(
        &self,
        url: &Url,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> (Reached, Result<Vec<u8>, ExchangeError>) {
        let now = self.settings.clock.now();
        // The form with the client's proof, or with the header that is the proof.
        let proven = {
            let mut form = Serializer::new(String::new());
            fill(&mut form);
            self.auth.authenticate(&mut form, &self.name, now).map(|header| (header, form.finish()))
        };
        let (header, form) = match proven {
            Ok(proven) => proven,
            Err(unproven) => return (Reached::Nothing, Err(unproven.into())),
        };
        let limits = Limits { deadline: self.settings.timeout, max_bytes: MAX_BYTES };
        match self.http.post_form(url, header, form, limits, now).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                (Reached::Answer(answer.status), Ok(answer.body))
            }
            Ok(answer) => {
                let refused = ExchangeError::of(answer.status, answer.retry_after, &answer.body);
                (Reached::Answer(answer.status), Err(refused))
            }
            Err(error) => {
                let reached = match error {
                    FetchError::Unconnected(_) => Reached::NoConnection,
                    _ => Reached::NoAnswer,
                };
                (reached, Err(ExchangeError::unavailable(None, format!("{url} {error}"))))
            }
        }
    }

    /// Tells the log once when the endpoint begins to fail this service, and once when that is over.
    /// A caller's bad credential is no failure.
    fn tell(
        &self,
        url: &Url,
        breaker: &Breaker,
        grant: &'static str,
        reached: Reached,
        error: Option<&ExchangeError>,
    ) {
        let failure = error.and_then(|error| Some((error, blamed(error, reached, grant)?)));
        // What failed for one grant was answered: for all together the endpoint works.
        let is_answered = matches!(reached, Reached::Answer(_));
        if is_answered && failure.is_none_or(|(_, blamed)| blamed != ALL) {
            self.tell_of(url.as_str(), breaker, ALL, None);
        }
        match failure {
            Some((error, blamed)) => self.tell_of(url.as_str(), breaker, blamed, Some(error)),
            None => self.tell_of(url.as_str(), breaker, grant, None),
        }
    }

    fn tell_of(
        &self,
        url: &str,
        breaker: &Breaker,
        grant: &'static str,
        failure: Option<&ExchangeError>,
    ) {
        let outage = breaker.outage(grant);
        match failure {
            Some(error) if outage.begins(error, self.settings.clock.elapsed()) => {
                telemetry::token_endpoint_failed(url, grant, error);
            }
            None if outage.ends(|| self.settings.clock.elapsed()) => {
                telemetry::token_endpoint_recovered(url, grant)
            }
            _ => {}
        }
    }

    async fn token_url(&self, tenant: Option<&TenantId>) -> Result<Url, ExchangeError> {
        match &self.place {
            Place::Learned => return Ok(self.endpoints().await?.token.clone()),
            Place::Fixed(url) => return Ok(url.clone()),
            Place::Template(_) | Place::PerTenant(_) => {}
        }
        let url = self.tenants_url(tenant).await;
        let breaker = self.breakers.of(&self.name);
        self.tell_of(&self.name, &breaker, TOKEN_URLS, url.as_ref().err());
        url
    }

    async fn tenants_url(&self, tenant: Option<&TenantId>) -> Result<Url, ExchangeError> {
        let refused = ExchangeError::NotConfigured;
        let tenant = tenant.ok_or(refused("the token endpoint depends on the tenant: name one"))?;
        let url = match &self.place {
            Place::Learned | Place::Fixed(_) => None,
            Place::Template(url) => Some(url.replace(TENANT_PLACEHOLDER, &segment(tenant)?)),
            Place::PerTenant(urls) => {
                let found = within(self.settings.timeout, urls.token_url(tenant)).await;
                let found = found.unwrap_or_else(|| Err("no answer in time".into()));
                let failed = |error| format!("the tenant's token endpoint: {error}");
                found.map_err(|error| ExchangeError::unavailable(None, failed(error)))?
            }
        };
        let url = url.ok_or(refused("there is no token endpoint for this tenant"))?;
        let url =
            Url::parse(&url).ok().filter(|url| is_fit(url, self.settings.allow_loopback_http));
        url.ok_or(refused("the tenant's token endpoint is not an https URL"))
    }

    /// What metadata says, an hour old at most. While it cannot be read, what it said before.
    pub(super) async fn endpoints(&self) -> Result<Arc<Endpoints>, ExchangeError> {
        let plain = self.settings.allow_loopback_http;
        if let Some(issuers) = self.issuers.get()
            && let Some(known) = issuers.endpoints(&self.name, &self.places, plain).await
        {
            return Ok(known);
        }
        let lock = || self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, now) = (lock().clone(), self.settings.clock.elapsed());
        if let Some((at, endpoints)) = &held
            && now.saturating_sub(*at) < METADATA_LIFE
        {
            return Ok(endpoints.clone());
        }
        let endpoints = match (self.learn().await, held) {
            (Ok(endpoints), _) => Arc::new(endpoints),
            (Err(_), Some((_, endpoints))) => endpoints,
            (Err(error), None) => return Err(error),
        };
        *lock() = Some((now, endpoints.clone()));
        Ok(endpoints)
    }

    async fn learn(&self) -> Result<Endpoints, ExchangeError> {
        let breaker = self.breakers.of(&self.name);
        let permit = breaker.permit(Some(METADATA), &self.settings.clock)?;
        let limits = Limits { deadline: self.settings.timeout, max_bytes: MAX_BYTES };
        let plain = self.settings.allow_loopback_http;
        let asked = self.http.endpoints(&self.places, &self.name, plain, limits);
        let asked = within(self.settings.timeout, asked).await;
        let asked = asked.unwrap_or_else(|| Err("the metadata came not in time".into()));
        let learned = asked.map_err(|problem| ExchangeError::unavailable(None, problem));
        permit.note(Reached::NoAnswer, &learned);
        self.tell_of(&self.name, &breaker, METADATA, learned.as_ref().err());
        learned
    }
}

/// For whom the endpoint fails, as the log is told: for all grants, or for this one. Where a caller's
/// credential is to blame, for nobody.
fn blamed(error: &ExchangeError, reached: Reached, grant: &'static str) -> Option<&'static str> {
    use OAuthError::{InvalidClient, UnauthorizedClient, UnsupportedGrantType};
    match error {
        ExchangeError::Unavailable { .. } if reached.concerns_all() => Some(ALL),
        ExchangeError::ClientAuth(_)
        | ExchangeError::Refused { error: Some(InvalidClient), .. } => Some(ALL),
        ExchangeError::Refused {
            error: Some(UnauthorizedClient | UnsupportedGrantType) | None,
            ..
        }
        | ExchangeError::Unavailable { .. }
        | ExchangeError::Answer(_)
        | ExchangeError::NotConfigured(_) => Some(grant),
        ExchangeError::Refused { error: Some(_), .. } => None,
    }
}

/// Whether credentials may be sent there.
pub(super) fn is_fit(url: &Url, allow_loopback_http: bool) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && allow_loopback_http && is_loopback(url))
}

/// A tenant as one segment of a path. Dots alone would lead elsewhere.
fn segment(tenant: &TenantId) -> Result<String, ExchangeError> {
    if tenant.as_str().bytes().all(|b| b == b'.') {
        return Err(ExchangeError::NotConfigured("this tenant cannot be part of a URL"));
    }
    Ok(byte_serialize(tenant.as_str().as_bytes()).collect())
}
