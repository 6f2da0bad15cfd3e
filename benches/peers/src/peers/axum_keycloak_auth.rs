//! axum-keycloak-auth, which discovers keys at Keycloak URLs; this module serves such URLs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use axum::Extension;
use axum_keycloak_auth::decode::KeycloakToken;
use axum_keycloak_auth::instance::{KeycloakAuthInstance, KeycloakConfig};
use axum_keycloak_auth::layer::KeycloakAuthLayer;
use axum_keycloak_auth::{PassthroughMode, Url};
use serde_json::json;

use super::Built;
use super::router::{SubjectAnswer, pair, subject_answer, unprotected};
use crate::protocol::Provider;

pub(super) async fn build(provider: &Provider) -> Built {
    let server = Url::parse(&realm(provider)?)?;
    let config = KeycloakConfig::builder().server(server).realm("peers".to_owned()).build();
    let instance = KeycloakAuthInstance::new(config);
    while !instance.is_operational().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let layer = KeycloakAuthLayer::<String>::builder()
        .instance(instance)
        .passthrough_mode(PassthroughMode::Block)
        .expected_audiences(vec![provider.audience.clone()])
        .build();
    Ok(Some(pair(unprotected(subject).layer(layer))))
}

async fn subject(Extension(token): Extension<KeycloakToken<String>>) -> SubjectAnswer {
    subject_answer(&token.subject)
}

/// Serves the discovery document of a realm with the keys of the provider, for every request.
fn realm(provider: &Provider) -> std::io::Result<String> {
    let document = json!({
        "issuer": provider.issuer,
        "authorization_endpoint": provider.issuer,
        "jwks_uri": provider.jwks_uri,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    let document = document.to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{document}",
        document.len()
    );
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(format!("http://{address}"))
}
