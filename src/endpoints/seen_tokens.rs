//! [`SeenTokens`]: each report is handled once.

use std::convert::Infallible;
use std::hash::RandomState;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::response::Failure;
use crate::error::AuthError;
use crate::replay::ReplayKey;
use crate::support::bounded::{Bounded, bounded};

/// The number of tokens that are remembered. One that was forgotten is handled again.
const MAX_SEEN: usize = 10_000;

/// The time after which a sender should try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The tokens that were handled lately in this process, and those that are being handled. Most services get none, so
/// the map is made for the first.
#[derive(Debug, Default)]
pub(super) struct SeenTokens(OnceLock<Bounded<ReplayKey, Arc<Mutex<Progress>>, RandomState>>);

/// What was done for a token. A later delivery continues there.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Its revocations are in force, and stored.
    pub(super) is_in_force: bool,
    /// The number of its events that the handler has accepted, in their order.
    pub(super) handled: usize,
    /// The handler has failed for the next event.
    pub(super) has_failed: bool,
    pub(super) is_done: bool,
}

impl SeenTokens {
    /// Returns the progress of a verified token. Deliveries of the same token wait for each other.
    ///
    /// # Errors
    /// The delivery that was waited for has failed. A later one continues.
    pub(super) async fn progress(
        &self,
        key: &ReplayKey,
    ) -> Result<OwnedMutexGuard<Progress>, Failure> {
        let seen = self.0.get_or_init(|| bounded(MAX_SEEN));
        let Ok(entry) = seen.get_or_insert_with(key, || Ok::<_, Infallible>(Arc::default()));
        if let Ok(progress) = entry.clone().try_lock_owned() {
            return Ok(progress);
        }
        let progress = entry.lock_owned().await;
        if progress.is_done {
            return Ok(progress);
        }
        // Many deliveries that try one after the other would make the last sender wait for all of them.
        let problem = "another delivery of the same token failed";
        Err(AuthError::unavailable("report", Some(RETRY_AFTER), problem).into())
    }
}
