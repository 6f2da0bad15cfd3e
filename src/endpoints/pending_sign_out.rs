//! [`PendingSignOut`]: where a browser continues after a sign-out at the provider.
//!
//! It is stored in a sealed cookie, as a [`PendingSignIn`](super::pending_sign_in::PendingSignIn) is. It is not a
//! credential: it only chooses a page of this host.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::pending_sign_in::{open_cookie, random};
use super::response::Failure;
use crate::clock::Clock;
use crate::session::{clear_cookie, set_cookie};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::seal::{Purpose, SealingKeys};

/// Maximum time at the provider, which may ask the user for confirmation.
const LIFETIME: Duration = Duration::from_secs(600);

/// The end of the cookie's name, after the prefix of the sign-in cookies. A browser signs out once at a time,
/// so a later sign-out replaces the cookie.
const NAME: &str = "return";

/// A sign-out that left this service and has not come back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PendingSignOut {
    pub(super) state: String,
    pub(super) return_to: String,
}

impl PendingSignOut {
    pub(super) fn new(return_to: &str) -> Result<Self, Failure> {
        Ok(Self { state: base64url::encode(random()?), return_to: return_to.to_owned() })
    }

    /// Returns the cookie that holds the sign-out. Its name begins with `prefix`.
    pub(super) fn cookie(
        &self,
        prefix: &str,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<HeaderValue> {
        let name = format!("{prefix}{NAME}");
        let plain = serde_json::to_vec(self).ok()?;
        let sealed = keys.seal(Purpose::SignOut, &name, &plain, clock.now() + LIFETIME, clock)?;
        set_cookie(&name, &sealed, LIFETIME)
    }

    /// Returns the sign-out with this state that this browser started in the last ten minutes.
    pub(super) fn find(
        prefix: &str,
        state: &str,
        headers: &HeaderMap,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<Self> {
        let name = format!("{prefix}{NAME}");
        let found: Self = open_cookie(Purpose::SignOut, &name, headers, keys, clock)?;
        crypto::equal(found.state.as_bytes(), state.as_bytes()).then_some(found)
    }

    /// Clears the cookie, which can be used once.
    pub(super) fn clear(prefix: &str) -> Option<HeaderValue> {
        clear_cookie(&format!("{prefix}{NAME}"))
    }
}
