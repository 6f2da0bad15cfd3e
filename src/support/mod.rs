//! Tools that know nothing of tokens.

pub(crate) mod bounded;
pub(crate) mod crypto;
pub(crate) mod retry;
pub(crate) mod seal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod sql;
