//! [`EndSessionRequest`]: the request that signs a browser out at the provider (OpenID Connect
//! RP-Initiated Logout 1.0 §2).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use super::builder::Settings;
use super::endpoint::{MAX_BYTES, METADATA_TTL, TokenEndpoint};
use super::{ExchangeError, TokenExchangeClient};
use crate::clock::with_timeout;
#[cfg(feature = "endpoints")]
use crate::config::Fault;
use crate::issuer::Limits;
use crate::support::secret::Secret;
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry;

/// The parameters that the request itself has.
const RESERVED: [&str; 4] = ["id_token_hint", "client_id", "post_logout_redirect_uri", "state"];

/// The longest URL with an ID token. Common servers accept a request line of 8 KiB.
const MAX_URL_BYTES: usize = 8000;

/// The time after which metadata without the endpoint is read again: an update of the provider may add it.
const MISSING_TTL: Duration = Duration::from_secs(60);

/// The time after which metadata that could not be read is requested again.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// The labels of warnings that are logged once.
const HINT: &str = "id_token_hint";
const SEARCH: &str = "end_session_metadata";
#[cfg(feature = "endpoints")]
const ENDPOINT: &str = "end_session_endpoint";

/// The parameters of a sign-out (logout) at the provider: OpenID Connect RP-Initiated Logout 1.0.
///
/// Use it in a handler of your own. With [`Sessions`](crate::session::Sessions), the endpoint `logout` does
/// all of this: see `SessionsBuilder::end_at_provider`. End the session of your service first, and then
/// redirect the browser to the URL that
/// [`TokenExchangeClient::end_session_url`](crate::TokenExchangeClient::end_session_url) returns: only the
/// browser has the provider's cookies.
///
/// ```no_run
/// use scaikey_auth::exchange::{EndSessionRequest, ExchangeError};
/// use scaikey_auth::{Secret, TokenExchangeClient};
///
/// /// Returns the `Location` of the answer, which needs status 303 and `Cache-Control: no-store`.
/// async fn sign_out(
///     client: &TokenExchangeClient,
///     id_token: Option<Secret>,
/// ) -> Result<String, ExchangeError> {
///     let mut request = EndSessionRequest::new().post_logout_redirect_uri("https://wave.example/");
///     request.id_token_hint = id_token; // of the sign-in, or of the last refresh
///     Ok(client.end_session_url(&request).await?.into())
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EndSessionRequest {
    /// The `id_token_hint`: the user's last ID token, which may have expired. Without it, providers ask the
    /// user for confirmation, and some refuse the request or do not redirect back.
    pub id_token_hint: Option<Secret>,
    /// The `post_logout_redirect_uri`, to which the provider redirects the browser afterwards. It must be
    /// registered at the provider. Without it, the browser stays at the provider.
    pub post_logout_redirect_uri: Option<String>,
    /// The `state`, which the provider adds to the `post_logout_redirect_uri`.
    pub state: Option<String>,
    /// Further parameters, such as `logout_hint` or `ui_locales`. The parameters of the request itself are
    /// not allowed.
    pub extra: Vec<(String, String)>,
}

impl EndSessionRequest {
    /// Returns a request without parameters. The client adds its `client_id`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the ID token that names the user and the provider's session.
    pub fn id_token_hint(mut self, id_token: impl Into<Secret>) -> Self {
        self.id_token_hint = Some(id_token.into());
        self
    }

    /// Sets the page to which the provider redirects the browser afterwards.
    pub fn post_logout_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.post_logout_redirect_uri = Some(uri.into());
        self
    }

    /// Sets the value that the provider adds to the `post_logout_redirect_uri`.
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Adds a parameter, such as `logout_hint` or `ui_locales`. A parameter that the request itself has,
    /// such as `state`, makes [`end_session_url`](crate::TokenExchangeClient::end_session_url) fail.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Returns the URL, with or without the hint.
    fn write(&self, client_id: &str, endpoint: &Url, with_hint: bool) -> Url {
        let hint = self.id_token_hint.as_ref().filter(|_| with_hint).map(Secret::expose);
        let own = [
            ("id_token_hint", hint),
            ("client_id", Some(client_id)),
            ("post_logout_redirect_uri", self.post_logout_redirect_uri.as_deref()),
            ("state", self.state.as_deref()),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let extra = self.extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // The endpoint may have a query. A repeated parameter would be an error.
        let kept = endpoint.query_pairs().filter(|(name, _)| !is_reserved(name));
        let mut url = endpoint.clone();
        url.set_fragment(None);
        url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(own).extend_pairs(extra);
        url
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

type Found = Result<Option<Url>, ExchangeError>;

/// The search for the end-session endpoint in all metadata of the issuer. All requests share one search.
#[derive(Debug, Default)]
pub(super) struct EndSessionSearch {
    /// The last outcome, and the monotonic time at which it was known.
    last: Mutex<Option<(Duration, Found)>>,
    running: SingleFlight<(), Found>,
}

impl EndSessionSearch {
    fn last(&self) -> MutexGuard<'_, Option<(Duration, Found)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last outcome, and whether it is fresh enough to be used without another search.
    fn known(&self, now: Duration) -> Option<(Found, bool)> {
        let (at, found) = self.last().clone()?;
        let ttl = match &found {
            Ok(Some(_)) => METADATA_TTL,
            Ok(None) => MISSING_TTL,
            Err(_) => FAILURE_TTL,
        };
        let is_fresh = now.saturating_sub(at) < ttl;
        Some((found, is_fresh))
    }

    /// Keeps an outcome, and returns it. An endpoint that was found before outlives a failure, and metadata
    /// without it: a sign-out that the provider refuses is better than one that seems complete and is not.
    fn keep(&self, now: Duration, found: Found) -> Found {
        let mut last = self.last();
        let kept = match (&found, last.take()) {
            (Err(_) | Ok(None), Some((_, Ok(Some(url))))) => Ok(Some(url)),
            _ => found,
        };
        *last = Some((now, kept.clone()));
        kept
    }
}

impl TokenEndpoint {
    /// Looks for the end-session endpoint in all metadata documents of the issuer. Of these, `endpoints`
    /// reads only the first.
    async fn end_session_in_other_metadata(&self) -> Found {
        let now = || self.settings.clock.elapsed();
        if let Some((found, true)) = self.end_session.known(now()) {
            return found; // A search ended just before this one.
        }
        let Settings { plain_http, route, timeout, .. } = &self.settings;
        let limits = Limits { deadline: *timeout, max_bytes: MAX_BYTES };
        let (urls, http) = (&self.metadata_urls, &self.http);
        let search = http.end_session_endpoint(urls, &self.name, plain_http, route, limits);
        let found = with_timeout(*timeout, search).await;
        let found = found.unwrap_or_else(|| Err("the metadata did not arrive in time".into()));
        let found = found.map_err(|problem| {
            let remedy = "to need no metadata, set end_session_url (`P_END_SESSION_URL`)";
            let problem =
                format!("the end-session endpoint is unknown, because {problem}; {remedy}");
            ExchangeError::provider_unavailable(None, problem)
        });
        let breaker = self.breakers.of(&self.name);
        self.log_outage_of(&self.name, &breaker, SEARCH, found.as_ref().err());
        self.end_session.keep(now(), found)
    }
}

impl TokenExchangeClient {
    /// Returns the URL that a browser must open to sign out (log out) at the provider.
    ///
    /// Redirect the browser there with GET. In a form that is posted from your site, browsers would omit
    /// the provider's `SameSite=Lax` cookies, and the provider would find no session. A URL of more than
    /// 8,000 bytes, which servers refuse, is returned without the `id_token_hint`, and a warning is logged.
    ///
    /// The URL contains the ID token, so do not log it. The ID token is *not* verified here.
    ///
    /// # Errors
    /// A further parameter of the request has the name of one that the request itself sets, or the
    /// end-session endpoint is neither configured nor in the metadata
    /// ([`NotConfigured`](ExchangeError::NotConfigured)); or it is not configured, and the metadata cannot be
    /// read ([`Unavailable`](ExchangeError::Unavailable)).
    pub async fn end_session_url(&self, request: &EndSessionRequest) -> Result<Url, ExchangeError> {
        if request.extra.iter().any(|(name, _)| is_reserved(name)) {
            return Err(ExchangeError::NotConfigured(
                "an additional parameter of the end-session request is one that the request itself sets, such as state or id_token_hint: remove it",
            ));
        }
        let endpoint = self.end_session_endpoint().await?;
        let url = request.write(self.client_id(), &endpoint, true);
        if url.as_str().len() <= MAX_URL_BYTES || request.id_token_hint.is_none() {
            return Ok(url);
        }
        self.log_missing_hint("the URL with the ID token would have more than 8,000 bytes");
        Ok(request.write(self.client_id(), &endpoint, false))
    }

    async fn end_session_endpoint(&self) -> Result<Url, ExchangeError> {
        let endpoint = &self.cached.endpoint;
        if let Some(url) = &endpoint.end_session_url {
            return Ok(url.clone());
        }
        let found = match &endpoint.endpoints().await?.end_session {
            Some(url) => Some(url.clone()),
            None => self.end_session_elsewhere().await?,
        };
        found.ok_or(ExchangeError::NotConfigured(
            "the provider's metadata has no end_session_endpoint; set end_session_url",
        ))
    }

    /// Returns the end-session endpoint in further metadata.
    async fn end_session_elsewhere(&self) -> Found {
        let endpoint = &self.cached.endpoint;
        if let Some((found, true)) = endpoint.end_session.known(endpoint.settings.clock.elapsed()) {
            return found;
        }
        let ended = || ExchangeError::provider_unavailable(None, "the metadata was not read");
        self.search_end_session().wait().await.unwrap_or_else(|| Err(ended()))
    }

    /// Joins or starts the search for the end-session endpoint.
    fn search_end_session(&self) -> Waiter<Found> {
        let cached = self.cached.clone();
        let search = || async move { cached.endpoint.end_session_in_other_metadata().await };
        self.cached.endpoint.end_session.running.run((), search)
    }

    /// Logs that a sign-out at the provider goes without an ID token. Warns once for each
    /// reason.
    pub(crate) fn log_missing_hint(&self, reason: &'static str) {
        let endpoint = &self.cached.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(HINT);
        let is_new = outage.record_failure(&reason, self.cached.clock().elapsed());
        telemetry::sign_out_without_hint(reason, is_new);
    }
}

#[cfg(feature = "endpoints")]
impl TokenExchangeClient {
    /// Returns the end-session endpoint, if it is configured or known. Waits only for the first metadata
    /// document, which the caller needs anyway. If further metadata may have it, starts to read them.
    pub(crate) async fn known_end_session_endpoint(&self) -> Option<Url> {
        let endpoint = &self.cached.endpoint;
        if endpoint.end_session_url.is_some() || endpoint.authorization_url.is_some() {
            return endpoint.end_session_url.clone();
        }
        let known = endpoint.endpoints().await.ok()?;
        if known.end_session.is_some() {
            return known.end_session.clone();
        }
        let (found, is_fresh) = endpoint
            .end_session
            .known(endpoint.settings.clock.elapsed())
            .unwrap_or((Ok(None), false));
        if !is_fresh {
            drop(self.search_end_session());
        }
        found.ok().flatten()
    }

    /// Logs that the provider has no end-session endpoint. Warns once.
    pub(crate) fn log_no_end_session_endpoint(&self) {
        let endpoint = &self.cached.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(ENDPOINT);
        let is_new = outage.record_failure(&"missing", self.cached.clock().elapsed());
        telemetry::no_end_session_endpoint(is_new);
    }

    /// Returns the configuration faults that would make every sign-out at the provider fail.
    pub(crate) fn sign_out_faults(&self) -> Vec<Fault> {
        let endpoint = &self.cached.endpoint;
        if endpoint.end_session_url.is_some() || !endpoint.metadata_urls.is_empty() {
            return Vec::new();
        }
        let problem = "is missing, and an issuer with {tenant_id} has no single metadata document: set it \
                       (`P_END_SESSION_URL`), or discovery_url (`P_DISCOVERY_URL`)";
        vec![Fault::new("end_session_url", problem)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::ClientAuth;

    fn client(endpoint: &str) -> TokenExchangeClient {
        let client = TokenExchangeClient::builder("https://id.example");
        let client = client.client_auth(ClientAuth::basic("wave", "s")).end_session_url(endpoint);
        client.build().unwrap()
    }

    fn pairs(url: &Url) -> Vec<(String, String)> {
        url.query_pairs().into_owned().collect()
    }

    #[tokio::test]
    async fn url_has_the_parameters_of_the_request() {
        let request = EndSessionRequest::new()
            .id_token_hint("a.b.c")
            .post_logout_redirect_uri("https://wave.example/?a=b&c")
            .state("s t")
            .parameter("ui_locales", "de");
        let url = client("https://id.example/logout").end_session_url(&request).await.unwrap();
        let expected = [
            ("id_token_hint", "a.b.c"),
            ("client_id", "wave"),
            ("post_logout_redirect_uri", "https://wave.example/?a=b&c"),
            ("state", "s t"),
            ("ui_locales", "de"),
        ];
        let owned = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs(&url), owned);
        let url = client("https://id.example/logout");
        let url = url.end_session_url(&EndSessionRequest::new()).await.unwrap();
        assert_eq!(url.as_str(), "https://id.example/logout?client_id=wave");
        assert!(!format!("{request:?}").contains("a.b.c"));
    }

    #[tokio::test]
    async fn own_query_of_the_endpoint_is_kept() {
        let endpoint =
            "https://id.example/logout?logout_uri=https%3A%2F%2Fw.example%2F&client_id=x&state=y#z";
        let request = EndSessionRequest::new().state("s");
        let url = client(endpoint).end_session_url(&request).await.unwrap();
        let expected =
            [("logout_uri", "https://w.example/"), ("client_id", "wave"), ("state", "s")];
        assert_eq!(pairs(&url), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(url.fragment(), None);
    }

    #[tokio::test]
    async fn long_hint_is_left_out() {
        let client = client("https://id.example/logout");
        let request =
            |length| EndSessionRequest::new().id_token_hint("x".repeat(length)).state("s");
        let url = client.end_session_url(&request(7000)).await.unwrap();
        assert!(url.as_str().contains("id_token_hint=xxx"));
        let url = client.end_session_url(&request(8000)).await.unwrap();
        assert_eq!(url.as_str(), "https://id.example/logout?client_id=wave&state=s");
    }

    #[tokio::test]
    async fn own_parameters_cannot_be_replaced() {
        let client = client("https://id.example/logout");
        for name in RESERVED {
            let request = EndSessionRequest::new().parameter(name, "x");
            let refused = client.end_session_url(&request).await;
            assert!(matches!(refused, Err(ExchangeError::NotConfigured(_))), "{name}");
        }
    }
}
