//! [`Pool`]: connections to SQLite or PostgreSQL, for the stores of this crate; [`SqlError`].

use std::fmt;
use std::time::Duration;

#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
#[cfg(feature = "sqlite")]
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};

#[cfg(feature = "sqlite")]
use crate::clock::pause;
use crate::support::secret::Secret;

/// How long to wait for a connection, unless another limit is given: less than the 2 s that a lookup or a
/// registration may take, so that what is said is why there is none. A pool handed in has its own setting.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A file of SQLite serves as many readers at once, a server as many statements.
const CONNECTIONS: u32 = 8;

/// What others need to put a file into WAL mode.
#[cfg(feature = "sqlite")]
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Clones share the connections.
#[derive(Clone)]
pub(crate) enum Pool {
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// Why a store in a database could not do what it was asked (features `sqlite`, `postgres`). Never holds the connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
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
    /// The tables of participants are missing or old, and could not be brought up to date.
    #[error(
        "the tables auth_participants and auth_workspaces could not be created or altered: {0}; \
         if this role may not, call `migrate` with one that may"
    )]
    Migration(#[source] BoxedError),
    /// A row was found whose key is not the one asked for: the table was not made by
    /// [`SqlRegistrar::migrate`](crate::registrar::SqlRegistrar::migrate), and overlooks case, accents or the end of long texts.
    #[error(
        "the table auth_participants takes two keys for one: its columns issuer, tenant_id, kind \
         and subject must be compared byte for byte"
    )]
    LooseKey,
    /// The database cannot be reached, refused, or holds what this crate did not write.
    #[error("the database failed: {0}")]
    Database(#[source] BoxedError),
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl SqlError {
    /// PostgreSQL has a code for it (42P01, `undefined_table`); SQLite only a sentence.
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

/// Does the same work on a connection of either database: both know `$1`. An error of the work is the
/// caller's, by `?`.
///
/// In PostgreSQL the work is a transaction, also where it is one statement, and statements are made
/// with `once!`: behind a pooler such as PgBouncer in transaction mode each transaction may get
/// another connection to the server, where no statement prepared earlier is known, or another's is.
macro_rules! on_either {
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
pub(crate) use on_either;

/// Does the same work in a transaction that writes, in either database.
macro_rules! in_transaction {
    ($pool:expr, $connection:ident => $work:expr) => {
        match $pool {
            #[cfg(feature = "sqlite")]
            $crate::support::sql::Pool::Sqlite(pool) => {
                // Immediate: a transaction that begins by reading cannot wait for its turn to write.
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                let $connection = &mut *transaction;
                let done = $work;
                transaction.commit().await?;
                done
            }
            #[cfg(feature = "postgres")]
            $crate::support::sql::Pool::Postgres(pool) => {
                // Whatever the pool's own: stricter levels do not see what ON CONFLICT ran into.
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

/// Runs statements of our own, one after the other, on a connection of either database.
macro_rules! run_all {
    ($pool:expr, $connection:ident, $statements:expr) => {
        for statement in $statements {
            let statement = sqlx::AssertSqlSafe($pool.typed(statement));
            $crate::support::sql::once!(sqlx::query, statement).execute(&mut *$connection).await?;
        }
    };
}
pub(crate) use run_all;

/// The constructors that stores have in common. `over` makes a store from a [`Pool`].
macro_rules! connecting {
    ($store:ident) => {
        impl $store {
            /// Takes a connection string, such as `sqlite:///var/lib/app/app.db?mode=rwc`,
            /// `sqlite::memory:` or `postgres://app@db.example/app`, and connects when first needed.
            ///
            /// A service built this way starts without its database. At most 8 connections; a call
            /// waits up to 1.5 s for one. SQLite files are put into WAL mode, so that a writer blocks
            /// no reader, unless `mode=ro` or `immutable` forbids it.
            ///
            /// # Errors
            /// When the connection string is malformed or needs a feature that is off, and outside of
            /// a tokio runtime.
            pub fn connect_lazy(url: &$crate::support::secret::Secret) -> Result<Self, SqlError> {
                Self::connect_lazy_with_timeout(url, $crate::support::sql::ACQUIRE_TIMEOUT)
            }

            /// As [`connect_lazy`](Self::connect_lazy), but a call waits up to `acquire_timeout` for a
            /// connection, and as long again for another writer of a SQLite file: for many writers, or
            /// a database far away. The deadline of whoever waits (of a
            /// [`CachedTenants`](crate::tenant::CachedTenants), of a registration), 2 s by default, should be
            /// longer.
            ///
            /// # Errors
            /// As `connect_lazy`.
            pub fn connect_lazy_with_timeout(
                url: &$crate::support::secret::Secret,
                acquire_timeout: std::time::Duration,
            ) -> Result<Self, SqlError> {
                Ok(Self::over(Pool::connect_lazy(url, acquire_timeout)?))
            }

            /// As [`connect_lazy`](Self::connect_lazy), but proves that the database can be reached.
            ///
            /// # Errors
            /// Also when it cannot.
            pub async fn connect(url: &$crate::support::secret::Secret) -> Result<Self, SqlError> {
                let this = Self::connect_lazy(url)?;
                this.pool.prove().await?;
                Ok(this)
            }

            /// Uses connections that the service has already, with their limits and timeouts.
            #[cfg(feature = "sqlite")]
            pub fn from_sqlite(pool: sqlx::sqlite::SqlitePool) -> Self {
                Self::over(Pool::Sqlite(pool))
            }

            /// Uses connections that the service has already, with their limits and timeouts.
            #[cfg(feature = "postgres")]
            pub fn from_postgres(pool: sqlx::postgres::PgPool) -> Self {
                Self::over(Pool::Postgres(pool))
            }
        }

        /// The kind of database, and nothing about where it is.
        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($store), self.pool)
            }
        }
    };
}
pub(crate) use connecting;

/// Makes a statement without a name, which is prepared each time it runs.
macro_rules! once {
    ($make:path, $text:expr) => {
        $make($text).persistent(false)
    };
}
pub(crate) use once;

impl Pool {
    /// Connects when first needed. SQLite files are put into WAL mode, so that a writer blocks no
    /// reader, unless `mode=ro` or `immutable` forbids it. A call waits up to `acquire_timeout` for a
    /// connection, and as long again for another writer of the file.
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

    /// Returns one of two, by the kind of database.
    pub(crate) fn pick<T>(&self, sqlite: T, postgres: T) -> T {
        let is_sqlite = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        };
        if is_sqlite { sqlite } else { postgres }
    }

    /// Fills in the types in which the tables of both differ. The collation "C" compares bytes,
    /// whatever the database's own overlooks.
    pub(crate) fn typed(&self, statement: &str) -> String {
        let (text, time) = self.pick(("TEXT", "TEXT"), ("TEXT COLLATE \"C\"", "TIMESTAMPTZ"));
        statement.replace("{text}", text).replace("{time}", time)
    }

    /// Proves that the database can be reached.
    pub(crate) async fn prove(&self) -> Result<(), sqlx::Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => pool.acquire().await.map(drop),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.acquire().await.map(drop),
        }
    }
}

/// The kind of database, and nothing about where it is.
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
    // A file needs no ping; and a lookup given up during one would take the connection with it.
    let pool = SqlitePoolOptions::new().acquire_timeout(acquire_timeout).test_before_acquire(false);
    let pool = if has(":memory:") || has("mode=memory") {
        // The database lives as long as its one connection.
        pool.max_connections(1).max_lifetime(None).idle_timeout(None)
    } else if has("mode=ro") || has("immutable=") {
        pool.max_connections(CONNECTIONS)
    } else {
        let pool = pool.max_connections(CONNECTIONS);
        pool.after_connect(|connection, _| Box::pin(write_ahead(connection)))
    };
    Ok(Pool::Sqlite(pool.connect_lazy_with(options)))
}

/// Puts the file into WAL mode. Of several that do so together, SQLite refuses some at once, whatever
/// their busy timeout. The pool's limit on waiting for a connection ends this, too.
///
/// A file that cannot be changed stays as it is; what is wrong with it, the first statement says.
#[cfg(feature = "sqlite")]
async fn write_ahead(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    const BUSY: &str = "5";
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(BUSY) => {
                pause(RETRY_AFTER).await;
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
        // PgBouncer takes no connection that asks for it, and there are no such numbers here.
        .extra_float_digits(None);
    let pool = PgPoolOptions::new().acquire_timeout(acquire_timeout).max_connections(CONNECTIONS);
    Ok(Pool::Postgres(pool.connect_lazy_with(options)))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &Secret, _: Duration) -> Result<Pool, SqlError> {
    Err(SqlError::FeatureMissing("postgres"))
}
