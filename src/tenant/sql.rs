//! [`SqlTenants`]: tenants in a table of SQLite or PostgreSQL, through SQLx.

use async_trait::async_trait;

use super::{Tenant, TenantResolver, TenantStatus};
use crate::error::{BoxError, SqlError};
use crate::identity::TenantId;
use crate::support::sql::{Pool, connecting, on_either, once, run_all};

/// The table `auth_tenants` (features `sqlite`, `postgres`). Clones share the connections.
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

/// What [`SqlTenants`] attaches to a tenant (features `sqlite`, `postgres`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlTenantRow {
    /// The name to show.
    pub display_name: Option<String>,
    /// The partner the tenant belongs to.
    pub partner_id: Option<String>,
}

connecting!(SqlTenants);

impl SqlTenants {
    /// Creates the table unless it is there. Several processes may do so at once. The first lookup
    /// that misses the table does it too, so a service need not call this.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        let statements = self.pool.pick(&[TABLE][..], &[POSTGRES_LOCK, TABLE]);
        on_either!(&self.pool, connection => run_all!(self.pool, connection, statements));
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
    ) -> Result<(), SqlError> {
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
    pub async fn remove(&self, id: &TenantId) -> Result<(), SqlError> {
        on_either!(&self.pool, connection => once!(sqlx::query, REMOVE)
            .bind(id.as_str())
            .execute(connection)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl SqlTenants {
    fn over(pool: Pool) -> Self {
        Self { pool }
    }

    async fn find(&self, id: &TenantId) -> Result<Option<Found>, SqlError> {
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
            Err(error) if error.is_missing_table() => {
                self.migrate().await?;
                self.find(id).await?
            }
            found => found?,
        };
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

const FIND: &str = "SELECT id, display_name, partner_id, status FROM auth_tenants WHERE id = $1";

const PUT: &str = "INSERT INTO auth_tenants (id, display_name, partner_id, status) \
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

/// IF NOT EXISTS alone fails when two sessions create the table at once. The number is an arbitrary
/// one that other users of advisory locks are unlikely to pick.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7526769903651087731)";

fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
    }
}
