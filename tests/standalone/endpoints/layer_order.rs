//! The order of the layers, outermost first: tracing, CORS, sessions, endpoints, authentication, guard, handler.

use axum::Router;
use axum::routing::get;
use http::Method;
use scaikey_auth::endpoints::{Endpoints, SignIn};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::guard::RequireLayer;
use scaikey_auth::session::{SessionLayer, Sessions};
use scaikey_auth::{AuthLayer, Identity, scope};
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use tower_http::trace::TraceLayer;

use super::env::{REDIRECT, Setup, TestEnv, Visitor};
use crate::support::{Answer, Log, Server, request};

const ORIGIN: (&str, &str) = ("origin", "https://app.example");

/// A browser with a session, and layers that can read it.
struct Layers {
    env: TestEnv,
    browser: Visitor,
    sessions: SessionLayer,
    endpoints: Endpoints,
    auth: AuthLayer,
    guard: RequireLayer,
}

impl Layers {
    async fn new() -> Self {
        let keys = SealingKeys::random().unwrap();
        let env = Setup { sessions: Some(keys.clone()), ..Setup::default() }.build().await;
        let browser = env.visitor();
        assert_eq!(env.sign_in(&browser).await.status, 303);
        let sessions = Sessions::builder(&env.auth, env.client.clone(), keys).build().unwrap();
        let endpoints = env.auth.endpoints().client(env.client.clone());
        let endpoints = endpoints.sign_in(SignIn::new(REDIRECT)).build().unwrap();
        let (auth, guard) = (env.auth.layer(), env.auth.require(scope("docs:read")));
        Self { sessions: sessions.layer(), endpoints, auth, guard, browser, env }
    }

    /// Sends requests to the app, and returns the answers that its order decides.
    async fn answers(&mut self, app: Router) -> Answers {
        let server = Server::axum(app).await;
        let (plain, api) = (self.env.visitor(), server.url());
        let browser = std::mem::replace(&mut self.browser, plain);
        let original = std::mem::replace(&mut self.env.api, api);
        let browser = browser.at(&self.env);
        let preflight = [ORIGIN, ("access-control-request-method", "GET")];
        let answers = Answers {
            preflight: server.send(request("OPTIONS", "/me", &preflight)).await,
            anonymous: server.get("/me", &[ORIGIN]).await,
            without_scope: server.get_as("/me", &self.env.provider.token().sign()).await,
            session: browser.send(Method::GET, "/me", &[], "").await,
            config: server.get("/v1/auth/config", &[]).await,
            whoami: browser.send(Method::GET, "/v1/auth/whoami", &[], "").await,
        };
        self.env.api = original;
        self.browser = browser;
        answers
    }
}

struct Answers {
    preflight: Answer,
    /// Without a token.
    anonymous: Answer,
    /// With a token that lacks the scope.
    without_scope: Answer,
    /// With a browser session.
    session: Answer,
    /// An endpoint that needs no token.
    config: Answer,
    /// An endpoint that needs a token, with a browser session.
    whoami: Answer,
}

impl Answers {
    fn statuses(&self) -> [u16; 6] {
        let Self { preflight, anonymous, without_scope, session, config, whoami } = self;
        [preflight, anonymous, without_scope, session, config, whoami].map(|it| it.status)
    }
}

const RIGHT: [u16; 6] = [200, 401, 403, 200, 200, 200];

/// Whether a page of another origin can read the answer.
fn is_readable(answer: &Answer) -> bool {
    answer.header_opt("access-control-allow-origin").is_some()
}

fn routes() -> Router {
    Router::new().route("/me", get(async |me: Identity| me.subject().to_owned()))
}

#[tokio::test]
async fn both_notations_have_the_right_order() {
    let mut layers = Layers::new().await;
    let Layers { sessions, endpoints, auth, guard, .. } = &layers;
    // `Router::layer`: the last layer is the outermost.
    let with_router = routes()
        .layer(guard.clone())
        .layer(auth.clone())
        .layer(endpoints.clone())
        .layer(sessions.clone())
        .layer(CorsLayer::permissive())
        .layer(TraceLayer::new_for_http());
    // `ServiceBuilder`: the first layer is the outermost.
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CorsLayer::permissive())
        .layer(sessions.clone())
        .layer(endpoints.clone())
        .layer(auth.clone())
        .layer(guard.clone());
    for app in [with_router, routes().layer(stack)] {
        let log = Log::start();
        let answers = layers.answers(app).await;
        assert_eq!(answers.statuses(), RIGHT);
        assert!(is_readable(&answers.preflight) && is_readable(&answers.anonymous));
        assert_eq!(answers.session.body, "bob-id");
        let traced = log.lines("DEBUG").join("\n");
        for status in ["status=401", "status=403"] {
            assert!(traced.contains(status), "the trace layer sees refusals: {traced}");
        }
    }
}

/// A guard outside the layer that authenticates: the answer is 500, and the log names the remedy.
#[tokio::test]
async fn guard_outside_names_the_missing_layer() {
    let mut layers = Layers::new().await;
    let Layers { auth, guard, .. } = &layers;
    let with_router = routes().layer(auth.clone()).layer(guard.clone());
    let stack = ServiceBuilder::new().layer(guard.clone()).layer(auth.clone());
    for app in [with_router, routes().layer(stack)] {
        let log = Log::start();
        let answers = layers.answers(app).await;
        assert_eq!(answers.statuses(), [500; 6]);
        assert!(answers.session.body.contains("The service is misconfigured."));
        let errors = log.lines("ERROR");
        let remedy = "add `.layer(auth.layer())` outside the guard or handler";
        assert!(errors.iter().all(|line| line.contains(remedy)), "{errors:?}");
        assert_eq!(errors.len(), 6);
    }
    // A handler outside the layer, because its route was added later.
    let log = Log::start();
    let app = Router::new().layer(layers.auth.clone()).merge(routes());
    assert_eq!(layers.answers(app).await.session.status, 500);
    assert!(log.lines("ERROR")[0].contains("add `.layer(auth.layer())` outside"));
}

/// What the other wrong orders look like. The manual has the same table.
#[tokio::test]
async fn other_wrong_orders_refuse() {
    let mut layers = Layers::new().await;
    let Layers { sessions, endpoints, auth, .. } = &layers;
    let cors = CorsLayer::permissive();
    let cors_inside = routes().layer(cors).layer(auth.clone());
    let sessions_inside = routes().layer(sessions.clone()).layer(auth.clone());
    let endpoints_inside = routes().layer(endpoints.clone()).layer(auth.clone());
    let endpoints_outside =
        routes().layer(auth.clone()).layer(sessions.clone()).layer(endpoints.clone());

    let answers = layers.answers(cors_inside).await;
    assert!(is_readable(&answers.preflight) && !is_readable(&answers.anonymous));
    assert_eq!(layers.answers(sessions_inside).await.session.status, 401);
    assert_eq!(layers.answers(endpoints_inside).await.config.status, 401);
    let answers = layers.answers(endpoints_outside).await;
    assert_eq!((answers.session.status, answers.whoami.status), (200, 401));
}
