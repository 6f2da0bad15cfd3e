//! The subjects of security events (RFC 9493; SSF 1.0 for `jwt_id`).

use scaikey_auth::endpoints::EventStream;
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::{IssuerConfig, testing::TestIssuer};
use serde_json::{Value, json};

use super::reported::{post, serve};
use super::security_events::{
    AUDIENCE, CAEP, PATH, RISC, SET, access_tokens, alice, api, assert_accepted, assert_error,
    event, push, session_revoked, statuses,
};
use crate::support::World;

fn opaque(id: &str) -> Value {
    json!({ "format": "opaque", "id": id })
}

fn email() -> Value {
    json!({ "format": "email", "email": "alice" })
}

fn aliases(identifiers: impl IntoIterator<Item = Value>) -> Value {
    json!({ "format": "aliases", "identifiers": identifiers.into_iter().collect::<Vec<_>>() })
}

fn complex(user: Value) -> Value {
    json!({ "format": "complex", "user": user })
}

fn jwt_id(issuer: &TestIssuer, jti: &str) -> Value {
    json!({ "format": "jwt_id", "iss": issuer.issuer(), "jti": jti })
}

#[tokio::test]
async fn subject_may_be_a_token() {
    let change = json!({ "claims": { "role": "reader" } });
    for (event_type, payload) in [
        (format!("{CAEP}/session-revoked"), json!({})),
        (format!("{CAEP}/token-claims-change"), change),
        (format!("{RISC}/sessions-revoked"), json!({})),
    ] {
        let api = api().await;
        let issuer = &api.world.provider;
        let [known, other] =
            ["7", "8"].map(|jti| issuer.token().subject("alice").claim("jti", jti).sign());
        assert_eq!(api.statuses([&known, &other]).await, [200, 200]);
        let token = event(issuer, &event_type, payload, jwt_id(issuer, "7"));
        assert_accepted(&push(&api, token).await);
        assert_eq!(api.statuses([&known, &other]).await, [401, 200], "{event_type}");
        // The same id at another issuer is another token.
        let foreign = event(issuer, &event_type, json!({}), jwt_id(&api.other, "8"));
        assert_error(&push(&api, foreign).await, "access_denied");
        assert_eq!(api.statuses([&known, &other]).await, [401, 200]);
    }
}

#[tokio::test]
async fn aliases_that_resolve_are_revoked() {
    type Subject = fn(&TestIssuer) -> Value;
    fn elsewhere() -> Value {
        json!({ "format": "iss_sub", "iss": "https://elsewhere.example", "sub": "bob" })
    }
    let (of_alice, of_none) = ([401, 401, 401, 200], [200; 4]);
    let table: [(Subject, [u16; 4]); 8] = [
        // A user who does not resolve is not the whole tenant.
        (|_| json!({ "format": "complex", "user": email(), "tenant": opaque("acme") }), of_none),
        (|it| aliases([email(), alice(it)]), of_alice),
        (|_| aliases([opaque("17"), opaque("bob")]), [401, 200, 200, 401]),
        // A user of another issuer is none of this one.
        (|it| aliases([elsewhere(), alice(it)]), of_alice),
        (|_| aliases([elsewhere(), email()]), of_none),
        (|_| aliases([email()]), of_none),
        (|it| complex(aliases([email(), alice(it)])), of_alice),
        (|_| complex(aliases([email()])), of_none),
    ];
    for (subject, expected) in table {
        let api = api().await;
        let issuer = &api.world.provider;
        let (subject, tokens) = (subject(issuer), access_tokens(issuer));
        let token = event(issuer, &format!("{CAEP}/session-revoked"), json!({}), subject.clone());
        assert_accepted(&push(&api, token).await);
        assert_eq!(statuses(&api, &tokens).await, expected, "{subject}");
    }
}

#[tokio::test]
async fn malformed_aliases_are_refused() {
    let api = api().await;
    let issuer = &api.world.provider;
    for identifiers in
        [json!(null), json!({}), json!([]), json!(["x"]), json!([aliases([email()])])]
    {
        let subject = json!({ "format": "aliases", "identifiers": identifiers });
        let answer = push(&api, session_revoked(issuer).claim("sub_id", subject)).await;
        assert_error(&answer, "invalid_request");
    }
    assert_eq!(api.entries(), 0);
}

#[tokio::test]
async fn events_reach_only_their_own_tenant() {
    let world = World::new().await;
    let template = format!("{}/tenants/{{tenant_id}}", world.provider.url());
    let template = IssuerConfig::new(template).allow_loopback_http(true);
    let auth = world.auth_with(template).tenants(AnyTenant).build().unwrap();
    let [acme, globex] =
        ["acme", "globex"].map(|id| world.provider.tenant_at(id, &format!("/tenants/{id}")));
    let stream = EventStream::push(acme.issuer(), AUDIENCE);
    let server = serve(&auth, |endpoints| endpoints.security_events(stream)).await;
    let [ours, theirs] = [&acme, &globex].map(|it| it.token().subject("alice").sign());
    let push = async |subject: Value| {
        let token = session_revoked(&acme).claim("sub_id", subject).sign();
        post(&server, PATH, &[SET], token).await
    };
    let tenant = |id: &str| json!({ "format": "complex", "tenant": opaque(id) });
    for foreign in [alice(&globex), complex(alice(&globex)), tenant("globex")] {
        assert_error(&push(foreign).await, "access_denied");
    }
    // These name users of acme, whatever their ids are.
    for subject in [aliases([alice(&globex), opaque("carol")]), opaque("carol")] {
        assert_accepted(&push(subject).await);
    }
    for token in [&ours, &theirs] {
        assert_eq!(server.get_as("/", token).await.status, 200);
    }
    assert_accepted(&push(tenant("acme")).await);
    assert_eq!(server.get_as("/", &ours).await.status, 401);
    assert_eq!(server.get_as("/", &theirs).await.status, 200);
}
