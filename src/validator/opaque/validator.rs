//! [`OpaqueValidator`]: validates opaque tokens, with a cached answer or by a question to their issuer.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::{Credentials, TokenValidator};
use super::cache::{IntrospectedTokens, Lookup};
use super::endpoint::{Endpoint, Refusal};
use super::{COMPONENT, OpaqueTokens};
use crate::clock::Clock;
use crate::error::{AuthError, InvalidToken};
use crate::identity::Identity;
use crate::issuer::Issuers;
use crate::support::telemetry;

/// The longest opaque token, in bytes. Longer ones are refused without a question.
const MAX_TOKEN_BYTES: usize = 512;

/// A validator of the opaque tokens of some issuers.
#[derive(Debug)]
pub(crate) struct OpaqueValidator {
    endpoints: Vec<Arc<Endpoint>>,
    tokens: IntrospectedTokens,
    issuers: Issuers,
    clock: Arc<dyn Clock>,
}

impl OpaqueValidator {
    pub(crate) fn new(
        all: Vec<OpaqueTokens>,
        issuers: Issuers,
        clock: Arc<dyn Clock>,
        tokens: IntrospectedTokens,
    ) -> Self {
        for of in all.iter().filter(|it| it.settings.insecure_accept_missing_audience) {
            telemetry::missing_audience_accepted(&of.issuer);
        }
        let endpoint = |of| Endpoint::new(of, issuers.clone(), clock.clone(), tokens.clone());
        let endpoints = all.into_iter().map(|of| Arc::new(endpoint(of))).collect();
        Self { endpoints, tokens, issuers, clock }
    }

    /// Finds the URL of each endpoint.
    pub(crate) async fn ready(&self) -> Result<(), AuthError> {
        for endpoint in &self.endpoints {
            endpoint.ready().await?;
        }
        Ok(())
    }

    /// Returns the endpoint that is asked about the token, by its start, or by its dots.
    fn endpoint_of(&self, presented: &Credentials<'_>) -> Option<&Arc<Endpoint>> {
        let token = presented.token_bytes();
        let mut endpoints = self.endpoints.iter();
        let by_prefix = endpoints.clone().find(|endpoint| {
            let mut prefixes = endpoint.of.settings.prefixes.iter();
            prefixes.any(|prefix| token.starts_with(prefix.as_bytes()))
        });
        by_prefix.or_else(|| {
            let of_others = endpoints.find(|endpoint| endpoint.of.settings.prefixes.is_empty())?;
            // A JWS has two dots, a JWE four.
            let dots = memchr::memchr_iter(b'.', token).take(5).count();
            (dots != 2 && dots != 4).then_some(of_others)
        })
    }

    fn look_up(&self, presented: &Credentials<'_>) -> Result<Lookup, AuthError> {
        let token = presented.token_bytes();
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::Malformed("the opaque token is too long").into());
        }
        let lookup = self.tokens.get(token, self.issuers.generation(), &*self.clock);
        // A token in the cache passed this check before.
        if let Lookup::Unknown(..) = lookup {
            presented.check()?;
        }
        Ok(lookup)
    }
}

/// Refuses the identity of a token that is bound to a key, unless the caller verifies the proof. The answer may
/// be in the cache because bound tokens were allowed.
fn unless_bound(identity: Identity, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
    match identity.confirmation() {
        Some(_) if !presented.allows_bound() => Err(InvalidToken::Unproven.into()),
        _ => Ok(identity),
    }
}

#[async_trait]
impl TokenValidator for OpaqueValidator {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        self.endpoint_of(presented).is_some()
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        match self.look_up(presented) {
            Ok(Lookup::Active(identity)) => Some(unless_bound(identity, presented)),
            Ok(Lookup::Refused(fault)) => Some(Err(fault.into())),
            Ok(Lookup::Unknown(..)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        let (question, previous) = match self.look_up(presented)? {
            Lookup::Active(identity) => return unless_bound(identity, presented),
            Lookup::Refused(fault) => return Err(fault.into()),
            Lookup::Unknown(question, previous) => (question, previous),
        };
        let endpoint = self.endpoint_of(presented);
        let endpoint = endpoint.ok_or(InvalidToken::Unrecognised)?;
        let answer = match endpoint.ask(presented.token(), question, previous.as_ref()) {
            Ok(waiter) => waiter.wait().await.unwrap_or_else(|| Err(interrupted())),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(entry) => unless_bound(entry.identity.clone(), presented),
            Err(Refusal::Token(fault)) => Err(fault.into()),
            Err(Refusal::Unanswered(error, is_outage)) => {
                let previous = previous.filter(|_| is_outage);
                let old = previous.and_then(|it| it.while_unavailable(question, &*self.clock));
                let identity = old.ok_or(error)?;
                self.tokens.count(|counters| &counters.served_while_unavailable);
                unless_bound(identity, presented)
            }
        }
    }
}

fn interrupted() -> Refusal {
    let problem = "the question was interrupted";
    Refusal::Unanswered(AuthError::unavailable(COMPONENT, None, problem), true)
}
