//! [`SqlSessions`]: sessions in a table of SQLite or PostgreSQL.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    MAX_LISTED, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
    from_milliseconds, to_milliseconds,
};
use crate::clock::sleep;
use crate::error::{BoxError, SqlError};
use crate::support::base64url;
use crate::support::schema::{Schema, schema};
use crate::support::sql::{Pool, in_transaction, sql_constructors, unnamed, with_connection};

/// The pause between two removals of expired sessions by one process.
const PURGE_PAUSE_MILLISECONDS: u64 = 60_000;

/// The time for which an expired session stays, because the clocks of processes differ.
const PURGE_DELAY_MILLISECONDS: u64 = 60_000;

/// The largest number of expired sessions that one transaction removes.
const PURGE_BATCH: usize = 1000;

/// The pause between two such transactions, in which another writer of a SQLite file gets its turn.
const PURGE_BREAK: Duration = Duration::from_millis(20);

/// A session store in the tables `auth_sessions` and `auth_session_labels` (features `sqlite` or `postgres`). Clones
/// share the connections.
///
/// Use it if the service has a database anyway. Each request with a session reads one row by its primary key; a session
/// in use is written at most once a minute.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # fn example(
/// #     auth: &scaikey_auth::Auth,
/// #     client: scaikey_auth::TokenExchangeClient,
/// #     keys: scaikey_auth::exchange::SealingKeys,
/// # ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use scaikey_auth::session::{Sessions, SqlSessions};
///
/// let store = SqlSessions::connect_lazy(&"postgres://wave@db.example/wave".into())?;
/// let sessions = Sessions::builder(auth, client, keys).store(store).build()?;
/// # Ok(()) }
/// ```
///
/// ```sql
/// CREATE TABLE auth_sessions (
///     id             TEXT NOT NULL PRIMARY KEY, -- SHA-256 of the id in the cookie, in base64url
///     version        BIGINT NOT NULL,
///     value          BYTEA NOT NULL,            -- sealed; BLOB in SQLite
///     started_at     BIGINT NOT NULL,           -- this and the other times: milliseconds since 1970
///     used_at        BIGINT NOT NULL,
///     expires_at     BIGINT NOT NULL,
///     ends_at        BIGINT NOT NULL,
///     renewing_until BIGINT
/// );
/// CREATE TABLE auth_session_labels (
///     label          TEXT NOT NULL,             -- an HMAC of a user or of a session of the provider
///     session_id     TEXT NOT NULL,
///     PRIMARY KEY (label, session_id)
/// );
/// ```
///
/// Both tables have an index more, on `expires_at` and on `session_id`. A sign-in removes the sessions that expired
/// more than a minute before, at most once a minute in each process, and at most 1000 in one transaction. All sessions
/// of a user are removed in one transaction.
///
/// The store works behind PgBouncer in transaction mode, because it keeps no statement between transactions.
#[derive(Clone)]
pub struct SqlSessions {
    pool: Pool,
    /// When expired sessions were last removed, in milliseconds since 1970.
    purged_at: Arc<AtomicU64>,
}

sql_constructors!(SqlSessions);

impl SqlSessions {
    /// Creates or migrates the tables. Several processes may call this concurrently, and repeatedly. A call that finds
    /// no table also does this. If the service's database role may not create tables, call this once with a role that
    /// may, and grant `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `auth_sessions` and `auth_session_labels`, and
    /// `SELECT` on `auth_session_schema_versions`. Tables of a newer version of this crate stay as they are.
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses a statement.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        SCHEMA.migrate(&self.pool).await
    }

    fn from_pool(pool: Pool) -> Self {
        Self { pool, purged_at: Arc::default() }
    }

    /// Runs `work`. If a table is missing, creates the tables and runs `work` again.
    async fn run<T, F>(&self, work: impl Fn() -> F) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, SqlError>>,
    {
        match work().await {
            Err(error) if error.is_missing_table() => {
                self.migrate().await?;
                Ok(work().await?)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn insert(
        &self,
        session: &StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), SqlError> {
        let id = text(session.id.as_bytes());
        in_transaction!(&self.pool, connection => {
            unnamed!(sqlx::query, INSERT)
                .bind(&id)
                .bind(to_i64(session.version))
                .bind(&session.value)
                .bind(to_column(session.started_at))
                .bind(to_column(session.used_at))
                .bind(to_column(session.expires_at))
                .bind(to_column(session.ends_at))
                .bind(session.renewing_until.map(to_column))
                .execute(&mut *connection)
                .await?;
            for label in labels {
                unnamed!(sqlx::query, INSERT_LABEL)
                    .bind(text(label.as_bytes()))
                    .bind(&id)
                    .execute(&mut *connection)
                    .await?;
            }
        });
        Ok(())
    }

    async fn find(&self, id: &SessionId) -> Result<Option<StoredSession>, SqlError> {
        let row: Option<Row> = with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, SELECT)
            .bind(text(id.as_bytes()))
            .fetch_optional(connection)
            .await?);
        row.map(session_of).transpose()
    }

    async fn update(&self, session: &StoredSession, version: u64) -> Result<bool, SqlError> {
        let updated = with_connection!(&self.pool, connection => unnamed!(sqlx::query, UPDATE)
            .bind(text(session.id.as_bytes()))
            .bind(to_i64(version))
            .bind(to_i64(session.version))
            .bind(&session.value)
            .bind(to_column(session.used_at))
            .bind(to_column(session.expires_at))
            .bind(session.renewing_until.map(to_column))
            .execute(connection)
            .await?
            .rows_affected());
        Ok(updated == 1)
    }

    async fn delete(&self, id: &SessionId) -> Result<bool, SqlError> {
        let id = text(id.as_bytes());
        let deleted = in_transaction!(&self.pool, connection => {
            let done = unnamed!(sqlx::query, DELETE).bind(&id).execute(&mut *connection).await?;
            unnamed!(sqlx::query, DELETE_LABELS_OF_ONE).bind(&id).execute(&mut *connection).await?;
            done.rows_affected()
        });
        Ok(deleted == 1)
    }

    /// Deletes the selected sessions, and then all labels of those that are no longer there. Concurrent deletions
    /// cannot block each other: PostgreSQL locks the sessions in the order of their ids, and SQLite has one writer at a
    /// time.
    async fn delete_where(&self, selector: &SessionSelector) -> Result<u64, SqlError> {
        let except = selector.excepted().map(|id| text(id.as_bytes())).unwrap_or_default();
        let labels: Vec<_> = selector.labels().iter().map(|label| text(label.as_bytes())).collect();
        if labels.is_empty() {
            return Ok(0);
        }
        let selected = format!("{SELECT_IDS} IN {}", parameters(2, labels.len()));
        let sessions = format!("{SELECT_SESSION_IDS} id IN ({selected}) AND id <> $1 ORDER BY id");
        let sessions = self.deletion(&sessions, "FOR UPDATE");
        let labels_left = format!("{DELETE_LABELS} IN ({selected}) AND {IS_ORPHAN}");
        Ok(in_transaction!(&self.pool, connection => {
            let mut deleted = None;
            for statement in [sessions, labels_left] {
                let mut query = unnamed!(sqlx::query, sqlx::AssertSqlSafe(statement)).bind(&except);
                for label in &labels {
                    query = query.bind(label);
                }
                let done = query.execute(&mut *connection).await?.rows_affected();
                deleted.get_or_insert(done);
            }
            deleted.unwrap_or_default()
        }))
    }

    /// Returns the statement that deletes the sessions of a sub-select, in whose order PostgreSQL locks them. It runs a
    /// sub-select once if this makes an array.
    fn deletion(&self, selected: &str, lock: &str) -> String {
        self.pool.pick(
            format!("DELETE FROM auth_sessions WHERE id IN ({selected})"),
            format!("DELETE FROM auth_sessions WHERE id = ANY(ARRAY({selected} {lock}))"),
        )
    }

    async fn select(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, SqlError> {
        let mut sessions = Vec::new();
        for label in selector.labels() {
            let rows: Vec<Row> = with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, SELECT_LABELLED)
                .bind(text(label.as_bytes()))
                .bind(to_i64(MAX_LISTED as u64 + 1)) // one may be left out
                .fetch_all(connection)
                .await?);
            for row in rows {
                sessions.push(session_of(row)?);
            }
        }
        sessions.retain(|session| selector.excepted() != Some(&session.id));
        sessions.sort_by_key(|session| (Reverse(session.started_at), session.id));
        sessions.dedup_by_key(|session| session.id);
        sessions.truncate(MAX_LISTED);
        Ok(sessions)
    }

    /// Removes expired sessions in the background, if that is due. A failure is ignored: the next sign-in tries again.
    fn purge(&self, now: SystemTime) {
        let now = to_milliseconds(now);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // In both directions, because the clock may have been wrong.
        if now.abs_diff(self.purged_at.load(Ordering::Relaxed)) < PURGE_PAUSE_MILLISECONDS {
            return;
        }
        self.purged_at.store(now, Ordering::Relaxed);
        let (this, before) = (self.clone(), to_i64(now.saturating_sub(PURGE_DELAY_MILLISECONDS)));
        runtime.spawn(async move { drop(this.delete_expired(before).await) });
    }

    async fn delete_expired(&self, before: i64) -> Result<(), SqlError> {
        while self.delete_some_expired(before).await? == PURGE_BATCH {
            sleep(PURGE_BREAK).await;
        }
        Ok(())
    }

    /// Deletes up to 1000 expired sessions, and returns their number. Leaves out those that another transaction has
    /// locked.
    async fn delete_some_expired(&self, before: i64) -> Result<usize, SqlError> {
        let expired =
            format!("{SELECT_SESSION_IDS} expires_at < $1 ORDER BY expires_at LIMIT {PURGE_BATCH}");
        let sessions =
            format!("{} RETURNING id", self.deletion(&expired, "FOR UPDATE SKIP LOCKED"));
        Ok(in_transaction!(&self.pool, connection => {
            let ids = unnamed!(sqlx::query_scalar, sqlx::AssertSqlSafe(sessions)).bind(before);
            let ids: Vec<String> = ids.fetch_all(&mut *connection).await?;
            if !ids.is_empty() {
                let labels = format!("{DELETE_LABELS} IN {}", parameters(1, ids.len()));
                let mut labels = unnamed!(sqlx::query, sqlx::AssertSqlSafe(labels));
                for id in &ids {
                    labels = labels.bind(id);
                }
                labels.execute(&mut *connection).await?;
            }
            ids.len()
        }))
    }
}

#[async_trait]
impl SessionStore for SqlSessions {
    async fn create(
        &self,
        session: StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), BoxError> {
        self.run(|| self.insert(&session, labels)).await?;
        self.purge(session.used_at);
        Ok(())
    }

    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        self.run(|| self.find(id)).await
    }

    async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError> {
        self.run(|| self.update(&session, version)).await
    }

    async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
        self.run(|| self.delete(id)).await
    }

    async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
        self.run(|| self.delete_where(selector)).await
    }

    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
        self.run(|| self.select(selector)).await
    }
}

/// Id, version and value; start, last use, expiry and end; and the end of the lease.
type Row = (String, i64, Vec<u8>, i64, i64, i64, i64, Option<i64>);

fn session_of(row: Row) -> Result<StoredSession, SqlError> {
    let (id, version, value, started_at, used_at, expires_at, ends_at, renewing_until) = row;
    let id = base64url::decode(&id).and_then(|id| id.try_into().ok());
    let id = id.ok_or_else(|| {
        SqlError::Database("a session in the table auth_sessions has a malformed id".into())
    })?;
    let [started_at, used_at, expires_at, ends_at] =
        [started_at, used_at, expires_at, ends_at].map(from_column);
    let mut session = StoredSession::new(SessionId::from_bytes(id), value, started_at, ends_at);
    session.version = to_u64(version);
    session.used_at = used_at;
    session.expires_at = expires_at;
    session.renewing_until = renewing_until.map(from_column);
    Ok(session)
}

/// Returns so many parameters in parentheses, such as `($2, $3)`.
fn parameters(first: usize, count: usize) -> String {
    let all: Vec<_> = (first..first + count).map(|number| format!("${number}")).collect();
    format!("({})", all.join(", "))
}

fn text(digest: &[u8; 32]) -> String {
    base64url::encode(digest)
}

fn to_column(at: SystemTime) -> i64 {
    to_i64(to_milliseconds(at))
}

fn from_column(at: i64) -> SystemTime {
    from_milliseconds(to_u64(at))
}

/// Converts a number for the database. No session has the largest one.
fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

macro_rules! columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "id, ",
            $prefix,
            "version, ",
            $prefix,
            "value, ",
            $prefix,
            "started_at, ",
            $prefix,
            "used_at, ",
            $prefix,
            "expires_at, ",
            $prefix,
            "ends_at, ",
            $prefix,
            "renewing_until"
        )
    };
}

const INSERT: &str = concat!(
    "INSERT INTO auth_sessions (",
    columns!(""),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
);

const INSERT_LABEL: &str = "INSERT INTO auth_session_labels (label, session_id) VALUES ($1, $2)";

const SELECT: &str = concat!("SELECT ", columns!(""), " FROM auth_sessions WHERE id = $1");

const SELECT_LABELLED: &str = concat!(
    "SELECT ",
    columns!("s."),
    " FROM auth_session_labels l JOIN auth_sessions s ON s.id = l.session_id \
    WHERE l.label = $1 ORDER BY s.started_at DESC LIMIT $2"
);

const UPDATE: &str = "UPDATE auth_sessions SET version = $3, value = $4, used_at = $5, \
    expires_at = $6, renewing_until = $7 WHERE id = $1 AND version = $2";

const DELETE: &str = "DELETE FROM auth_sessions WHERE id = $1";

const DELETE_LABELS_OF_ONE: &str = "DELETE FROM auth_session_labels WHERE session_id = $1";

// These begin statements with as many parameters as there are labels or sessions.

const DELETE_LABELS: &str = "DELETE FROM auth_session_labels WHERE session_id";

const SELECT_IDS: &str = "SELECT session_id FROM auth_session_labels WHERE label";

const SELECT_SESSION_IDS: &str = "SELECT id FROM auth_sessions WHERE";

/// The condition that the session of a label is not there.
const IS_ORPHAN: &str = "session_id <> $1 AND NOT EXISTS \
    (SELECT 1 FROM auth_sessions WHERE auth_sessions.id = session_id)";

const SCHEMA: Schema = schema!("auth_session_schema_versions", "5174903281166034725", MIGRATIONS);

const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE auth_sessions (\
        id {text} NOT NULL PRIMARY KEY, \
        version BIGINT NOT NULL, \
        value {bytes} NOT NULL, \
        started_at BIGINT NOT NULL, \
        used_at BIGINT NOT NULL, \
        expires_at BIGINT NOT NULL, \
        ends_at BIGINT NOT NULL, \
        renewing_until BIGINT)",
    "CREATE INDEX auth_sessions_expires_at ON auth_sessions (expires_at)",
    "CREATE TABLE auth_session_labels (\
        label {text} NOT NULL, \
        session_id {text} NOT NULL, \
        PRIMARY KEY (label, session_id))",
    "CREATE INDEX auth_session_labels_session_id ON auth_session_labels (session_id)",
]];
