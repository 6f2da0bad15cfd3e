//! [`TokenExchangeBuilder`]: how a [`TokenExchangeClient`] is to be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use url::Url;

use super::contract::Relaxed;
use super::{ClientAuth, TokenExchangeClient, TokenType};
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, Fault, TENANT_PLACEHOLDER, is_loopback};
use crate::issuer::Http;

/// Sets up a [`TokenExchangeClient`]. Made by [`TokenExchangeClient::builder`].
#[derive(Debug, Clone)]
#[must_use = "a client exists only once it is built"]
pub struct TokenExchangeBuilder {
    issuer: String,
    auth: Option<ClientAuth>,
    token_url: Option<String>,
    revocation_url: Option<String>,
    requested_type: Option<TokenType>,
    tenant_parameter: Option<String>,
    allows_passwords: bool,
    allow_loopback_http: bool,
    relaxed: Relaxed,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl TokenExchangeBuilder {
    pub(super) fn new(issuer: String) -> Self {
        Self {
            issuer,
            auth: None,
            token_url: None,
            revocation_url: None,
            requested_type: Some(TokenType::Jwt),
            tenant_parameter: None,
            allows_passwords: false,
            allow_loopback_http: false,
            relaxed: Relaxed::default(),
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// How the service proves itself. Needed.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// The token endpoint. Default: what the issuer's metadata names. `{tenant_id}` in it stands
    /// for the tenant of a [`ServiceTokenRequest`](super::ServiceTokenRequest); a client with such
    /// a URL serves no other requests.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = Some(url.into());
        self
    }

    /// The revocation endpoint. Default: what the issuer's metadata names.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// `requested_token_type` of exchanges. Default [`TokenType::Jwt`]; `None` leaves it out, for
    /// providers that refuse it.
    pub fn requested_token_type(mut self, kind: Option<TokenType>) -> Self {
        self.requested_type = kind;
        self
    }

    /// The form member that tells the provider the tenant of a service token. Default: none.
    pub fn tenant_parameter(mut self, name: impl Into<String>) -> Self {
        self.tenant_parameter = Some(name.into());
        self
    }

    /// Allows [`TokenExchangeClient::password`]. Default: off.
    pub fn enable_password_grant(mut self) -> Self {
        self.allows_passwords = true;
        self
    }

    /// Allows `http://` on the loopback interface, for development. Default: no.
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.allow_loopback_http = allow;
        self
    }

    /// Takes what an exchange gives whatever its `aud`, for providers whose tokens name none or
    /// call the service something else. The price: a token meant for one service may be sent to
    /// another.
    pub fn insecure_any_audience(mut self) -> Self {
        self.relaxed.audience = true;
        self
    }

    /// Takes what an exchange gives whatever its `sub` and `tenant_id`, for providers that call a
    /// user something else at each service. The price: a provider that mixes up users or tenants
    /// is not noticed.
    pub fn insecure_any_subject(mut self) -> Self {
        self.relaxed.subject = true;
        self
    }

    /// How long a request may take, from connecting to the last byte. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the time comes from. Default: the system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The client. Does no I/O.
    ///
    /// # Errors
    /// All faults at once: no [`client_auth`](Self::client_auth), a URL that is none or that is
    /// neither `https` nor an allowed loopback one.
    pub fn build(self) -> Result<TokenExchangeClient, ConfigError> {
        let mut faults = Vec::new();
        let issuer = self.url("issuer", &self.issuer, &mut faults);
        if let Some(url) = &self.token_url {
            let filled = |tenant| url.replace(TENANT_PLACEHOLDER, tenant);
            let one = self.url("token_url", &filled("x"), &mut faults);
            let other = Url::parse(&filled("y")).ok();
            if one.zip(other).is_some_and(|(one, other)| one.origin() != other.origin()) {
                // Credentials go to the hosts that were configured and to no others.
                faults.push(Fault::new("token_url", "may have {tenant_id} in its path only"));
            }
        }
        let revocation = self.revocation_url.as_ref();
        let revocation_url =
            revocation.and_then(|url| self.url("revocation_url", url, &mut faults));
        if self.auth.is_none() {
            faults.push(Fault::new("client_auth", "is missing: say how the service proves itself"));
        }
        let (Some(issuer), Some(auth), true) = (issuer, self.auth, faults.is_empty()) else {
            return Err(ConfigError::from_faults(faults)
                .err()
                .unwrap_or_else(|| ConfigError::one(Fault::new("issuer", "cannot be used"))));
        };
        Ok(TokenExchangeClient {
            http: Http::default(),
            clock: self.clock,
            issuer,
            name: self.issuer,
            auth,
            token_url: self.token_url,
            revocation_url,
            requested_type: self.requested_type,
            tenant_parameter: self.tenant_parameter,
            allows_passwords: self.allows_passwords,
            allow_loopback_http: self.allow_loopback_http,
            relaxed: self.relaxed,
            timeout: self.timeout,
            learned: OnceCell::new(),
        })
    }

    fn url(&self, field: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Url> {
        let usable = |url: &Url| {
            let plain = url.scheme() == "http" && self.allow_loopback_http && is_loopback(url);
            url.scheme() == "https" || plain
        };
        let url = Url::parse(text).ok().filter(usable);
        if url.is_none() {
            faults.push(Fault::new(field, "is not an https URL"));
        }
        url
    }
}
