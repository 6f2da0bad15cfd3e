//! Guards that ask for another sign-in (RFC 9470).

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use scaikey_auth::clock::Clock;
use scaikey_auth::error::{EmptyBody, Envelope, Grpc, StepUp};
use scaikey_auth::guard::{
    Guard, GuardExt, GuardRequest, acr, any_role, guard_fn, mfa_within, signed_in_within,
};
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::{Auth, AuthContext, AuthError, role, scope};
use serde_json::json;

use crate::support::{Answer, Server, World, request};

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);

async fn guarded(auth: &Auth, guard: impl Guard) -> Server {
    let app = Router::new().route("/", get(async || ()).post(async || ()));
    Server::axum(app.layer(auth.require(guard)).layer(auth.layer())).await
}

/// Returns 200, or the status and the parameters of the challenge without its realm.
fn outcome(answer: &Answer) -> String {
    let Some(challenge) = answer.challenge() else { return answer.status.to_string() };
    let names = ["error", "acr_values", "max_age", "scope"];
    let values = names.iter().filter_map(|name| Some((name, challenge.param(name)?)));
    let values = values.map(|(name, value)| match *name {
        "error" => value.to_owned(),
        name => format!("{name}={value}"),
    });
    format!("{} {}", answer.status, values.collect::<Vec<_>>().join(", "))
}

fn step_up(parameters: &str) -> String {
    format!("401 insufficient_user_authentication, {parameters}")
}

/// A world whose clock stands at a whole second.
async fn world() -> (World, u64) {
    let world = World::new().await;
    let since = world.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    world.clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(since));
    (world, since)
}

#[tokio::test]
async fn acr_must_match_exactly() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let server = guarded(&auth, acr(["phr", "urn:example:gold"])).await;
    let refused = step_up("acr_values=phr urn:example:gold");
    for (claim, accepted) in [
        (json!("phr"), true),
        (json!("urn:example:gold"), true),
        (json!("PHR"), false),
        (json!("phrh"), false),
        (json!("urn:example:gol"), false),
        (json!("phr urn:example:gold"), false),
        (json!(" phr"), false),
        (json!(""), false),
        (json!(null), false),
        (json!(["phr"]), false),
        (json!(1), false),
    ] {
        let token = world.provider.token().claim("acr", claim.clone());
        let answer = server.get_as("/", &token.sign()).await;
        let expected = if accepted { "200" } else { &refused };
        assert_eq!(outcome(&answer), expected, "{claim}");
    }
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(outcome(&answer), refused, "no claim");
}

#[tokio::test]
async fn impossible_classes_admit_nothing() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    for impossible in [&[][..], &[""], &["a b"], &["g\u{f6}ld"], &["x\r\n"]] {
        let server = guarded(&auth, acr(impossible)).await;
        for claim in ["", "a b", "a", "g\u{f6}ld", "x\r\n"] {
            let token = world.provider.token().claim("acr", claim).sign();
            let answer = server.get_as("/", &token).await;
            assert_eq!(outcome(&answer), "403 insufficient_scope", "{impossible:?} {claim:?}");
        }
    }
}

#[tokio::test]
async fn sign_in_is_recent_until_max_age() {
    let (world, now) = world().await;
    let auth = world.auth().build().unwrap();
    let server = guarded(&auth, signed_in_within(FIVE_MINUTES)).await;
    for (claim, accepted) in [
        (json!(now), true),
        (json!(now - 300), true),
        (json!(now - 301), false),
        (json!(now as f64 - 299.5), true),
        (json!(now + 60), true),
        (json!(now + 61), false),
        (json!(now * 1000), false),
        (json!(0), false),
        (json!(null), false),
        (json!(now.to_string()), false),
        (json!(-1), false),
    ] {
        let token = world.provider.token().claim("auth_time", claim.clone());
        let answer = server.get_as("/", &token.sign()).await;
        let expected = if accepted { "200".to_owned() } else { step_up("max_age=300") };
        assert_eq!(outcome(&answer), expected, "{claim}");
    }
    // The time of issue is that of a renewal.
    let answer = server.get_as("/", &world.provider.token().claim("iat", now).sign()).await;
    assert_eq!(outcome(&answer), step_up("max_age=300"));
}

#[tokio::test]
async fn known_token_grows_too_old() {
    let (world, now) = world().await;
    let auth = world.auth().build().unwrap();
    let server = guarded(&auth, signed_in_within(FIVE_MINUTES)).await;
    let token = world.provider.token().claim("auth_time", now).sign();
    for (seconds, expected) in [(0, 200), (300, 200), (1, 401)] {
        world.clock.advance(Duration::from_secs(seconds));
        assert_eq!(server.get_as("/", &token).await.status, expected, "{seconds}");
    }
}

/// Each is a guard, and the outcome for a token with `scope=a`, `acr=silver` and a sign-in one hour ago.
#[tokio::test]
async fn one_challenge_names_all_needs() {
    let (world, now) = world().await;
    let auth = world.auth().build().unwrap();
    let token = world.provider.token().scope("a").claim("acr", "silver");
    let token = token.claim("auth_time", now - 3600).roles(["clerk"]).sign();
    let recent = || signed_in_within(FIVE_MINUTES);
    let gold = || acr(["phr", "gold"]);
    let silver = || acr(["gold", "silver"]);
    let forbidden = "403 insufficient_scope";
    let cases: Vec<(Box<dyn Guard>, String)> = vec![
        (Box::new(gold().and(recent())), step_up("acr_values=phr gold, max_age=300")),
        (Box::new(recent().and(gold())), step_up("acr_values=phr gold, max_age=300")),
        // The needs that are met stay in the challenge: the new token must meet them, too.
        (Box::new(silver().and(recent())), step_up("acr_values=gold silver, max_age=300")),
        (Box::new(recent().and(silver())), step_up("acr_values=gold silver, max_age=300")),
        (
            Box::new(gold().and(signed_in_within(HOUR))),
            step_up("acr_values=phr gold, max_age=3600"),
        ),
        (Box::new(gold().and(silver())), step_up("acr_values=gold")),
        (Box::new(gold().and(acr(["x"]))), step_up("acr_values=phr gold")),
        (Box::new(recent().and(signed_in_within(HOUR))), step_up("max_age=300")),
        (Box::new(gold().and(mfa_within(HOUR))), step_up("acr_values=phr gold, max_age=3600")),
        // Scopes.
        (Box::new(scope("a").and(gold())), step_up("acr_values=phr gold, scope=a")),
        (Box::new(gold().and(scope("a b"))), step_up("acr_values=phr gold, scope=a b")),
        (Box::new(scope("b").and(recent())), step_up("max_age=300, scope=b")),
        (
            Box::new(scope("b").and(scope("a c")).and(gold()).and(recent())),
            step_up("acr_values=phr gold, max_age=300, scope=b a c"),
        ),
        (Box::new(scope("b").and(silver())), "403 insufficient_scope, scope=b".to_owned()),
        (Box::new(silver().and(scope("b"))), "403 insufficient_scope, scope=b".to_owned()),
        // A sign-in does not help.
        (Box::new(role("boss").and(gold())), forbidden.to_owned()),
        (Box::new(silver().and(role("boss"))), forbidden.to_owned()),
        // Alternatives.
        (Box::new(gold().or(role("clerk"))), "200".to_owned()),
        (Box::new(gold().or(role("boss"))), step_up("acr_values=phr gold")),
        (Box::new(role("boss").or(gold())), forbidden.to_owned()),
        (Box::new(gold().or(silver())), "200".to_owned()),
        (Box::new(gold().or(role("clerk")).and(recent())), step_up("max_age=300")),
        (
            Box::new(gold().or(silver()).and(recent())),
            step_up("acr_values=gold silver, max_age=300"),
        ),
        (
            Box::new(gold().or(role("boss")).and(recent())),
            step_up("acr_values=phr gold, max_age=300"),
        ),
        (Box::new(any_role(["clerk"]).and(silver())), "200".to_owned()),
    ];
    for (row, (guard, expected)) in cases.into_iter().enumerate() {
        let guard = guard_fn(move |request: &GuardRequest<'_>| guard.check(request));
        let server = guarded(&auth, guard).await;
        assert_eq!(outcome(&server.get_as("/", &token).await), expected, "row {row}");
    }
}

#[tokio::test]
async fn other_guards_run_only_when_needed() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let unreachable = |_: &AuthContext| -> Result<(), AuthError> { unreachable!("not called") };
    let server = guarded(&auth, scope("b").and(unreachable)).await;
    let token = world.provider.token().scope("a").sign();
    assert_eq!(outcome(&server.get_as("/", &token).await), "403 insufficient_scope, scope=b");
    let server = guarded(&auth, acr(["gold"]).and(unreachable)).await;
    assert_eq!(outcome(&server.get_as("/", &token).await), step_up("acr_values=gold"));
}

/// A guard of a service.
struct Payments;

impl Guard for Payments {
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        match request.context.identity().acr() {
            Some("gold") => Ok(()),
            _ => Err(self.step_up(request).into()),
        }
    }

    fn step_up(&self, _: &GuardRequest<'_>) -> StepUp {
        StepUp::default().acr_values(["gold"])
    }
}

#[tokio::test]
async fn own_guards_combine_by_path() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let rules = auth.require_by_path().path("/", Payments.and(signed_in_within(HOUR)));
    let rules = rules.build().unwrap();
    let app = Router::new().route("/", get(async || ()));
    let server = Server::axum(app.layer(rules).layer(auth.layer())).await;
    for acr in ["gold", "silver"] {
        let token = world.provider.token().claim("acr", acr).sign();
        let answer = server.get_as("/", &token).await;
        assert_eq!(outcome(&answer), step_up("acr_values=gold, max_age=3600"), "{acr}");
    }
}

/// RFC 9470 §9: the challenge reveals the policy, so only a valid token gets it.
#[tokio::test]
async fn invalid_tokens_learn_no_needs() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let server = guarded(&auth, acr(["gold"]).and(signed_in_within(HOUR))).await;
    let expired = server.get_as("/", &world.provider.token().expired().sign()).await;
    assert_eq!(outcome(&expired), "401 invalid_token");
    assert_eq!(outcome(&server.get("/", &[]).await), "401 ");
}

#[tokio::test]
async fn every_format_has_the_challenge() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let guard = || auth.require(scope("a").and(acr(["phr", "gold"])).and(signed_in_within(HOUR)));
    let layer = |layer| Router::new().route("/", get(async || ()).post(async || ())).layer(layer);
    let challenge = r#"Bearer realm="scaiwave", error="insufficient_user_authentication", acr_values="phr gold", max_age="3600", scope="a""#;
    let token: TokenBuilder = world.provider.token().scope("a");
    let bearer = format!("Bearer {}", token.sign());
    let problem = json!({
        "type": "urn:scaikey-auth:step_up_required", "title": "Unauthorized", "status": 401,
        "detail": "A more recent or a stronger sign-in is needed.",
        "acr_values": ["phr", "gold"], "max_age": 3600, "required_scope": "a",
    });
    let envelope = json!({ "error": {
        "code": "X_STEP_UP_REQUIRED", "message": "A more recent or a stronger sign-in is needed.",
    } });
    for (app, body) in [
        (layer(guard()), Some(problem)),
        (layer(guard().respond_with(Envelope::new("X_"))), Some(envelope)),
        (layer(guard().respond_with(EmptyBody)), None),
    ] {
        let server = Server::axum(app.layer(auth.layer())).await;
        let answer = server.get("/", &[("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, challenge));
        match body {
            Some(body) => assert_eq!(answer.json(), body),
            None => assert_eq!(answer.body, ""),
        }
        let grpc = [("authorization", &*bearer), ("content-type", "application/grpc")];
        let answer = server.send(request("POST", "/", &grpc)).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "16"));
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
    let server = Server::axum(layer(guard().respond_with(Grpc)).layer(auth.layer())).await;
    let answer = server.get("/", &[("authorization", &bearer)]).await;
    assert_eq!(
        (answer.header("grpc-status"), answer.header("www-authenticate")),
        ("16", challenge)
    );
}

#[tokio::test]
async fn handlers_ask_for_another_sign_in() {
    let (world, _) = world().await;
    let auth = world.auth().build().unwrap();
    let pay = async || -> Result<(), AuthError> {
        Err(StepUp::default().acr_values(["gold"]).max_age(HOUR).into())
    };
    let app = Router::new().route("/", get(pay)).layer(auth.layer());
    let answer = Server::axum(app).await.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(outcome(&answer), step_up("acr_values=gold, max_age=3600"));
    assert_eq!(answer.json()["acr_values"], json!(["gold"]));
}
