//! [`Kept`]: a token from the cache, or one request to the provider for all who want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cache::{CacheKey, CacheKeys, Fence, Ground, Question, TokenCache};
use super::contract::{self, Relaxed};
use super::endpoint::TokenEndpoint;
use super::grant::Grant;
use super::setback::Setbacks;
use super::token::until_exp;
use super::{
    AccessToken, CacheStatus, ExchangeError, ExchangeRequest, Freshness, RefreshRequest,
    ServiceTokenRequest, TokenType,
};
use crate::clock::{jittered, pause, within};
use crate::error::BoxError;
use crate::flight::{Flights, Lead, Seat};
use crate::mark::Mark;
use crate::telemetry;

/// A cache that takes longer is gone on without. `RedisCache` gives up sooner by itself.
const CACHE_DEADLINE: Duration = Duration::from_secs(1);

/// How long what a refresh gave is kept for those who come with the same refresh token.
const SUCCESSOR_LIFE: Duration = Duration::from_secs(60);

/// How often a process looks whether another one has got what both want.
const POLL: Duration = Duration::from_millis(20);

/// A downstream service that refuses a token this young does not refuse it for its age.
const YOUNG: Duration = Duration::from_secs(10);

type Outcome = Result<AccessToken, ExchangeError>;

/// The endpoint, the cache in front of it, and what is under way between them.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) endpoint: TokenEndpoint,
    pub(super) cache: Arc<dyn TokenCache>,
    pub(super) keys: CacheKeys,
    pub(super) ground: Ground,
    pub(super) requested_type: Option<TokenType>,
    pub(super) tenant_parameter: Option<String>,
    pub(super) relaxed: Relaxed,
    pub(super) subjects_are_outlived: bool,
    /// Looks into a shared cache: one for all who want the same, or a herd would keep its own
    /// questions waiting until they are too late.
    pub(super) lookups: Flights<Mark, Option<AccessToken>>,
    pub(super) flights: Flights<Mark, Outcome>,
    pub(super) setbacks: Setbacks,
    pub(super) cache_is_away: AtomicBool,
}

/// What somebody wants.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'r> {
    Exchange(&'r ExchangeRequest),
    Service(&'r ServiceTokenRequest),
    Refresh(&'r RefreshRequest),
}

/// The same, to be taken along by a task.
enum Held {
    Exchange(ExchangeRequest),
    Service(ServiceTokenRequest),
    Refresh(RefreshRequest),
}

impl Held {
    fn of(wanted: Wanted<'_>) -> Self {
        match wanted {
            Wanted::Exchange(request) => Self::Exchange(request.clone()),
            Wanted::Service(request) => Self::Service(request.clone()),
            Wanted::Refresh(request) => Self::Refresh(request.clone()),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Exchange(request) => Wanted::Exchange(request),
            Self::Service(request) => Wanted::Service(request),
            Self::Refresh(request) => Wanted::Refresh(request),
        }
    }
}

/// Whose turn it is to ask the provider.
enum Turn {
    /// Nobody's: here is what another process got.
    Found(AccessToken),
    /// Ours, and no other process's, as far as these locks reach.
    Ours(Vec<Fence>),
    /// Ours, and perhaps others': the cache is away.
    Unknown,
    /// Another process's, which does not come to an end.
    Theirs,
}

impl Kept {
    /// A token for `wanted`. With `refused`, one that is not that: a service downstream did not
    /// take it.
    pub(super) async fn get(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        let server_key = self.keys.first().ok_or_else(no_key)?;
        let key = CacheKey::new(self.question(wanted), server_key, &*self.endpoint.clock);
        match self.at_once(wanted, &key, refused) {
            Some(outcome) => outcome,
            // Boxed, so that the futures of callers that need not wait stay small.
            None => Box::pin(self.wait_for(wanted, key, refused)).await,
        }
    }

    /// What can be said without waiting.
    fn at_once(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: &CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Option<Outcome> {
        let clock = &*self.endpoint.clock;
        if let Some(token) = refused.filter(|token| token.age(clock) < YOUNG) {
            return Some(Ok(token.clone()));
        }
        if let Some(token) = self.cache.at_once(key)
            && self.serves(wanted, key, &token, refused)
        {
            telemetry::token_cache("hit");
            return Some(Ok(token.with_status(CacheStatus::Hit)));
        }
        let error = self.setbacks.standing(key.mark(), clock.elapsed())?;
        telemetry::token_cache("refused");
        Some(Err(error))
    }

    async fn wait_for(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        if self.cache.is_shared()
            && let Some(token) = self.look_together(&key).await
            && self.serves(wanted, &key, &token, refused)
        {
            telemetry::token_cache("hit");
            return Ok(token.with_status(CacheStatus::Hit));
        }
        self.board_and_wait(wanted, key.mark(), refused).await
    }

    async fn board_and_wait(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        let seat = self.board(wanted, mark, refused);
        let is_new = seat.is_new();
        telemetry::token_cache(if is_new { "miss" } else { "collapsed" });
        let ended = || Err(ExchangeError::unavailable(None, "the request ended without an answer"));
        let token = seat.landed().await.unwrap_or_else(ended)?;
        Ok(if is_new { token } else { token.with_status(CacheStatus::Collapsed) })
    }

    /// One task for all who want the same.
    fn board(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
    ) -> Seat<Outcome> {
        self.flights.board(mark, || {
            let (kept, held, refused) = (self.clone(), Held::of(wanted), refused.cloned());
            async move { kept.obtain(held.wanted(), mark, refused.as_ref()).await }
        })
    }

    /// Whether this token will do. If it is due, its successor is sought meanwhile.
    fn serves(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: &CacheKey<'_>,
        token: &AccessToken,
        refused: Option<&AccessToken>,
    ) -> bool {
        if refused.is_some_and(|refused| refused.secret() == token.secret()) {
            return false;
        }
        if let Wanted::Refresh(request) = wanted {
            return self.succeeds(request, token);
        }
        match key.freshness(token) {
            Freshness::Fresh => true,
            Freshness::Due => {
                let now = self.endpoint.clock.elapsed();
                if self.setbacks.permits_renewal(key.mark(), now) {
                    drop(self.board(wanted, key.mark(), None));
                }
                true
            }
            Freshness::Expired => false,
        }
    }

    /// Whether this is what the next refresh would have to give: always when the refresh token is
    /// spent, and while the access token is fresh when it is not.
    fn succeeds(&self, request: &RefreshRequest, token: &AccessToken) -> bool {
        let is_spent = token.refresh_token().is_some_and(|next| *next != request.refresh_token);
        is_spent || token.freshness_to_the_end(&*self.endpoint.clock) == Freshness::Fresh
    }

    /// Gets a fresh token, unless somebody else just did.
    async fn obtain(
        &self,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        let keys: Vec<_> = self.cache_keys(wanted).collect();
        let Some(key) = keys.first() else { return Err(no_key()) };
        let is_new = |token: &AccessToken| match wanted {
            Wanted::Refresh(request) => self.succeeds(request, token),
            _ if refused.is_some_and(|refused| refused.secret() == token.secret()) => false,
            _ => key.freshness(token) == Freshness::Fresh,
        };
        if let Some(token) = self.cache.at_once(key).filter(&is_new) {
            return Ok(token.with_status(CacheStatus::Collapsed));
        }
        let is_refresh = matches!(wanted, Wanted::Refresh(_));
        // To ask twice for the same is a waste; to spend a refresh token twice ends a session.
        let patience = if is_refresh { self.endpoint.longest() } else { self.endpoint.timeout };
        let fences = match self.turn(&keys, &is_new, patience).await {
            Turn::Found(token) => return Ok(token.with_status(CacheStatus::Collapsed)),
            Turn::Ours(fences) => fences,
            Turn::Theirs if is_refresh => {
                let why = "another process is at it and does not come to an end";
                return Err(ExchangeError::unavailable(None, why));
            }
            Turn::Unknown | Turn::Theirs => Vec::new(),
        };
        let outcome = self.ask(wanted).await;
        self.setbacks.note(mark, &outcome, self.endpoint.clock.elapsed());
        self.keep(wanted, &keys, &fences, outcome.as_ref().ok()).await;
        outcome
    }

    /// Waits until it is this process's turn, or another one has brought what is wanted.
    async fn turn(
        &self,
        keys: &[CacheKey<'_>],
        is_new: &impl Fn(&AccessToken) -> bool,
        patience: Duration,
    ) -> Turn {
        if !self.cache.is_shared() {
            return Turn::Ours(Vec::new());
        }
        let Some(key) = keys.first() else { return Turn::Unknown };
        let life = self.endpoint.longest() + CACHE_DEADLINE * 4;
        let wait = async {
            loop {
                let locked = self.lock(keys, life).await;
                match locked {
                    Err(()) => return Turn::Unknown,
                    // Whoever held the lock before may have left what is wanted.
                    Ok(fences) => match (self.look(key).await.filter(is_new), fences) {
                        (Some(token), fences) => {
                            self.unlock(keys, &fences.unwrap_or_default()).await;
                            return Turn::Found(token);
                        }
                        (None, Some(fences)) => return Turn::Ours(fences),
                        (None, None) => {}
                    },
                }
                pause(jittered(POLL, 0.5)).await;
            }
        };
        within(patience, wait).await.unwrap_or(Turn::Theirs)
    }

    /// The locks of all these keys, or none of them. An error when the cache is away.
    async fn lock(&self, keys: &[CacheKey<'_>], life: Duration) -> Result<Option<Vec<Fence>>, ()> {
        let mut fences = Vec::with_capacity(keys.len());
        for key in in_order(keys) {
            match self.cached(self.cache.lock(key, life)).await {
                Some(Some(fence)) => fences.push(fence),
                not_taken => {
                    self.unlock(keys, &fences).await;
                    return not_taken.map(|_| None).ok_or(());
                }
            }
        }
        Ok(Some(fences))
    }

    async fn unlock(&self, keys: &[CacheKey<'_>], fences: &[Fence]) {
        for (key, fence) in in_order(keys).into_iter().zip(fences) {
            self.cached(self.cache.unlock(key, fence)).await;
        }
    }

    /// Keeps what was got, under every key, and gives the locks back.
    async fn keep(
        &self,
        wanted: Wanted<'_>,
        keys: &[CacheKey<'_>],
        fences: &[Fence],
        token: Option<&AccessToken>,
    ) {
        let keep_for = token.and_then(|token| match wanted {
            Wanted::Refresh(_) => Some(SUCCESSOR_LIFE),
            _ => token.keep_for(),
        });
        if let (Some(token), Some(keep_for)) = (token, keep_for) {
            for (index, key) in in_order(keys).into_iter().enumerate() {
                self.cached(self.cache.put(key, token, keep_for, fences.get(index))).await;
            }
        }
        self.unlock(keys, fences).await;
    }

    /// Asks the provider, and compares what it gave with what was wanted.
    async fn ask(&self, wanted: Wanted<'_>) -> Outcome {
        let grant = match wanted {
            Wanted::Exchange(request) => Grant::Exchange(request, self.requested_type.as_ref()),
            Wanted::Service(request) => Grant::Service(request, self.tenant_parameter.as_deref()),
            Wanted::Refresh(request) => Grant::Refresh(request),
        };
        self.endpoint.ask(&grant, |token| self.check(wanted, token)).await
    }

    /// What the provider gave, if it is what was wanted.
    fn check(&self, wanted: Wanted<'_>, token: AccessToken) -> Outcome {
        match wanted {
            Wanted::Refresh(_) => Ok(token),
            Wanted::Service(request) => {
                contract::check_tenant(request.tenant.as_ref(), &token)?;
                Ok(token.with_refresh_token(None))
            }
            Wanted::Exchange(request) => {
                contract::check_type(&token, self.relaxed)?;
                contract::check(request, &token, self.relaxed)?;
                if !request.scopes.is_empty() {
                    contract::check_scopes(&request.scopes, &token)?;
                }
                if !self.relaxed.subject {
                    contract::check_tenant(request.tenant.as_ref(), &token)?;
                }
                let token = token.with_refresh_token(None);
                let now = self.endpoint.clock.now();
                Ok(match until_exp(request.subject.expose(), now) {
                    Some(left) if !self.subjects_are_outlived => token.kept_at_most(left),
                    _ => token,
                })
            }
        }
    }

    /// What the shared cache has, for all who ask for it now.
    async fn look_together(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        match self.lookups.lead(key.mark()) {
            Lead::First(leader) => {
                let found = self.look(key).await;
                leader.land(found.clone());
                found
            }
            Lead::Joined(seat) => match seat.landed().await {
                Some(found) => found,
                None => self.look(key).await,
            },
        }
    }

    async fn look(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        self.cached(self.cache.get(key)).await.flatten()
    }

    /// What the cache answers. Without an answer one goes on without, but it is told.
    async fn cached<T>(&self, answer: impl Future<Output = Result<T, BoxError>>) -> Option<T> {
        let answer = within(CACHE_DEADLINE, answer).await;
        match answer.unwrap_or_else(|| Err("gave no answer in time".into())) {
            Ok(answer) => {
                if self.cache_is_away.swap(false, Ordering::Relaxed) {
                    telemetry::token_cache_is_back();
                }
                Some(answer)
            }
            Err(error) => {
                let is_new = !self.cache_is_away.swap(true, Ordering::Relaxed);
                telemetry::token_cache_failed(&error, is_new);
                None
            }
        }
    }

    /// What to file `wanted` under: first what to look for it under.
    fn cache_keys<'k>(&'k self, wanted: Wanted<'k>) -> impl Iterator<Item = CacheKey<'k>> {
        let question = self.question(wanted);
        self.keys.iter().map(move |key| CacheKey::new(question, key, &*self.endpoint.clock))
    }

    fn question<'q>(&'q self, wanted: Wanted<'q>) -> Question<'q> {
        let question = |grant| Question {
            ground: &self.ground,
            grant,
            tenant: None,
            subject: None,
            actor: None,
            audiences: &[],
            resources: &[],
            scopes: "",
        };
        match wanted {
            Wanted::Exchange(request) => Question {
                tenant: request.tenant.as_ref(),
                subject: Some((request.subject.expose(), request.subject_type.as_str())),
                actor: request.actor.as_ref().map(|(token, kind)| (token.expose(), kind.as_str())),
                audiences: &request.audiences,
                resources: &request.resources,
                scopes: request.scopes.as_str(),
                ..question("exchange")
            },
            Wanted::Service(request) => Question {
                tenant: request.tenant.as_ref(),
                scopes: request.scopes.as_str(),
                ..question("client_credentials")
            },
            // Whatever scopes are asked for, the refresh token is spent once.
            Wanted::Refresh(request) => Question {
                tenant: request.tenant.as_ref(),
                subject: Some((request.refresh_token.expose(), TokenType::RefreshToken.as_str())),
                ..question("refresh_token")
            },
        }
    }
}

/// In an order that every process keeps, so that no two wait for each other.
fn in_order<'s, 'k>(keys: &'s [CacheKey<'k>]) -> Vec<&'s CacheKey<'k>> {
    let mut keys: Vec<_> = keys.iter().collect();
    if keys.len() > 1 {
        keys.sort_unstable_by(|one, other| one.digest().cmp(other.digest()));
    }
    keys
}

fn no_key() -> ExchangeError {
    ExchangeError::NotConfigured("there are no cache keys")
}
