//! The tables of the SQL registrar, and their migrations.

use crate::error::SqlError;
use crate::support::sql::{Pool, in_transaction, run_all, unnamed, with_connection};

/// A schema version, and the statements that migrate the previous version to it. Never change a released
/// migration: add another one, and raise [`CURRENT`].
type Migration = (i64, &'static [&'static str]);

/// The schema version of this version of the crate.
const CURRENT: i64 = 1;

const SELECT_VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM auth_registrar_versions";

const INSERT_VERSION: &str = "INSERT INTO auth_registrar_versions (version) VALUES ($1)";

/// Locks out other sessions, because IF NOT EXISTS alone fails if two sessions create the table concurrently.
/// The key is arbitrary, so that it is unlikely to collide with other advisory locks.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(4961283075518894206)";

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS auth_registrar_versions (\
    version BIGINT NOT NULL PRIMARY KEY, \
    reached_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)";

const MIGRATIONS: &[Migration] = &[(
    1,
    &[
        "CREATE TABLE auth_participants (\
            id {text} NOT NULL PRIMARY KEY, \
            issuer {text} NOT NULL CHECK (issuer <> ''), \
            tenant_id {text} NOT NULL, \
            kind {text} NOT NULL, \
            subject {text} NOT NULL CHECK (subject <> ''), \
            display_name TEXT, \
            email TEXT, \
            email_verified BOOLEAN NOT NULL DEFAULT FALSE, \
            created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, \
            UNIQUE (issuer, tenant_id, kind, subject))",
        "CREATE TABLE auth_workspaces (\
            id {text} NOT NULL PRIMARY KEY, \
            participant_id {text} NOT NULL UNIQUE REFERENCES auth_participants (id), \
            created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ],
)];

/// Migrates the tables to the [`CURRENT`] version. Tables of a newer version stay as they are.
pub(super) async fn migrate(pool: &Pool) -> Result<(), SqlError> {
    // Read first, so that a role that may not create tables succeeds if there is nothing to do.
    match version(pool).await {
        Ok(version) if version >= CURRENT => Ok(()),
        _ => run_migrations(pool).await.map_err(|error| SqlError::Migration(error.into())),
    }
}

async fn version(pool: &Pool) -> Result<i64, sqlx::Error> {
    Ok(with_connection!(pool, connection => unnamed!(sqlx::query_scalar, SELECT_VERSION)
        .fetch_one(connection)
        .await?))
}

/// Runs the missing migrations in a transaction, one process at a time.
async fn run_migrations(pool: &Pool) -> Result<(), sqlx::Error> {
    let versions = pool.pick(&[VERSIONS][..], &[POSTGRES_LOCK, VERSIONS]);
    in_transaction!(pool, connection => {
        run_all!(pool, connection, versions);
        let current = unnamed!(sqlx::query_scalar, SELECT_VERSION);
        let current = current.fetch_one(&mut *connection).await?;
        for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > current) {
            run_all!(pool, connection, *statements);
            unnamed!(sqlx::query, INSERT_VERSION).bind(*version).execute(&mut *connection).await?;
        }
    });
    Ok(())
}
