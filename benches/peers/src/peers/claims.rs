//! What services read of the tokens: owned, and the same for every peer that lets its user say.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(dead_code, reason = "a service would read them; some peers want other types")]
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
