//! A hand-written middleware with `jsonwebtoken`: a parsed key and validation rules for each key,
//! and the claims in the request's extensions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response, StatusCode, header};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use tower::Service;

use super::Built;
use super::claims::Claims;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

type Keys = HashMap<String, (DecodingKey, Validation)>;

pub(super) fn build(provider: &Provider) -> Built {
    let set: JwkSet = serde_json::from_str(&provider.jwks)?;
    let mut keys = Keys::new();
    for jwk in &set.keys {
        let kid = jwk.common.key_id.clone().ok_or("a key without a `kid`")?;
        let algorithm = jwk.common.key_algorithm.ok_or("a key without an algorithm")?;
        let mut rules = Validation::new(Algorithm::try_from(algorithm)?);
        rules.set_issuer(&[&provider.issuer]);
        rules.set_audience(&[&provider.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.validate_nbf = true;
        keys.insert(kid, (DecodingKey::from_jwk(jwk)?, rules));
    }
    let service =
        small_service::<(), Bytes>(|extensions| Some(extensions.get::<Claims>()?.sub.clone()));
    let protected = ByHand { keys: Arc::new(keys), inner: service.clone() };
    Ok(Some(Pair::new::<(), _, _, _, _>(protected, service)))
}

#[derive(Clone)]
struct ByHand<S> {
    keys: Arc<Keys>,
    inner: S,
}

impl<S, B, R: Default> Service<Request<B>> for ByHand<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible, Future: Send + 'static>,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<R>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match verify(&self.keys, &request) {
            Some(claims) => {
                request.extensions_mut().insert(claims);
                Either::Left(self.inner.call(request))
            }
            None => {
                let mut response = Response::new(R::default());
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                Either::Right(ready(Ok(response)))
            }
        }
    }
}

fn verify<B>(keys: &Keys, request: &Request<B>) -> Option<Claims> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?;
    let kid = decode_header(token).ok()?.kid?;
    let (key, rules) = keys.get(&kid)?;
    Some(decode::<Claims>(token, key, rules).ok()?.claims)
}
