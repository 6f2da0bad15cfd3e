//! [`CachedTokens`]: the tokens of a service, cached until shortly before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::claims::TokenClaims;
use super::{MAX_BYTES, Rules, WorkloadTokenError, WorkloadTokenSource};
use crate::clock::with_timeout;
use crate::support::base64url;
use crate::support::secret::Secret;
use crate::support::single_flight::SingleFlight;

/// The maximum number of audiences. They come from the configuration, so few services have more than one.
const MAX_AUDIENCES: usize = 64;

/// The time before its expiry at which a token is no longer used, in seconds, unless it lives for less than
/// five minutes.
const MARGIN: f64 = 60.0;

/// The tokens of one source, by audience.
#[derive(Debug, Clone, Default)]
pub(super) struct CachedTokens {
    tokens: Arc<Mutex<HashMap<String, Cached>>>,
    fetches: Arc<SingleFlight<String, Result<Secret, WorkloadTokenError>>>,
}

#[derive(Debug, Clone)]
struct Cached {
    token: Secret,
    use_until: f64,
}

impl CachedTokens {
    /// Returns the cached token, or asks the service, once for all callers.
    pub(super) async fn token(
        &self,
        name: &'static str,
        service: &Arc<dyn WorkloadTokenSource>,
        timeout: Duration,
        audience: &str,
        now: f64,
    ) -> Result<Secret, WorkloadTokenError> {
        if let Some(token) = self.get(audience, now) {
            return Ok(token);
        }
        let waiter = self.fetches.run(audience.to_owned(), || {
            let (cache, service, audience) = (self.clone(), service.clone(), audience.to_owned());
            async move {
                // Another caller may have finished between the lookup and the start of this task.
                if let Some(token) = cache.get(&audience, now) {
                    return Ok(token);
                }
                let failed = |problem| WorkloadTokenError::new(format!("{name} {problem}"));
                let answer = with_timeout(timeout, service.token(&audience)).await;
                let answer =
                    answer.ok_or_else(|| failed(format!("did not answer within {timeout:?}")))?;
                let token =
                    answer.map_err(|error| failed(format!("gives no workload token: {error}")))?;
                let rules = Rules { audience: Some(&audience), now };
                let use_until = use_until(&token, rules).map_err(failed)?;
                cache.insert(audience, &token, use_until);
                Ok(token)
            }
        });
        let aborted =
            || Err(WorkloadTokenError::new(format!("{name} was not asked: the task was aborted")));
        waiter.wait().await.unwrap_or_else(aborted)
    }

    fn get(&self, audience: &str, now: f64) -> Option<Secret> {
        let tokens = self.tokens();
        let cached = tokens.get(audience).filter(|cached| now < cached.use_until)?;
        Some(cached.token.clone())
    }

    fn insert(&self, audience: String, token: &Secret, use_until: Option<f64>) {
        let Some(use_until) = use_until else { return };
        let mut tokens = self.tokens();
        if tokens.len() >= MAX_AUDIENCES {
            tokens.clear();
        }
        tokens.insert(audience, Cached { token: token.clone(), use_until });
    }

    /// Removes this token.
    pub(super) fn forget(&self, token: &Secret) {
        self.tokens().retain(|_, cached| cached.token != *token);
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, Cached>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the token of a service. Returns the time until which it is used, or `None` for a token that is not
/// a JWT, and so not cached.
fn use_until(token: &Secret, rules: Rules<'_>) -> Result<Option<f64>, String> {
    let text = token.expose();
    if text.is_empty()
        || text.len() > MAX_BYTES
        || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(format!(
            "answered with no token: it must have 1 to {MAX_BYTES} visible characters"
        ));
    }
    let Some(claims) = TokenClaims::read(text) else {
        return match is_like_jwt(text) {
            true => {
                Err("answered with a JWT that cannot be read, so its audience is unknown"
                    .to_owned())
            }
            false => Ok(None),
        };
    };
    rules.check(&claims)?;
    let expires = claims.expires().unwrap_or(rules.now);
    Ok(Some(expires - MARGIN.min((expires - rules.now) / 5.0)))
}

/// Returns whether a more lenient reader could take this text for a JWT: it has three parts, and the first is
/// that of a JSON object.
fn is_like_jwt(text: &str) -> bool {
    let start = text.get(..4).and_then(base64url::decode);
    text.split('.').count() == 3 && start.is_some_and(|start| start.starts_with(b"{"))
}
