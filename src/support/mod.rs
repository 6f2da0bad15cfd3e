//! Tools that the other modules share. Each module here imports only from those declared above it, and from
//! `clock`.

pub(crate) mod telemetry;

pub(crate) mod secret;

pub(crate) mod secret_file;

pub(crate) mod base64url;

pub(crate) mod crypto;

pub(crate) mod shake;

pub(crate) mod mac;

pub(crate) mod json;

#[cfg(feature = "jwe")]
pub(crate) mod jwe;

pub(crate) mod request_head;

#[cfg(feature = "endpoints")]
pub(crate) mod media_type;

#[cfg(any(feature = "endpoints", feature = "trust"))]
pub(crate) mod invisible;

pub(crate) mod bounded;

pub(crate) mod retry;

pub(crate) mod breaker;

pub(crate) mod single_flight;

pub(crate) mod seal;

pub(crate) mod off_thread;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod sql;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod schema;
