//! [`SqlError`]: what goes wrong with the stores in databases.

use super::BoxError;

/// Why a store in a database could not do what it was asked (features `sqlite`, `postgres`). Never holds the connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The connection string does not begin with `sqlite:`, `postgres:` or `postgresql:`.
    #[error("the connection string names no known database: use sqlite: or postgres:")]
    UnknownScheme,
    /// The connection string needs a cargo feature that is off.
    #[error("this database needs the feature `{0}` of scaikey-auth")]
    FeatureMissing(&'static str),
    /// The connection string cannot be read: its host, port or an option is malformed.
    #[error("the connection string is malformed")]
    MalformedUrl,
    /// The pool of connections needs a tokio runtime to live in.
    #[error("called outside of a tokio runtime")]
    NoRuntime,
    /// The tables of participants are missing or old, and could not be brought up to date.
    #[error(
        "the tables auth_participants and auth_workspaces could not be created or altered: {0}; \
         if this role may not, call `migrate` with one that may"
    )]
    Migration(#[source] BoxError),
    /// A row was found whose key is not the one asked for: the table was not made by
    /// [`SqlRegistrar::migrate`](crate::registrar::SqlRegistrar::migrate), and overlooks case, accents or the end of long texts.
    #[error(
        "the table auth_participants takes two keys for one: its columns issuer, tenant_id, kind \
         and subject must be compared byte for byte"
    )]
    LooseKey,
    /// The database cannot be reached, refused, or holds what this crate did not write.
    #[error("the database failed: {0}")]
    Database(#[source] BoxError),
}
