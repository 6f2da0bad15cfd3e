//! Token exchange: a token for another audience (RFC 8693).

use serde_json::{Map, Value, json};
use url::Url;

use super::super::clients::Client;
use super::super::issuer::TestIssuer;
use super::grants::{issue, requested_scope};
use super::{Answer, Form, OAuthError};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Issues `client` a token of the subject for the requested targets, if the client's policy allows
/// it.
pub(super) fn exchange(
    issuer: &TestIssuer,
    client: &Client,
    form: &Form,
) -> Result<Answer, OAuthError> {
    if client.is_public() {
        return Err(OAuthError::new(
            "unauthorized_client",
            "a public client cannot use this grant",
        ));
    }
    let issued_type = match form.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => ACCESS_TOKEN,
        Some(JWT) => JWT,
        Some(_) => return Err(OAuthError::new("invalid_request", "this token type is not issued")),
    };
    let subject = token_claims(issuer, form, "subject_token")?
        .ok_or(OAuthError::new("invalid_request", "subject_token is missing"))?;
    let actor = token_claims(issuer, form, "actor_token")?;
    let targets = targets(form)?;
    let scope = requested_scope(&allowed_scopes(client, &targets)?, form)?;

    let token = subject.iter().filter(|(name, _)| is_about_the_subject(name));
    let token = token.fold(issuer.token(), |token, (name, value)| token.claim(name, value.clone()));
    let audience = match targets.as_slice() {
        [one] => Value::from(*one),
        many => many.iter().copied().collect(),
    };
    let token = token.claim("aud", audience).claim("client_id", client.id.as_str());
    let token = token.claim("act", act_claim(client, actor.as_ref(), &subject));
    let mut answer = issue(issuer, client, token, &scope);
    if let Some(members) = answer.json.as_object_mut() {
        members.insert("issued_token_type".to_owned(), issued_type.into());
    }
    Ok(answer)
}

/// Returns the claims of a subject or actor token. The token and its type must be sent together,
/// and the token must be a valid token of this issuer or a token of a trusted foreign issuer;
/// otherwise the error is `invalid_request` (RFC 8693 §2.2.2).
fn token_claims(
    issuer: &TestIssuer,
    form: &Form,
    name: &str,
) -> Result<Option<Map<String, Value>>, OAuthError> {
    let refused = |why| Err(OAuthError::new("invalid_request", why));
    let (token, kind) = (form.get(name), form.get(&format!("{name}_type")));
    match (token, kind) {
        (None, None) => Ok(None),
        (Some(token), Some(ACCESS_TOKEN | JWT)) => {
            match issuer.live_claims(token).or_else(|| issuer.workload_claims(token)) {
                Some(claims) => Ok(Some(claims)),
                None => refused("the token is not valid"),
            }
        }
        (Some(_), Some(_)) => refused("the token type is not supported"),
        _ => refused("a token and its type must be sent together"),
    }
}

/// Returns the audiences and resources. A resource is an absolute URI without a fragment (RFC 8707
/// §2).
fn targets(form: &Form) -> Result<Vec<&str>, OAuthError> {
    for resource in form.all("resource") {
        if !Url::parse(resource).is_ok_and(|url| url.fragment().is_none()) {
            return Err(OAuthError::new(
                "invalid_target",
                "a resource must be an absolute URI without a fragment",
            ));
        }
    }
    let targets: Vec<_> = form.all("audience").chain(form.all("resource")).collect();
    match targets.is_empty() {
        true => Err(OAuthError::new("invalid_request", "an audience or a resource is required")),
        false => Ok(targets),
    }
}

/// Returns all scopes that the client may request for these targets.
fn allowed_scopes(client: &Client, targets: &[&str]) -> Result<Vec<String>, OAuthError> {
    let mut scopes = Vec::new();
    for target in targets {
        let policy = client.exchange_policies.iter().find(|policy| policy.audience == *target);
        let policy = policy.ok_or(OAuthError::new(
            "invalid_target",
            "the client may not request tokens for this target",
        ))?;
        scopes.extend(policy.scopes.iter().cloned());
    }
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes)
}

fn is_about_the_subject(claim: &str) -> bool {
    !matches!(claim, "iss" | "aud" | "iat" | "exp" | "nbf" | "jti" | "scope" | "act" | "client_id")
}

/// Builds the `act` claim: the current actor with the previous actors nested in it (RFC 8693 §4.1).
fn act_claim(
    client: &Client,
    actor: Option<&Map<String, Value>>,
    subject: &Map<String, Value>,
) -> Value {
    let sub = actor.and_then(|actor| actor.get("sub")).cloned();
    let mut act = json!({ "sub": sub.unwrap_or_else(|| client.id.as_str().into()) });
    if let (Some(before), Some(members)) = (subject.get("act"), act.as_object_mut()) {
        members.insert("act".to_owned(), before.clone());
    }
    act
}

#[cfg(test)]
mod tests {
    use super::super::super::provider::tests::payload;
    use super::super::super::{Provider, SigningKey};
    use super::super::grants::TOKEN_EXCHANGE;
    use super::super::issuer::tests::{request_token, status_and_error};
    use super::*;
    use crate::config::Algorithm;

    async fn provider() -> Provider {
        let provider = Provider::start().await;
        let drive = Client::new("drive", "s").may_exchange("scaivault", "vault:read vault:write");
        provider.register_client(drive.may_exchange("https://grid.example/", "grid:use"));
        provider.register_client(Client::new("stranger", "s"));
        provider.register_client(Client::public("app").may_exchange("scaivault", ""));
        provider
    }

    async fn exchange(
        provider: &Provider,
        client: &str,
        subject: &str,
        more: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS_TOKEN),
        ];
        form.extend_from_slice(more);
        request_token(provider, client, &form).await
    }

    #[tokio::test]
    async fn exchanged_token_names_subject_and_actor() {
        let provider = provider().await;
        let subject = provider.token().subject("bob-id").tenant("acme").scope("all").sign();
        let more = [("audience", "scaivault"), ("requested_token_type", JWT)];
        let (status, answer) = exchange(&provider, "drive", &subject, &more).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["issued_token_type"], JWT);
        assert_eq!(
            (&answer["token_type"], &answer["expires_in"]),
            (&json!("Bearer"), &json!(3600))
        );
        assert_eq!(answer["scope"], "vault:read vault:write");
        let token = answer["access_token"].as_str().unwrap();
        let claims = payload(token);
        assert_eq!((&claims["sub"], &claims["tenant_id"]), (&json!("bob-id"), &json!("acme")));
        assert_eq!(claims["aud"], "scaivault");
        assert_eq!(claims["act"], json!({ "sub": "drive" }));
        assert_eq!(provider.granted(TOKEN_EXCHANGE), 1);

        // A second exchange, of the exchanged token, nests the actors.
        let more = [("resource", "https://grid.example/"), ("audience", "scaivault")];
        let (_, answer) = exchange(&provider, "drive", token, &more).await;
        let claims = payload(answer["access_token"].as_str().unwrap());
        assert_eq!(claims["aud"], json!(["scaivault", "https://grid.example/"]));
        assert_eq!(claims["act"], json!({ "sub": "drive", "act": { "sub": "drive" } }));
        assert_eq!(answer["issued_token_type"], ACCESS_TOKEN);
    }

    #[tokio::test]
    async fn forbidden_exchange_returns_its_error_code() {
        let provider = provider().await;
        let good = provider.token().sign();
        let expired = provider.token().expired().sign();
        let foreign = provider.token().signed_by(&SigningKey::generate(Algorithm::ES256)).sign();
        let vault = ("audience", "scaivault");
        let cases: [(&str, &str, &[_], &str); 14] = [
            ("drive", &good, &[("audience", "elsewhere")], "invalid_target"),
            ("drive", &good, &[vault, ("audience", "elsewhere")], "invalid_target"),
            ("stranger", &good, &[vault], "invalid_target"),
            ("drive", &good, &[("resource", "grid")], "invalid_target"),
            ("drive", &good, &[("resource", "https://grid.example/#x")], "invalid_target"),
            ("drive", &good, &[], "invalid_request"),
            ("drive", &expired, &[vault], "invalid_request"),
            ("drive", &foreign, &[vault], "invalid_request"),
            ("drive", "opaque", &[vault], "invalid_request"),
            ("drive", "", &[vault], "invalid_request"),
            ("drive", &good, &[vault, ("actor_token", &good)], "invalid_request"),
            ("drive", &good, &[vault, ("actor_token_type", JWT)], "invalid_request"),
            ("drive", &good, &[vault, ("requested_token_type", "x")], "invalid_request"),
            ("drive", &good, &[vault, ("scope", "vault:admin")], "invalid_scope"),
        ];
        for (client, subject, more, error) in cases {
            let refusal = status_and_error(exchange(&provider, client, subject, more).await);
            assert_eq!(refusal, (400, error.to_owned()), "{client} {more:?}");
        }
        let url = provider.token_endpoint();
        let form = [("grant_type", TOKEN_EXCHANGE), ("client_id", "app")];
        let refusal = status_and_error(super::super::issuer::tests::post(&url, None, &form).await);
        assert_eq!(refusal.1, "unauthorized_client");
    }
}
