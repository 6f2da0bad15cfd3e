//! [`TokenClaims`]: the claims of a workload token, read without verification.

use url::Url;

use crate::support::base64url;
use crate::support::json::{Document, Value};

/// The longest part of an audience in an error, in characters.
const MAX_SHOWN: usize = 100;

/// The claims of a JWT, which are *not* verified.
#[derive(Debug)]
pub(super) struct TokenClaims(Document);

impl TokenClaims {
    /// Reads the claims of a JWT in compact serialisation. Returns `None` for any other text.
    pub(super) fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let mut document = || Document::parse(base64url::decode(parts.next()?)?).ok();
        let (header, claims) = (document()?, document()?);
        let signature = parts.next().filter(|part| !part.is_empty()).and_then(base64url::decode)?;
        let is_jwt = parts.next().is_none() && header.root().get("alg").is_some();
        (is_jwt && !signature.is_empty()).then_some(Self(claims))
    }

    fn claim(&self, name: &str) -> Option<Value<'_>> {
        self.0.root().get(name)
    }

    /// Returns `exp`.
    pub(super) fn expires(&self) -> Option<f64> {
        self.claim("exp")?.as_f64()
    }

    fn audiences(&self) -> impl Iterator<Item = &str> {
        let aud = self.claim("aud");
        let list = aud.filter(|aud| aud.is_list()).into_iter().flat_map(Value::children);
        aud.into_iter().chain(list).filter_map(Value::as_str)
    }

    pub(super) fn has_audience(&self, audience: &str) -> bool {
        self.audiences().any(|name| name == audience)
    }

    /// Returns the audiences, quoted and without control characters.
    pub(super) fn audiences_for_errors(&self) -> String {
        let shown = |name: &str| format!("{:?}", name.chars().take(MAX_SHOWN).collect::<String>());
        let names: Vec<_> = self.audiences().take(3).map(shown).collect();
        if names.is_empty() { "no audience".to_owned() } else { names.join(", ") }
    }

    /// Refuses a token that the API server of Kubernetes accepts: `wanted` is the audience that it should have.
    pub(super) fn check_not_for_api_server(&self, wanted: Option<&str>) -> Result<(), String> {
        match self.is_for_api_server() {
            true => Err(self.api_server_problem(wanted)),
            false => Ok(()),
        }
    }

    pub(super) fn api_server_problem(&self, wanted: Option<&str>) -> String {
        let audience =
            wanted.map_or("the issuer of the provider".to_owned(), |it| format!("{it:?}"));
        format!(
            "has a token for the API server of Kubernetes ({}), which must not leave the cluster: mount a projected service account token whose audience is {audience}",
            self.audiences_for_errors()
        )
    }

    /// Returns whether the token is a service account token with the default audience, which is the issuer
    /// of the cluster, or without an audience, as in a secret.
    fn is_for_api_server(&self) -> bool {
        let is_legacy = self.claim("kubernetes.io/serviceaccount/namespace").is_some();
        if is_legacy && self.claim("aud").is_none() {
            return true;
        }
        let issuer = self.claim("iss").and_then(Value::as_str);
        let is_own = |audience: &str| Some(audience) == issuer || is_api_server(audience);
        (is_legacy || self.claim("kubernetes.io").is_some()) && self.audiences().any(is_own)
    }
}

/// Returns whether this is one of the names that clusters give their API server.
fn is_api_server(audience: &str) -> bool {
    let url = Url::parse(audience).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or(audience);
    host == "kubernetes.default" || host.starts_with("kubernetes.default.svc")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn token(claims: &Json) -> String {
        let part = |json: &Json| base64url::encode(json.to_string());
        format!("{}.{}.{}", part(&json!({ "alg": "RS256" })), part(claims), base64url::encode("x"))
    }

    #[test]
    fn only_signed_jwts_have_claims() {
        let good = token(&json!({ "exp": 1.5, "aud": ["a", 7, "b"] }));
        let claims = TokenClaims::read(&good).unwrap();
        assert_eq!(claims.expires(), Some(1.5));
        assert!(claims.has_audience("a") && claims.has_audience("b") && !claims.has_audience("7"));
        let [header, body, _] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let double = base64url::encode(r#"{"exp":1,"exp":2}"#);
        for bad in [
            String::new(),
            "hunter2".to_owned(),
            format!("{header}.{body}"),
            format!("{header}.{body}."),
            format!("{header}.{body}.!"),
            format!("{good}.x.x"),
            format!("{body}.{body}.eA"),
            format!("{header}.{double}.eA"),
            format!("{header}.{header}x.eA"),
        ] {
            assert!(TokenClaims::read(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn api_server_is_recognised_by_claims() {
        let pod = json!({ "namespace": "prod" });
        for (aud, iss, is_refused) in [
            (json!(["https://kubernetes.default.svc"]), "https://oidc.eks.example/id/1", true),
            (json!("https://kubernetes.default.svc.cluster.local"), "x", true),
            (json!(["k3s", "https://cluster.example"]), "https://cluster.example", true),
            (json!(["idp", "kubernetes.default.svc"]), "https://cluster.example", true),
            (json!(["idp"]), "https://cluster.example", false),
            (json!(["https://kubernetes.defaults.example"]), "https://cluster.example", false),
        ] {
            let claims = json!({ "iss": iss, "aud": aud, "kubernetes.io": pod });
            let claims = TokenClaims::read(&token(&claims)).unwrap();
            let problem = claims.check_not_for_api_server(Some("https://idp.example"));
            assert_eq!(problem.is_err(), is_refused, "{aud}");
            if let Err(problem) = problem {
                assert!(problem.contains("audience is \"https://idp.example\""), "{problem}");
            }
        }
        let legacy = json!({ "iss": "kubernetes/serviceaccount",
                             "kubernetes.io/serviceaccount/namespace": "prod" });
        let legacy = TokenClaims::read(&token(&legacy)).unwrap();
        assert!(legacy.check_not_for_api_server(None).unwrap_err().contains("no audience"));
        // Another issuer may have its own name as audience.
        let other = json!({ "iss": "https://idp.example", "aud": "https://idp.example" });
        TokenClaims::read(&token(&other)).unwrap().check_not_for_api_server(None).unwrap();
    }
}
