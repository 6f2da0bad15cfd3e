//! [`Pool`] and [`SqlError`]: connections to SQLite or PostgreSQL for the stores of this crate.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};

#[cfg(feature = "sqlite")]
use crate::clock::sleep;
use crate::support::secret::Secret;

/// The default timeout for getting a connection. It is shorter than the 2 s that a lookup or a registration
/// may take, so that the error says that no connection was free. A pool from the service has its own setting.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The maximum number of connections of a pool.
const CONNECTIONS: u32 = 8;

/// The pause between two attempts to switch a file to WAL mode.
#[cfg(feature = "sqlite")]
const WAL_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A pool of connections. Clones share the connections.
#[derive(Clone)]
pub(crate) enum Pool {
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// An error of a store in a database (features `sqlite`, `postgres`). It never contains the connection string.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The connection string does not begin with `sqlite:`, `postgres:` or `postgresql:`.
    #[error("the connection string names an unsupported database: use sqlite: or postgres:")]
    UnknownScheme,
    /// The connection string needs a cargo feature that is not enabled.
    #[error("this database needs the feature `{0}` of scaikey-auth")]
    FeatureMissing(&'static str),
    /// The connection string cannot be parsed: its host, port or an option is malformed.
    #[error("the connection string is malformed")]
    MalformedUrl,
    /// The connection pool needs a tokio runtime.
    #[error("called outside of a tokio runtime")]
    NoRuntime,
    /// The tables of the store are missing or outdated, and could not be migrated.
    #[error(
        "the tables could not be created or altered: {0}; \
         if this database role is not allowed to do so, call `migrate` once with a role that is"
    )]
    Migration(#[source] BoxedError),
    /// A query for one key returned the row of another key. The table was not created by
    /// [`SqlRegistrar::migrate`](crate::registrar::SqlRegistrar::migrate), and its comparison ignores case,
    /// accents or the end of long texts.
    #[error(
        "the table auth_participants treats different keys as equal: its columns issuer, tenant_id, \
         kind and subject must be compared exactly"
    )]
    InexactComparison,
    /// The database cannot be reached, refused the statement, or has invalid data.
    #[error("the database failed: {0}{advice}", advice = advice(.0))]
    Database(#[source] BoxedError),
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Returns what to do about an error. SQLite has a code for a file that cannot be opened (14, `SQLITE_CANTOPEN`).
fn advice(error: &BoxedError) -> &'static str {
    let error = error.downcast_ref().and_then(sqlx::Error::as_database_error);
    match error.and_then(|error| error.code()).as_deref() {
        Some("14") => {
            "; for a new database, add `?mode=rwc` to the connection string, and create its folder"
        }
        _ => "",
    }
}

/// Writes the same text as [`Display`](fmt::Display): a `main` that returns this error, and `unwrap`, print it.
impl fmt::Debug for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SqlError {
    /// Returns whether a table is missing. PostgreSQL has a code for this (42P01, `undefined_table`);
    /// SQLite has only a message.
    pub(crate) fn is_missing_table(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let error = error.downcast_ref().and_then(sqlx::Error::as_database_error);
        error.is_some_and(|error| {
            error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
        })
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Runs `$work` on a connection of either database; both accept `$1` as a parameter. `?` returns errors from
/// the calling function.
///
/// In PostgreSQL, the work runs in a transaction, even if it is one statement, and statements must be
/// [`unnamed!`]. Behind a pooler such as PgBouncer in transaction mode, each transaction may get another
/// server connection, which does not have the statements prepared earlier, or has those of another client.
macro_rules! with_connection {
    ($pool:expr, $connection:ident => $work:expr) => {
        match $pool {
            #[cfg(feature = "sqlite")]
            $crate::support::sql::Pool::Sqlite(pool) => {
                let mut acquired = pool.acquire().await?;
                let $connection = &mut *acquired;
                $work
            }
            #[cfg(feature = "postgres")]
            $crate::support::sql::Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                let $connection = &mut *transaction;
                let done = $work;
                transaction.commit().await?;
                done
            }
        }
    };
}
pub(crate) use with_connection;

/// Runs `$work` in a writing transaction, in either database.
macro_rules! in_transaction {
    ($pool:expr, $connection:ident => $work:expr) => {
        match $pool {
            #[cfg(feature = "sqlite")]
            $crate::support::sql::Pool::Sqlite(pool) => {
                // IMMEDIATE, because a transaction that begins with a read fails instead of waiting for
                // another writer.
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                let $connection = &mut *transaction;
                let done = $work;
                transaction.commit().await?;
                done
            }
            #[cfg(feature = "postgres")]
            $crate::support::sql::Pool::Postgres(pool) => {
                // Overrides the isolation level of the pool: at a higher level, the row that caused ON
                // CONFLICT would be invisible.
                let mut transaction =
                    pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                let $connection = &mut *transaction;
                let done = $work;
                transaction.commit().await?;
                done
            }
        }
    };
}
pub(crate) use in_transaction;

/// Runs constant statements, one after the other, on a connection of either database.
macro_rules! run_all {
    ($pool:expr, $connection:ident, $statements:expr) => {
        for statement in $statements {
            let statement = sqlx::AssertSqlSafe($pool.typed(statement));
            $crate::support::sql::unnamed!(sqlx::query, statement)
                .execute(&mut *$connection)
                .await?;
        }
    };
}
pub(crate) use run_all;

/// Generates the constructors that all SQL stores have. The store must have `from_pool`.
macro_rules! sql_constructors {
    ($store:ident) => {
        impl $store {
            /// Creates a store from a connection string, such as `sqlite:///var/lib/app/app.db?mode=rwc`,
            /// `sqlite::memory:` or `postgres://app@db.example/app`. It connects on first use.
            ///
            /// The service can therefore start before its database. The store uses at most 8 connections, and
            /// a call waits up to 1.5 s for one, and then fails. SQLite files are switched to WAL mode, so
            /// that a writer does not block readers, unless the connection string has `mode=ro` or
            /// `immutable`.
            ///
            /// # Errors
            /// If the connection string is malformed, if it needs a feature that is not enabled, or if no
            /// tokio runtime is running.
            pub fn connect_lazy(url: &$crate::support::secret::Secret) -> Result<Self, SqlError> {
                Self::connect_lazy_with_timeout(url, $crate::support::sql::ACQUIRE_TIMEOUT)
            }

            /// Creates a store as [`connect_lazy`](Self::connect_lazy) does, with another timeout, for many
            /// writers or a distant database. A call waits up to `acquire_timeout` for a connection, and up
            /// to the same time for another writer of a SQLite file. The deadline of a
            /// [`CachedTenants`](crate::tenant::CachedTenants) or a registration, 2 s by default, should be
            /// longer.
            ///
            /// # Errors
            /// As [`connect_lazy`](Self::connect_lazy).
            pub fn connect_lazy_with_timeout(
                url: &$crate::support::secret::Secret,
                acquire_timeout: std::time::Duration,
            ) -> Result<Self, SqlError> {
                Ok(Self::from_pool(Pool::connect_lazy(url, acquire_timeout)?))
            }

            /// Creates a store as [`connect_lazy`](Self::connect_lazy) does, and connects immediately.
            ///
            /// # Errors
            /// As [`connect_lazy`](Self::connect_lazy), and if the database cannot be reached.
            pub async fn connect(url: &$crate::support::secret::Secret) -> Result<Self, SqlError> {
                let this = Self::connect_lazy(url)?;
                this.pool.ping().await?;
                Ok(this)
            }

            /// Creates a store from an existing pool, with the pool's limits and timeouts.
            #[cfg(feature = "sqlite")]
            pub fn from_sqlite(pool: sqlx::sqlite::SqlitePool) -> Self {
                Self::from_pool(Pool::Sqlite(pool))
            }

            /// Creates a store from an existing pool, with the pool's limits and timeouts.
            #[cfg(feature = "postgres")]
            pub fn from_postgres(pool: sqlx::postgres::PgPool) -> Self {
                Self::from_pool(Pool::Postgres(pool))
            }
        }

        /// Shows the kind of database, but not its location.
        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($store), self.pool)
            }
        }
    };
}
pub(crate) use sql_constructors;

/// Creates an unnamed statement, which is prepared each time it runs.
macro_rules! unnamed {
    ($make:path, $text:expr) => {
        $make($text).persistent(false)
    };
}
pub(crate) use unnamed;

impl Pool {
    /// Creates a pool that connects on first use.
    pub(crate) fn connect_lazy(url: &Secret, acquire_timeout: Duration) -> Result<Self, SqlError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(SqlError::NoRuntime);
        }
        match url.expose().split_once(':') {
            Some(("sqlite", _)) => sqlite(url, acquire_timeout),
            Some(("postgres" | "postgresql", _)) => postgres(url, acquire_timeout),
            _ => Err(SqlError::UnknownScheme),
        }
    }

    /// Returns the value for this kind of database.
    pub(crate) fn pick<T>(&self, sqlite: T, postgres: T) -> T {
        let is_sqlite = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        };
        if is_sqlite { sqlite } else { postgres }
    }

    /// Replaces the placeholders of column types that differ between the databases. The collation "C"
    /// compares bytes; the database's default collation may ignore differences.
    pub(crate) fn typed(&self, statement: &str) -> String {
        let (text, time, bytes) =
            self.pick(("TEXT", "TEXT", "BLOB"), ("TEXT COLLATE \"C\"", "TIMESTAMPTZ", "BYTEA"));
        statement.replace("{text}", text).replace("{time}", time).replace("{bytes}", bytes)
    }

    /// Checks that the database can be reached. SQLite opens any file, so it has to read one.
    pub(crate) async fn ping(&self) -> Result<(), sqlx::Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => {
                sqlx::query("PRAGMA schema_version").execute(pool).await.map(drop)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.acquire().await.map(drop),
        }
    }
}

/// Shows the kind of database, but not its location.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick("SQLite", "PostgreSQL"))
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(url: &Secret, acquire_timeout: Duration) -> Result<Pool, SqlError> {
    let url = url.expose();
    let has = |text| url.contains(text);
    let options: SqliteConnectOptions = url.parse().map_err(|_| SqlError::MalformedUrl)?;
    let options = options.busy_timeout(acquire_timeout);
    // A file needs no ping, and a lookup that is cancelled during a ping would lose its connection.
    let pool = SqlitePoolOptions::new().acquire_timeout(acquire_timeout).test_before_acquire(false);
    let pool = if has(":memory:") || has("mode=memory") {
        // An in-memory database exists as long as its only connection.
        pool.max_connections(1).max_lifetime(None).idle_timeout(None)
    } else if has("mode=ro") || has("immutable=") {
        pool.max_connections(CONNECTIONS)
    } else {
        let pool = pool.max_connections(CONNECTIONS);
        pool.after_connect(|connection, _| Box::pin(enable_wal(connection)))
    };
    Ok(Pool::Sqlite(pool.connect_lazy_with(options)))
}

/// Switches the file to WAL mode. If several connections do so concurrently, SQLite refuses some immediately,
/// in spite of the busy timeout. This function then tries again. The pool's timeout for a connection limits
/// the number of attempts.
///
/// Other errors are ignored here, because the first statement reports them.
#[cfg(feature = "sqlite")]
async fn enable_wal(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    const BUSY: &str = "5";
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(BUSY) => {
                sleep(WAL_RETRY_PAUSE).await;
            }
            _ => return Ok(()),
        }
    }
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_url: &Secret, _: Duration) -> Result<Pool, SqlError> {
    Err(SqlError::FeatureMissing("sqlite"))
}

#[cfg(feature = "postgres")]
fn postgres(url: &Secret, acquire_timeout: Duration) -> Result<Pool, SqlError> {
    use sqlx::ConnectOptions;
    let options = url::Url::parse(url.expose())
        .ok()
        .and_then(|url| PgConnectOptions::from_url(&url).ok())
        .ok_or(SqlError::MalformedUrl)?
        // PgBouncer refuses connections with this setting, and the tables have no floating-point columns.
        .extra_float_digits(None);
    let pool = PgPoolOptions::new().acquire_timeout(acquire_timeout).max_connections(CONNECTIONS);
    Ok(Pool::Postgres(pool.connect_lazy_with(options)))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &Secret, _: Duration) -> Result<Pool, SqlError> {
    Err(SqlError::FeatureMissing("postgres"))
}
