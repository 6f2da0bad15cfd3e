//! [`SqlTenants`]: tenants in a table of SQLite or PostgreSQL, through SQLx.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgPool;
#[cfg(feature = "sqlite")]
use sqlx::sqlite::SqlitePool;

use super::{Tenant, TenantResolver, TenantStatus};
use crate::database::{ACQUIRE_TIMEOUT, Pool, Unusable, is_missing_table, on_either, once};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::secret::Secret;

/// The table `auth_tenants`. Clones share the connections.
///
/// ```sql
/// CREATE TABLE auth_tenants (
///     id           TEXT PRIMARY KEY,               -- compared byte for byte
///     display_name TEXT,
///     partner_id   TEXT,
///     status       TEXT NOT NULL DEFAULT 'active', -- or 'suspended'
///     created_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
/// )
/// ```
///
/// Works behind PgBouncer in transaction mode: no statement is kept between transactions.
///
/// Every lookup is a query: wrap it in [`CachedTenants`](super::CachedTenants), which also sets a
/// deadline and bridges outages. Handlers get the rest of the row with
/// `tenant.row::<SqlTenantRow>()`. For a table of your own, implement [`TenantResolver`] yourself:
/// see `examples/custom_tenants.rs`.
///
/// Any status but `active` counts as suspended, also one this version does not know. Whoever
/// wrote it did not mean "active", and an error would let the cache's earlier answer stand in.
#[derive(Clone)]
pub struct SqlTenants {
    pool: Pool,
}

/// What [`SqlTenants`] attaches to a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlTenantRow {
    /// The name to show.
    pub display_name: Option<String>,
    /// The partner the tenant belongs to.
    pub partner_id: Option<String>,
}

/// Why [`SqlTenants`] could not do what it was asked. Never holds the connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlTenantsError {
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
    /// The database cannot be reached, or refused.
    #[error("the tenant database failed: {0}")]
    Database(#[source] BoxError),
}

impl SqlTenants {
    /// Takes a connection string, such as `sqlite:///var/lib/app/tenants.db?mode=rwc`,
    /// `sqlite::memory:` or `postgres://app@db.example/app`, and connects when first needed.
    ///
    /// A service built this way starts without its database. At most 8 connections; a lookup
    /// waits up to 1.5 s for one. SQLite files are put into WAL mode, so that a writer blocks no
    /// lookup, unless `mode=ro` or `immutable` forbids it.
    ///
    /// # Errors
    /// When the connection string is malformed or needs a feature that is off, and outside of a
    /// tokio runtime.
    pub fn connect_lazy(url: &Secret) -> Result<Self, SqlTenantsError> {
        Self::connect_lazy_with_timeout(url, ACQUIRE_TIMEOUT)
    }

    /// As [`connect_lazy`](Self::connect_lazy), but a lookup waits up to `acquire_timeout` for a connection,
    /// and a writer as long again for another of a SQLite file: for a database far away. The deadline of a
    /// [`CachedTenants`](crate::CachedTenants), 2 s by default, should be longer.
    ///
    /// # Errors
    /// As `connect_lazy`.
    pub fn connect_lazy_with_timeout(
        url: &Secret,
        acquire_timeout: Duration,
    ) -> Result<Self, SqlTenantsError> {
        Ok(Self { pool: Pool::connect_lazy(url, acquire_timeout)? })
    }

    /// As [`connect_lazy`](Self::connect_lazy), but proves that the database can be reached.
    ///
    /// # Errors
    /// Also when it cannot.
    pub async fn connect(url: &Secret) -> Result<Self, SqlTenantsError> {
        let this = Self::connect_lazy(url)?;
        this.pool.prove().await?;
        Ok(this)
    }

    /// Uses connections that the service has already, with their limits and timeouts.
    #[cfg(feature = "sqlite")]
    pub fn from_sqlite(pool: SqlitePool) -> Self {
        Self { pool: Pool::Sqlite(pool) }
    }

    /// Uses connections that the service has already, with their limits and timeouts.
    #[cfg(feature = "postgres")]
    pub fn from_postgres(pool: PgPool) -> Self {
        Self { pool: Pool::Postgres(pool) }
    }

    /// Creates the table unless it is there. Several processes may do so at once. The first lookup
    /// that misses the table does it too, so a service need not call this.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn migrate(&self) -> Result<(), SqlTenantsError> {
        match &self.pool {
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => {
                once!(sqlx::query, SQLITE_TABLE).execute(pool).await?;
            }
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                // IF NOT EXISTS alone fails when two sessions create the table at once.
                once!(sqlx::query, POSTGRES_LOCK).execute(&mut *transaction).await?;
                once!(sqlx::query, POSTGRES_TABLE).execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
        }
        Ok(())
    }

    /// Adds a tenant, or replaces the one with its id. A cache in front does not notice: tell it
    /// to [`forget`](super::CachedTenants::forget).
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn put(
        &self,
        id: &TenantId,
        row: SqlTenantRow,
        status: TenantStatus,
    ) -> Result<(), SqlTenantsError> {
        on_either!(&self.pool, connection => once!(sqlx::query, PUT)
            .bind(id.as_str())
            .bind(row.display_name)
            .bind(row.partner_id)
            .bind(status_text(status))
            .execute(connection)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Removes a tenant, if it is there. A cache in front does not notice: tell it to
    /// [`forget`](super::CachedTenants::forget).
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn remove(&self, id: &TenantId) -> Result<(), SqlTenantsError> {
        on_either!(&self.pool, connection => once!(sqlx::query, REMOVE)
            .bind(id.as_str())
            .execute(connection)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl SqlTenants {
    async fn find(&self, id: &TenantId) -> Result<Option<Found>, sqlx::Error> {
        Ok(on_either!(&self.pool, connection => once!(sqlx::query_as, FIND)
            .bind(id.as_str())
            .fetch_optional(connection)
            .await?))
    }
}

/// A row as stored: id, display name, partner and status.
type Found = (String, Option<String>, Option<String>, Option<String>);

#[async_trait]
impl TenantResolver for SqlTenants {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let found = match self.find(id).await {
            Err(error) if is_missing_table(&error) => {
                self.migrate().await?;
                self.find(id).await
            }
            found => found,
        };
        let found = found.map_err(SqlTenantsError::from)?;
        // In a table made by other means, `=` may overlook case or accents.
        let Some((found, display_name, partner_id, status)) = found else { return Ok(None) };
        if found != id.as_str() {
            return Ok(None);
        }
        let status = match status.as_deref() {
            Some("active") => TenantStatus::Active,
            _ => TenantStatus::Suspended,
        };
        let row = SqlTenantRow { display_name, partner_id };
        Ok(Some(Tenant::with_row(id.clone(), status, row)))
    }
}

impl fmt::Debug for SqlTenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlTenants({:?})", self.pool)
    }
}

impl From<Unusable> for SqlTenantsError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::UnknownScheme => Self::UnknownScheme,
            Unusable::FeatureMissing(feature) => Self::FeatureMissing(feature),
            Unusable::MalformedUrl => Self::MalformedUrl,
            Unusable::NoRuntime => Self::NoRuntime,
        }
    }
}

impl From<sqlx::Error> for SqlTenantsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

const FIND: &str = "SELECT id, display_name, partner_id, status FROM auth_tenants WHERE id = $1";

const PUT: &str = "INSERT INTO auth_tenants (id, display_name, partner_id, status) \
    VALUES ($1, $2, $3, $4) \
    ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name, \
    partner_id = excluded.partner_id, status = excluded.status";

const REMOVE: &str = "DELETE FROM auth_tenants WHERE id = $1";

#[cfg(feature = "sqlite")]
const SQLITE_TABLE: &str = "CREATE TABLE IF NOT EXISTS auth_tenants (\
    id TEXT NOT NULL PRIMARY KEY, \
    display_name TEXT, \
    partner_id TEXT, \
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')), \
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)";

/// An arbitrary number that other users of advisory locks are unlikely to pick.
#[cfg(feature = "postgres")]
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7526769903651087731)";

#[cfg(feature = "postgres")]
const POSTGRES_TABLE: &str = "CREATE TABLE IF NOT EXISTS auth_tenants (\
    id TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, \
    display_name TEXT, \
    partner_id TEXT, \
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')), \
    created_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)";

fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
    }
}
