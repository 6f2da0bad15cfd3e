//! All log events and metrics of the crate.
//!
//! Labels come from the configuration or from fixed lists, never from a token, so that an attacker cannot
//! create time series. No event contains a token. Of the claims of a token, events contain digests, the issuer,
//! and the tenant in URLs. The event `sign-in was not completed` contains the error text of the provider.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::fmt::{self, Debug, Display, Write};
use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The `target` of every event, for `RUST_LOG=scaikey_auth=debug`.
pub(crate) const TARGET: &str = "scaikey_auth";

/// Adds 1 to a counter, if the feature `metrics` is on.
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

/// Logs an event at the given level if `is_new`, otherwise at the level `debug`.
macro_rules! if_new {
    ($is_new:expr, $level:ident!($($event:tt)*)) => {
        match $is_new {
            true => tracing::$level!(target: TARGET, $($event)*),
            false => tracing::debug!(target: TARGET, $($event)*),
        }
    };
}

/// The maximum number of causes that are logged for one outage, so that a cause whose text changes each time
/// does not fill the log.
const MAX_CAUSES: usize = 8;

/// The maximum number of changes that are logged per minute, because a store that fails for every second
/// caller changes constantly.
const MAX_CHANGES: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

/// The state of a dependency of the service, as it was logged last: working, or failed with certain causes.
///
/// A service may call a store or a provider for every request. Only changes are logged: the first failure
/// with each cause, and the recovery.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    is_logged: AtomicBool,
    state: Mutex<OutageState>,
}

#[derive(Debug, Default)]
struct OutageState {
    /// Digests of the logged causes of the current outage.
    causes: HashSet<u64>,
    /// The monotonic time at which the current minute ends.
    minute_ends: Duration,
    /// The number of changes in the current minute.
    changes: u32,
}

impl Outage {
    /// Records a failure at the monotonic time `now`. Returns whether to log it as new.
    pub(crate) fn record_failure(&self, cause: &dyn Display, now: Duration) -> bool {
        let mut digest = Digest(DefaultHasher::new());
        // Writing into a hasher cannot fail.
        let _ = write!(digest, "{cause}");
        let cause = digest.0.finish();
        let mut state = self.state();
        let is_known = state.causes.contains(&cause) || state.causes.len() >= MAX_CAUSES;
        if is_known || !state.may_log(now) {
            return false;
        }
        state.causes.insert(cause);
        self.is_logged.store(true, Ordering::Relaxed);
        true
    }

    /// Records a success. Returns whether to log a recovery. Without an outage it only reads a flag, because
    /// it runs for every request.
    pub(crate) fn record_success(&self, now: impl FnOnce() -> Duration) -> bool {
        if !self.is_logged.load(Ordering::Relaxed) {
            return false;
        }
        let now = now();
        let mut state = self.state();
        if state.causes.is_empty() || !state.may_log(now) {
            return false;
        }
        state.causes.clear();
        self.is_logged.store(false, Ordering::Relaxed);
        true
    }

    fn state(&self) -> MutexGuard<'_, OutageState> {
        // Poisoning is harmless: any set of digests and any two numbers are a valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutageState {
    fn may_log(&mut self, now: Duration) -> bool {
        if now >= self.minute_ends {
            self.minute_ends = now + MINUTE;
            self.changes = 0;
        }
        self.changes = self.changes.saturating_add(1);
        self.changes <= MAX_CHANGES
    }
}

/// The kinds of events that were logged already, so that each is logged once.
#[derive(Debug, Default)]
pub(crate) struct LoggedOnce(Mutex<Vec<&'static str>>);

impl LoggedOnce {
    /// Records an event. Returns whether it is the first of its kind.
    pub(crate) fn is_first(&self, kind: &'static str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !logged.contains(&kind);
        if is_first {
            logged.push(kind);
        }
        is_first
    }
}

struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// An error and its causes in one line. Omits a cause that the preceding text already contains.
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

/// The maximum number of names, and of characters of one name, in the line at the start.
const MAX_NAMES: usize = 5;
const MAX_NAME: usize = 200;

/// Returns the first names of a list, and the number of the others.
fn listed(names: &[&str]) -> String {
    let short = |name: &&str| name.chars().take(MAX_NAME).collect::<String>();
    let mut list = names.iter().take(MAX_NAMES).map(short).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        let _ = write!(list, " and {} more", names.len() - MAX_NAMES);
    }
    list
}

/// Logs the mode of the service with its issuers and audiences, and the warnings about its configuration.
pub(crate) fn configured(
    mode: &str,
    is_mock: bool,
    issuers: &[&str],
    audiences: &[&str],
    notices: &[String],
) {
    let (issuers, audiences) = (listed(issuers), listed(audiences));
    for notice in notices {
        tracing::warn!(target: TARGET, "{notice}");
    }
    if is_mock {
        tracing::warn!(target: TARGET, mode, issuers, audiences, "THIS SERVICE ACCEPTS MOCK TOKENS: make sure that only its developers can reach it");
    } else {
        tracing::info!(target: TARGET, mode, issuers, audiences, "authentication configured");
    }
}

/// Logs a refused token whose `iss` differs from a configured issuer only by a slash or its scheme. Called once
/// for each difference. Both texts come from the configuration.
pub(crate) fn issuer_nearly_matches(configured: &str, iss: &str) {
    tracing::warn!(target: TARGET, configured, iss, "a token is refused because its `iss` is almost, but not exactly, the configured issuer: if the provider issues such tokens, set issuer to this `iss`, or, if the provider is not reached there, expected_issuer");
}

/// Logs that plain `http` is used for these hosts.
pub(crate) fn insecure_http_hosts(issuer: &str, hosts: &[String]) {
    let hosts = hosts.join(", ");
    tracing::warn!(target: TARGET, issuer, hosts, "this service sends no TLS to these hosts of the provider (insecure_http_hosts): tokens and keys are safe only if the network encrypts and authenticates all traffic to them");
}

/// Logs that tokens are sent to these hosts over plain `http`.
pub(crate) fn insecure_http_destinations(hosts: &[String]) {
    let hosts = hosts.join(", ");
    tracing::warn!(target: TARGET, hosts, "this service sends tokens without TLS to these hosts (insecure_http_host): they are safe only if the network encrypts and authenticates all traffic to them");
}

/// Returns the name of an environment variable, with the prefix of the service if it is known.
fn variable(prefix: Option<&str>, name: &str) -> String {
    prefix.map_or_else(
        || format!("the environment variable …_{name} with your prefix"),
        |prefix| format!("{prefix}_{name}"),
    )
}

/// Logs that every tenant is accepted, because there is neither a tenant store nor a list of tenants.
pub(crate) fn any_tenant(prefix: Option<&str>) {
    let (tenants, database_url) = (variable(prefix, "TENANTS"), variable(prefix, "DATABASE_URL"));
    tracing::info!(target: TARGET, "no tenant store: every tenant that a verified token names is accepted; to restrict them, set {tenants} or {database_url}, or call `AuthBuilder::tenants`");
}

/// Logs and counts a refused request. `reason` is [`AuthError::reason`](crate::AuthError::reason).
pub(crate) fn refused(reason: &'static str, error: &(dyn Error + 'static)) {
    tracing::debug!(target: TARGET, reason, error = %Causes(error), "request refused");
    count!("scaikey_auth_refusals_total", "reason" => reason);
}

/// Logs that a token has none of the claims that may name its audience.
pub(crate) fn audience_missing(issuer: &str, claims: &dyn Debug) {
    tracing::debug!(target: TARGET, issuer, ?claims, "the token has no audience claim");
}

/// Logs the claim whose value is not an audience of this service. Of the token it contains nothing.
pub(crate) fn audience_refused(issuer: &str, claim: &dyn Display) {
    tracing::debug!(target: TARGET, issuer, %claim, "the token's audience is not this service");
}

/// Logs what shows that a token is no access token: the name of a claim, never its value.
pub(crate) fn type_refused(issuer: &str, mark: &str) {
    tracing::debug!(target: TARGET, issuer, mark, "the token is no access token");
}

/// Logs that ID tokens of an issuer are accepted as bearer tokens.
pub(crate) fn id_tokens_accepted(issuer: &str) {
    tracing::warn!(target: TARGET, issuer, "ID tokens of this issuer are accepted as bearer tokens (insecure_accept_id_tokens): every page or service that receives one as a proof of sign-in can call this service as the user; prefer access tokens, if the provider issues verifiable ones");
}

/// Logs that the subject of an issuer's identities is a claim that may be given to another person.
pub(crate) fn subject_reassignable(issuer: &str, claim: &dyn Display) {
    tracing::warn!(target: TARGET, issuer, %claim, "the subject is a claim that the provider may give to another person, who would then get the data of the former: name a claim that is never reassigned in claims.subject");
}

/// Logs a mistake in the service's code: a guard or extractor ran outside of every layer.
pub(crate) fn layer_missing(error: &dyn Display) {
    tracing::error!(target: TARGET, "{error}");
}

/// Logs a request to a path without a rule: a mistake in the service's code, or a client that tries paths.
/// Warns if it is the first one for this path.
pub(crate) fn path_unlisted(error: &dyn Display, is_new: bool) {
    if_new!(is_new, warn!("{error}"));
}

/// Logs that a handler extracts a row of a type that the tenant store does not attach.
#[cfg(feature = "axum")]
pub(crate) fn tenant_row_missing(row: &'static str) {
    tracing::error!(target: TARGET, row, "the handler extracts a row of a type that the tenant store does not attach");
}

/// Records the caller on the current span, if the span declares these fields.
pub(crate) fn record_caller(field: &str, id: impl FnOnce() -> String, tenant: Option<&str>) {
    let span = tracing::Span::current();
    if span.has_field(field) {
        span.record(field, id());
    }
    if let Some(tenant) = tenant {
        span.record("tenant", tenant);
    }
}

/// Logs and counts a key set that was fetched and is now used. The label `issuer` of the metric is `series`:
/// the issuer, or the template of a per-tenant issuer, so that invented tenants do not create time series.
pub(crate) fn keys_refreshed(issuer: &str, series: &str, usable: usize) {
    tracing::debug!(target: TARGET, issuer, usable, "key set refreshed");
    count!("scaikey_auth_jwks_refreshes_total", "issuer" => series.to_owned(), "outcome" => "ok");
}

/// Logs that a claim of an issuer's token has a value that cannot be read, and counts as absent. `attribute`
/// comes from a fixed list. Warns if it is new for the issuer.
pub(crate) fn claim_ignored(issuer: &str, attribute: &'static str, is_new: bool) {
    if_new!(
        is_new,
        warn!(
            issuer,
            attribute,
            "a claim has a value of the wrong type, which is ignored: name other claims in the claims mapping of the issuer, or correct the claims at the provider"
        )
    );
}

/// Logs invalid keys in a published key set. Called when they change.
pub(crate) fn keys_broken(issuer: &str, keys: &str) {
    tracing::warn!(target: TARGET, issuer, "key set has invalid keys, which are ignored{keys}");
}

/// Logs published keys for another use, such as encryption. Called when they change.
pub(crate) fn keys_unused(issuer: &str, keys: &str) {
    tracing::info!(target: TARGET, issuer, "key set has keys for another use, which are ignored{keys}");
}

/// Logs that a SPIFFE bundle has no key for tokens. Called when that changes.
pub(crate) fn bundle_is_empty(issuer: &str) {
    tracing::warn!(target: TARGET, issuer, "the SPIFFE bundle has no usable key with `use` `jwt-svid`, so all tokens of the trust domain are denied: expected only if it revoked its keys; a plain key set belongs into `jwks`");
}

/// Logs that a SPIFFE bundle with a lower sequence number replaces the one in use.
pub(crate) fn bundle_is_older(issuer: &str, sequence: u64, previous: u64) {
    tracing::warn!(target: TARGET, issuer, sequence, previous, "the spiffe_sequence of the bundle went back, so keys that were removed may be valid again: expected only after the control plane was restored or set up again");
}

/// Logs that a token matches more keys than are tried for one token. Called once per issuer.
pub(crate) fn too_many_candidate_keys(issuer: &str, tried: usize) {
    tracing::warn!(target: TARGET, issuer, tried, "tokens without a unique key id match more keys than are tried for one token, so valid tokens may be refused: configure the provider to add kid, x5t or x5t#S256 to its tokens");
}

/// Logs and counts a key set that could not be fetched; the cached one, if any, stays in use. Warns if the
/// failure is new.
pub(crate) fn keys_not_refreshed(
    issuer: &str,
    series: &str,
    error: &dyn Display,
    holds_keys: bool,
    is_new: bool,
) {
    if_new!(is_new, warn!(issuer, %error, holds_keys, "key set could not be refreshed"));
    count!("scaikey_auth_jwks_refreshes_total", "issuer" => series.to_owned(), "outcome" => "failed");
}

/// Logs that a key set was fetched after a logged failure.
pub(crate) fn keys_recovered(issuer: &str) {
    tracing::info!(target: TARGET, issuer, "keys can be fetched again");
}

/// Logs that the host of the provider's keys changed.
pub(crate) fn keys_moved(issuer: &str, from: &str, to: &str) {
    tracing::warn!(target: TARGET, issuer, from, to, "the host of the provider's jwks_uri changed");
}

/// Logs and counts a failure of the tenant store. `stale`: whether a cached answer was used. Warns if the
/// failure is new.
pub(crate) fn tenant_store_failed(error: &(dyn Error + 'static), stale: bool, is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, warn!(%error, stale, "tenant store failed"));
    count!("scaikey_auth_tenant_store_failures_total", "stale" => if stale { "true" } else { "false" });
}

/// Logs and counts an admission check that could not be evaluated. Warns if the failure is new.
pub(crate) fn admission_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, warn!(%error, "admission check failed"));
    count!("scaikey_auth_admission_failures_total");
}

/// Logs and counts a revocation that is now in force. `from`: `here` or `log`. The ids are not logged, and no digest
/// of them: subjects can be guessed.
pub(crate) fn revoked(kind: &'static str, issuer: &str, from: &'static str) {
    match from {
        "log" => tracing::debug!(target: TARGET, kind, issuer, from, "revoked"),
        _ => tracing::info!(target: TARGET, kind, issuer, from, "revoked"),
    }
    count!("scaikey_auth_revocations_total", "kind" => kind, "from" => from);
}

/// Logs that the revocation log was read for the first time.
pub(crate) fn revocation_log_read(entries: usize) {
    tracing::info!(target: TARGET, entries, "revocation log read");
}

/// Logs and counts a failure to read the revocation log. Warns if the failure is new.
pub(crate) fn revocation_log_failed(error: &dyn Display, is_new: bool) {
    if_new!(
        is_new,
        warn!(%error, "revocation log failed: revocations of other processes are not noticed")
    );
    count!("scaikey_auth_revocation_log_failures_total", "call" => "read");
}

/// Logs and counts a failure to append to the revocation log. Warns if the failure is new.
pub(crate) fn revocation_not_logged(error: &dyn Display, is_new: bool) {
    if_new!(
        is_new,
        warn!(%error, "revocation log failed: revocations of this process are in force here only, until the log works again")
    );
    count!("scaikey_auth_revocation_log_failures_total", "call" => "append");
}

/// Logs that the revocation log lost its entries.
pub(crate) fn revocation_log_lost() {
    tracing::warn!(target: TARGET, "the revocation log has lost entries: those in force in this process are appended again");
}

/// Logs and counts an entry of the revocation log that cannot be read. Logs at the level `error` if the cause is new.
pub(crate) fn revocation_unreadable(error: &dyn Display, is_new: bool) {
    if_new!(is_new, error!(%error, "revocation ignored"));
    count!("scaikey_auth_revocations_unreadable_total");
}

/// Publishes the time since the revocation log was read, and the number of entries in force.
pub(crate) fn revocation_state(lag: Duration, entries: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::gauge!("scaikey_auth_revocation_log_lag_seconds").set(lag.as_secs_f64());
        metrics::gauge!("scaikey_auth_revocations_in_force").set(entries as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (lag, entries);
}

/// Logs that entries of sessions and tokens were merged into entries of their subjects, because there were as many
/// as allowed.
pub(crate) fn revocations_widened(entries: usize) {
    tracing::warn!(target: TARGET, entries, "there are as many revocations as allowed: those of sessions and tokens were widened to their subjects");
}

/// Logs and counts a group source that could not return the groups of a caller. Warns if the failure is new.
pub(crate) fn group_source_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, warn!(%error, "group source failed"));
    count!("scaikey_auth_group_source_failures_total");
}

/// Logs that an issuer left the groups out of a token, and that no source can fetch them. Warns if it is new
/// for the issuer.
pub(crate) fn groups_missing(issuer: &str, is_new: bool) {
    if_new!(
        is_new,
        warn!(
            issuer,
            "a token has no groups, because its user has too many: the caller counts as a member of none. Set `AuthBuilder::group_source`, or let the provider put only groups that are assigned to the application, or application roles, into tokens"
        )
    );
}

/// Logs that a store answered after a logged failure.
pub(crate) fn store_recovered(store: &'static str) {
    tracing::info!(target: TARGET, "{store} works again");
}

/// Logs a failed resolver of tenants' issuers. Called once per outage.
pub(crate) fn resolver_failed(template: &str, error: &(dyn Error + 'static)) {
    tracing::warn!(target: TARGET, template, error = %Causes(error), "resolver of tenants' issuers failed");
}

/// Logs that a resolver of tenants' issuers answered after a logged failure.
pub(crate) fn resolver_recovered(template: &str) {
    tracing::info!(target: TARGET, template, "resolver of tenants' issuers works again");
}

/// Logs a failure of the registrar. Called once per outage.
pub(crate) fn registrar_failed(error: &(dyn Error + 'static)) {
    tracing::warn!(target: TARGET, error = %Causes(error), "store of participants failed");
}

/// A report of a provider, as it is logged and counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SecurityEventRecord<'a> {
    /// From a fixed list.
    pub(crate) kind: &'static str,
    /// `revoked`, `passed_on`, `repeated`, `refused` or `failed`.
    pub(crate) outcome: &'static str,
    pub(crate) issuer: Option<&'a str>,
    /// A digest of the id of the token, which is random. A token that was not verified has none.
    pub(crate) token: Option<&'a str>,
    /// A pseudonym of the subject, the same within this process: subjects can be guessed.
    pub(crate) subject: Option<&'a str>,
    /// The type in a verified token.
    pub(crate) event_type: Option<&'a str>,
}

impl SecurityEventRecord<'_> {
    /// Logs and counts the event. Senders of tokens that were not verified may be attackers, so these are logged at
    /// the level `debug`.
    pub(crate) fn record(&self) {
        let Self { kind, outcome, issuer, token, subject, event_type } = *self;
        if_new!(
            token.is_some(),
            info!(kind, outcome, issuer, token, subject, event_type, "security event")
        );
        count!("scaikey_auth_security_events_total", "kind" => kind, "outcome" => outcome);
    }
}

/// Logs and counts a poll for security events. `has_recovered`: after a logged failure.
pub(crate) fn events_polled(issuer: &str, has_recovered: bool) {
    if has_recovered {
        tracing::info!(target: TARGET, issuer, "polling for security events works again");
    }
    count!("scaikey_auth_event_polls_total", "issuer" => issuer.to_owned(), "outcome" => "ok");
}

/// Logs and counts a failed poll for security events. Warns if the failure is new.
pub(crate) fn events_not_polled(issuer: &str, error: &dyn Display, is_new: bool) {
    if_new!(
        is_new,
        warn!(
            issuer,
            %error,
            "polling for security events failed: what the provider reports is not in force until it works again"
        )
    );
    count!("scaikey_auth_event_polls_total", "issuer" => issuer.to_owned(), "outcome" => "failed");
}

/// Warns that polling needs a tokio runtime.
pub(crate) fn polling_waits() {
    tracing::warn!(
        target: TARGET,
        "there is no tokio runtime: polling for security events starts with the first request"
    );
}

/// Warns that endpoints that poll were dropped too early.
pub(crate) fn polling_never_began() {
    tracing::warn!(
        target: TARGET,
        "the endpoints were dropped before the first poll for security events: nothing is polled any more"
    );
}

/// Warns that events of a stream count in one process only.
pub(crate) fn polled_events_are_local(issuer: &str) {
    tracing::warn!(
        target: TARGET,
        issuer,
        "a polled event counts only in the process that gets it, although there is a Redis server: set revocation_log = redis (`P_REVOCATION_LOG=redis`)"
    );
}

/// Logs that a token was acknowledged although the handler did not accept it. Warns once per outage of the handler.
pub(crate) fn events_not_handled(issuer: &str, count: usize, is_new: bool) {
    if_new!(
        is_new,
        warn!(
            issuer,
            count,
            "security events were acknowledged without the handler: it has not accepted too many others"
        )
    );
}

/// Logs a failure of the handler of security events.
pub(crate) fn event_handler_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, warn!(%error, "the handler of security events failed: it gets them again"));
}

/// Logs and counts a token request that ended.
pub(crate) fn token_request_ended(
    grant: &'static str,
    outcome: &'static str,
    error: Option<&dyn Display>,
) {
    match error {
        None => tracing::debug!(target: TARGET, grant, "token request succeeded"),
        // Level `debug`: a warning for every invalid token, or for every request during an outage, would
        // flood the log.
        Some(error) => tracing::debug!(target: TARGET, grant, %error, "token request failed"),
    }
    count!("scaikey_auth_token_requests_total", "grant" => grant, "outcome" => outcome);
}

/// Logs and counts a token request that was not attempted.
pub(crate) fn token_request_not_sent(
    grant: &'static str,
    reason: &'static str,
    error: &dyn Display,
) {
    tracing::debug!(target: TARGET, grant, reason, %error, "token request was not sent");
    count!("scaikey_auth_token_requests_not_sent_total", "grant" => grant, "reason" => reason);
}

/// Logs that requests to the provider fail. `grant` is a grant, `all`, `metadata`, `revocation` or
/// `token_urls`; `url` is the endpoint or the issuer. Called once per outage.
pub(crate) fn token_endpoint_failed(url: &str, grant: &'static str, error: &dyn Display) {
    tracing::warn!(target: TARGET, url, grant, %error, "requests to the provider fail");
}

/// Logs that requests to the provider succeed after a logged failure.
pub(crate) fn token_endpoint_recovered(url: &str, grant: &'static str) {
    tracing::info!(target: TARGET, url, grant, "requests to the provider succeed again");
}

/// Counts a request with client authentication that is sent again. The reason is `unavailable`, or
/// `other_assertion` if the provider refused a workload token and the source has another one.
pub(crate) fn token_request_repeated(reason: &'static str) {
    count!("scaikey_auth_token_request_retries_total", "reason" => reason);
}

/// Counts a lookup of a token, with the result `hit`, `miss`, `collapsed`, or `refused` for a cached refusal.
pub(crate) fn token_cache(result: &'static str) {
    count!("scaikey_auth_token_cache_total", "result" => result);
}

/// Logs and counts a circuit breaker that opened. Its failures have already been logged.
pub(crate) fn token_endpoint_breaker_opened(url: &str, grant: &'static str, pause: Duration) {
    tracing::info!(target: TARGET, url, grant, ?pause, "circuit breaker of the token endpoint opened");
    count!("scaikey_auth_token_endpoint_breaker_total", "change" => "opened");
}

/// Logs and counts a circuit breaker that closed.
pub(crate) fn token_endpoint_breaker_closed(url: &str) {
    tracing::debug!(target: TARGET, url, "circuit breaker of the token endpoint closed");
    count!("scaikey_auth_token_endpoint_breaker_total", "change" => "closed");
}

/// Logs and counts a question about an opaque token that was answered. `outcome` is `active`, `inactive`, or
/// `refused` for an active token that a rule refuses.
pub(crate) fn introspection_ended(issuer: &str, outcome: &'static str) {
    tracing::debug!(target: TARGET, issuer, outcome, "opaque token introspected");
    count!("scaikey_auth_introspections_total", "issuer" => issuer.to_owned(), "outcome" => outcome);
}

/// Logs and counts a question about an opaque token that has no usable answer. If the failure is new, warns of an
/// outage, and logs an error about anything that an operator must correct.
pub(crate) fn introspection_failed(
    issuer: &str,
    error: &dyn Display,
    is_outage: bool,
    is_new: bool,
) {
    match is_outage {
        true => if_new!(is_new, warn!(issuer, %error, "opaque tokens cannot be checked")),
        false => if_new!(is_new, error!(issuer, %error, "opaque tokens cannot be checked")),
    }
    count!("scaikey_auth_introspections_total", "issuer" => issuer.to_owned(), "outcome" => "failed");
}

/// Logs that the introspection endpoint answered after a logged failure.
pub(crate) fn introspection_recovered(issuer: &str) {
    tracing::info!(target: TARGET, issuer, "opaque tokens can be checked again");
}

/// Logs and counts a question about an opaque token that was not asked: the budget for unknown tokens is used up
/// (`over_budget`), or the circuit breaker is open (`breaker_open`). Warns if the caller says that it is new.
pub(crate) fn introspection_not_sent(issuer: &str, reason: &'static str, is_new: bool) {
    tracing::debug!(target: TARGET, issuer, reason, "opaque token is not introspected");
    if is_new {
        tracing::warn!(target: TARGET, issuer, "requests with unknown opaque tokens get 503: more of them are presented than may be asked about (OpaqueTokens::unknown_tokens)");
    }
    count!("scaikey_auth_introspections_not_sent_total", "issuer" => issuer.to_owned(), "reason" => reason);
}

/// Logs that the circuit breaker of an introspection endpoint opened. Its failures have already been logged.
pub(crate) fn introspection_breaker_opened(issuer: &str, pause: Duration) {
    tracing::info!(target: TARGET, issuer, ?pause, "circuit breaker of the introspection endpoint opened");
}

/// Logs that the circuit breaker of an introspection endpoint closed.
pub(crate) fn introspection_breaker_closed(issuer: &str) {
    tracing::debug!(target: TARGET, issuer, "circuit breaker of the introspection endpoint closed");
}

/// Logs that opaque tokens without an audience are accepted.
pub(crate) fn missing_audience_accepted(issuer: &str) {
    tracing::warn!(target: TARGET, issuer, "opaque tokens of this issuer are accepted without an audience (insecure_accept_missing_audience): every service that receives such a token can use it here");
}

/// Logs and counts a failure of the token cache. Warns if the failure is new.
pub(crate) fn token_cache_failed(error: &dyn Display, is_new: bool, spends_without_lock: bool) {
    if is_new && spends_without_lock {
        tracing::warn!(target: TARGET, %error, "token cache failed: all requests continue without it, including those with refresh tokens and codes, because insecure_spend_without_lock is set");
    } else if is_new {
        tracing::warn!(target: TARGET, %error, "token cache failed: exchanges and requests for service tokens continue without it; requests with refresh tokens and codes fail until it recovers (503 from the endpoints)");
    }
    count!("scaikey_auth_token_cache_failures_total", "reason" => "unavailable");
}

/// Logs and counts an entry of the token cache that cannot be read, because this service did not write it or
/// it was changed. The entry is deleted. Warns if the failure is new.
#[cfg(feature = "redis")]
pub(crate) fn token_cache_invalid_entry(is_new: bool) {
    if is_new {
        tracing::warn!(target: TARGET, "an entry of the token cache cannot be read and is deleted");
    }
    count!("scaikey_auth_token_cache_failures_total", "reason" => "invalid_entry");
}

/// Logs that the file with the URLs of Redis cannot be used, so that a connection uses the URLs that it had at
/// the start. Warns if the failure is new.
#[cfg(feature = "redis")]
pub(crate) fn redis_urls_not_read(problem: &str, is_new: bool) {
    if_new!(is_new, warn!("redis_url_file {problem}; the URLs that it had at the start are used"));
}

/// Logs that the token cache answered after a logged failure.
pub(crate) fn token_cache_recovered() {
    tracing::info!(target: TARGET, "token cache answers again");
}

/// Logs that a file with keys cannot be used, so that the previous keys stay in force. Warns if the failure is
/// new.
pub(crate) fn secret_file_not_read(content: &str, error: &dyn Display, is_new: bool) {
    if_new!(
        is_new,
        warn!(%error, "{content} were not read again; the previous ones stay in force")
    );
}

/// Logs that a file with keys can be read again, with the keys in force.
pub(crate) fn secret_file_readable(content: &str, path: &Path) {
    tracing::info!(target: TARGET, path = %path.display(), "{content} can be read again");
}

/// Logs that keys were replaced by those in their file.
pub(crate) fn secret_file_replaced(content: &str, path: &Path) {
    tracing::info!(target: TARGET, path = %path.display(), "{content} replaced from their file");
}

/// Logs that the redirect URI does not lead to the endpoint `login`.
pub(crate) fn redirect_elsewhere(setting: &str, path: &str, login: &str) {
    tracing::warn!(target: TARGET, "the path of {setting} is {path}, but this service completes sign-ins at {login}: unless a proxy maps one to the other, set {setting} to the public URL of {login}");
}

/// Logs that a page of the sign-in is outside the path under which the service stands.
pub(crate) fn page_elsewhere(setting: &str, page: &str, home: &str) {
    tracing::warn!(target: TARGET, "{setting} is {page}, but browsers see this service under {home} (the path of the redirect URI): unless another service answers there, set {setting} to a path under {home}");
}

/// Logs that the page after sign-out is not quite the URL of the endpoint `logout`.
#[cfg(feature = "endpoints")]
pub(crate) fn nearly_logout(setting: &str, page: &str, logout: &str) {
    tracing::warn!(target: TARGET, "{setting} is {page}, which is taken for a page of the service, and not for the endpoint `logout`, whose public URL is {logout}: unless a page answers there, set it to {logout}");
}

/// Logs that a service under a sub-path has the default names of cookies.
pub(crate) fn shared_cookie_name(setting: &str, home: &str) {
    tracing::warn!(target: TARGET, "{setting} has its default, and browsers see this service under {home}: cookies belong to the whole host, so if another service of this host also keeps sessions, set {setting} to a different name in each");
}

/// Logs that a configured Redis server stores no tokens, because the token client has another cache.
pub(crate) fn redis_unused() {
    tracing::warn!(target: TARGET, "redis_url is set, but the client of the endpoints has no shared cache: build it with TokenExchangeClient::from_config, or set its cache to a RedisCache");
}

/// Logs that sealing keys have no effect, because the token cache is not shared.
pub(crate) fn cache_keys_unused() {
    tracing::warn!(target: TARGET, "cache_keys has no effect, because the token cache is in memory: set redis_url, or a shared cache");
}

/// Logs that some endpoints are omitted, because they cannot work with the configured client.
pub(crate) fn endpoints_omitted() {
    tracing::info!(target: TARGET, "the endpoints token, refresh and logout are omitted: the URL of the provider's token endpoint depends on the tenant, and requests to these endpoints do not name one");
}

/// Logs and counts an answer of one of the crate's endpoints. `endpoint` comes from a fixed list.
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

/// Logs that an endpoint is misconfigured, so that it fails for every caller. Called once per outage.
pub(crate) fn endpoint_misconfigured(endpoint: &'static str, error: &dyn Display) {
    tracing::error!(target: TARGET, endpoint, %error, "endpoint is misconfigured");
}

/// Logs that the provider redirected a browser back with an error. `error` contains only printable
/// characters.
pub(crate) fn sign_in_refused(error: &str) {
    tracing::debug!(target: TARGET, error, "sign-in was not completed");
}

/// Logs that the tokens of a session are too long for cookies, so the session cannot begin or continue.
pub(crate) fn session_too_large(characters: usize) {
    tracing::error!(target: TARGET, characters, "a session does not fit into cookies: configure the provider to issue smaller tokens");
}

/// Logs that attempts cannot be throttled by address, because the request has no client address.
pub(crate) fn no_client_address() {
    tracing::warn!(target: TARGET, "no client address: attempts are not throttled by address. With axum, serve with into_make_service_with_connect_info::<SocketAddr>(); with another server, insert the connection's SocketAddr into the request's extensions, or set peer_address");
}

/// Logs that a peer that is not a trusted proxy sent `X-Forwarded-For`.
pub(crate) fn untrusted_proxy(peer: std::net::IpAddr, prefix: Option<&str>) {
    let variable = variable(prefix, "TRUSTED_PROXIES");
    tracing::warn!(target: TARGET, %peer, "X-Forwarded-For comes from a peer that is not trusted: all clients behind it are throttled together. If it is your proxy, add it to trusted_proxies ({variable})");
}

/// Logs and counts a session that ended early. `reason` comes from a fixed list. A refused refresh token is
/// logged as `info`, because it is normal after a sign-out elsewhere.
pub(crate) fn session_ended(reason: &'static str) {
    match reason {
        "refresh_token_refused" => tracing::info!(target: TARGET, reason, "session ended"),
        _ => tracing::warn!(target: TARGET, reason, "session ended"),
    }
    count!("scaikey_auth_sessions_ended_total", "reason" => reason);
}

/// Logs a refusal that asks for the sign-in which the user just made.
pub(crate) fn step_up_without_effect(needed: &dyn std::fmt::Debug) {
    tracing::warn!(target: TARGET, ?needed, "a guard refuses a session immediately after the sign-in that it asked for: its access token does not say what the ID token says (acr, auth_time, amr). Let the provider add the claims to access tokens, or let ID tokens name the users (identity_from)");
}

/// Logs and counts a session that its user, an administrator or a revocation ended. `reason` comes from a fixed list.
pub(crate) fn session_closed(reason: &'static str) {
    tracing::info!(target: TARGET, reason, "session closed");
    count!("scaikey_auth_sessions_closed_total", "reason" => reason);
}

/// Logs that the tokens of a session that ended could not be refused in all processes.
pub(crate) fn tokens_of_session_not_revoked(error: &dyn Display) {
    tracing::warn!(target: TARGET, %error, "a session ended, but its tokens may be accepted by other processes until they expire");
}

/// Logs that the tokens of a session are too long for a store, so the session cannot begin or continue.
pub(crate) fn stored_session_too_large(bytes: usize) {
    tracing::error!(target: TARGET, bytes, "a session is larger than 1 MiB: configure the provider to issue smaller tokens");
}

/// Logs that the store has a session which its cookie does not open.
pub(crate) fn stored_session_not_opened() {
    tracing::warn!(target: TARGET, "a session in the store is not opened by its cookie: the cookie or the store was changed, or the session was sealed under a key that is none of the session keys of this process");
}

/// Logs and counts a failure of the session store. Warns if the failure is new.
pub(crate) fn session_store_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, warn!(%error, "session store failed"));
    count!("scaikey_auth_session_store_failures_total");
}

/// Logs why a token of a renewed session is refused.
pub(crate) fn token_of_session_refused(token: &'static str, reason: &'static str) {
    tracing::warn!(target: TARGET, reason, "the {token} of a renewed session is refused");
}

/// Logs and counts a token that could not be revoked at the provider. Warns if the failure is new.
pub(crate) fn not_revoked(
    what: &'static str,
    reason: &'static str,
    error: &dyn Display,
    is_new: bool,
) {
    if_new!(is_new, warn!(what, %error, "token not revoked at the provider"));
    count!("scaikey_auth_tokens_not_revoked_total", "reason" => reason);
}

/// Logs that sign-outs at the provider go without an ID token. Warns if this is new.
pub(crate) fn sign_out_without_hint(reason: &'static str, is_new: bool) {
    if_new!(
        is_new,
        warn!(
            reason,
            "sign-out at the provider goes without id_token_hint: the provider may ask the user for confirmation, refuse the request, or not redirect back"
        )
    );
}

/// Logs that sign-outs do not end the provider's session. Warns if this is new.
#[cfg(feature = "endpoints")]
pub(crate) fn no_end_session_endpoint(is_new: bool) {
    if_new!(
        is_new,
        warn!(
            "sign-out ends only the session of this service, and the next sign-in may need no password: the provider's metadata has no end_session_endpoint. Set end_session_url (`P_END_SESSION_URL`), or remove post_logout_redirect_uri (`P_POST_LOGOUT_REDIRECT_URI`)"
        )
    );
}

/// Logs and counts an invalid token of a sign-in. `claim` is the name of the invalid claim.
pub(crate) fn sign_in_token_refused(
    token: &'static str,
    reason: &'static str,
    claim: &'static str,
    is_new: bool,
) {
    if_new!(is_new, warn!(reason, claim, "the {token} of a sign-in is refused"));
    count!("scaikey_auth_sign_in_tokens_refused_total", "reason" => reason);
}

/// Logs that the crate's endpoint `token` accepts passwords.
pub(crate) fn password_grant_enabled() {
    tracing::warn!(target: TARGET, "the endpoint token of this service accepts passwords, which RFC 9700 §2.4 forbids: prefer sign-in through the browser");
}

/// Counts verified tokens that were evicted, or not cached, because the cache is full.
pub(crate) fn verified_tokens_evicted(tokens: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("scaikey_auth_verified_tokens_evicted_total").increment(tokens);
    #[cfg(not(feature = "metrics"))]
    let _ = tokens;
}

/// Logs and counts a failure of the throttle, so that this process counts attempts itself. Warns if the
/// failure is new.
pub(crate) fn throttle_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(
        is_new,
        warn!(%error, "throttle failed: until it recovers, each process counts attempts itself")
    );
    count!("scaikey_auth_throttle_failures_total", "outcome" => "local");
}

/// A decision about a foreign token, for the audit log. Of the token's claims it contains only the issuer,
/// and digests of the subject and the token id.
#[cfg(feature = "trust")]
pub(crate) struct TrustDecision<'d> {
    pub(crate) trust: Option<&'d str>,
    pub(crate) issuer: Option<&'d str>,
    pub(crate) rule: Option<&'d str>,
    /// The tenant of the rule: rules of two tenants may have the same name.
    pub(crate) tenant: Option<&'d str>,
    pub(crate) outcome: &'static str,
    pub(crate) subject_sha256: Option<&'d str>,
    pub(crate) jti_sha256: Option<&'d str>,
    pub(crate) is_verified: bool,
}

/// Logs and counts the decision about a foreign token. A token that is not verified is logged at the level
/// `debug`, because an attacker can create any number of them.
#[cfg(feature = "trust")]
pub(crate) fn trust_decided(decision: &TrustDecision<'_>) {
    let TrustDecision {
        trust,
        issuer,
        rule,
        tenant,
        outcome,
        subject_sha256,
        jti_sha256,
        is_verified,
    } = *decision;
    if_new!(
        is_verified,
        info!(
            trust,
            issuer,
            rule,
            tenant,
            outcome,
            subject_sha256,
            jti_sha256,
            is_verified,
            "foreign token evaluated"
        )
    );
    count!("scaikey_auth_trust_decisions_total", "outcome" => outcome);
}

/// Logs and counts a token that was minted for a workload, or a minting that failed. `subject_sha256` is the
/// same as in the [`TrustDecision`]. Warns if a failure is new.
#[cfg(feature = "trust")]
pub(crate) fn workload_minted(
    trust: &str,
    rule: &str,
    subject_sha256: &str,
    error: Option<&dyn Display>,
    is_new: bool,
) {
    let outcome = if error.is_none() { "minted" } else { "failed" };
    match error {
        None => {
            tracing::info!(target: TARGET, trust, rule, outcome, subject_sha256, "token for a workload minted");
        }
        Some(error) if is_new => {
            tracing::warn!(target: TARGET, trust, rule, outcome, subject_sha256, %error, "token for a workload could not be minted");
        }
        Some(error) => {
            tracing::info!(target: TARGET, trust, rule, outcome, subject_sha256, %error, "token for a workload could not be minted");
        }
    }
    count!("scaikey_auth_workload_tokens_total", "outcome" => outcome);
}

/// Logs that a trust policy was loaded. `version` is its number in the store.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_loaded(trusts: usize, version: Option<u64>) {
    tracing::info!(target: TARGET, trusts, version, "trust policy loaded");
}

/// Logs that the store of the trust policy shows an earlier version than before, which is loaded.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_went_back(version: Option<u64>, earlier: Option<u64>) {
    let message = "trust policy store went back to an earlier version: what was changed since is not in force";
    tracing::warn!(target: TARGET, version, earlier, message);
}

/// Logs that this process has saved a version of the trust policy.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_changed(version: u64, restores: Option<u64>, author: Option<&str>) {
    let author_sha256 = author;
    tracing::info!(target: TARGET, version, restores, author_sha256, "trust policy changed");
}

/// Logs and counts a failed check of the store of the trust policy. `is_loaded`: a policy was loaded before. Logs at
/// the level `warn` if the failure is new.
#[cfg(feature = "trust")]
pub(crate) fn trust_store_failed(error: &dyn Display, is_loaded: bool, is_new: bool) {
    match is_loaded {
        true => {
            if_new!(
                is_new,
                warn!(%error, "trust policy store failed; the loaded policy stays in force")
            )
        }
        false => {
            if_new!(
                is_new,
                warn!(%error, "trust policy store failed; no policy is loaded, so every token is denied")
            )
        }
    }
    count!("scaikey_auth_trust_store_failures_total");
}

/// Logs why the store of the trust policy did not do what an administrator asked for.
#[cfg(all(feature = "trust", feature = "endpoints"))]
pub(crate) fn trust_store_failed_administrator(error: &dyn Display) {
    tracing::warn!(target: TARGET, %error, "trust policy store failed for an administrator");
}

/// Logs that a trust policy was rejected; the previous one stays in force.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_rejected(error: &dyn Display) {
    tracing::error!(target: TARGET, %error, "trust policy rejected; the previous one stays in force");
}

/// Logs why the rules of a tenant, with those of the others, are no valid policy. The tenant does not learn it.
#[cfg(feature = "trust")]
pub(crate) fn trust_tenant_conflicts(tenant: &str, fault: Option<&impl Display>) {
    let fault = fault.map(tracing::field::display);
    tracing::warn!(target: TARGET, tenant, fault, "rules of a tenant do not fit into the trust policy");
}

/// Logs and counts a failure of the replay log, so that single-use tokens are denied. Logs at the level
/// `error` if the failure is new.
#[cfg(feature = "trust")]
pub(crate) fn replay_log_failed(error: &(dyn Error + 'static), is_new: bool) {
    let error = Causes(error);
    if_new!(is_new, error!(%error, "replay log failed"));
    count!("scaikey_auth_replay_log_failures_total", "outcome" => "denied");
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn outage_is_logged_once_per_change() {
        let outage = Outage::default();
        let start = || START;
        assert!(!outage.record_success(start), "there was no failure");
        assert!(outage.record_failure(&"timeout", START));
        assert!(!outage.record_failure(&"timeout", START));
        assert!(outage.record_failure(&"refused", START), "another cause");
        assert!(!outage.record_failure(&"timeout", START), "an alternating cause");
        assert!(outage.record_success(start));
        assert!(!outage.record_success(start));
        assert!(outage.record_failure(&"timeout", START), "a second outage");
    }

    #[test]
    fn varying_causes_do_not_fill_logs() {
        let outage = Outage::default();
        let logged = (0..1000).filter(|nth| outage.record_failure(nth, START)).count();
        assert_eq!(logged, MAX_CAUSES);
        assert!(outage.record_success(|| START));
    }

    #[test]
    fn flapping_is_logged_within_bounds() {
        let outage = Outage::default();
        let logged = (0..1000)
            .map(|_| {
                u32::from(outage.record_failure(&"timeout", START))
                    + u32::from(outage.record_success(|| START))
            })
            .sum::<u32>();
        assert_eq!(logged, MAX_CHANGES);
        // A minute later changes are logged again.
        let logged = [outage.record_failure(&"timeout", MINUTE), outage.record_success(|| MINUTE)];
        assert_eq!(logged, [true, true]);
    }

    #[test]
    fn long_lists_are_shortened() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&["a", "b"]), "a, b");
        assert_eq!(listed(&["a"; 7]), "a, a, a, a, a and 2 more");
        assert_eq!(listed(&[&"ä".repeat(1000)]).chars().count(), MAX_NAME);
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
