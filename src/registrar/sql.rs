//! [`SqlRegistrar`]: participants and workspaces in tables of SQLite or PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::schema::SCHEMA;
use super::{
    InvalidLocalId, ParticipantId, Profile, Registrar, RegistrarError, Registration,
    StorableIdentity, WorkspaceId,
};
use crate::clock::with_timeout;
use crate::error::SqlError;
use crate::identity::{Identity, IdentityKey};
use crate::support::single_flight::SingleFlight;
use crate::support::sql::{Pool, in_transaction, sql_constructors, unnamed, with_connection};

/// Default timeout of a registration. It is short, because a user waits during the sign-in.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// A registrar that uses the tables `auth_participants` and `auth_workspaces` (features `sqlite`,
/// `postgres`). Clones share the connections.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # async fn example(auth: scaikey_auth::Auth) -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::Secret;
/// use scaikey_auth::registrar::SqlRegistrar;
///
/// let registrar = SqlRegistrar::connect(&Secret::new("postgres://wave@db.example/wave")).await?;
/// let endpoints = auth.endpoints().registrar(registrar).build()?; // adds `POST /v1/auth/register`
/// # Ok(()) }
/// ```
///
/// ```sql
/// CREATE TABLE auth_participants (
///     id             TEXT PRIMARY KEY,   -- random, a UUID of version 4
///     issuer         TEXT NOT NULL,      -- these four are compared exactly
///     tenant_id      TEXT NOT NULL,      -- '' for an identity without a tenant
///     kind           TEXT NOT NULL,      -- 'user', 'service_account' or 'workload'
///     subject        TEXT NOT NULL,
///     display_name   TEXT,               -- for display only
///     email          TEXT,
///     email_verified BOOLEAN NOT NULL,
///     created_at     TIMESTAMP NOT NULL,
///     updated_at     TIMESTAMP NOT NULL, -- when the profile last changed
///     UNIQUE (issuer, tenant_id, kind, subject)
/// );
/// CREATE TABLE auth_workspaces (
///     id             TEXT PRIMARY KEY,
///     participant_id TEXT NOT NULL UNIQUE REFERENCES auth_participants (id),
///     created_at     TIMESTAMP NOT NULL
/// );
/// ```
///
/// Each participant gets a workspace. A service without workspaces ignores that table, or implements
/// [`Registrar`] over its own table of users.
///
/// The unique constraints prevent duplicates if several processes register concurrently. Both rows are
/// written in one transaction, so a crash leaves none or both. A participant without a workspace gets one on
/// the next call. If the participant exists and its profile is unchanged, a call runs one query. Equal
/// concurrent calls in one process share one registration, which continues if the callers stop waiting.
///
/// The registrar works behind PgBouncer in transaction mode, because it keeps no statement between
/// transactions.
///
/// Your own tables may reference `auth_participants (id)`. To remove a participant, delete its workspace
/// first. If the identity registers again, it becomes a new participant.
#[derive(Clone)]
pub struct SqlRegistrar {
    pool: Pool,
    timeout: Duration,
    single_flight: Arc<SingleFlight<StorableIdentity, Result<Registration, RegistrarError>>>,
}

sql_constructors!(SqlRegistrar);

impl SqlRegistrar {
    /// Sets the timeout of a registration, in real time. Default: 2 s. A transaction that is not committed
    /// by then is rolled back. The endpoints wait at most 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Creates or migrates the tables. Several processes may call this concurrently, and repeatedly. A
    /// registration that finds no table also does this. If the service's database role may not create tables,
    /// call this once with a role that may. The schema version is in the table `auth_registrar_versions`.
    /// Tables of a newer version of this crate stay as they are.
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses a statement.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        SCHEMA.migrate(&self.pool).await
    }

    /// Returns a participant's profile, or `None` for an unknown participant.
    ///
    /// # Errors
    /// If the database cannot be reached, refuses the statement, or has no tables yet.
    pub async fn profile(&self, participant: &ParticipantId) -> Result<Option<Profile>, SqlError> {
        let found: Option<ProfileRow> = with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, PROFILE)
            .bind(participant.as_str())
            .fetch_optional(connection)
            .await?);
        Ok(found.map(profile_of))
    }

    fn from_pool(pool: Pool) -> Self {
        Self { pool, timeout: DEFAULT_TIMEOUT, single_flight: Arc::default() }
    }
}

#[async_trait]
impl Registrar for SqlRegistrar {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let entry = StorableIdentity::new(identity)?;
        let (pool, timeout) = (self.pool.clone(), self.timeout);
        // Runs in a separate task, so that a cancelled caller does not interrupt the transaction.
        let waiter = self.single_flight.run(entry.clone(), || async move {
            match with_timeout(timeout, register(&pool, &entry)).await {
                Some(outcome) => outcome.map_err(RegistrarError::store),
                None => Err(RegistrarError::TimedOut(timeout)),
            }
        });
        let is_first = waiter.is_new();
        let no_runtime = || {
            Err(RegistrarError::store(
                "the tokio runtime is missing or shutting down: call `register` inside a runtime",
            ))
        };
        let registration = waiter.wait().await.unwrap_or_else(no_runtime)?;
        Ok(Registration { created: registration.created && is_first, ..registration })
    }
}

async fn register(pool: &Pool, entry: &StorableIdentity) -> Result<Registration, SqlError> {
    match find_or_create(pool, entry).await {
        Err(error) if error.is_missing_table() => {
            SCHEMA.migrate(pool).await?;
            find_or_create(pool, entry).await
        }
        registered => registered,
    }
}

async fn find_or_create(pool: &Pool, entry: &StorableIdentity) -> Result<Registration, SqlError> {
    if let Some(row) = find(pool, entry).await? {
        let (registration, profile) = read(row, entry)?;
        let mut updated = profile.clone();
        updated.update(&entry.profile);
        if let Some(registration) = registration.filter(|_| updated == profile) {
            return Ok(registration);
        }
    }
    write(pool, entry).await
}

/// Binds the key as `$1` to `$4`.
macro_rules! bind_key {
    ($query:expr, $entry:ident) => {
        $query
            .bind(&*$entry.key.issuer)
            .bind(tenant_of(&$entry.key))
            .bind($entry.key.kind.as_str())
            .bind(&*$entry.key.subject)
    };
}

/// Binds the key and the profile as `$1` to `$7`.
macro_rules! bind_entry {
    ($query:expr, $entry:ident) => {
        bind_key!($query, $entry)
            .bind($entry.profile.display_name.as_deref())
            .bind($entry.profile.email.as_deref())
            .bind($entry.profile.email_verified)
    };
}

/// Inserts missing rows, or updates the profile, and reads the result.
///
/// A second writer waits at the unique constraint until the first one commits or rolls back, and then finds
/// the rows or inserts them. All writers take their locks in the same order.
async fn write(pool: &Pool, entry: &StorableIdentity) -> Result<Registration, SqlError> {
    let invalid = |error: RegistrarError| SqlError::Database(error.into());
    let participant = ParticipantId::random().map_err(invalid)?;
    let workspace = WorkspaceId::random().map_err(invalid)?;
    let find = pool.pick(FIND_SQLITE, FIND_POSTGRES);
    Ok(in_transaction!(pool, connection => {
        let inserted = bind_entry!(unnamed!(sqlx::query, INSERT_PARTICIPANT), entry)
            .bind(participant.as_str())
            .execute(&mut *connection)
            .await?
            .rows_affected();
        bind_key!(unnamed!(sqlx::query, INSERT_WORKSPACE), entry)
            .bind(workspace.as_str())
            .execute(&mut *connection)
            .await?;
        if inserted == 0 {
            bind_entry!(unnamed!(sqlx::query, UPDATE), entry).execute(&mut *connection).await?;
        }
        let row = bind_key!(unnamed!(sqlx::query_as, find), entry).fetch_one(&mut *connection).await?;
        let registration = read(row, entry)?.0.ok_or(sqlx::Error::RowNotFound)?;
        Registration { created: inserted == 1, ..registration }
    }))
}

async fn find(pool: &Pool, entry: &StorableIdentity) -> Result<Option<Row>, sqlx::Error> {
    let find = pool.pick(FIND_SQLITE, FIND_POSTGRES);
    Ok(with_connection!(pool, connection => bind_key!(unnamed!(sqlx::query_as, find), entry)
        .fetch_optional(connection)
        .await?))
}

/// The key, the participant's id and creation time, the workspace's id, and the profile.
type Row = (
    String,
    String,
    String,
    String,
    String,
    i64,
    Option<String>,
    Option<String>,
    Option<String>,
    bool,
);

/// The profile.
type ProfileRow = (Option<String>, Option<String>, bool);

/// Parses a row. Returns the registration, unless the workspace is missing, and the profile.
fn read(row: Row, entry: &StorableIdentity) -> Result<(Option<Registration>, Profile), SqlError> {
    let (issuer, tenant, kind, subject, id, created_at, workspace, name, email, verified) = row;
    let invalid = |error: InvalidLocalId| SqlError::Database(error.into());
    let key = &entry.key;
    let expected = [&*key.issuer, tenant_of(key), key.kind.as_str(), &key.subject];
    if [&*issuer, &*tenant, &*kind, &*subject] != expected {
        return Err(SqlError::InexactComparison);
    }
    let participant = ParticipantId::new(&id).map_err(invalid)?;
    let workspace = workspace.map(|id| WorkspaceId::new(&id)).transpose();
    let workspace = workspace.map_err(invalid)?;
    let since = Duration::from_secs(u64::try_from(created_at).unwrap_or_default());
    let created_at = SystemTime::UNIX_EPOCH.checked_add(since);
    let created_at = created_at.ok_or_else(|| SqlError::Database("created_at".into()))?;
    let registration = Registration::new(participant, created_at);
    let registration = workspace.map(|id| registration.with_workspace(id));
    Ok((registration, profile_of((name, email, verified))))
}

fn profile_of((display_name, email, email_verified): ProfileRow) -> Profile {
    let text = |text: Option<String>| text.map(String::into_boxed_str);
    Profile { display_name: text(display_name), email: text(email), email_verified }
}

/// Returns the tenant, or "" for none, because a unique constraint treats NULLs as different. A tenant's id
/// is never empty.
fn tenant_of(key: &IdentityKey) -> &str {
    key.tenant_id.as_ref().map_or("", |id| id.as_str())
}

/// The query by key. The databases differ only in the conversion to seconds since 1970.
macro_rules! find_by_key {
    ($created_at:literal) => {
        concat!(
            "SELECT p.issuer, p.tenant_id, p.kind, p.subject, p.id, ",
            $created_at,
            ", w.id, p.display_name, p.email, p.email_verified FROM auth_participants p \
             LEFT JOIN auth_workspaces w ON w.participant_id = p.id \
             WHERE p.issuer = $1 AND p.tenant_id = $2 AND p.kind = $3 AND p.subject = $4"
        )
    };
}

const FIND_SQLITE: &str = find_by_key!("CAST(strftime('%s', p.created_at) AS INTEGER)");

const FIND_POSTGRES: &str = find_by_key!("CAST(FLOOR(EXTRACT(EPOCH FROM p.created_at)) AS BIGINT)");

const INSERT_PARTICIPANT: &str = "INSERT INTO auth_participants \
    (issuer, tenant_id, kind, subject, display_name, email, email_verified, id) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
    ON CONFLICT (issuer, tenant_id, kind, subject) DO NOTHING";

const INSERT_WORKSPACE: &str = "INSERT INTO auth_workspaces (id, participant_id) \
    SELECT $5, id FROM auth_participants \
    WHERE issuer = $1 AND tenant_id = $2 AND kind = $3 AND subject = $4 \
    ON CONFLICT (participant_id) DO NOTHING";

/// Updates the profile as [`Profile::update`] does.
const UPDATE: &str = "UPDATE auth_participants SET \
    display_name = COALESCE($5, display_name), \
    email = COALESCE($6, email), \
    email_verified = CASE WHEN $6 IS NULL THEN email_verified ELSE $7 END, \
    updated_at = CURRENT_TIMESTAMP \
    WHERE issuer = $1 AND tenant_id = $2 AND kind = $3 AND subject = $4";

const PROFILE: &str =
    "SELECT display_name, email, email_verified FROM auth_participants WHERE id = $1";
