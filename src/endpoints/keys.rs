//! `GET keys`: the public keys that tokens for this service are encrypted with.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::Inner;
use super::response::json_response;

impl Inner {
    /// Returns the public keys of all issuers as a JWK Set. Providers may cache it for five minutes, so that a new
    /// key is used soon.
    pub(super) fn keys(&self) -> Response<Bytes> {
        let mut keys: Vec<Value> = Vec::new();
        for set in self.auth.issuers().decryption_keys().iter() {
            for jwk in set.current(&**self.auth.clock()).iter().filter_map(|key| key.public_jwk()) {
                // Two issuers may have the same key.
                if !keys.contains(&jwk) {
                    keys.push(jwk);
                }
            }
        }
        let mut response = json_response(StatusCode::OK, &json!({ "keys": keys }));
        let media_type = HeaderValue::from_static("application/jwk-set+json");
        let cache_control = HeaderValue::from_static("public, max-age=300");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
        response
    }
}
