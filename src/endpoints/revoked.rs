//! Revocations of tokens that the endpoints receive beside the caller's own.

use super::Inner;
use crate::error::AuthError;
use crate::exchange::claimed_identity;
use crate::identity::ClaimsMapping;
use crate::support::secret::Secret;

impl Inner {
    /// Refuses a *verified* token that is revoked by its claims. A token that is not a JWT passes.
    ///
    /// # Errors
    /// The token is revoked, or the log of revocations is unavailable.
    pub(super) async fn refuse_revoked(
        &self,
        token: &Secret,
        mapping: &ClaimsMapping,
    ) -> Result<(), AuthError> {
        let revocations = self.auth.revocations();
        if revocations.is_idle() {
            return Ok(());
        }
        // The claims of the mapping may be in access tokens only.
        let mapped = claimed_identity(token, mapping);
        match mapped.or_else(|| claimed_identity(token, &ClaimsMapping::default())) {
            Some(identity) => revocations.check(&identity).await,
            None => Ok(()),
        }
    }
}
