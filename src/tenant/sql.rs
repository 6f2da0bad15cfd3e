//! [`SqlTenants`]: tenants in a table of SQLite or PostgreSQL.

use async_trait::async_trait;

use super::{Tenant, TenantResolver, TenantStatus};
use crate::error::{BoxError, SqlError};
use crate::identity::TenantId;
use crate::support::sql::{Pool, run_all, sql_constructors, unnamed, with_connection};

/// A tenant store in the table `auth_tenants` (features `sqlite`, `postgres`). Clones share the connections.
///
/// ```sql
/// CREATE TABLE auth_tenants (
///     id           TEXT PRIMARY KEY,               -- compared exactly
///     display_name TEXT,
///     partner_id   TEXT,
///     status       TEXT NOT NULL DEFAULT 'active', -- or 'suspended'
///     created_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
/// )
/// ```
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::tenant::{CachedTenants, SqlTenantRow, SqlTenants, TenantStatus};
/// use scaikey_auth::{Auth, Secret};
///
/// let tenants = SqlTenants::connect(&Secret::new("postgres://wave@db.example/wave")).await?;
/// let row = SqlTenantRow { display_name: Some("Acme".to_owned()), partner_id: None };
/// tenants.insert(&"acme".parse()?, row, TenantStatus::Active).await?;
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .audience("scaiwave")
///     .tenants(CachedTenants::new(tenants))
///     .build()?;
/// # Ok(()) }
/// ```
///
/// The store works behind PgBouncer in transaction mode, because it keeps no statement between transactions.
///
/// Every lookup is a query. Wrap the store in [`CachedTenants`](super::CachedTenants), which also sets a
/// timeout and serves cached tenants during outages. Handlers read the other columns with
/// `tenant.row::<SqlTenantRow>()`. For a table with another schema, implement [`TenantResolver`]: see
/// `examples/custom_tenants.rs` and, with UUIDs, `examples/axum_service.rs`.
///
/// Every status other than `active` counts as suspended, including one that this version does not know. It is
/// not an error, because a cache would then keep using an earlier `active`.
#[derive(Clone)]
pub struct SqlTenants {
    pool: Pool,
}

/// The row that [`SqlTenants`] attaches to a tenant (features `sqlite`, `postgres`).
///
/// ```
/// # #[cfg(any(feature = "sqlite", feature = "postgres"))] mod example {
/// use scaikey_auth::Tenant;
/// use scaikey_auth::tenant::SqlTenantRow;
///
/// /// A handler.
/// async fn name(tenant: Tenant) -> String {
///     let row = tenant.row::<SqlTenantRow>();
///     row.and_then(|row| row.display_name.clone()).unwrap_or_else(|| tenant.id().to_string())
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlTenantRow {
    /// The display name.
    pub display_name: Option<String>,
    /// The partner that the tenant belongs to.
    pub partner_id: Option<String>,
}

sql_constructors!(SqlTenants);

impl SqlTenants {
    /// Creates the table if it is missing. Several processes may call this concurrently. A lookup that finds
    /// no table also creates it. If the service's database role may not create tables, call this once with a
    /// role that may.
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses the statement.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        let statements = self.pool.pick(&[TABLE][..], &[POSTGRES_LOCK, TABLE]);
        with_connection!(&self.pool, connection => run_all!(self.pool, connection, statements));
        Ok(())
    }

    /// Adds a tenant, or replaces the one with its id. A [`CachedTenants`](super::CachedTenants) in front
    /// does not see the change: call its [`forget`](super::CachedTenants::forget).
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses the statement.
    pub async fn insert(
        &self,
        id: &TenantId,
        row: SqlTenantRow,
        status: TenantStatus,
    ) -> Result<(), SqlError> {
        with_connection!(&self.pool, connection => unnamed!(sqlx::query, INSERT)
            .bind(id.as_str())
            .bind(row.display_name)
            .bind(row.partner_id)
            .bind(status_text(status))
            .execute(connection)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Removes a tenant, if it exists. A [`CachedTenants`](super::CachedTenants) in front does not see the
    /// change: call its [`forget`](super::CachedTenants::forget).
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses the statement.
    pub async fn remove(&self, id: &TenantId) -> Result<(), SqlError> {
        with_connection!(&self.pool, connection => unnamed!(sqlx::query, REMOVE)
            .bind(id.as_str())
            .execute(connection)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl SqlTenants {
    fn from_pool(pool: Pool) -> Self {
        Self { pool }
    }

    async fn find(&self, id: &TenantId) -> Result<Option<Row>, SqlError> {
        Ok(with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, FIND)
            .bind(id.as_str())
            .fetch_optional(connection)
            .await?))
    }
}

/// A row as stored: id, display name, partner and status.
type Row = (String, Option<String>, Option<String>, Option<String>);

#[async_trait]
impl TenantResolver for SqlTenants {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let found = match self.find(id).await {
            Err(error) if error.is_missing_table() => {
                self.migrate().await?;
                self.find(id).await?
            }
            found => found?,
        };
        // `=` may ignore case or accents if the table was not created by `migrate`.
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

const FIND: &str = "SELECT id, display_name, partner_id, status FROM auth_tenants WHERE id = $1";

const INSERT: &str = "INSERT INTO auth_tenants (id, display_name, partner_id, status) \
    VALUES ($1, $2, $3, $4) \
    ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name, \
    partner_id = excluded.partner_id, status = excluded.status";

const REMOVE: &str = "DELETE FROM auth_tenants WHERE id = $1";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS auth_tenants (\
    id {text} NOT NULL PRIMARY KEY, \
    display_name TEXT, \
    partner_id TEXT, \
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')), \
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP)";

/// Locks out other sessions, because IF NOT EXISTS alone fails if two sessions create the table concurrently.
/// The key is arbitrary, so that it is unlikely to collide with other advisory locks.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7526769903651087731)";

fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
    }
}
