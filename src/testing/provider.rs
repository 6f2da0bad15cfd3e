//! [`Provider`]: the test provider, and how to set it up.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::issuer::{Settings, TestIssuer};
use super::server::{self, Routes};
use crate::clock::{Clock, SystemClock};
use crate::config::Algorithm;

/// A running test provider (feature `testing`): an HTTP server on the loopback interface.
///
/// It dereferences to the [`TestIssuer`] of the platform. [`tenant`](Self::tenant) adds the issuers
/// of tenants. It stops when dropped. Start it in a Tokio runtime whose I/O and time drivers are
/// enabled.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::testing::Provider;
/// use scaikey_auth::{Auth, IssuerConfig};
///
/// let mut provider = Provider::start().await;
/// let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
/// let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
/// assert!(auth.authenticate(&provider.token().sign()).await.is_ok());
///
/// // The provider fails. The keys are cached, so its tokens are still accepted.
/// provider.pause().await;
/// assert!(auth.authenticate(&provider.token().subject("bob").sign()).await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Provider {
    platform: TestIssuer,
    settings: Arc<Settings>,
    routes: Arc<Routes>,
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    Serving {
        stop: Option<oneshot::Sender<()>>,
        task: JoinHandle<()>,
    },
    /// The socket is bound but does not listen: it reserves the port and refuses connections.
    Paused(TcpSocket),
    Stopped,
}

impl Provider {
    /// Starts a provider with the defaults of [`ProviderBuilder`].
    ///
    /// # Panics
    /// Panics outside a Tokio runtime, or if no port is free.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns a builder with the default settings.
    pub fn builder() -> ProviderBuilder {
        ProviderBuilder {
            clock: Arc::new(SystemClock::default()),
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            audience: "scaiwave".to_owned(),
            lifetime: Duration::from_secs(3600),
        }
    }

    /// Returns `http://127.0.0.1:PORT`, which is also the `iss` of the platform's tokens.
    pub fn url(&self) -> String {
        self.settings.url.clone()
    }

    /// Returns the address on which the provider listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the issuer of a tenant in ScaiKey's layout. The first call creates it, with its own
    /// keys. Later calls with this `id` return the same issuer and ignore `slug`.
    ///
    /// As in ScaiKey, endpoints use the *slug* and tokens use the *id*: the `iss` of its tokens is
    /// `{url}/tenants/{id}`, and its endpoints are under `{url}/api/v1/auth/tenants/{slug}`. At most
    /// other providers, both are at one place: see [`tenant_at`](Self::tenant_at).
    pub fn tenant(&self, id: &str, slug: &str) -> TestIssuer {
        self.find_or_add(
            |issuer| issuer.is_tenant(id),
            || {
                let identifier = format!("{}/tenants/{id}", self.settings.url);
                let base = format!("/api/v1/auth/tenants/{slug}");
                TestIssuer::new(Arc::clone(&self.settings), identifier, base, Some(id))
            },
        )
    }

    /// Returns the issuer of a tenant at `{url}{path}`. Discovery document, keys and endpoints are
    /// beneath its `iss`, as at most providers that have one issuer per tenant. The first call
    /// creates it, with its own keys. Later calls with this `path` return the same issuer and ignore
    /// `id`.
    ///
    /// Use it to test a template with `{tenant_id}`:
    ///
    /// ```
    /// use scaikey_auth::tenant::AnyTenant;
    /// use scaikey_auth::testing::Provider;
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let provider = Provider::start().await;
    /// let acme = provider.tenant_at("acme", "/tenants/acme");
    /// let globex = provider.tenant_at("globex", "/tenants/globex");
    /// assert_eq!(acme.discovery_url(), format!("{}/.well-known/openid-configuration", acme.issuer()));
    ///
    /// let template = format!("{}/tenants/{{tenant_id}}", provider.url());
    /// let template = IssuerConfig::new(template).allow_loopback_http(true);
    /// let auth = Auth::builder().issuer(template).audience("scaiwave").tenants(AnyTenant).build()?;
    ///
    /// let context = auth.authenticate(&acme.token().sign()).await?;
    /// assert_eq!(context.tenant().map(|tenant| tenant.id().as_str()), Some("acme"));
    /// // An issuer speaks for its own tenant only.
    /// assert!(auth.authenticate(&globex.token().tenant("acme").sign()).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Panics if `path` does not begin with `/`, or is `/`: the platform's issuer is there.
    pub fn tenant_at(&self, id: &str, path: &str) -> TestIssuer {
        self.at(path, Some(id))
    }

    /// Returns an issuer at `{url}{path}` that belongs to no tenant, for example at `/realms/main`.
    /// Discovery document, keys and endpoints are beneath its `iss`. Its tokens name the tenant
    /// `tenant-1`, like the platform's. The first call creates it, with its own keys. Later calls
    /// with this `path` return the same issuer.
    ///
    /// A path that ends with `/` is an `iss` that ends with `/`.
    /// [`shape_tokens`](TestIssuer::shape_tokens) gives its tokens the shape of another provider's.
    ///
    /// # Panics
    /// Panics if `path` does not begin with `/`, or is `/`: the platform's issuer is there.
    pub fn issuer_at(&self, path: &str) -> TestIssuer {
        self.at(path, None)
    }

    fn at(&self, path: &str, tenant: Option<&str>) -> TestIssuer {
        let base = path.trim_end_matches('/');
        assert!(
            base.starts_with('/'),
            "the path of an issuer must begin with `/` and name a place beneath it: `{path}`"
        );
        let identifier = format!("{}{path}", self.settings.url);
        self.find_or_add(
            |issuer| issuer.issuer() == identifier && issuer.base() == base,
            || {
                TestIssuer::new(
                    Arc::clone(&self.settings),
                    identifier.clone(),
                    base.to_owned(),
                    tenant,
                )
            },
        )
    }

    fn find_or_add(
        &self,
        is_wanted: impl Fn(&TestIssuer) -> bool,
        create: impl FnOnce() -> TestIssuer,
    ) -> TestIssuer {
        let mut issuers = self.routes.issuers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = issuers.iter().find(|issuer| is_wanted(issuer)) {
            return known.clone();
        }
        let issuer = create();
        issuers.push(issuer.clone());
        issuer
    }

    /// Returns the number of requests to paths that belong to no issuer. Use it to check that a
    /// service follows no URL from a token or a caller: put a URL of this provider that no issuer
    /// has into the token, and expect 0.
    pub fn stray_requests(&self) -> u64 {
        self.routes.strays.load(Ordering::Relaxed)
    }

    /// Closes all connections, then refuses new ones. Returns when all connections are closed. Has
    /// no effect on a paused provider.
    ///
    /// # Panics
    /// Panics if the port cannot be bound again.
    pub async fn pause(&mut self) {
        if let State::Serving { stop, task } = &mut self.state {
            drop(stop.take());
            let _ = task.await;
            self.state = State::Paused(bind(self.address));
        }
    }

    /// Listens again, on the same port. Has no effect on a provider that is not paused.
    ///
    /// # Panics
    /// Panics if the socket cannot listen.
    pub async fn resume(&mut self) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Paused(socket) => self.state = serving(listen(socket), &self.routes),
            other => self.state = other,
        }
    }
}

impl Deref for Provider {
    type Target = TestIssuer;

    fn deref(&self) -> &TestIssuer {
        &self.platform
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // The task owns the connections, so this closes them too.
        if let State::Serving { task, .. } = &self.state {
            task.abort();
        }
    }
}

/// Settings for a [`Provider`] (feature `testing`).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// use scaikey_auth::config::Algorithm;
/// use scaikey_auth::testing::{ManualClock, Provider};
///
/// let clock = ManualClock::new();
/// let provider = Provider::builder()
///     .clock(clock.clone())
///     .algorithms([Algorithm::ES256])
///     .audience("orders")
///     .token_lifetime(Duration::from_secs(60))
///     .start()
///     .await;
/// assert_eq!(provider.kids().len(), 1);
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `start` to run the provider"]
pub struct ProviderBuilder {
    clock: Arc<dyn Clock>,
    algorithms: Vec<Algorithm>,
    address: SocketAddr,
    audience: String,
    lifetime: Duration,
}

impl ProviderBuilder {
    /// Sets the clock for `iat`, `exp` and `nbf`. Default: the system clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the algorithms of the keys that each issuer generates when it is created: one key per
    /// algorithm. The issuer signs with the first algorithm unless
    /// [`TokenBuilder::algorithm`](super::TokenBuilder::algorithm) selects another. An empty list
    /// means RS256, with a key generated at the first use. Default: RS256 and ES256.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets the address to listen on. Default: `127.0.0.1` and a free port.
    ///
    /// Stay on the loopback interface: the provider has no TLS and gives tokens to every caller.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Sets the default `aud` of tokens. Default: `scaiwave`.
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = audience.to_owned();
        self
    }

    /// Sets the lifetime of tokens, rounded down to whole seconds. Default: one hour.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Starts the provider.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime, or if the address is in use or not available.
    pub async fn start(self) -> Provider {
        let listener = listen(bind(self.address));
        let address = expect_io(listener.local_addr());
        let settings = Arc::new(Settings {
            clock: self.clock,
            url: format!("http://{address}"),
            algorithms: self.algorithms,
            audience: self.audience,
            lifetime: self.lifetime,
        });
        let platform =
            TestIssuer::new(Arc::clone(&settings), settings.url.clone(), String::new(), None);
        let routes = Arc::new(Routes::default());
        routes.issuers.write().unwrap_or_else(PoisonError::into_inner).push(platform.clone());
        let state = serving(listener, &routes);
        Provider { platform, settings, routes, address, state }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = expect_io(socket);
    // Without this option, closed connections block the port for minutes.
    expect_io(socket.set_reuseaddr(true));
    expect_io(socket.bind(address));
    socket
}

fn listen(socket: TcpSocket) -> TcpListener {
    expect_io(socket.listen(1024))
}

fn serving(listener: TcpListener, routes: &Arc<Routes>) -> State {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server::serve(listener, Arc::clone(routes), stopped));
    State::Serving { stop: Some(stop), task }
}

#[expect(clippy::expect_used, reason = "a test cannot continue without its provider")]
fn expect_io<T>(result: std::io::Result<T>) -> T {
    result.expect("the operating system provides a socket")
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::super::{Client, ProviderEndpoint, SigningKey};
    use super::*;

    pub(in super::super) async fn get(
        url: &str,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let answer = client.get(url).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    pub(in super::super) fn payload(token: &str) -> Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    pub(in super::super) fn jws_header(token: &str) -> Value {
        let part = token.split('.').next().unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn metadata_leads_to_the_key_set() {
        let provider = Provider::start().await;
        for name in ["openid-configuration", "oauth-authorization-server"] {
            let metadata = get(&format!("{}/.well-known/{name}", provider.url())).await.unwrap();
            assert_eq!(metadata["issuer"], provider.url());
            assert_eq!(metadata["jwks_uri"], provider.jwks_uri());
        }
        let keys = get(&provider.jwks_uri()).await.unwrap();
        assert_eq!(keys, provider.jwks());
        get(&format!("{}/elsewhere", provider.url())).await.unwrap_err();
        assert_eq!(
            (provider.discovery_requests(), provider.jwks_requests(), provider.stray_requests()),
            (2, 1, 1)
        );
    }

    #[tokio::test]
    async fn keys_are_published_rotated_and_removed() {
        let provider = Provider::builder().algorithms([Algorithm::ES256]).start().await;
        let first = provider.kid();
        let next = provider.publish_next();
        assert_eq!(provider.kids(), [first.clone(), next.clone()]);
        assert_eq!(provider.kid(), first);
        assert_eq!(provider.rotate(), next);
        assert_eq!(provider.kid(), next);
        provider.remove_old_keys();
        assert_eq!(provider.kids(), std::slice::from_ref(&next));
        let last = provider.rotate();
        provider.remove_key(&last);
        assert_eq!((provider.kids(), provider.kid()), (vec![next.clone()], last));
        provider.rotate_to(SigningKey::with_kid(Algorithm::ES256, next.as_str()));
        assert_eq!(provider.kids(), [next.as_str(), next.as_str()]);
    }

    #[tokio::test]
    async fn tenant_urls_use_slug_tokens_use_id() {
        let provider = Provider::start().await;
        let acme = provider.tenant("tnt_acme", "acme");
        let metadata = get(&acme.discovery_url()).await.unwrap();
        assert_eq!(metadata["issuer"], format!("{}/tenants/tnt_acme", provider.url()));
        let url = format!("{}/api/v1/auth/tenants/acme/.well-known/jwks.json", provider.url());
        assert_eq!(get(&url).await.unwrap(), provider.tenant("tnt_acme", "acme").jwks());
        assert_ne!(acme.kid(), provider.kid());
        assert_eq!((acme.jwks_requests(), provider.jwks_requests()), (1, 0));
        let claims = payload(&acme.token().sign());
        assert_eq!(
            (&claims["tenant_id"], &claims["iss"]),
            (&json!("tnt_acme"), &metadata["issuer"])
        );
    }

    #[tokio::test]
    async fn issuers_at_paths_serve_everything_beneath() {
        let provider = Provider::start().await;
        let acme = provider.tenant_at("acme", "/tenants/acme");
        assert_eq!(acme.issuer(), format!("{}/tenants/acme", provider.url()));
        for (issuer, tenant) in [
            (acme.clone(), "acme"),
            (provider.tenant_at("globex", "/globex/v2.0"), "globex"),
            (provider.issuer_at("/realms/main"), "tenant-1"),
            (provider.issuer_at("/slash/"), "tenant-1"),
        ] {
            let iss = issuer.issuer();
            let beneath = iss.trim_end_matches('/');
            let metadata =
                get(&format!("{beneath}/.well-known/openid-configuration")).await.unwrap();
            assert_eq!(metadata["issuer"], iss);
            for name in ["jwks_uri", "token_endpoint", "authorization_endpoint"] {
                let url = metadata[name].as_str().unwrap();
                assert!(url.starts_with(&format!("{beneath}/")), "{url}");
            }
            assert_eq!(get(&issuer.jwks_uri()).await.unwrap(), issuer.jwks());
            let claims = payload(&issuer.token().sign());
            assert_eq!((&claims["iss"], &claims["tenant_id"]), (&json!(iss), &json!(tenant)));
            assert_eq!((issuer.discovery_requests(), issuer.jwks_requests()), (1, 1));
        }
        assert_eq!(provider.tenant_at("acme", "/tenants/acme").kids(), acme.kids());
        assert_eq!(provider.issuer_at("/slash/").issuer(), format!("{}/slash/", provider.url()));
        assert_eq!(provider.stray_requests(), 0);
    }

    #[tokio::test]
    #[should_panic(expected = "must begin with `/` and name a place")]
    async fn root_belongs_to_the_platform() {
        Provider::start().await.issuer_at("/");
    }

    #[tokio::test]
    async fn token_endpoint_answers_over_http() {
        let provider = Provider::start().await;
        provider.register_client(Client::new("svc", "s3cret").scopes("read"));
        let request = reqwest::Client::new()
            .post(provider.token_endpoint())
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials&client_id=svc&client_secret=s3cret");
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["scope"], "read");
        assert_eq!(payload(answer["access_token"].as_str().unwrap())["sub"], "svc");
        let received = provider.received(ProviderEndpoint::Token);
        assert_eq!(received[0].form()[1], ("client_id".to_owned(), "svc".to_owned()));
    }

    #[tokio::test]
    async fn paused_provider_resumes_on_its_port() {
        let mut provider = Provider::start().await;
        let url = provider.jwks_uri();
        let client = reqwest::Client::new();
        for _ in 0..3 {
            client.get(&url).send().await.unwrap().bytes().await.unwrap();
            provider.pause().await;
            assert!(client.get(&url).send().await.unwrap_err().is_connect());
            provider.resume().await;
        }
        assert_eq!(provider.jwks_requests(), 3);
    }

    #[tokio::test]
    async fn dropped_provider_stops_listening() {
        let provider = Provider::start().await;
        let address = provider.address();
        drop(provider);
        tokio::task::yield_now().await;
        tokio::net::TcpStream::connect(address).await.unwrap_err();
    }
}
