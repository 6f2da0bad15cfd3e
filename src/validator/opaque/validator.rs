//! [`OpaqueValidator`]: validates opaque tokens, with a cached answer or by a question to their issuer.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::super::{Credentials, TokenValidator};
use super::cache::{Entry, IntrospectedTokens, Lookup, QuestionId, RevokedAnswers};
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
    revoked: Arc<dyn RevokedAnswers>,
}

impl OpaqueValidator {
    pub(crate) fn new(
        all: Vec<OpaqueTokens>,
        issuers: Issuers,
        clock: Arc<dyn Clock>,
        tokens: IntrospectedTokens,
        revoked: Arc<dyn RevokedAnswers>,
    ) -> Self {
        for of in all.iter().filter(|it| it.settings.insecure_accept_missing_audience) {
            telemetry::missing_audience_accepted(&of.issuer);
        }
        let endpoint = |of| Endpoint::new(of, issuers.clone(), clock.clone(), tokens.clone());
        let endpoints = all.into_iter().map(|of| Arc::new(endpoint(of))).collect();
        Self { endpoints, tokens, issuers, clock, revoked }
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

    /// Returns the time from which on an answer counts, if this one is too old. The time of issue says more.
    fn counts_from(&self, identity: &Identity) -> Option<SystemTime> {
        identity.issued_at().is_none().then(|| self.revoked.counts_from(identity)).flatten()
    }

    /// Asks the issuer, or joins a question about the token. The answer counts from `counts_from` on.
    async fn ask(
        &self,
        endpoint: &Arc<Endpoint>,
        presented: &Credentials<'_>,
        question: QuestionId,
        previous: Option<&Arc<Entry>>,
        counts_from: Option<SystemTime>,
    ) -> Result<Arc<Entry>, Refusal> {
        // At least from when the answer before counted, which may have been a few seconds ahead.
        let before = || previous?.identity.answered_at();
        let counts_from = counts_from.or_else(before).unwrap_or(SystemTime::UNIX_EPOCH);
        let waiter = endpoint.ask(presented.token(), question, previous, counts_from)?;
        waiter.wait().await.unwrap_or_else(|| Err(interrupted()))
    }

    fn look_up(&self, presented: &Credentials<'_>) -> Result<Lookup, AuthError> {
        let token = presented.token_bytes();
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::Malformed("the opaque token is too long").into());
        }
        let counts = |identity: &Identity| self.counts_from(identity).is_none();
        let lookup = self.tokens.get(token, self.issuers.generation(), &*self.clock, counts);
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
        let (question, mut previous) = match self.look_up(presented)? {
            Lookup::Active(identity) => return unless_bound(identity, presented),
            Lookup::Refused(fault) => return Err(fault.into()),
            Lookup::Unknown(question, previous) => (question, previous),
        };
        let endpoint = self.endpoint_of(presented);
        let endpoint = endpoint.ok_or(InvalidToken::Unrecognised)?;
        let mut counts_from = previous.as_ref().and_then(|it| self.counts_from(&it.identity));
        let mut answer =
            self.ask(endpoint, presented, question, previous.as_ref(), counts_from).await;
        // The question may have begun before the revocation, or the token is new here.
        if let Ok(entry) = &answer
            && let Some(later) = self.counts_from(&entry.identity)
        {
            (previous, counts_from) = (Some(entry.clone()), Some(later));
            answer = self.ask(endpoint, presented, question, previous.as_ref(), counts_from).await;
        }
        match answer {
            Ok(entry) => unless_bound(entry.identity.clone(), presented),
            Err(Refusal::Token(fault)) => Err(fault.into()),
            Err(Refusal::Unanswered(error, is_outage)) => {
                let previous = previous.filter(|_| is_outage && counts_from.is_none());
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
