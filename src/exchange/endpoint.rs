//! [`TokenEndpoint`]: one request to the provider, and what becomes of it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderValue, StatusCode};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::breaker::{ALL, Breaker, Breakers, Change, Permit, Reached};
use super::grant::Grant;
use super::{AccessToken, ExchangeError, OAuthError};
use crate::clock::{Clock, backoff, pause, within};
use crate::config::{TENANT_PLACEHOLDER, is_loopback};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::issuer::{ClientAuth, Endpoints, FetchError, Http, Issuers, Limits, Unproven};
use crate::telemetry;

/// No answer of a token endpoint is larger.
const MAX_BYTES: usize = 1 << 20;

/// How long metadata is believed before it is read again.
const METADATA_LIFE: Duration = Duration::from_secs(3600);

/// The pause before the second attempt: half of it at least, twice as much at most.
const RETRY: Duration = Duration::from_millis(100);

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
    pub(super) clock: Arc<dyn Clock>,
    /// Where metadata may be.
    pub(super) places: Vec<Url>,
    /// The issuer as its metadata spells it.
    pub(super) name: String,
    pub(super) auth: ClientAuth,
    pub(super) place: Place,
    pub(super) revocation_url: Option<Url>,
    pub(super) authorization_url: Option<Url>,
    pub(super) allow_loopback_http: bool,
    pub(super) allows_other_types: bool,
    pub(super) default_lifetime: Option<Duration>,
    pub(super) timeout: Duration,
    pub(super) breakers: Breakers,
    pub(super) learned: Mutex<Option<Learned>>,
    /// Who reads the same metadata for the sake of keys.
    pub(super) issuers: OnceLock<Issuers>,
}

#[derive(Debug, Clone)]
pub(super) struct Learned {
    at: Duration,
    endpoints: Arc<Endpoints>,
}

impl TokenEndpoint {
    /// Asks for a token, and for the verdict of `check` on it.
    pub(super) async fn ask(
        &self,
        grant: &Grant<'_>,
        check: impl FnOnce(AccessToken) -> Result<AccessToken, ExchangeError>,
    ) -> Result<AccessToken, ExchangeError> {
        let name = grant.name();
        let withheld = |reason| {
            move |error: ExchangeError| {
                telemetry::token_not_asked(name, reason, &error);
                error
            }
        };
        let url = self.token_url(grant.tenant()).await.map_err(withheld("no_endpoint"))?;
        let breaker = self.breakers.of(url.as_str());
        let own = (!grant.is_of_anybody()).then_some(name);
        let permit = breaker.permit(own, &self.clock).map_err(withheld("left_alone"))?;
        let fill = |form: &mut Serializer<'_, String>| grant.write(form);
        let (reached, answer) = self.post(&url, permit, fill, grant.may_be_repeated()).await;
        let token = answer.and_then(|body| self.read(grant, &body)).and_then(check);
        let error = token.as_ref().err();
        self.tell(&url, &breaker, name, reached, error);
        if reached == Reached::Nothing {
            return token.map_err(withheld("client_auth"));
        }
        let outcome = error.map_or("ok", ExchangeError::kind);
        telemetry::token_asked(name, outcome, error.map(|error| error as _));
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
        let permit = breaker.permit(None, &self.clock)?;
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
        self.timeout.saturating_mul(3)
    }

    /// A token, if the answer is one.
    fn read(&self, grant: &Grant<'_>, body: &[u8]) -> Result<AccessToken, ExchangeError> {
        let mut token = AccessToken::parse(body, &*self.clock)?;
        if !token.is_bearer() && !self.allows_other_types {
            return Err(ExchangeError::Answer("is no access token"));
        }
        if let (None, Some(lifetime)) = (token.lifetime(), self.default_lifetime) {
            token = token.with_lifetime(lifetime);
        }
        match (grant.scopes(), token.scopes()) {
            (Some(asked), Some(got)) if !asked.contains_all(got) => {
                Err(ExchangeError::Answer("permits more than was asked for"))
            }
            _ => Ok(token),
        }
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
            pause(backoff(RETRY, RETRY * 2, 1)).await;
            self.attempt(url, &fill).await
        };
        let (reached, outcome) = within(self.timeout, attempts).await.unwrap_or_else(|| {
            let problem = format!("{url} gave no answer within {:?}", self.timeout);
            (Reached::NoAnswer, Err(ExchangeError::unavailable(None, problem)))
        });
        match permit.note(reached, &outcome) {
            Change::Opened(grant, pause) => {
                telemetry::endpoint_left_alone(url.as_str(), grant, pause);
            }
            Change::Closed => telemetry::endpoint_answers_again(url.as_str()),
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
        let now = self.clock.now();
        let (header, form) = match self.proven(fill, now) {
            Ok(proven) => proven,
            Err(unproven) => return (Reached::Nothing, Err(unproven.into())),
        };
        let limits = Limits { deadline: self.timeout, max_bytes: MAX_BYTES };
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
            Some(error) if outage.begins(error, self.clock.elapsed()) => {
                telemetry::token_endpoint_fails(url, grant, error);
            }
            None if outage.ends(|| self.clock.elapsed()) => {
                telemetry::token_endpoint_works(url, grant)
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
                let found = within(self.timeout, urls.token_url(tenant)).await;
                let found = found.unwrap_or_else(|| Err("no answer in time".into()));
                let failed = |error| format!("the tenant's token endpoint: {error}");
                found.map_err(|error| ExchangeError::unavailable(None, failed(error)))?
            }
        };
        let url = url.ok_or(refused("there is no token endpoint for this tenant"))?;
        let url = Url::parse(&url).ok().filter(|url| is_fit(url, self.allow_loopback_http));
        url.ok_or(refused("the tenant's token endpoint is not an https URL"))
    }

    /// What metadata says, an hour old at most. While it cannot be read, what it said before.
    pub(super) async fn endpoints(&self) -> Result<Arc<Endpoints>, ExchangeError> {
        let plain = self.allow_loopback_http;
        if let Some(issuers) = self.issuers.get()
            && let Some(known) = issuers.endpoints(&self.name, &self.places, plain).await
        {
            return Ok(known);
        }
        let held = self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.clock.elapsed();
        if let Some(held) = &held
            && now.saturating_sub(held.at) < METADATA_LIFE
        {
            return Ok(held.endpoints.clone());
        }
        let endpoints = match (self.learn().await, held) {
            (Ok(endpoints), _) => Arc::new(endpoints),
            (Err(_), Some(held)) => held.endpoints,
            (Err(error), None) => return Err(error),
        };
        let learned = Learned { at: now, endpoints: endpoints.clone() };
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(learned);
        Ok(endpoints)
    }

    async fn learn(&self) -> Result<Endpoints, ExchangeError> {
        let breaker = self.breakers.of(&self.name);
        let permit = breaker.permit(Some(METADATA), &self.clock)?;
        let limits = Limits { deadline: self.timeout, max_bytes: MAX_BYTES };
        let plain = self.allow_loopback_http;
        let asked = self.http.endpoints(&self.places, &self.name, plain, limits);
        let asked = within(self.timeout, asked).await;
        let asked = asked.unwrap_or_else(|| Err("the metadata came not in time".into()));
        let learned = asked.map_err(|problem| ExchangeError::unavailable(None, problem));
        permit.note(Reached::NoAnswer, &learned);
        self.tell_of(&self.name, &breaker, METADATA, learned.as_ref().err());
        learned
    }

    /// The form with the client's proof, or with the header that is the proof.
    fn proven(
        &self,
        fill: impl Fn(&mut Serializer<'_, String>),
        now: SystemTime,
    ) -> Result<(Option<HeaderValue>, String), Unproven> {
        let mut form = Serializer::new(String::new());
        fill(&mut form);
        let header = self.auth.prove(&mut form, &self.name, now)?;
        Ok((header, form.finish()))
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
