//! Every event, field and metric name of the crate, once.
//!
//! Labels come from configuration or from fixed lists, never from a token: a flood of strange
//! tokens makes no new time series. No event carries a token or a claim.

/// The `target` of every event, for `RUST_LOG=scaikey_auth=debug`.
pub(crate) const TARGET: &str = "scaikey_auth";

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

/// No tenant store was configured.
pub(crate) fn any_tenant() {
    tracing::info!(target: TARGET, "no tenant store: every tenant that a verified token names is accepted");
}

/// A request was refused; `reason` is [`AuthError::reason`](crate::AuthError::reason).
pub(crate) fn refused(reason: &'static str, error: &dyn std::fmt::Display) {
    tracing::debug!(target: TARGET, reason, %error, "request refused");
    count("scaikey_auth_refusals_total", "reason", reason);
}

/// The service is put together wrongly: a guard or extractor ran outside of every layer.
pub(crate) fn layer_missing(error: &dyn std::fmt::Display) {
    tracing::error!(target: TARGET, "{error}");
}

/// A handler asked for a row that the tenant store does not attach.
#[cfg(feature = "axum")]
pub(crate) fn tenant_row_missing(row: &'static str) {
    tracing::error!(target: TARGET, row, "the tenant store attached no row of the type the handler asked for");
}

/// A key set was fetched and is in force. Metrics count it under `series`: the issuer, or the template
/// of a tenant's, since invented tenants must not become series.
pub(crate) fn keys_refreshed(issuer: &str, series: &str, usable: usize, unusable: usize) {
    if unusable > 0 {
        tracing::warn!(target: TARGET, issuer, usable, unusable, "key set has keys that cannot be used");
    } else {
        tracing::debug!(target: TARGET, issuer, usable, "key set refreshed");
    }
    count_for("scaikey_auth_jwks_refreshes_total", series, "ok");
}

/// A key set could not be fetched; the one held, if any, stays in force.
pub(crate) fn keys_not_refreshed(
    issuer: &str,
    series: &str,
    why: &dyn std::fmt::Display,
    holds_keys: bool,
) {
    tracing::warn!(target: TARGET, issuer, %why, holds_keys, "key set could not be refreshed");
    count_for("scaikey_auth_jwks_refreshes_total", series, "failed");
}

/// The provider names another host for its keys than before.
pub(crate) fn keys_moved(issuer: &str, from: &str, to: &str) {
    tracing::warn!(target: TARGET, issuer, from, to, "the provider's jwks_uri moved");
}

/// The tenant store failed; `stale` tells whether an earlier answer stood in.
pub(crate) fn tenant_store_failed(why: &dyn std::fmt::Display, stale: bool) {
    tracing::warn!(target: TARGET, %why, stale, "tenant store failed");
    count(
        "scaikey_auth_tenant_store_failures_total",
        "stale",
        if stale { "true" } else { "false" },
    );
}

/// A token endpoint was asked: for which grant, and how it ended.
pub(crate) fn token_asked(
    grant: &'static str,
    outcome: &'static str,
    error: Option<&dyn std::fmt::Display>,
) {
    match error {
        None => tracing::debug!(target: TARGET, grant, "got a token"),
        // What a caller brought may be to blame: not every bad token is to be a warning.
        Some(error) if outcome == "refused" => {
            tracing::debug!(target: TARGET, grant, %error, "got no token");
        }
        Some(error) => tracing::warn!(target: TARGET, grant, %error, "got no token"),
    }
    count_pair("scaikey_auth_token_requests_total", "grant", grant, outcome);
}

/// A request to a token endpoint is sent a second time.
pub(crate) fn token_request_repeated() {
    count("scaikey_auth_token_request_retries_total", "reason", "unavailable");
}

/// How a token was found: `hit`, `miss`, `collapsed`, or `refused` for a refusal repeated.
pub(crate) fn token_cache(result: &'static str) {
    count("scaikey_auth_token_cache_total", "result", result);
}

/// A token endpoint failed too often, and is left alone for a while.
pub(crate) fn endpoint_left_alone(url: &str, pause: std::time::Duration) {
    tracing::warn!(target: TARGET, url, ?pause, "token endpoint is left alone");
    count("scaikey_auth_token_endpoint_breaker_total", "change", "opened");
}

/// A token endpoint that had been left alone answers.
pub(crate) fn endpoint_answers_again(url: &str) {
    tracing::info!(target: TARGET, url, "token endpoint answers again");
    count("scaikey_auth_token_endpoint_breaker_total", "change", "closed");
}

/// The token cache did not answer, which each caller goes on without. Logged when it begins.
pub(crate) fn token_cache_failed(error: &dyn std::fmt::Display, is_new: bool) {
    if is_new {
        tracing::warn!(target: TARGET, %error, "token cache fails; going on without it");
    }
    count("scaikey_auth_token_cache_failures_total", "reason", "unavailable");
}

/// The token cache held something that none of our servers put there, or that was changed since. It
/// counts as nothing. Logged when it begins.
#[cfg(feature = "redis")]
pub(crate) fn token_cache_garbage(is_new: bool) {
    if is_new {
        tracing::warn!(target: TARGET, "token cache holds what does not open; it is discarded");
    }
    count("scaikey_auth_token_cache_failures_total", "reason", "garbage");
}

/// The token cache answers again.
pub(crate) fn token_cache_is_back() {
    tracing::info!(target: TARGET, "token cache answers again");
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
    count_pair("scaikey_auth_endpoint_answers_total", "endpoint", endpoint, class);
}

/// An endpoint cannot do its work, and its caller is not to blame.
pub(crate) fn endpoint_misconfigured(problem: &dyn std::fmt::Display) {
    tracing::error!(target: TARGET, %problem, "endpoint cannot do its work");
}

/// The provider sent a browser back with an error; of the code only what can be printed.
pub(crate) fn sign_in_refused(error: &str) {
    tracing::debug!(target: TARGET, error, "sign-in was not completed");
}

/// A session's tokens have more characters than cookies hold, so that it cannot begin or go on.
pub(crate) fn session_too_large(characters: usize) {
    tracing::error!(target: TARGET, characters, "a session does not fit into cookies: ask the provider for smaller tokens");
}

/// The password grant is on for everybody.
pub(crate) fn passwords_are_taken() {
    tracing::warn!(target: TARGET, "passwords are taken at the token endpoint: RFC 9700 §2.4 says that this must not be");
}

#[cfg(feature = "metrics")]
fn count_pair(name: &'static str, label: &'static str, value: &'static str, outcome: &'static str) {
    metrics::counter!(name, label => value, "outcome" => outcome).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count_pair(_: &'static str, _: &'static str, _: &'static str, _: &'static str) {}

/// Tokens known to be good gave way to others, or were not remembered, for want of memory.
pub(crate) fn known_tokens_displaced(tokens: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("scaikey_auth_known_tokens_displaced_total").increment(tokens);
    #[cfg(not(feature = "metrics"))]
    let _ = tokens;
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
    match is_verified {
        true => {
            tracing::info!(target: TARGET, trust, issuer, grant, outcome, subject_sha256, jti_sha256, is_verified, "foreign token judged");
        }
        false => {
            tracing::debug!(target: TARGET, trust, issuer, grant, outcome, subject_sha256, jti_sha256, is_verified, "foreign token judged");
        }
    }
    count("scaikey_auth_trust_decisions_total", "outcome", outcome);
}

/// A token was minted for a workload that a policy let in, or was not. The digest is the one of the
/// policy's decision.
#[cfg(feature = "trust")]
pub(crate) fn workload_minted(
    trust: &str,
    grant: &str,
    subject_sha256: &str,
    error: Option<&dyn std::fmt::Display>,
) {
    let outcome = if error.is_none() { "minted" } else { "failed" };
    match error {
        None => {
            tracing::info!(target: TARGET, trust, grant, outcome, subject_sha256, "token for a workload");
        }
        Some(error) => {
            tracing::warn!(target: TARGET, trust, grant, outcome, subject_sha256, %error, "token for a workload");
        }
    }
    count("scaikey_auth_workload_tokens_total", "outcome", outcome);
}

/// A trust policy came into force.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_loaded(trusts: usize) {
    tracing::info!(target: TARGET, trusts, "trust policy in force");
}

/// A trust policy was refused; the one before stays in force.
#[cfg(feature = "trust")]
pub(crate) fn trust_policy_refused(why: &dyn std::fmt::Display) {
    tracing::error!(target: TARGET, %why, "trust policy refused; the one before stays in force");
}

/// The log of used tokens failed: tokens of trusts with single use are denied.
#[cfg(feature = "trust")]
pub(crate) fn replay_log_failed(why: &dyn std::fmt::Display) {
    tracing::error!(target: TARGET, %why, "replay log failed");
    count("scaikey_auth_replay_log_failures_total", "answer", "denied");
}

#[cfg(feature = "metrics")]
fn count(name: &'static str, label: &'static str, value: &'static str) {
    metrics::counter!(name, label => value).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count(_name: &'static str, _label: &'static str, _value: &'static str) {}

#[cfg(feature = "metrics")]
fn count_for(name: &'static str, issuer: &str, outcome: &'static str) {
    metrics::counter!(name, "issuer" => issuer.to_owned(), "outcome" => outcome).increment(1);
}

#[cfg(not(feature = "metrics"))]
fn count_for(_name: &'static str, _issuer: &str, _outcome: &'static str) {}
