//! The sign-in page (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2).

use std::sync::Arc;

use http::header::{CONTENT_SECURITY_POLICY, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use url::{Url, form_urlencoded};

use super::super::clients::Client;
use super::super::endpoint::ReceivedRequest;
use super::super::issuer::TestIssuer;
use super::Answer;
use super::grant_store::SignIn;
use super::pages::{self, escaped};

/// An authorization request from the query. The sign-in form posts to the same URL.
struct AuthorizationRequest {
    parameters: Vec<(String, String)>,
    client: Arc<Client>,
    redirect_uri: String,
}

pub(super) fn answer(issuer: &TestIssuer, request: &ReceivedRequest) -> Answer {
    let authorization = match AuthorizationRequest::read(issuer, request) {
        Ok(authorization) => authorization,
        // No redirect: the redirect URI is not known to be the client's (RFC 6749 §3.1.2.4).
        Err(problem) => return page(StatusCode::BAD_REQUEST, &notice(problem)),
    };
    let signed_in = issuer.sign_in_of(request).filter(|it| authorization.accepts(issuer, it));
    if let Some(error) = authorization.error_code(signed_in.is_some()) {
        return authorization.send_back(issuer, &[("error", error)]);
    }
    match (&request.method, signed_in) {
        (&Method::POST, _) => authorization.sign_in(issuer, request),
        (_, Some(sign_in)) => authorization.grant(issuer, sign_in),
        (_, None) => page(StatusCode::OK, &authorization.form(None)),
    }
}

impl AuthorizationRequest {
    fn read(issuer: &TestIssuer, request: &ReceivedRequest) -> Result<Self, &'static str> {
        let (_, query) = request.target.split_once('?').unwrap_or_default();
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let find = |name: &str| {
            let mut found = parameters.iter().filter(|(known, _)| known == name);
            let (_, value) = found.next()?;
            found.next().is_none().then_some(value.as_str())
        };
        let client = find("client_id").and_then(|id| issuer.registry().client(id));
        let client = client.ok_or("This client is not registered here.")?;
        let redirect_uri = find("redirect_uri").unwrap_or_default().to_owned();
        if !client.redirect_uris.contains(&redirect_uri) {
            return Err("This redirect_uri is not registered for the client.");
        }
        Ok(Self { parameters, client, redirect_uri })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.parameters.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    /// Returns the error code of a request that is invalid, or forbids the sign-in page
    /// (`prompt=none`) that it needs.
    fn error_code(&self, is_signed_in: bool) -> Option<&'static str> {
        let repeated = self.parameters.iter().enumerate().any(|(nth, (name, _))| {
            self.parameters.iter().take(nth).any(|(earlier, _)| earlier == name)
        });
        let allowed = |scope: &str| self.client.scopes.iter().any(|known| known == scope);
        if repeated || self.get("code_challenge").is_none_or(|it| it.len() != 43) {
            return Some("invalid_request");
        }
        if !self.is("code_challenge_method", "S256") {
            return Some("invalid_request");
        }
        if !matches!(self.get("response_mode"), None | Some("query" | "form_post")) {
            return Some("invalid_request");
        }
        if !self.is("response_type", "code") {
            return Some("unsupported_response_type");
        }
        if !self.scope().split_ascii_whitespace().all(allowed) {
            return Some("invalid_scope");
        }
        (self.is("prompt", "none") && !is_signed_in).then_some("login_required")
    }

    fn scope(&self) -> &str {
        self.get("scope").unwrap_or_default()
    }

    /// Returns whether an earlier sign-in is enough (OpenID Connect Core §3.1.2.3).
    fn accepts(&self, issuer: &TestIssuer, sign_in: &SignIn) -> bool {
        let age = issuer.unix_now().saturating_sub(sign_in.at);
        let is_recent = |max_age: &str| max_age.parse().is_ok_and(|max_age: u64| age <= max_age);
        let acr = self.acr(issuer);
        !self.is("prompt", "login")
            && self.get("max_age").is_none_or(is_recent)
            && (acr.is_none() || acr == sign_in.acr)
    }

    /// Returns the class that a sign-in for this request has: the first requested one that the provider reaches.
    fn acr(&self, issuer: &TestIssuer) -> Option<String> {
        let reached = issuer.grant_store().acr_values();
        let mut requested = self.get("acr_values").unwrap_or_default().split(' ');
        requested.find(|acr| reached.iter().any(|it| it == acr)).map(str::to_owned)
    }

    fn sign_in(&self, issuer: &TestIssuer, request: &ReceivedRequest) -> Answer {
        let form = request.form();
        let find = |name: &str| {
            let found = form.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        if find("cancel") == "yes" {
            return self.send_back(issuer, &[("error", "access_denied")]);
        }
        let user = issuer.registry().user(find("username"));
        let Some(user) = user.filter(|user| user.password.expose() == find("password")) else {
            let problem = "The user name or the password is wrong.";
            return page(StatusCode::OK, &self.form(Some(problem)));
        };
        let sign_in = SignIn { user, acr: self.acr(issuer), at: issuer.unix_now() };
        let cookie = issuer.remember(&sign_in);
        let mut answer = self.grant(issuer, sign_in);
        answer.headers.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
        answer
    }

    /// Redirects to the client with a code for this sign-in.
    fn grant(&self, issuer: &TestIssuer, sign_in: SignIn) -> Answer {
        let scope = match self.scope() {
            "" => self.client.scopes.join(" "),
            scope => scope.to_owned(),
        };
        let challenge = self.get("code_challenge").unwrap_or_default();
        let (client, nonce) = (self.client.id.as_str(), self.get("nonce"));
        let code = issuer.add_code(sign_in, client, &self.redirect_uri, challenge, scope, nonce);
        self.send_back(issuer, &[("code", &code)])
    }

    /// Redirects to the client with 303: with 307 the browser would post the password to it (RFC
    /// 9700 §4.12). With `response_mode=form_post`, a form does.
    fn send_back(&self, issuer: &TestIssuer, parameters: &[(&str, &str)]) -> Answer {
        let Ok(mut url) = Url::parse(&self.redirect_uri) else {
            return page(StatusCode::BAD_REQUEST, &notice("The redirect_uri is not a URL."));
        };
        let (state, issuer) = (self.get("state").map(|state| ("state", state)), issuer.issuer());
        let all = parameters.iter().copied().chain(state).chain([("iss", issuer.as_str())]);
        if self.get("response_mode") == Some("form_post") {
            return form_post(&self.redirect_uri, all);
        }
        url.query_pairs_mut().extend_pairs(all);
        let mut answer = page(StatusCode::SEE_OTHER, "");
        if let Ok(to) = HeaderValue::try_from(url.as_str()) {
            answer.headers.insert(LOCATION, to);
        }
        answer
    }

    fn form(&self, problem: Option<&str>) -> String {
        let client = escaped(&self.client.id);
        let scopes = self.scope().split_ascii_whitespace().map(escaped);
        let scopes: String = scopes.map(|scope| format!("<li>{scope}</li>")).collect();
        let problem = problem.map(|text| format!(r#"<p class="problem" role="alert">{text}</p>"#));
        format!(
            r#"<h1>Sign in</h1>
<p>to continue to <strong>{client}</strong></p>
{problem}
<form method="post">
<label for="username">User name</label>
<input id="username" name="username" autocomplete="username" autofocus required>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button type="submit" id="sign-in">Sign in</button>
<button type="submit" id="cancel" class="quiet" name="cancel" value="yes" formnovalidate>Cancel</button>
</form>
<p class="small">{client} asks for</p>
<ul class="scopes">{scopes}</ul>"#,
            problem = problem.unwrap_or_default(),
        )
    }
}

fn page(status: StatusCode, main: &str) -> Answer {
    pages::page(status, "Sign in", main)
}

/// Returns the page that posts an answer to the client (OAuth 2.0 Form Post Response Mode §2).
fn form_post<'p>(to: &str, parameters: impl Iterator<Item = (&'p str, &'p str)>) -> Answer {
    let inputs: String = parameters
        .map(|(name, value)| {
            format!(r#"<input type="hidden" name="{name}" value="{}">"#, escaped(value))
        })
        .collect();
    let to = escaped(to);
    let form = format!(
        r#"<h1>One moment</h1>
<form method="post" action="{to}">{inputs}<button type="submit">Continue</button></form>
<script>document.forms[0].submit()</script>"#
    );
    let mut answer = page(StatusCode::OK, &form);
    // No other page of the provider has a script.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  frame-ancestors 'none'";
    answer.headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    answer
}

fn notice(problem: &str) -> String {
    format!("<h1>Sign-in failed</h1>\n<p>{problem}</p>")
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::super::super::provider::tests::payload;
    use super::super::super::{Provider, ProviderEndpoint, User};
    use super::super::issuer::tests::request_token;
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const REDIRECT_URI: &str = "https://app.example/cb?x=1";

    async fn provider() -> Provider {
        let provider = Provider::start().await;
        let app = Client::new("app", "s").scopes("openid read").redirect_uri(REDIRECT_URI);
        provider.register_client(app);
        provider.register_client(Client::new("<b>", "s").redirect_uri(REDIRECT_URI));
        provider.register_user(User::new("bob", "hunter2"));
        provider
    }

    fn target(change: &[(&str, Option<&str>)]) -> String {
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", "app"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid read"),
            ("state", "s t"),
            ("nonce", "n-1"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in change {
            parameters.retain(|(known, _)| known != name);
            parameters.extend(value.map(|value| (*name, value)));
        }
        let query =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        format!("/auth?{query}")
    }

    fn send(provider: &Provider, method: Method, target: String, body: &str) -> Answer {
        let (headers, body) = (http::HeaderMap::new(), body.to_owned().into());
        answer(provider, &ReceivedRequest { method, target, headers, body })
    }

    fn redirect_parameters(answer: &Answer) -> Vec<(String, String)> {
        let url: Url = answer.headers[LOCATION].to_str().unwrap().parse().unwrap();
        assert!(url.as_str().starts_with(REDIRECT_URI), "{url}");
        url.query_pairs().into_owned().skip(1).collect()
    }

    #[tokio::test]
    async fn sign_in_form_leads_to_tokens() {
        let provider = provider().await;
        let form = send(&provider, Method::GET, target(&[]), "");
        assert_eq!(form.headers["cache-control"], "no-store");
        assert_eq!(form.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(form.headers.contains_key(CONTENT_SECURITY_POLICY));
        let page = form.page.unwrap();
        assert!(page.contains("to continue to <strong>app</strong>"), "{page}");
        assert!(page.contains("<li>openid</li><li>read</li>"), "{page}");
        let wrong = send(&provider, Method::POST, target(&[]), "username=bob&password=x");
        assert!(wrong.page.unwrap().contains("is wrong"));
        let back = send(&provider, Method::POST, target(&[]), "username=bob&password=hunter2");
        assert_eq!(back.status, 303);
        let sent = redirect_parameters(&back);
        let issuer = provider.issuer();
        assert_eq!(sent[1..], [("state".into(), "s t".into()), ("iss".into(), issuer.clone())]);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", sent[0].1.as_str()),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let (status, tokens) = request_token(&provider, "app", &form).await;
        assert_eq!(status, 200, "{tokens}");
        let id = payload(tokens["id_token"].as_str().unwrap());
        assert_eq!(
            (&id["aud"], &id["nonce"], &id["sub"]),
            (&"app".into(), &"n-1".into(), &"bob-id".into())
        );
        let refresh = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
        ];
        let (_, renewed) = request_token(&provider, "app", &refresh).await;
        let again = payload(renewed["id_token"].as_str().unwrap());
        assert_eq!((&again["sub"], again.get("nonce")), (&id["sub"], None));
        assert_eq!(provider.requests(ProviderEndpoint::Authorization), 0);
    }

    /// Each is a request of a browser that signed in as `silver` 100 s ago, and whether it sees the page.
    #[tokio::test]
    async fn page_is_shown_unless_sign_in_suffices() {
        let provider = provider().await;
        provider.single_sign_on(true);
        provider.acr_values(["silver", "gold"]);
        let user = provider.registry().user("bob").unwrap();
        let sign_in = SignIn { user, acr: Some("silver".into()), at: provider.unix_now() - 100 };
        let cookie = provider.remember(&sign_in).unwrap();
        for (change, shows_page) in [
            (&[][..], false),
            (&[("prompt", Some("login"))], true),
            (&[("max_age", Some("200"))], false),
            (&[("max_age", Some("50"))], true),
            (&[("max_age", Some("soon"))], true),
            (&[("acr_values", Some("silver"))], false),
            (&[("acr_values", Some("phr silver"))], false),
            (&[("acr_values", Some("gold"))], true),
            (&[("acr_values", Some("phr"))], false),
        ] {
            let headers = http::HeaderMap::from_iter([(http::header::COOKIE, cookie.clone())]);
            let (method, target) = (Method::GET, target(change));
            let request = ReceivedRequest { method, target, headers, body: Default::default() };
            let status = answer(&provider, &request).status;
            assert_eq!(status == StatusCode::OK, shows_page, "{change:?}");
        }
    }

    #[tokio::test]
    async fn tokens_name_the_reached_class() {
        let provider = provider().await;
        provider.acr_values(["silver", "gold"]);
        assert_eq!(
            provider.metadata()["acr_values_supported"],
            serde_json::json!(["silver", "gold"])
        );
        for (requested, reached) in [(Some("phr gold silver"), Some("gold")), (Some("phr"), None)] {
            let target = target(&[("acr_values", requested)]);
            let answer = send(&provider, Method::POST, target, "username=bob&password=hunter2");
            let sent = redirect_parameters(&answer);
            let form = [
                ("grant_type", "authorization_code"),
                ("code", sent[0].1.as_str()),
                ("redirect_uri", REDIRECT_URI),
                ("code_verifier", VERIFIER),
            ];
            let (_, tokens) = request_token(&provider, "app", &form).await;
            for token in ["access_token", "id_token"] {
                let claims = payload(tokens[token].as_str().unwrap());
                assert_eq!(claims["acr"].as_str(), reached, "{token}");
                assert!(claims["auth_time"].is_u64(), "{token}");
            }
        }
    }

    #[tokio::test]
    async fn form_post_answers_with_a_form() {
        let provider = provider().await;
        let change = [("response_mode", Some("form_post")), ("state", Some("\"><b>"))];
        let form = "username=bob&password=hunter2";
        let answer = send(&provider, Method::POST, target(&change), form);
        assert_eq!((answer.status, answer.headers.get(LOCATION)), (StatusCode::OK, None));
        let page = answer.page.unwrap();
        let action = format!(r#"<form method="post" action="{REDIRECT_URI}">"#);
        let state = r#"name="state" value="&quot;&gt;&lt;b&gt;""#;
        let issuer = format!(r#"name="iss" value="{}""#, provider.issuer());
        for part in [&action, state, &issuer, r#"name="code" value=""#, ".submit()"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let refused = send(&provider, Method::POST, target(&change), "cancel=yes");
        assert!(refused.page.unwrap().contains(r#"name="error" value="access_denied""#));
    }

    #[tokio::test]
    async fn errors_redirect_only_to_registered_clients() {
        let provider = provider().await;
        for (change, error) in [
            (("code_challenge_method", Some("plain")), "invalid_request"),
            (("code_challenge", None), "invalid_request"),
            (("response_type", Some("token")), "unsupported_response_type"),
            (("scope", Some("openid admin")), "invalid_scope"),
            (("prompt", Some("none")), "login_required"),
            (("response_mode", Some("fragment")), "invalid_request"),
        ] {
            let answer = send(&provider, Method::GET, target(&[change]), "");
            let sent = redirect_parameters(&answer);
            assert_eq!(sent[0], ("error".into(), error.into()), "{change:?}");
            assert_eq!((sent[1].1.as_str(), &sent[2].1), ("s t", &provider.issuer()));
        }
        let cancelled = send(&provider, Method::POST, target(&[]), "cancel=yes");
        assert_eq!(redirect_parameters(&cancelled)[0].1, "access_denied");
        for change in [
            ("client_id", Some("nobody")),
            ("client_id", None),
            ("redirect_uri", Some("https://evil.example")),
            ("redirect_uri", Some("https://app.example/cb")),
            ("redirect_uri", None),
        ] {
            let answer = send(&provider, Method::GET, target(&[change]), "");
            assert_eq!(answer.status, 400, "{change:?}");
            assert!(!answer.headers.contains_key(LOCATION));
        }
        let odd = send(
            &provider,
            Method::GET,
            target(&[("client_id", Some("<b>")), ("scope", None)]),
            "",
        );
        assert!(odd.page.unwrap().contains("<strong>&lt;b&gt;</strong>"));
    }
}
