//! [`Schema`]: the tables of a SQL store, and their migrations.

use crate::support::sql::{Pool, SqlError, in_transaction, run_all, unnamed, with_connection};

/// The tables of a store, with their history. The schema version is in a table of its own.
pub(crate) struct Schema {
    /// Creates the table of schema versions, unless it exists: a column `version`, and `reached_at` with a default.
    pub(crate) create_versions: &'static str,
    /// Reads the version that the tables have, or 0.
    pub(crate) select_version: &'static str,
    /// Adds version `$1`.
    pub(crate) insert_version: &'static str,
    /// Locks out other sessions of PostgreSQL, because IF NOT EXISTS alone fails if two sessions create a table
    /// concurrently. The key is arbitrary, so that it is unlikely to collide with other advisory locks.
    pub(crate) postgres_lock: &'static str,
    /// The statements that migrate the previous version to each version, from version 1. Never change a released
    /// migration: add another one.
    pub(crate) migrations: &'static [&'static [&'static str]],
}

/// Generates the [`Schema`] with this table of schema versions and this lock.
macro_rules! schema {
    ($versions:literal, $lock:literal, $migrations:expr) => {
        $crate::support::schema::Schema {
            create_versions: concat!(
                "CREATE TABLE IF NOT EXISTS ",
                $versions,
                " (version BIGINT NOT NULL PRIMARY KEY, \
                reached_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            ),
            select_version: concat!("SELECT COALESCE(MAX(version), 0) FROM ", $versions),
            insert_version: concat!("INSERT INTO ", $versions, " (version) VALUES ($1)"),
            postgres_lock: concat!("SELECT pg_advisory_xact_lock(", $lock, ")"),
            migrations: $migrations,
        }
    };
}
pub(crate) use schema;

impl Schema {
    /// Migrates the tables to the last version. Tables of a newer version stay as they are.
    pub(crate) async fn migrate(&self, pool: &Pool) -> Result<(), SqlError> {
        // Read first, so that a role that may not create tables succeeds if there is nothing to do.
        match self.version(pool).await {
            Ok(version) if version >= self.migrations.len() as i64 => Ok(()),
            _ => self.run(pool).await.map_err(|error| SqlError::Migration(error.into())),
        }
    }

    async fn version(&self, pool: &Pool) -> Result<i64, sqlx::Error> {
        Ok(with_connection!(pool, connection => unnamed!(sqlx::query_scalar, self.select_version)
            .fetch_one(connection)
            .await?))
    }

    /// Runs the missing migrations in a transaction, one process at a time.
    async fn run(&self, pool: &Pool) -> Result<(), sqlx::Error> {
        let (create, locked) =
            (&[self.create_versions][..], [self.postgres_lock, self.create_versions]);
        let versions = pool.pick(create, &locked);
        in_transaction!(pool, connection => {
            run_all!(pool, connection, versions);
            let reached: i64 = unnamed!(sqlx::query_scalar, self.select_version)
                .fetch_one(&mut *connection)
                .await?;
            for (version, statements) in (1..).zip(self.migrations) {
                if version > reached {
                    run_all!(pool, connection, *statements);
                    unnamed!(sqlx::query, self.insert_version)
                        .bind(version)
                        .execute(&mut *connection)
                        .await?;
                }
            }
        });
        Ok(())
    }
}
