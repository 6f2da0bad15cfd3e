//! [`SqlRegistrar`]: participants and workspaces in tables of SQLite or PostgreSQL, through SQLx.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    Entry, InvalidLocalId, ParticipantId, Profile, Registrar, RegistrarError, Registration,
    WorkspaceId, schema,
};
use crate::clock::within;
use crate::error::SqlError;
use crate::identity::{Identity, IdentityKey};
use crate::support::single_flight::SingleFlight;
use crate::support::sql::{Pool, connecting, in_transaction, on_either, once};

/// As long as somebody who signs in waits without wondering.
const DEADLINE: Duration = Duration::from_secs(2);

/// The tables `auth_participants` and `auth_workspaces` (features `sqlite`, `postgres`). Clones share the connections.
///
/// ```sql
/// CREATE TABLE auth_participants (
///     id             TEXT PRIMARY KEY,   -- random, a UUID of version 4
///     issuer         TEXT NOT NULL,      -- these four are compared byte for byte
///     tenant_id      TEXT NOT NULL,      -- '' for an identity without tenant
///     kind           TEXT NOT NULL,      -- 'user', 'service_account' or 'workload'
///     subject        TEXT NOT NULL,
///     display_name   TEXT,               -- to show, and for nothing else
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
/// The unique constraints do the work, however many processes register at once. Both rows are
/// written in one transaction, so that a crash leaves none or both; and a participant without
/// workspace, however that came to be, gets one on the next call. Whoever is registered and says
/// nothing new of itself costs one read. Equal calls that come together in one process are one, and
/// go on when the callers go away.
///
/// Works behind PgBouncer in transaction mode: no statement is kept between transactions.
///
/// Tables of yours may refer to `auth_participants (id)`. To remove somebody, delete the workspace,
/// then the participant; who comes again is somebody new.
#[derive(Clone)]
pub struct SqlRegistrar {
    pool: Pool,
    deadline: Duration,
    flights: Arc<SingleFlight<Entry, Result<Registration, RegistrarError>>>,
}

connecting!(SqlRegistrar);

impl SqlRegistrar {
    /// How long a registration may take in all, in real time. Default 2 s. What was not committed
    /// by then is undone.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Creates the tables, or brings them up to date. Several processes may do so at once, and
    /// again. The first registration that misses a table does it too, so a service need not call
    /// this, unless its role may not create tables. The table `auth_registrar_versions` remembers
    /// what was done; tables of a newer version of this crate are left alone.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        schema::migrate(&self.pool).await
    }

    /// What a participant is shown as; `None` for an unknown one.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses, and before there are tables.
    pub async fn profile(&self, participant: &ParticipantId) -> Result<Option<Profile>, SqlError> {
        let found: Option<Shown> = on_either!(&self.pool, connection => once!(sqlx::query_as, PROFILE)
            .bind(participant.as_str())
            .fetch_optional(connection)
            .await?);
        Ok(found.map(profile_of))
    }

    fn over(pool: Pool) -> Self {
        Self { pool, deadline: DEADLINE, flights: Arc::default() }
    }
}

#[async_trait]
impl Registrar for SqlRegistrar {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let entry = Entry::of(identity)?;
        let (pool, deadline) = (self.pool.clone(), self.deadline);
        // In a task of its own, so that a caller that goes away cuts no transaction short.
        let waiter = self.flights.run(entry.clone(), || async move {
            match within(deadline, register(&pool, &entry)).await {
                Some(outcome) => outcome.map_err(RegistrarError::store),
                None => Err(RegistrarError::Slow(deadline)),
            }
        });
        let is_first = waiter.is_new();
        let died = || Err(RegistrarError::store("the tokio runtime is missing or ending"));
        let registration = waiter.wait().await.unwrap_or_else(died)?;
        Ok(Registration { created: registration.created && is_first, ..registration })
    }
}

async fn register(pool: &Pool, entry: &Entry) -> Result<Registration, SqlError> {
    match find_or_create(pool, entry).await {
        Err(error) if error.is_missing_table() => {
            schema::migrate(pool).await?;
            find_or_create(pool, entry).await
        }
        registered => registered,
    }
}

async fn find_or_create(pool: &Pool, entry: &Entry) -> Result<Registration, SqlError> {
    if let Some(row) = find(pool, entry).await? {
        let (registration, profile) = read(row, entry)?;
        let mut refreshed = profile.clone();
        refreshed.refresh(&entry.profile);
        if let Some(registration) = registration.filter(|_| refreshed == profile) {
            return Ok(registration);
        }
    }
    write(pool, entry).await
}

/// Binds the key, as `$1` to `$4`.
macro_rules! keyed {
    ($query:expr, $entry:ident) => {
        $query
            .bind(&*$entry.key.issuer)
            .bind(tenant_of(&$entry.key))
            .bind($entry.key.kind.as_str())
            .bind(&*$entry.key.subject)
    };
}

/// Binds key and profile, as `$1` to `$7`.
macro_rules! described {
    ($query:expr, $entry:ident) => {
        keyed!($query, $entry)
            .bind($entry.profile.display_name.as_deref())
            .bind($entry.profile.email.as_deref())
            .bind($entry.profile.email_verified)
    };
}

/// Writes what is missing, and reads the outcome.
///
/// Whoever comes second waits at a unique constraint until the first has committed or is undone,
/// and then finds its rows or makes its own. All take their locks in the same order.
async fn write(pool: &Pool, entry: &Entry) -> Result<Registration, SqlError> {
    let broken = |error: RegistrarError| SqlError::Database(error.into());
    let participant = ParticipantId::random().map_err(broken)?;
    let workspace = WorkspaceId::random().map_err(broken)?;
    let find = pool.pick(FIND_SQLITE, FIND_POSTGRES);
    Ok(in_transaction!(pool, connection => {
        let inserted = described!(once!(sqlx::query, INSERT_PARTICIPANT), entry)
            .bind(participant.as_str())
            .execute(&mut *connection)
            .await?
            .rows_affected();
        keyed!(once!(sqlx::query, INSERT_WORKSPACE), entry)
            .bind(workspace.as_str())
            .execute(&mut *connection)
            .await?;
        if inserted == 0 {
            described!(once!(sqlx::query, REFRESH), entry).execute(&mut *connection).await?;
        }
        let row = keyed!(once!(sqlx::query_as, find), entry).fetch_one(&mut *connection).await?;
        let registration = read(row, entry)?.0.ok_or(sqlx::Error::RowNotFound)?;
        Registration { created: inserted == 1, ..registration }
    }))
}

async fn find(pool: &Pool, entry: &Entry) -> Result<Option<Row>, sqlx::Error> {
    let find = pool.pick(FIND_SQLITE, FIND_POSTGRES);
    Ok(on_either!(pool, connection => keyed!(once!(sqlx::query_as, find), entry)
        .fetch_optional(connection)
        .await?))
}

/// The key, the participant's id and time, its workspace's id, and the profile as stored.
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

/// A profile as stored.
type Shown = (Option<String>, Option<String>, bool);

/// The registration, if it is complete, and the profile.
fn read(row: Row, entry: &Entry) -> Result<(Option<Registration>, Profile), SqlError> {
    let (issuer, tenant, kind, subject, id, created_at, workspace, name, email, verified) = row;
    let broken = |error: InvalidLocalId| SqlError::Database(error.into());
    let key = &entry.key;
    let asked = [&*key.issuer, tenant_of(key), key.kind.as_str(), &key.subject];
    if [&*issuer, &*tenant, &*kind, &*subject] != asked {
        return Err(SqlError::LooseKey);
    }
    let participant = ParticipantId::new(&id).map_err(broken)?;
    let workspace = workspace.map(|id| WorkspaceId::new(&id)).transpose();
    let workspace = workspace.map_err(broken)?;
    let since = Duration::from_secs(u64::try_from(created_at).unwrap_or_default());
    let created_at = SystemTime::UNIX_EPOCH.checked_add(since);
    let created_at = created_at.ok_or_else(|| SqlError::Database("created_at".into()))?;
    let registration = workspace.map(|id| Registration::new(participant, id, created_at));
    Ok((registration, profile_of((name, email, verified))))
}

fn profile_of((display_name, email, email_verified): Shown) -> Profile {
    let text = |text: Option<String>| text.map(String::into_boxed_str);
    Profile { display_name: text(display_name), email: text(email), email_verified }
}

/// A unique constraint takes no two NULLs for the same. No tenant's id is empty.
fn tenant_of(key: &IdentityKey) -> &str {
    key.tenant_id.as_ref().map_or("", |id| id.as_str())
}

/// The databases differ only in how they tell seconds since 1970.
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

/// As [`Profile::refresh`] does.
const REFRESH: &str = "UPDATE auth_participants SET \
    display_name = COALESCE($5, display_name), \
    email = COALESCE($6, email), \
    email_verified = CASE WHEN $6 IS NULL THEN email_verified ELSE $7 END, \
    updated_at = CURRENT_TIMESTAMP \
    WHERE issuer = $1 AND tenant_id = $2 AND kind = $3 AND subject = $4";

const PROFILE: &str =
    "SELECT display_name, email, email_verified FROM auth_participants WHERE id = $1";
