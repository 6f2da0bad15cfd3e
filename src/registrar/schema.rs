//! The tables of the SQL registrar, and the steps that lead to them.

use super::sql::SqlRegistrarError;
use crate::database::{Pool, on_either, once};

/// A version of the tables, and the statements that lead to it from the one before. What was
/// released is never changed: another step is added, and [`CURRENT`] raised.
type Step = (i64, &'static [&'static str]);

/// What this version of the crate works with.
const CURRENT: i64 = 1;

const REACHED: &str = "SELECT COALESCE(MAX(version), 0) FROM auth_registrar_versions";

const REACH: &str = "INSERT INTO auth_registrar_versions (version) VALUES ($1)";

/// An arbitrary number that other users of advisory locks are unlikely to pick.
#[cfg(feature = "postgres")]
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(4961283075518894206)";

#[cfg(feature = "sqlite")]
const SQLITE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS auth_registrar_versions (\
    version BIGINT NOT NULL PRIMARY KEY, \
    reached_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)";

#[cfg(feature = "postgres")]
const POSTGRES_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS auth_registrar_versions (\
    version BIGINT NOT NULL PRIMARY KEY, \
    reached_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)";

#[cfg(feature = "sqlite")]
const SQLITE_STEPS: &[Step] = &[(
    1,
    &[
        "CREATE TABLE auth_participants (\
            id TEXT NOT NULL PRIMARY KEY, \
            issuer TEXT NOT NULL CHECK (issuer <> ''), \
            tenant_id TEXT NOT NULL, \
            kind TEXT NOT NULL, \
            subject TEXT NOT NULL CHECK (subject <> ''), \
            display_name TEXT, \
            email TEXT, \
            email_verified BOOLEAN NOT NULL DEFAULT FALSE, \
            created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            UNIQUE (issuer, tenant_id, kind, subject))",
        "CREATE TABLE auth_workspaces (\
            id TEXT NOT NULL PRIMARY KEY, \
            participant_id TEXT NOT NULL UNIQUE REFERENCES auth_participants (id), \
            created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ],
)];

/// The collation "C" compares bytes, whatever the database's own overlooks.
#[cfg(feature = "postgres")]
const POSTGRES_STEPS: &[Step] = &[(
    1,
    &[
        "CREATE TABLE auth_participants (\
            id TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, \
            issuer TEXT COLLATE \"C\" NOT NULL CHECK (issuer <> ''), \
            tenant_id TEXT COLLATE \"C\" NOT NULL, \
            kind TEXT COLLATE \"C\" NOT NULL, \
            subject TEXT COLLATE \"C\" NOT NULL CHECK (subject <> ''), \
            display_name TEXT, \
            email TEXT, \
            email_verified BOOLEAN NOT NULL DEFAULT FALSE, \
            created_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            updated_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            UNIQUE (issuer, tenant_id, kind, subject))",
        "CREATE TABLE auth_workspaces (\
            id TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, \
            participant_id TEXT COLLATE \"C\" NOT NULL UNIQUE REFERENCES auth_participants (id), \
            created_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ],
)];

/// Takes the steps that are left, in a transaction that keeps others from doing so.
macro_rules! take_steps {
    ($transaction:ident, $versions:expr, $steps:expr) => {{
        once!(sqlx::query, $versions).execute(&mut *$transaction).await?;
        let reached: i64 = once!(sqlx::query_scalar, REACHED).fetch_one(&mut *$transaction).await?;
        for (version, statements) in $steps.iter().filter(|(version, _)| *version > reached) {
            for statement in *statements {
                once!(sqlx::query, *statement).execute(&mut *$transaction).await?;
            }
            once!(sqlx::query, REACH).bind(*version).execute(&mut *$transaction).await?;
        }
        $transaction.commit().await
    }};
}

/// Brings the tables to what this version of the crate works with. A newer version's stay.
pub(super) async fn migrate(pool: &Pool) -> Result<(), SqlRegistrarError> {
    // A role that may not create tables may still find out that it need not.
    match reached(pool).await {
        Ok(reached) if reached >= CURRENT => Ok(()),
        _ => steps(pool).await.map_err(|error| SqlRegistrarError::Migration(error.into())),
    }
}

async fn reached(pool: &Pool) -> Result<i64, sqlx::Error> {
    Ok(on_either!(pool, connection => once!(sqlx::query_scalar, REACHED)
        .fetch_one(connection)
        .await?))
}

async fn steps(pool: &Pool) -> Result<(), sqlx::Error> {
    match pool {
        #[cfg(feature = "sqlite")]
        Pool::Sqlite(db) => {
            let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
            take_steps!(transaction, SQLITE_VERSIONS, SQLITE_STEPS)
        }
        #[cfg(feature = "postgres")]
        Pool::Postgres(db) => {
            let mut transaction = db.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
            // IF NOT EXISTS alone fails when two sessions create the table at once.
            once!(sqlx::query, POSTGRES_LOCK).execute(&mut *transaction).await?;
            take_steps!(transaction, POSTGRES_VERSIONS, POSTGRES_STEPS)
        }
    }
}
