//! Opaque tokens, about which the provider is asked, and sessions that begin with them.

use serde_json::json;

use super::{Provider, RS256, Site, service, status};
use crate::support::http::{self, get, send};
use crate::support::webdriver::Browser;

const OPAQUE: Option<&str> = Some("https://scaiwave.example/opaque");
const FOREIGN: Option<&str> = Some("https://elsewhere.example/opaque");

#[tokio::test]
async fn opaque_tokens_are_accepted_until_revoked() {
    let provider = Provider::start("0").await;
    for signed in ["accepted", "required"] {
        let more = [
            ("SCAIWAVE_INTROSPECTION", "true"),
            ("SCAIWAVE_INTROSPECTION_SIGNED_ANSWERS", signed),
            ("SCAIWAVE_INTROSPECTION_CACHE_SECONDS", "0"),
            ("SCAIWAVE_CLIENT_ID", "svc"),
            ("SCAIWAVE_CLIENT_SECRET", "s3cret"),
            // The provider's answers about tokens of a client have no `sub`.
            ("SCAIWAVE_SUBJECT_CLAIM", "sub client_id"),
        ];
        let (_service, url) = service(&provider, &more).await;
        let token = provider.token(OPAQUE, "admin").await;
        let me = get(&format!("{url}/me"), Some(&token)).await;
        assert_eq!(me.status, 200, "{signed}: {me:?}");
        let me = me.json();
        assert_eq!(
            (&me["identity"]["subject"], &me["tenant"]),
            (&json!("svc"), &json!("tenant-1"))
        );
        assert_eq!(me["provenance"], "introspected");
        assert_eq!(status(&url, "/admin", &token).await, 200);
        let reader = provider.token(OPAQUE, "docs:read").await;
        assert_eq!(status(&url, "/admin", &reader).await, 403);
        assert_eq!(status(&url, "/me", &provider.token(RS256, "admin").await).await, 200, "a JWT");

        revoke(&provider, &token).await;
        for (case, token) in [
            ("a revoked token", token),
            ("another audience", provider.token(FOREIGN, "admin").await),
            ("no audience", provider.token(None, "admin").await),
            ("an invented token", "invented".to_owned()),
        ] {
            assert_eq!(status(&url, "/me", &token).await, 401, "{signed}: {case}");
        }
    }
}

async fn revoke(provider: &Provider, token: &str) {
    let request = http::client().post(format!("{}/token/revocation", provider.url));
    let request = request.basic_auth("svc", Some("s3cret")).body(format!("token={token}"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(request).await.status, 200);
}

#[tokio::test]
async fn session_begins_with_an_opaque_token() {
    let site = Site::reserve();
    let redirect_uri = site.redirect_uri();
    let provider = Provider::start_with(&[("REDIRECT_URI", &*redirect_uri)]).await;
    for source in [("SCAIWAVE_INTROSPECTION", "true"), ("SCAIWAVE_SESSION_IDENTITY", "id_token")] {
        let environment = [
            ("SCAIWAVE_ISSUER", provider.url.as_str()),
            ("SCAIWAVE_AUDIENCE", "scaiwave"),
            ("SCAIWAVE_TENANT_REQUIRED", "false"),
            ("SCAIWAVE_CLIENT_ID", "opaque"),
            ("SCAIWAVE_CLIENT_SECRET", "s3cret"),
            ("SCAIWAVE_SCOPES", "openid email profile admin"),
            source,
        ];
        let service = site.start(&environment).await;
        let (me, whoami) = site.sign_in_and_out(async |_: &Browser| ()).await;
        assert_eq!(
            (&me["identity"]["subject"], &whoami["subject"]),
            (&json!("alice"), &json!("alice"))
        );
        service.kill().await;
    }
}
