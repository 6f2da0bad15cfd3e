//! [`Path`]: the counted paths and their inputs.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::future::Future;
use std::hint::black_box;
use std::path::Path as File;
use std::pin::pin;
use std::process;
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::CacheStatus;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Provider};
use scaikey_auth::{Auth, ExchangeRequest, TokenExchangeClient};
use tokio::runtime::Runtime;
use tower::{Layer, service_fn};

use super::support::{bearer, floor_of, handler, issuer, provider, status, trusting_all};

/// A constant issuer name: with a port in it, its length would differ between runs.
const ISSUER: &str = "https://scaikey.example";

/// The number of calls before the counted calls, for one-time work.
const WARM_UP: u32 = 50;

#[derive(Debug, Clone, Copy)]
pub(super) enum Path {
    /// A request with a token to a service without the layer.
    Bare,
    /// A signature verified with a prepared key.
    VerifyRs256,
    VerifyEs256,
    /// A request with a cached verified token.
    Cached,
    /// A request whose token is verified.
    NewRs256,
    NewEs256,
    /// A request with an expired token.
    Expired,
    /// A token exchange from the cache.
    Exchange,
}

impl Path {
    /// All paths, in the order of declaration.
    pub(super) const ALL: [Self; 8] = [
        Self::Bare,
        Self::VerifyRs256,
        Self::VerifyEs256,
        Self::Cached,
        Self::NewRs256,
        Self::NewEs256,
        Self::Expired,
        Self::Exchange,
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| format!("{path:?}").eq_ignore_ascii_case(name))
    }

    /// Returns the numbers of calls of the two runs. They differ enough to hide rare events.
    pub(super) fn calls(self) -> (u32, u32) {
        match self {
            Self::VerifyRs256 | Self::VerifyEs256 | Self::NewRs256 | Self::NewEs256 => (50, 250),
            Self::Bare | Self::Cached | Self::Expired | Self::Exchange => (500, 10_500),
        }
    }
}

/// Runs a path this many times, with inputs from a file or with new ones.
pub(super) fn run(path: Path, calls: u32, inputs: Option<&str>) {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let (_provider, inputs) = match inputs {
        Some(file) => (None, Inputs::read(File::new(file))),
        None => {
            let (provider, inputs) = runtime.block_on(Inputs::make());
            (Some(provider), inputs)
        }
    };
    let trusting = |bytes| {
        let issuer = issuer(ISSUER).keys(&inputs.get("keys"));
        runtime.block_on(trusting_all([issuer], bytes))
    };
    let header = |token: &str| bearer(&inputs.get(token));
    match path {
        Path::Bare => {
            let (mut bare, header) = (service_fn(handler), header("rs256"));
            repeat(calls, || assert_eq!(status(&mut bare, Some(&header)), 200));
        }
        Path::VerifyRs256 => verify(calls, Algorithm::RS256, &inputs, "rs256"),
        Path::VerifyEs256 => verify(calls, Algorithm::ES256, &inputs, "es256"),
        Path::Cached => ask(calls, &trusting(1 << 20), &header("rs256"), 200),
        Path::NewRs256 => ask(calls, &trusting(0), &header("rs256"), 200),
        Path::NewEs256 => ask(calls, &trusting(0), &header("es256"), 200),
        Path::Expired => {
            // The first token fills the cache of headers, as in a running service.
            let auth = trusting(1 << 20);
            ask(1, &auth, &header("rs256"), 200);
            ask(calls, &auth, &header("expired"), 401);
        }
        Path::Exchange => exchange(calls, &runtime, &inputs),
    }
}

fn verify(calls: u32, algorithm: Algorithm, inputs: &Inputs, token: &str) {
    let key = URL_SAFE_NO_PAD.decode(inputs.get(&format!("{token} key"))).expect("a key");
    let (key, signed, signed_by) = floor_of(algorithm, &key, &inputs.get(token));
    repeat(calls, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
}

fn ask(calls: u32, auth: &Auth, header: &HeaderValue, expected: u16) {
    let mut service = auth.layer().layer(service_fn(handler));
    repeat(calls, || assert_eq!(status(&mut service, Some(header)), expected));
}

fn exchange(calls: u32, runtime: &Runtime, inputs: &Inputs) {
    let client = TokenExchangeClient::builder(inputs.get("provider"))
        .client_auth(ClientAuth::basic("drive", "secret"))
        .allow_loopback_http(true)
        .build()
        .expect("a configuration");
    let request = ExchangeRequest::new(inputs.get("subject"), "vault");
    runtime.block_on(client.exchange(&request)).expect("a token");
    repeat(calls, || {
        let token = finish_now(client.exchange(black_box(&request)));
        assert_eq!(token.cache_status(), CacheStatus::Hit);
    });
}

fn repeat<T>(calls: u32, mut call: impl FnMut() -> T) {
    (0..WARM_UP).for_each(|_| drop(black_box(call())));
    counted_calls(calls, call);
}

/// Makes the counted calls. Callgrind counts only while this function runs, and finds it by the
/// pattern `*counted_calls*`: keep its name, and give no other function a name that contains it.
#[inline(never)]
fn counted_calls<T>(calls: u32, mut call: impl FnMut() -> T) {
    for _ in 0..calls {
        black_box(call());
    }
}

/// Returns the result of a call that must not wait.
fn finish_now<T, E: std::fmt::Debug>(call: impl Future<Output = Result<T, E>>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.expect("a token"),
        Poll::Pending => panic!("the token must be cached"),
    }
}

/// Keys and tokens. They are generated once, outside callgrind, because generating them under
/// callgrind takes a minute.
pub(super) struct Inputs(BTreeMap<String, String>);

impl Inputs {
    pub(super) async fn make() -> (Provider, Self) {
        let provider = provider().await;
        let drive = Client::new("drive", "secret").may_exchange("vault", "vault:read");
        provider.register_client(drive);
        let token = || {
            let token = provider.token().issuer(ISSUER);
            token.roles(["docs_internal", "tenant_admin"]).groups(["group-eng", "group-sre"])
        };
        let key = |it| URL_SAFE_NO_PAD.encode(provider.key_for(it).public_key());
        let inputs = [
            ("provider", provider.issuer()),
            ("keys", provider.jwks().to_string()),
            ("rs256", token().sign()),
            ("rs256 key", key(Algorithm::RS256)),
            ("es256", token().algorithm(Algorithm::ES256).sign()),
            ("es256 key", key(Algorithm::ES256)),
            ("expired", token().expired().sign()),
            ("subject", provider.token().sign()),
        ];
        let inputs = inputs.map(|(name, value)| (name.to_owned(), value));
        (provider, Self(inputs.into()))
    }

    fn get(&self, name: &str) -> String {
        self.0[name].clone()
    }

    fn read(file: &File) -> Self {
        let text = fs::read_to_string(file).expect("the inputs");
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Self(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Writes the inputs to a file, which is deleted when the return value is dropped.
    pub(super) fn write(&self) -> InputsFile {
        let file = env::temp_dir().join(format!("scaikey-auth-instructions-{}", process::id()));
        let lines = self.0.iter().map(|(name, value)| format!("{name}\t{value}\n"));
        fs::write(&file, lines.collect::<String>()).expect("the inputs can be written");
        InputsFile(file)
    }
}

pub(super) struct InputsFile(std::path::PathBuf);

impl InputsFile {
    pub(super) fn path(&self) -> &File {
        &self.0
    }
}

impl Drop for InputsFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
