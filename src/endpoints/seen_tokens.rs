//! [`SeenTokens`]: each report is handled once.

use std::convert::Infallible;
use std::future::Future;
use std::hash::RandomState;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;

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
pub(super) struct SeenTokens(OnceLock<Bounded<ReplayKey, Arc<Mutex<bool>>, RandomState>>);

/// Whether a token was handled by this delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    First,
    Repeated,
}

impl SeenTokens {
    /// Does `work` for a verified token, unless it was done before. Deliveries of the same token wait for each other.
    ///
    /// # Errors
    /// If `work` fails, or failed for the delivery that was waited for. A later delivery does it again.
    pub(super) async fn once(
        &self,
        key: &ReplayKey,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Delivery, Failure> {
        let seen = self.0.get_or_init(|| bounded(MAX_SEEN));
        let Ok(entry) = seen.get_or_insert_with(key, || Ok::<_, Infallible>(Arc::default()));
        let (mut is_done, has_waited) = match entry.try_lock() {
            Ok(is_done) => (is_done, false),
            Err(_) => (entry.lock().await, true),
        };
        if *is_done {
            return Ok(Delivery::Repeated);
        }
        // Many deliveries that try one after the other would make the last sender wait for all of them.
        if has_waited {
            let problem = "another delivery of the same token failed";
            return Err(AuthError::unavailable("report", Some(RETRY_AFTER), problem).into());
        }
        work.await?;
        *is_done = true;
        Ok(Delivery::First)
    }
}
