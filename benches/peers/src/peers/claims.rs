//! The claims that services read: owned, and the same for every peer with a configurable claims
//! type.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(dead_code, reason = "a service would read them; some peers need other types")]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: String,
    pub(crate) exp: u64,
    pub(crate) tenant_id: String,
    pub(crate) preferred_username: String,
    pub(crate) email: String,
    pub(crate) roles: Vec<String>,
    pub(crate) groups: Vec<String>,
}
