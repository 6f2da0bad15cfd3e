//! The provider's own sessions: single sign-on, and the end-session endpoint (OpenID Connect RP-Initiated
//! Logout 1.0).

use std::sync::Arc;

use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::super::clients::{Client, User};
use super::super::endpoint::ReceivedRequest;
use super::super::issuer::TestIssuer;
use super::grant_store::SignIn;
use super::{Answer, pages};

/// The name of the cookie of a provider's session.
const COOKIE_NAME: &str = "test-provider-session";

impl TestIssuer {
    /// Sets whether the provider remembers a browser that signed in. If so, the next sign-in in this
    /// browser needs no password, until it signs out at [`end_session_endpoint`](Self::end_session_endpoint).
    /// `prompt=login` still shows the sign-in page. By default each sign-in shows it.
    pub fn single_sign_on(&self, on: bool) {
        self.grant_store().set_single_sign_on(on);
    }

    /// Sets the authentication context classes (`acr`) that the sign-in page can reach. A sign-in with
    /// `acr_values` has the first of them that is set here; all others have no `acr`, so a request for another
    /// class is ignored, as by most providers. Access and ID tokens have it. By default there are none.
    pub fn acr_values(&self, values: impl IntoIterator<Item = impl Into<String>>) {
        self.grant_store().set_acr_values(values.into_iter().map(Into::into).collect());
    }

    /// Returns the sign-in of the browser that sends this request.
    pub(super) fn sign_in_of(&self, request: &ReceivedRequest) -> Option<SignIn> {
        self.grant_store().sign_in(session_of(request)?)
    }

    /// Returns the cookie of a new session, if the provider remembers browsers.
    pub(super) fn remember(&self, sign_in: &SignIn) -> Option<HeaderValue> {
        let id = self.grant_store().add_sign_in(sign_in)?;
        self.cookie(&id, "")
    }

    fn cookie(&self, value: &str, more: &str) -> Option<HeaderValue> {
        let path = if self.base().is_empty() { "/" } else { self.base() };
        let text = format!("{COOKIE_NAME}={value}; Path={path}{more}; HttpOnly; SameSite=Lax");
        HeaderValue::try_from(text).ok()
    }
}

fn session_of(request: &ReceivedRequest) -> Option<&str> {
    let values = request.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split("; "));
    pairs.find_map(|pair| pair.strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// A request to sign out, from the query or, with POST, from the form.
struct EndSession {
    parameters: Vec<(String, String)>,
    client: Option<Arc<Client>>,
    /// The subject of the `id_token_hint`.
    hinted: Option<String>,
}

pub(super) fn answer(issuer: &TestIssuer, request: &ReceivedRequest) -> Answer {
    let end = match EndSession::read(issuer, request) {
        Ok(end) => end,
        Err(problem) => {
            let main = format!("<h1>Sign-out failed</h1>\n<p>{problem}</p>");
            return page(StatusCode::BAD_REQUEST, &main);
        }
    };
    let signed_in = issuer.sign_in_of(request).map(|sign_in| sign_in.user);
    if let Some(user) = signed_in.filter(|user| !end.is_confirmed_by(user)) {
        return page(StatusCode::OK, &end.question(&user));
    }
    if let Some(id) = session_of(request) {
        issuer.grant_store().end_sign_in(id);
    }
    let mut answer = end.send_back();
    answer.headers.extend(issuer.cookie("", "; Max-Age=0").map(|cookie| (SET_COOKIE, cookie)));
    answer
}

impl EndSession {
    fn read(issuer: &TestIssuer, request: &ReceivedRequest) -> Result<Self, &'static str> {
        let (_, query) = request.target.split_once('?').unwrap_or_default();
        let mut parameters: Vec<_> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if request.method == Method::POST {
            parameters.extend(request.form());
        }
        parameters.retain(|(_, value)| !value.is_empty());
        let mut names: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err("A parameter is repeated.");
        }
        let mut end = Self { parameters, client: None, hinted: None };
        let mut client_id = end.get("client_id").map(str::to_owned);
        if let Some(hint) = end.get("id_token_hint") {
            // It may have expired (§2).
            let claims =
                issuer.own_claims(hint).ok_or("The id_token_hint is not of this provider.")?;
            let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
            let audience = text("aud");
            if client_id.is_some() && client_id != audience {
                return Err("The id_token_hint is of another client.");
            }
            (client_id, end.hinted) = (audience, text("sub"));
        }
        end.client = client_id.and_then(|id| issuer.registry().client(&id));
        let uri = end.get("post_logout_redirect_uri").map(str::to_owned);
        let is_registered = |uri: &String| {
            end.client.as_ref().is_some_and(|client| client.post_logout_redirect_uris.contains(uri))
        };
        if uri.is_some_and(|uri| !is_registered(&uri)) {
            return Err("This post_logout_redirect_uri is not registered for the client.");
        }
        Ok(end)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether an ID token of this user, or the user, confirms the sign-out.
    fn is_confirmed_by(&self, user: &User) -> bool {
        let subject = user.claims.get("sub").and_then(Value::as_str);
        (self.hinted.is_some() && self.hinted.as_deref() == subject)
            || self.get("confirm") == Some("yes")
    }

    fn question(&self, user: &User) -> String {
        let name = pages::escaped(&user.name);
        format!(
            r#"<h1>Sign out</h1>
<p>of this provider as <strong>{name}</strong>?</p>
<form method="post">
<button type="submit" id="confirm" name="confirm" value="yes">Sign out</button>
</form>"#
        )
    }

    fn send_back(&self) -> Answer {
        let uri = self.get("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
        let Some(mut url) = uri else { return page(StatusCode::OK, "<h1>You are signed out</h1>") };
        if let Some(state) = self.get("state") {
            url.query_pairs_mut().append_pair("state", state);
        }
        let mut answer = page(StatusCode::SEE_OTHER, "");
        answer.headers.extend(HeaderValue::try_from(url.as_str()).map(|to| (LOCATION, to)));
        answer
    }
}

fn page(status: StatusCode, main: &str) -> Answer {
    pages::page(status, "Sign out", main)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use url::form_urlencoded::Serializer;

    use super::super::super::Provider;
    use super::*;

    const BYE: &str = "https://app.example/bye?x=1";

    async fn provider() -> Provider {
        let provider = Provider::start().await;
        provider.register_client(Client::new("app", "s").post_logout_redirect_uri(BYE));
        provider.register_client(Client::new("other", "s"));
        provider.register_user(User::new("bob", "hunter2"));
        provider.single_sign_on(true);
        provider
    }

    fn send(provider: &Provider, cookie: &str, query: &[(&str, &str)], form: &str) -> Answer {
        let query = Serializer::new(String::new()).extend_pairs(query).finish();
        let method = if form.is_empty() { Method::GET } else { Method::POST };
        let headers = HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap())]);
        let (target, body) = (format!("/logout?{query}"), form.to_owned().into());
        answer(provider, &ReceivedRequest { method, target, headers, body })
    }

    fn sign_in(provider: &Provider) -> String {
        let user = provider.registry().user("bob").unwrap();
        let cookie = provider.remember(&SignIn { user, acr: None, at: 0 }).unwrap();
        cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn is_signed_in(provider: &Provider, cookie: &str) -> bool {
        let headers = HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap())]);
        let (target, body) = (String::new(), bytes::Bytes::new());
        let request = ReceivedRequest { method: Method::GET, target, headers, body };
        provider.sign_in_of(&request).is_some()
    }

    #[tokio::test]
    async fn sign_out_without_hint_is_confirmed() {
        let provider = provider().await;
        let cookie = sign_in(&provider);
        let query = [("client_id", "app"), ("post_logout_redirect_uri", BYE), ("state", "s t")];
        let asked = send(&provider, &cookie, &query, "");
        assert!(asked.page.unwrap().contains("<strong>bob</strong>?"));
        assert!(is_signed_in(&provider, &cookie));
        let ended = send(&provider, &cookie, &query, "confirm=yes");
        assert_eq!(ended.status, 303);
        assert_eq!(ended.headers[LOCATION], format!("{BYE}&state=s+t"));
        assert!(ended.headers[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
        assert!(!is_signed_in(&provider, &cookie));
    }

    #[tokio::test]
    async fn only_own_hints_confirm() {
        let provider = provider().await;
        let hint = |subject: &str, audience: &str| {
            let token = provider.token().claim("sub", subject).audience(audience);
            token.claim("exp", 1).sign()
        };
        let (own, alices) = (hint("bob-id", "app"), hint("alice-id", "app"));
        let cookie = sign_in(&provider);
        let page = [("post_logout_redirect_uri", BYE)];
        let asked =
            send(&provider, &cookie, &[&page[..], &[("id_token_hint", &alices)]].concat(), "");
        assert_eq!((asked.status.as_u16(), is_signed_in(&provider, &cookie)), (200, true));
        let ended = send(&provider, &cookie, &[&page[..], &[("id_token_hint", &own)]].concat(), "");
        assert_eq!((ended.status.as_u16(), is_signed_in(&provider, &cookie)), (303, false));
        let (others, foreign) = (hint("bob-id", "other"), Provider::start().await.token().sign());
        for query in [
            &[("id_token_hint", foreign.as_str())][..],
            &[("id_token_hint", own.as_str()), ("client_id", "other")],
            &[("id_token_hint", others.as_str()), ("post_logout_redirect_uri", BYE)],
            &[("client_id", "app"), ("post_logout_redirect_uri", "https://evil.example/")],
            &[("post_logout_redirect_uri", BYE)],
            &[("client_id", "app"), ("client_id", "app")],
        ] {
            let refused = send(&provider, &cookie, query, "");
            assert_eq!(refused.status, 400, "{query:?}");
            assert!(!refused.headers.contains_key(LOCATION));
        }
    }
}
