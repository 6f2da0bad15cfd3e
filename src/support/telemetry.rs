//! Every event, field and metric name of the crate, once.
//!
//! Labels come from configuration or from fixed lists, never from a token: a flood of strange
//! tokens makes no new time series. No event carries a token or a claim.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fmt::{self, Display, Write};
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The `target` of every event, for `RUST_LOG=scaikey_auth=debug`.
pub(crate) const TARGET: &str = "scaikey_auth";

/// Adds one to a counter, with the feature `metrics`.
macro_rules! count {
    ($name:literal $(, $label:literal => $value:expr)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!($name $(, $label => $value)*).increment(1);
        $(
            #[cfg(not(feature = "metrics"))]
            let _ = &$value;
        )*
    }};
}

/// Tells what is news as loudly as it is written, and anything else for debugging.
macro_rules! if_new {
    ($is_new:expr, $level:ident!($($event:tt)*)) => {
        match $is_new {
            true => tracing::$level!(target: TARGET, $($event)*),
            false => tracing::debug!(target: TARGET, $($event)*),
        }
    };
}

/// So many causes of one outage are told. A cause whose text is new each time must not fill the log.
const MAX_CAUSES: usize = 8;

/// So many changes are told per minute. What fails for every second caller changes all the time.
const MAX_CHANGES: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

/// Whether something that a service depends on works, as far as the log was told.
///
/// A service asks its stores and its provider for every request. The log is told of changes: that
/// something fails, with each cause once; and that it works again.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    is_told: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Digests of the causes of the outage that is under way.
    causes: HashSet<u64>,
    /// When the present minute ends, and how many changes were told in it.
    minute_ends: Duration,
    changes: u32,
}

impl Outage {
    /// Notes that it failed for this cause, at this moment of a clock that never goes back. Returns
    /// whether that is news.
    pub(crate) fn begins(&self, cause: &dyn Display, now: Duration) -> bool {
        let mut digest = Digest(DefaultHasher::new());
        // Writing into a hasher cannot fail.
        let _ = write!(digest, "{cause}");
        let cause = digest.0.finish();
        let mut told = self.told();
        let is_known = told.causes.contains(&cause) || told.causes.len() >= MAX_CAUSES;
        if is_known || !told.may_tell(now) {
            return false;
        }
        told.causes.insert(cause);
        self.is_told.store(true, Ordering::Relaxed);
        true
    }

    /// Notes that it worked. Returns whether that is news. Costs next to nothing if not: the clock is
    /// not asked.
    pub(crate) fn ends(&self, now: impl FnOnce() -> Duration) -> bool {
        if !self.is_told.load(Ordering::Relaxed) {
            return false;
        }
        let now = now();
        let mut told = self.told();
        if told.causes.is_empty() || !told.may_tell(now) {
            return false;
        }
        told.causes.clear();
        self.is_told.store(false, Ordering::Relaxed);
        true
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Whatever a panic left, it is a set of digests and two numbers.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn may_tell(&mut self, now: Duration) -> bool {
        if now >= self.minute_ends {
            self.minute_ends = now + MINUTE;
            self.changes = 0;
        }
        self.changes = self.changes.saturating_add(1);
        self.changes <= MAX_CHANGES
    }
}

struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// An error with its causes, in one line. A cause that the text before it quotes is left out.
pub(crate) struct Causes<'e>(pub(crate) &'e (dyn Error + 'static));

impl Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// The configuration was put together.
pub(crate) fn configured(mode: &str, is_mock: bool, notices: &[String]) {
    for notice in notices {
        tracing::warn!(target: TARGET, "{notice}");
    }
    if is_mock {
        tracing::warn!(target: TARGET, mode, "THIS SERVICE ACCEPTS MOCK TOKENS: it must not be reachable by anybody else");
    } else {
        tracing::info!(target: TARGET, mode, "authentication configured");
    }
}

/// Neither a tenant store nor a list says which tenants there are.
pub(crate) fn any_tenant() {
    tracing::info!(target: TARGET, "no tenant store: every tenant that a verified token names is accepted; list them in P_TENANTS, set P_DATABASE_URL, or in code use `AuthBuilder::tenants`");
}

/// A request was refused; `reason` is [`AuthError::reason`](crate::AuthError::reason).
pub(crate) fn refused(reason: &'static str, error: &(dyn Error + 'static)) {
    tracing::debug!(target: TARGET, reason, error = %Causes(error), "request refused");
    count!("scaikey_auth_refusals_total", "reason" => reason);
}

/// The service is put together wrongly: a guard or extractor ran outside of every layer.
pub(crate) fn layer_missing(error: &dyn Display) {
    tracing::error!(target: TARGET, "{error}");
}

/// A handler asked for a row that the tenant store does not attach.
#[cfg(feature = "axum")]
pub(crate) fn tenant_row_missing(row: &'static str) {
    tracing::error!(target: TARGET, row, "the tenant store attached no row of the type the handler asked for");
}

/// A key set was fetched and is in force. Metrics count it under `series`: the issuer, or the template
/// of a tenant's, since invented tenants must not become series.
pub(crate) fn keys_refreshed(issuer: &str, series: &str, usable: usize) {
    tracing::debug!(target: TARGET, issuer, usable, "key set refreshed");
    count!("scaikey_auth_jwks_refreshes_total", "issuer" => series.to_owned(), "outcome" => "ok");
}

/// Some published keys are wrong. Logged when they change.
pub(crate) fn keys_broken(issuer: &str, keys: &str) {
    tracing::warn!(target: TARGET, issuer, "key set has broken keys, which are left out{keys}");
}

/// Some published keys are not for this service, such as keys for encryption. Logged when they change.
pub(crate) fn keys_of_others(issuer: &str, keys: &str) {
    tracing::info!(target: TARGET, issuer, "key set has keys that are not used here{keys}");
}

/// A token without key id fits more keys than are tried for one. Logged once for each issuer.
pub(crate) fn keys_not_all_tried(issuer: &str, tried: usize) {
    tracing::warn!(target: TARGET, issuer, tried, "tokens that name no key, or a name that many keys have, fit more keys than are tried for one token, so good ones may be refused: have the provider put kid, x5t or x5t#S256 into its tokens");
}

/// A key set could not be fetched; the one held, if any, stays in force. Warned of when it is news.
pub(crate) fn keys_not_refreshed(
    issuer: &str,
    series: &str,
    why: &dyn Display,
    holds_keys: bool,
    is_new: bool,
) {
    if_new!(is_new, warn!(issuer, %why, holds_keys, "key set could not be refreshed"));
    count!("scaikey_auth_jwks_refreshes_total", "issuer" => series.to_owned(), "outcome" => "failed");
}

/// A key set that could not be fetched was fetched.
pub(crate) fn keys_can_be_fetched(issuer: &str) {
    tracing::info!(target: TARGET, issuer, "keys can be fetched again");
}

/// The provider names another host for its keys than before.
pub(crate) fn keys_moved(issuer: &str, from: &str, to: &str) {
    tracing::warn!(target: TARGET, issuer, from, to, "the provider's jwks_uri moved");
}

/// The tenant store failed; `stale` tells whether an earlier answer stood in. Warned of when it is news.
pub(crate) fn tenant_store_failed(why: &(dyn Error + 'static), stale: bool, is_new: bool) {
    let why = Causes(why);
    if_new!(is_new, warn!(%why, stale, "tenant store failed"));
    count!("scaikey_auth_tenant_store_failures_total", "stale" => if stale { "true" } else { "false" });
}

/// An admission check failed. Warned of when it is news.
pub(crate) fn admission_failed(why: &(dyn Error + 'static), is_new: bool) {
    let why = Causes(why);
    if_new!(is_new, warn!(%why, "admission check failed"));
    count!("scaikey_auth_admission_failures_total");
}

/// A store answers again, after its failure was told.
pub(crate) fn store_works(store: &'static str) {
    tracing::info!(target: TARGET, "{store} works again");
}

/// A resolver of tenants' issuers failed. Told once for each change.
pub(crate) fn resolver_fails(template: &str, why: &(dyn Error + 'static)) {
    tracing::warn!(target: TARGET, template, why = %Causes(why), "resolver of tenants' issuers fails");
}

/// A resolver of tenants' issuers answers again.
pub(crate) fn resolver_works(template: &str) {
    tracing::info!(target: TARGET, template, "resolver of tenants' issuers works again");
}

/// The store of participants failed. Told once for each change.
pub(crate) fn registrar_fails(why: &(dyn Error + 'static)) {
    tracing::warn!(target: TARGET, why = %Causes(why), "store of participants fails");
}

/// A token endpoint was asked: for which grant, and how it ended.
pub(crate) fn token_request_ended(
    grant: &'static str,
    outcome: &'static str,
    error: Option<&dyn Display>,
) {
    match error {
        None => tracing::debug!(target: TARGET, grant, "got a token"),
        // Not every bad token is to be a warning, nor every request of an outage.
        Some(error) => tracing::debug!(target: TARGET, grant, %error, "got no token"),
    }
    count!("scaikey_auth_token_requests_total", "grant" => grant, "outcome" => outcome);
}

/// A token endpoint was not asked, although a token was wanted.
pub(crate) fn token_request_not_sent(
    grant: &'static str,
    reason: &'static str,
    error: &dyn Display,
) {
    tracing::debug!(target: TARGET, grant, reason, %error, "no token was asked for");
    count!("scaikey_auth_token_requests_not_sent_total", "grant" => grant, "outcome" => reason);
}

/// A token endpoint fails this service: for one grant, or for `all`. Told once for each change.
pub(crate) fn token_endpoint_fails(url: &str, grant: &'static str, error: &dyn Display) {
    tracing::warn!(target: TARGET, url, grant, %error, "token endpoint fails");
}

/// A token endpoint that failed this service serves it.
pub(crate) fn token_endpoint_works(url: &str, grant: &'static str) {
    tracing::info!(target: TARGET, url, grant, "token endpoint works again");
}

/// A request to a token endpoint is sent a second time.
pub(crate) fn token_request_repeated() {
    count!("scaikey_auth_token_request_retries_total", "reason" => "unavailable");
}

/// How a token was found: `hit`, `miss`, `collapsed`, or `refused` for a refusal repeated.
pub(crate) fn token_cache(result: &'static str) {
    count!("scaikey_auth_token_cache_total", "result" => result);
}

/// A token endpoint failed too often, and is left alone for a while. That it fails was told.
pub(crate) fn token_endpoint_breaker_opened(url: &str, grant: &'static str, pause: Duration) {
    tracing::info!(target: TARGET, url, grant, ?pause, "token endpoint is left alone");
    count!("scaikey_auth_token_endpoint_breaker_total", "change" => "opened");
}

/// A token endpoint that had been left alone answers.
pub(crate) fn token_endpoint_breaker_closed(url: &str) {
    tracing::debug!(target: TARGET, url, "token endpoint is asked as before");
    count!("scaikey_auth_token_endpoint_breaker_total", "change" => "closed");
}

/// The token cache did not answer. Logged when it begins.
pub(crate) fn token_cache_failed(error: &dyn Display, is_new: bool, spends_without_lock: bool) {
    if is_new && spends_without_lock {
        tracing::warn!(target: TARGET, %error, "token cache fails: all go on without it, refresh tokens and codes, too (insecure_spend_without_lock)");
    } else if is_new {
        tracing::warn!(target: TARGET, %error, "token cache fails: exchanges and service tokens go on without it; refresh tokens and codes are not spent until it answers (503)");
    }
    count!("scaikey_auth_token_cache_failures_total", "reason" => "unavailable");
}

/// The token cache held something that none of our servers put there, or that was changed since. It
/// counts as nothing. Logged when it begins.
#[cfg(feature = "redis")]
pub(crate) fn token_cache_invalid_entry(is_new: bool) {
    if is_new {
        tracing::warn!(target: TARGET, "token cache holds what does not open; it is discarded");
    }
    count!("scaikey_auth_token_cache_failures_total", "reason" => "garbage");
}

/// The token cache answers again.
pub(crate) fn token_cache_recovered() {
    tracing::info!(target: TARGET, "token cache answers again");
}

/// The configured client is of no use to these endpoints.
pub(crate) fn endpoints_left_out() {
    tracing::info!(target: TARGET, "the token endpoint depends on the tenant: token, refresh and logout name none and are left out");
}

/// An endpoint of the crate answered; `endpoint` is of a fixed list.
pub(crate) fn endpoint_answered(endpoint: &'static str, status: u16) {
    tracing::debug!(target: TARGET, endpoint, status, "endpoint answered");
    let class = match status {
        ..=399 => "ok",
        429 => "throttled",
        400..=499 => "refused",
        _ => "failed",
    };
    count!("scaikey_auth_endpoint_answers_total", "endpoint" => endpoint, "outcome" => class);
}

/// An endpoint cannot do its work, and its caller is not to blame. Told once for each change.
pub(crate) fn endpoint_misconfigured(endpoint: &'static str, problem: &dyn Display) {
    tracing::error!(target: TARGET, endpoint, %problem, "endpoint cannot do its work");
}

/// The provider sent a browser back with an error; of the code only what can be printed.
pub(crate) fn sign_in_refused(error: &str) {
    tracing::debug!(target: TARGET, error, "sign-in was not completed");
}

/// A session's tokens have more characters than cookies hold, so that it cannot begin or go on.
pub(crate) fn session_too_large(characters: usize) {
    tracing::error!(target: TARGET, characters, "a session does not fit into cookies: ask the provider for smaller tokens");
}

/// Attempts are throttled by address, and there is none.
pub(crate) fn no_client_address() {
    tracing::warn!(target: TARGET, "no client address: attempts are not throttled by address. With axum, serve with into_make_service_with_connect_info::<SocketAddr>(); with another server, insert the connection's SocketAddr into the request's extensions, or set client_address");
}

/// A proxy tells whom it asks for, and is not believed.
pub(crate) fn untrusted_proxy(peer: std::net::IpAddr) {
    tracing::warn!(target: TARGET, %peer, "X-Forwarded-For comes from a peer that is not trusted: all clients behind it are throttled as one. If it is your proxy, name it in trusted_proxies or P_TRUSTED_PROXIES");
}

/// A session ended before its time; `reason` is of a fixed list. The provider's part of it, a refresh
/// token that it takes no more, happens to every session that its user ended elsewhere.
pub(crate) fn session_ended(reason: &'static str) {
    match reason {
        "refresh_token_refused" => tracing::info!(target: TARGET, reason, "session ended"),
        _ => tracing::warn!(target: TARGET, reason, "session ended"),
    }
    count!("scaikey_auth_sessions_ended_total", "reason" => reason);
}

/// A token that should have ended lives on at the provider. Warned of when it is news.
pub(crate) fn not_revoked(
    what: &'static str,
    reason: &'static str,
    error: &dyn Display,
    is_new: bool,
) {
    if_new!(is_new, warn!(what, %error, "not revoked at the provider"));
    count!("scaikey_auth_tokens_not_revoked_total", "reason" => reason);
}

/// A token that a sign-in brought does not hold here: `claim` names what is wrong with it.
pub(crate) fn sign_in_token_refused(
    token: &'static str,
    reason: &'static str,
    claim: &'static str,
    is_new: bool,
) {
    if_new!(is_new, warn!(reason, claim, "the {token} of a sign-in is refused"));
    count!("scaikey_auth_sign_in_tokens_refused_total", "reason" => reason);
}

/// The password grant is on for everybody.
pub(crate) fn passwords_are_taken() {
    tracing::warn!(target: TARGET, "passwords are taken at the token endpoint: RFC 9700 §2.4 says that this must not be");
}

/// Tokens known to be good gave way to others, or were not remembered, for want of memory.
pub(crate) fn verified_tokens_evicted(tokens: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("scaikey_auth_verified_tokens_evicted_total").increment(tokens);
    #[cfg(not(feature = "metrics"))]
    let _ = tokens;
}

/// The store that counts attempts failed: this process counts by itself. Warned of when it is news.
pub(crate) fn throttle_failed(why: &(dyn Error + 'static), is_new: bool) {
    let why = Causes(why);
    if_new!(
        is_new,
        warn!(%why, "throttle failed: this process counts attempts by itself meanwhile")
    );
    count!("scaikey_auth_throttle_failures_total", "answer" => "local");
}

/// A decision about a foreign token, for the audit log. Of the token it has digests only.
#[cfg(feature = "trust")]
pub(crate) struct TrustDecision<'d> {
    pub(crate) trust: Option<&'d str>,
    pub(crate) issuer: Option<&'d str>,
    pub(crate) grant: Option<&'d str>,
    pub(crate) outcome: &'static str,
    pub(crate) subject_sha256: Option<&'d str>,
    pub(crate) jti_sha256: Option<&'d str>,
    pub(crate) is_verified: bool,
}

/// A foreign token was granted something, or denied. What nobody vouches for is for debugging:
/// anybody can make such tokens.
#[cfg(feature = "trust")]
pub(crate) fn trust_decided(decision: &TrustDecision<'_>) {
    let TrustDecision { trust, issuer, grant, outcome, subject_sha256, jti_sha256, is_verified } =
        *decision;
    if_new!(
        is_verified,
        info!(
            trust,
            issuer, grant, outcome, subject_sha256, jti_sha256, is_verified, "foreign token judged"
        )
    );
    count!("scaikey_auth_trust_decisions_total", "outcome" => outcome);
}

/// A token was minted for a workload that a policy let in, or was not. The digest is the one of the
/// policy's decision.
///
/// A failure is warned of when it is news.
#[cfg(feature = "trust")]
pub(crate) fn workload_minted(
    trust: &str,
    grant: &str,
    subject_sha256: &str,
    error: Option<&dyn Display>,
    is_new: bool,
) {
    let outcome = if error.is_none() { "minted" } else { "failed" };
    match error {
        None => {
            tracing::info!(target: TARGET, trust, grant, outcome, subject_sha256, "token for a workload");
        }
        Some(error) if is_new => {
            tracing::warn!(target: TARGET, trust, grant, outcome, subject_sha256, %error, "token for a workload");
        }
        Some(error) => {
            tracing::info!(target: TARGET, trust, grant, outcome, subject_sha256, %error, "token for a workload");
        }
    }
    count!("scaikey_auth_workload_tokens_total", "outcome" => outcome);
}

/// A trust policy came into force.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_loaded(trusts: usize) {
    tracing::info!(target: TARGET, trusts, "trust policy in force");
}

/// A trust policy was refused; the one before stays in force.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_refused(why: &dyn Display) {
    tracing::error!(target: TARGET, %why, "trust policy refused; the one before stays in force");
}

/// The log of used tokens failed: tokens of trusts with single use are denied. Warned of when it is
/// news.
#[cfg(feature = "trust")]
pub(crate) fn replay_log_failed(why: &(dyn Error + 'static), is_new: bool) {
    let why = Causes(why);
    if_new!(is_new, error!(%why, "replay log failed"));
    count!("scaikey_auth_replay_log_failures_total", "answer" => "denied");
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn outage_is_logged_once_per_change() {
        let outage = Outage::default();
        let start = || START;
        assert!(!outage.ends(start), "nothing had failed");
        assert!(outage.begins(&"away", START));
        assert!(!outage.begins(&"away", START));
        assert!(outage.begins(&"refuses", START), "another cause");
        assert!(!outage.begins(&"away", START), "they alternate");
        assert!(outage.ends(start));
        assert!(!outage.ends(start));
        assert!(outage.begins(&"away", START), "a second outage");
    }

    #[test]
    fn varying_causes_do_not_fill_logs() {
        let outage = Outage::default();
        let told = (0..1000).filter(|nth| outage.begins(nth, START)).count();
        assert_eq!(told, MAX_CAUSES);
        assert!(outage.ends(|| START));
    }

    #[test]
    fn flapping_is_logged_within_bounds() {
        let outage = Outage::default();
        let told = (0..1000)
            .map(|_| u32::from(outage.begins(&"away", START)) + u32::from(outage.ends(|| START)))
            .sum::<u32>();
        assert_eq!(told, MAX_CHANGES);
        // What the log says last is right a minute later.
        let told = [outage.begins(&"away", MINUTE), outage.ends(|| MINUTE)];
        assert_eq!(told, [true, true]);
    }

    #[test]
    fn causes_are_joined_into_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("the store failed")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("the database failed: {0}")]
        struct Inner(#[source] std::io::Error);
        let error = Outer(Inner(std::io::Error::other("no such host")));
        let text = "the store failed: the database failed: no such host";
        assert_eq!(Causes(&error).to_string(), text);
    }
}
