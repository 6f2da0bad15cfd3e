//! [`SubjectTenants`]: the tenants of subject tokens.

use super::token::claims_of;
use crate::config::TENANT_PLACEHOLDER;
use crate::identity::{ClaimsMapping, TenantId, read_tenant};
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::secret::Secret;

/// The maximum number of entries, of about 100 bytes each.
const MAX_ENTRIES: usize = 10_000;

/// The tenants of subject tokens, so that two requests for the same user have the same cache key, even if
/// only one of them names the tenant. The tenants are cached, because a token that is exchanged again would
/// otherwise be parsed again.
#[derive(Debug)]
pub(super) struct SubjectTenants(Bounded<Mac, Option<TenantId>, BuildMacHasher>);

impl Default for SubjectTenants {
    fn default() -> Self {
        Self(bounded(MAX_ENTRIES))
    }
}

impl SubjectTenants {
    /// Returns the tenant in `token`, *not verified*, if the token is a readable JWT of `issuer`. In a
    /// token of another issuer, the claim may have another meaning.
    pub(super) fn of(
        &self,
        token: &Secret,
        issuer: &str,
        mapping: &ClaimsMapping,
    ) -> Option<TenantId> {
        let mac = Mac::of(token.expose().as_bytes());
        if let Some(known) = self.0.get(&mac) {
            return known;
        }
        let tenant = read(token, issuer, mapping);
        self.0.insert(mac, tenant.clone());
        tenant
    }
}

fn read(token: &Secret, issuer: &str, mapping: &ClaimsMapping) -> Option<TenantId> {
    let claims = claims_of(token).ok()??;
    let claimed = claims.root().get("iss")?.as_str()?;
    if !is_issued_by(claimed, issuer) {
        return None;
    }
    read_tenant(claims.root(), mapping).ok()?
}

/// Returns whether the claimed issuer is `issuer`, which may have a placeholder for the tenant.
fn is_issued_by(claimed: &str, issuer: &str) -> bool {
    match issuer.split_once(TENANT_PLACEHOLDER) {
        None => claimed == issuer,
        Some((before, after)) => {
            claimed.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
        }
    }
}
