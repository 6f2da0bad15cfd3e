//! The caller in the fields of the current span.

use axum::Router;
use http::{HeaderName, Request};
use scaikey_auth::layer::{IdentityFields, Pseudonyms, TenantSource};
use scaikey_auth::{AuthContext, Identity, Secret};
use tower_http::trace::TraceLayer;
use tracing::field::Empty;

use crate::support::{Log, Server, Spy, World};

const SUBJECT: &str = "cAnArY-subject";

fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&Secret::new("0123456789abcdef0123456789abcdef")).unwrap()
}

/// Sends three requests with a token of the subject, and returns the log.
async fn logged(fields: Option<IdentityFields>, declared: bool) -> (String, Identity) {
    let log = Log::start();
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let layer = match fields {
        Some(fields) => auth.layer().record_identity(fields),
        None => auth.layer(),
    };
    let trace = TraceLayer::new_for_http().make_span_with(move |request: &Request<_>| {
        let path = request.uri().path();
        match declared {
            true => tracing::info_span!(
                "request",
                path,
                enduser.pseudo.id = Empty,
                user.id = Empty,
                tenant = Empty,
            ),
            false => tracing::info_span!("request", path),
        }
    });
    let admin = auth.require(|_: &AuthContext| {
        Err(scaikey_auth::AuthError::Forbidden { required: "an administrator".into() })
    });
    let app: Router = Router::new()
        .route("/admin", axum::routing::get(|| async {}).route_layer(admin))
        .fallback_service(Spy::default().app());
    let server = Server::axum(app.layer(layer).layer(trace)).await;
    let token = world.provider.token().subject(SUBJECT).tenant("acme").sign();
    // The first request waits for the keys; the token of the others is cached.
    for (path, status) in [("/", 200), ("/", 200), ("/admin", 403)] {
        assert_eq!(server.get_as(path, &token).await.status, status);
    }
    assert_eq!(server.get("/", &[]).await.status, 401);
    let text = log.text();
    assert!(!text.contains(&token), "{text}");
    (text, auth.authenticate(&token).await.unwrap().identity().clone())
}

fn responses(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("finished processing request")).collect()
}

#[tokio::test]
async fn pseudonym_and_tenant_are_recorded() {
    let fields = IdentityFields::Pseudonym(pseudonyms());
    let (text, identity) = logged(Some(fields), true).await;
    let caller = format!("enduser.pseudo.id=\"{}\"", pseudonyms().of(&identity.key()));
    let [first, cached, forbidden, refused] = responses(&text)[..] else { panic!("{text}") };
    for line in [first, cached, forbidden] {
        assert!(line.contains(&caller) && line.contains("tenant=\"acme\""), "{line}");
    }
    assert!(!refused.contains("pseudo") && !refused.contains("tenant="), "{refused}");
    assert!(!text.contains(SUBJECT) && !text.contains("user.id"), "{text}");
}

#[tokio::test]
async fn recorded_tenant_is_that_of_the_request() {
    let log = Log::start();
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let header = TenantSource::header(HeaderName::from_static("x-tenant-id"));
    let layer = auth.layer().tenant_from(header.authorised_by(|_, _| true));
    let layer = layer.record_identity(IdentityFields::UserId);
    let trace = TraceLayer::new_for_http().make_span_with(|_: &Request<_>| {
        tracing::info_span!("request", user.id = Empty, tenant = Empty)
    });
    let app = Router::new().fallback(async || ()).layer(layer).layer(trace);
    let server = Server::axum(app).await;
    let bearer = format!("Bearer {}", world.provider.token().tenant("acme").sign());
    let headers = [("authorization", bearer.as_str()), ("x-tenant-id", "globex")];
    assert_eq!(server.get("/", &headers).await.status, 200);
    let text = log.text();
    assert!(responses(&text)[0].contains("tenant=\"globex\""), "{text}");
}

#[tokio::test]
async fn subject_is_recorded_only_by_name() {
    let (text, _) = logged(Some(IdentityFields::UserId), true).await;
    let line = responses(&text)[1];
    assert!(line.contains(&format!("user.id=\"{SUBJECT}\"")), "{line}");
    assert!(line.contains("tenant=\"acme\"") && !line.contains("pseudo"), "{line}");
}

#[tokio::test]
async fn nothing_is_recorded_by_default() {
    let (text, identity) = logged(None, true).await;
    let pseudonym = pseudonyms().of(&identity.key());
    for line in responses(&text) {
        assert!(!line.contains("tenant=") && !line.contains(&pseudonym), "{line}");
    }
    assert!(!text.contains(SUBJECT), "{text}");
}

#[tokio::test]
async fn span_without_fields_records_nothing() {
    let (text, _) = logged(Some(IdentityFields::Pseudonym(pseudonyms())), false).await;
    assert_eq!(responses(&text).len(), 4);
    assert!(!text.contains("tenant=") && !text.contains(SUBJECT), "{text}");
}
