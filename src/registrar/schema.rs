//! The tables of the SQL registrar, and the steps that lead to them.

use crate::error::SqlError;
use crate::support::sql::{Pool, in_transaction, on_either, once, run_all};

/// A version of the tables, and the statements that lead to it from the one before. What was
/// released is never changed: another step is added, and [`CURRENT`] raised.
type Step = (i64, &'static [&'static str]);

/// What this version of the crate works with.
const CURRENT: i64 = 1;

const REACHED: &str = "SELECT COALESCE(MAX(version), 0) FROM auth_registrar_versions";

const REACH: &str = "INSERT INTO auth_registrar_versions (version) VALUES ($1)";

/// IF NOT EXISTS alone fails when two sessions create the table at once. The number is an arbitrary one
/// that other users of advisory locks are unlikely to pick.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(4961283075518894206)";

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS auth_registrar_versions (\
    version BIGINT NOT NULL PRIMARY KEY, \
    reached_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)";

const STEPS: &[Step] = &[(
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

/// Brings the tables to what this version of the crate works with. A newer version's stay.
pub(super) async fn migrate(pool: &Pool) -> Result<(), SqlError> {
    // A role that may not create tables may still find out that it need not.
    match reached(pool).await {
        Ok(reached) if reached >= CURRENT => Ok(()),
        _ => take_steps(pool).await.map_err(|error| SqlError::Migration(error.into())),
    }
}

async fn reached(pool: &Pool) -> Result<i64, sqlx::Error> {
    Ok(on_either!(pool, connection => once!(sqlx::query_scalar, REACHED)
        .fetch_one(connection)
        .await?))
}

/// Takes the steps that are left, in a transaction that keeps others from doing so.
async fn take_steps(pool: &Pool) -> Result<(), sqlx::Error> {
    let versions = pool.pick(&[VERSIONS][..], &[POSTGRES_LOCK, VERSIONS]);
    in_transaction!(pool, connection => {
        run_all!(pool, connection, versions);
        let reached = once!(sqlx::query_scalar, REACHED).fetch_one(&mut *connection).await?;
        for (version, statements) in STEPS.iter().filter(|(version, _)| *version > reached) {
            run_all!(pool, connection, *statements);
            once!(sqlx::query, REACH).bind(*version).execute(&mut *connection).await?;
        }
    });
    Ok(())
}
