//! [`SqlTenants`]: tenants in a table of SQLite or PostgreSQL, through SQLx.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

use super::{Tenant, TenantResolver, TenantStatus};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::secret::Secret;

/// How long to wait for a connection. A pool handed in has its own setting.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A file of SQLite serves as many readers at once, a server as many statements.
const CONNECTIONS: u32 = 8;

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

#[derive(Clone)]
enum Pool {
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// The same text for either database: both know `$1`, and both pools the same methods.
macro_rules! on_either {
    ($self:ident, $pool:ident => $work:expr) => {
        match &$self.pool {
            #[cfg(feature = "sqlite")]
            Pool::Sqlite($pool) => $work,
            #[cfg(feature = "postgres")]
            Pool::Postgres($pool) => $work,
        }
    };
}

impl SqlTenants {
    /// Takes a connection string, such as `sqlite:///var/lib/app/tenants.db?mode=rwc`,
    /// `sqlite::memory:` or `postgres://app@db.example/app`, and connects when first needed.
    ///
    /// A service built this way starts without its database. At most 8 connections; a lookup
    /// waits up to 2 s for one. SQLite files are put into WAL mode, so that a writer blocks no
    /// lookup, unless `mode=ro` or `immutable` forbids it.
    ///
    /// # Errors
    /// When the connection string is malformed or needs a feature that is off, and outside of a
    /// tokio runtime.
    pub fn connect_lazy(url: &Secret) -> Result<Self, SqlTenantsError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(SqlTenantsError::NoRuntime);
        }
        let pool = match url.expose().split_once(':') {
            Some(("sqlite", _)) => sqlite(url)?,
            Some(("postgres" | "postgresql", _)) => postgres(url)?,
            _ => return Err(SqlTenantsError::UnknownScheme),
        };
        Ok(Self { pool })
    }

    /// As [`connect_lazy`](Self::connect_lazy), but proves that the database can be reached.
    ///
    /// # Errors
    /// Also when it cannot.
    pub async fn connect(url: &Secret) -> Result<Self, SqlTenantsError> {
        let this = Self::connect_lazy(url)?;
        on_either!(this, pool => drop(pool.acquire().await?));
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
                sqlx::query(SQLITE_TABLE).execute(pool).await?;
            }
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                // IF NOT EXISTS alone fails when two sessions create the table at once.
                sqlx::query(POSTGRES_LOCK).execute(&mut *transaction).await?;
                sqlx::query(POSTGRES_TABLE).execute(&mut *transaction).await?;
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
        on_either!(self, pool => sqlx::query(PUT)
            .bind(id.as_str())
            .bind(row.display_name)
            .bind(row.partner_id)
            .bind(status_text(status))
            .execute(pool)
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
        on_either!(self, pool => sqlx::query(REMOVE)
            .bind(id.as_str())
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl SqlTenants {
    async fn find(&self, id: &TenantId) -> Result<Option<Found>, sqlx::Error> {
        on_either!(self, pool => sqlx::query_as(FIND).bind(id.as_str()).fetch_optional(pool).await)
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
        f.write_str(match &self.pool {
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => "SqlTenants(SQLite)",
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => "SqlTenants(PostgreSQL)",
        })
    }
}

impl From<sqlx::Error> for SqlTenantsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// PostgreSQL has a code for it (42P01, `undefined_table`); SQLite only a sentence.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
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

#[cfg(feature = "sqlite")]
fn sqlite(url: &Secret) -> Result<Pool, SqlTenantsError> {
    let url = url.expose();
    let has = |text| url.contains(text);
    let mut options: SqliteConnectOptions =
        url.parse().map_err(|_| SqlTenantsError::MalformedUrl)?;
    options = options.busy_timeout(ACQUIRE_TIMEOUT);
    // A file needs no ping; and a lookup given up during one would take the connection with it.
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
    let pool = if has(":memory:") || has("mode=memory") {
        // The database lives as long as its one connection.
        pool.max_connections(1).max_lifetime(None).idle_timeout(None)
    } else {
        if !has("mode=ro") && !has("immutable=") {
            options = options.journal_mode(SqliteJournalMode::Wal);
        }
        pool.max_connections(CONNECTIONS)
    };
    Ok(Pool::Sqlite(pool.connect_lazy_with(options)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_url: &Secret) -> Result<Pool, SqlTenantsError> {
    Err(SqlTenantsError::FeatureMissing("sqlite"))
}

#[cfg(feature = "postgres")]
fn postgres(url: &Secret) -> Result<Pool, SqlTenantsError> {
    use sqlx::ConnectOptions;
    let options = url::Url::parse(url.expose())
        .ok()
        .and_then(|url| PgConnectOptions::from_url(&url).ok())
        .ok_or(SqlTenantsError::MalformedUrl)?;
    let pool = PgPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).max_connections(CONNECTIONS);
    Ok(Pool::Postgres(pool.connect_lazy_with(options)))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &Secret) -> Result<Pool, SqlTenantsError> {
    Err(SqlTenantsError::FeatureMissing("postgres"))
}
