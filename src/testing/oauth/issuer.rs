//! The OAuth part of a [`TestIssuer`]: its endpoints, accounts and grants.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::clients::{Client, User};
use super::super::issuer::TestIssuer;
use super::grant_store::{Code, Session, SignIn};
use super::grants::GRANT_TYPES;

/// The lifetime of an authorization code, in seconds.
const CODE_LIFETIME: u64 = 60;

impl TestIssuer {
    /// Returns the URL of the sign-in page.
    pub fn authorization_endpoint(&self) -> String {
        self.url_of("/auth")
    }

    /// Returns the URL of the token endpoint.
    pub fn token_endpoint(&self) -> String {
        self.url_of("/oauth/token")
    }

    /// Returns the URL of the revocation endpoint (RFC 7009).
    pub fn revocation_endpoint(&self) -> String {
        self.url_of("/oauth/revoke")
    }

    /// Returns the URL of the introspection endpoint (RFC 7662). It answers each confidential client about
    /// each token of this issuer, also about tokens for another audience: a resource server has to compare
    /// `aud` itself. It signs the answer (RFC 9701) if the request accepts
    /// `application/token-introspection+jwt`; a [`Fault::rewrite`](super::super::Fault::rewrite) then
    /// changes the payload before it is signed.
    pub fn introspection_endpoint(&self) -> String {
        self.url_of("/oauth/introspect")
    }

    /// Returns the URL of the end-session endpoint, where a browser signs out (OpenID Connect
    /// RP-Initiated Logout 1.0). It asks the user for confirmation, unless `id_token_hint` is an ID
    /// token of the user, which may have expired. It redirects only to a URI of
    /// [`Client::post_logout_redirect_uri`](super::super::Client::post_logout_redirect_uri).
    pub fn end_session_endpoint(&self) -> String {
        self.url_of("/logout")
    }

    /// Registers a client, which may then use these endpoints. Replaces a client with the same id.
    pub fn register_client(&self, client: Client) {
        self.registry().add_client(client);
    }

    /// Registers a user, who may then sign in: on the sign-in page, with the password grant, or by
    /// [`authorize`](Self::authorize). Replaces a user with the same name.
    pub fn register_user(&self, user: User) {
        self.registry().add_user(user);
    }

    /// Signs the user named `user` in to the client with the id `client`, as a browser would, and
    /// returns the authorization code. The code works once within one minute of the provider's
    /// clock, with this `redirect_uri`, which need not be registered, and with the verifier of this
    /// S256 challenge (RFC 7636). It grants all scopes of the client.
    ///
    /// # Panics
    /// Panics if the user or the client is not registered.
    pub fn authorize(
        &self,
        user: &str,
        client: &str,
        redirect_uri: &str,
        code_challenge: &str,
    ) -> String {
        self.authorize_with(user, client, redirect_uri, code_challenge, "", None)
    }

    /// Signs a user in like [`authorize`](Self::authorize), with these scopes and this nonce for
    /// the ID token. Scopes are separated by spaces and are not checked against the scopes of the
    /// client; an empty `scope` grants all scopes of the client.
    ///
    /// # Panics
    /// Panics if the user or the client is not registered.
    #[expect(clippy::panic, reason = "an unregistered name is a mistake in the test")]
    pub fn authorize_with(
        &self,
        user: &str,
        client: &str,
        redirect_uri: &str,
        code_challenge: &str,
        scope: &str,
        nonce: Option<&str>,
    ) -> String {
        let Some(user) = self.registry().user(user) else { panic!("no user `{user}`") };
        let Some(client) = self.registry().client(client) else { panic!("no client `{client}`") };
        let scope = if scope.is_empty() { client.scopes.join(" ") } else { scope.to_owned() };
        let sign_in = SignIn { user, acr: None, at: self.unix_now() };
        self.add_code(sign_in, &client.id, redirect_uri, code_challenge, scope, nonce)
    }

    pub(super) fn add_code(
        &self,
        sign_in: SignIn,
        client: &str,
        redirect_uri: &str,
        code_challenge: &str,
        scope: String,
        nonce: Option<&str>,
    ) -> String {
        let now = self.unix_now();
        self.grant_store().add_code(Code {
            session: Session::new(client, sign_in, scope),
            redirect_uri: redirect_uri.to_owned(),
            challenge: code_challenge.to_owned(),
            nonce: nonce.map(str::to_owned),
            expires_at: now + CODE_LIFETIME,
            used: false,
        })
    }

    /// Revokes an access token, a JWT or an opaque one: introspection then answers `active: false`. Has no
    /// effect on a token of another issuer or without `jti`.
    pub fn revoke_token(&self, token: &str) {
        let claims = self.own_claims(token).unwrap_or_default();
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            self.grant_store().revoke(id);
        }
    }

    /// Sets the lifetime of access tokens from the token endpoint, rounded down to whole seconds.
    /// [`Client::token_lifetime`](super::super::Client::token_lifetime) takes precedence. `None`
    /// restores [`ProviderBuilder::token_lifetime`](super::super::ProviderBuilder::token_lifetime).
    pub fn set_token_lifetime(&self, lifetime: Option<Duration>) {
        self.grant_store().set_lifetime(lifetime);
    }

    /// Sets whether refresh tokens can be used again. By default each works once: the answer
    /// contains its successor, and a second use revokes the session (RFC 9700 §4.14.2).
    pub fn keep_refresh_tokens(&self, keep: bool) {
        self.grant_store().keep_refresh_tokens(keep);
    }

    /// Returns the number of granted requests of this `grant_type`.
    pub fn granted(&self, grant_type: &str) -> u64 {
        self.grant_store().granted(grant_type)
    }

    /// Returns the number of requests that used a refresh token again. A correct client makes none.
    pub fn refresh_reuses(&self) -> u64 {
        self.grant_store().reuses()
    }

    /// Returns the discovery document as currently published.
    pub fn metadata(&self) -> Value {
        let algorithms = self.algorithms().iter().map(|a| a.as_str()).collect::<Value>();
        let auth_methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
        json!({
            "issuer": self.issuer(),
            "jwks_uri": self.jwks_uri(),
            "authorization_endpoint": self.authorization_endpoint(),
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint": self.token_endpoint(),
            "revocation_endpoint": self.revocation_endpoint(),
            "introspection_endpoint": self.introspection_endpoint(),
            "introspection_endpoint_auth_methods_supported":
                auth_methods.into_iter().filter(|method| *method != "none").collect::<Value>(),
            "introspection_signing_alg_values_supported": algorithms,
            "end_session_endpoint": self.end_session_endpoint(),
            "response_types_supported": ["code"],
            "acr_values_supported": self.grant_store().acr_values(),
            "response_modes_supported": ["query", "form_post"],
            "subject_types_supported": ["public"],
            "grant_types_supported": GRANT_TYPES,
            "token_endpoint_auth_methods_supported": auth_methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "id_token_signing_alg_values_supported": algorithms,
            "code_challenge_methods_supported": ["S256"],
        })
    }

    /// Returns the claims of a currently valid access token of this issuer.
    pub(super) fn live_claims(&self, token: &str) -> Option<Map<String, Value>> {
        let claims = self.own_claims(token)?;
        let ended = |name| {
            let id = claims.get(name).and_then(Value::as_str);
            id.is_some_and(|id| self.grant_store().is_revoked(id))
        };
        let now = self.unix_now();
        let unexpired = claims.get("exp").and_then(Value::as_u64).is_some_and(|exp| now < exp);
        (unexpired && !ended("jti") && !ended("sid")).then_some(claims)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::Provider;
    use super::super::super::provider::tests::get;
    use super::*;
    use http::header::CONTENT_TYPE;
    use url::form_urlencoded::Serializer;

    /// POSTs a form, with HTTP Basic if `client` is given.
    pub(in super::super) async fn post(
        url: &str,
        client: Option<(&str, &str)>,
        form: &[(&str, &str)],
    ) -> (u16, Value) {
        let body = Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = reqwest::Client::new()
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        if let Some((id, secret)) = client {
            request = request.basic_auth(id, Some(secret));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// POSTs to the token endpoint as a client whose secret is `s`.
    pub(in super::super) async fn request_token(
        provider: &Provider,
        client: &str,
        form: &[(&str, &str)],
    ) -> (u16, Value) {
        post(&provider.token_endpoint(), Some((client, "s")), form).await
    }

    /// Returns the status and the error code.
    pub(in super::super) fn status_and_error((status, answer): (u16, Value)) -> (u16, String) {
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn endpoints_in_metadata_answer() {
        let provider = Provider::start().await;
        provider.register_client(Client::new("app", "s"));
        let acme = provider.tenant("tnt_acme", "acme");
        let metadata = get(&provider.discovery_url()).await.unwrap();
        for name in ["token_endpoint", "revocation_endpoint", "introspection_endpoint"] {
            let url = metadata[name].as_str().unwrap();
            let error = status_and_error(post(url, Some(("app", "s")), &[]).await);
            assert_eq!(error, (400, "invalid_request".into()), "{name}");
            // A tenant does not know the clients of the platform.
            let url = acme.metadata()[name].as_str().unwrap().to_owned();
            assert_eq!(
                status_and_error(post(&url, Some(("app", "s")), &[]).await).0,
                401,
                "{name}"
            );
        }
        assert_eq!(provider.stray_requests(), 0);
        assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    }
}
