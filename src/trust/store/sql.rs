//! [`SqlPolicies`]: the versions of a trust policy in a table of SQLite or PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Appended, NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyStore, PolicyVersion,
    PolicyVersionId,
};
use crate::clock::with_timeout;
use crate::error::{BoxError, SqlError};
use crate::support::schema::{Schema, schema};
use crate::support::sql::{Pool, in_transaction, sql_constructors, unnamed, with_connection};
use crate::trust::time::{from_rfc3339, to_rfc3339};

/// Default timeout of a call. An administrator waits for it; a decision waits less.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A policy store in the table `auth_trust_policies` (features `trust` and `sqlite` or `postgres`). Clones share the
/// connections.
///
/// Use it if the service has a database anyway, and runs in several processes.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use scaikey_auth::Secret;
/// use scaikey_auth::trust::{PolicyStore, SqlPolicies};
///
/// let policies = SqlPolicies::connect(&Secret::new("postgres://vault@db.example/vault")).await?;
/// if let Some(latest) = policies.latest().await? {
///     println!("version {latest} is in force");
/// }
/// # Ok(()) }
/// ```
///
/// ```sql
/// CREATE TABLE auth_trust_policies (
///     name           TEXT NOT NULL,   -- of the policy; compared exactly
///     number         BIGINT NOT NULL, -- of the version, from 1
///     digest         TEXT NOT NULL,   -- the first 16 digits of the SHA-256 of the policy
///     policy         TEXT NOT NULL,   -- TOML
///     changed_at     TEXT NOT NULL,   -- UTC (RFC 3339), by the clock of the process that made the change
///     author_issuer  TEXT,            -- NULL if the author is not known
///     author_subject TEXT,
///     author_tenant  TEXT,
///     author_name    TEXT,            -- for display only
///     note           TEXT,
///     restores       BIGINT,          -- the number of the earlier version that this one restores
///     PRIMARY KEY (name, number)
/// );
/// ```
///
/// The store adds rows, and never changes or deletes one. Its database role needs only `SELECT` and `INSERT`; without
/// `UPDATE` and `DELETE`, a service that was taken over cannot rewrite the history. *Not* protected: whoever can write
/// to the table decides which tokens are accepted. A row whose policy was changed by hand, so that it does not match
/// its digest, is an error, and the policy that a process has loaded stays in force.
///
/// The primary key decides between concurrent writers, so exactly one of them succeeds. A version is one row, so a
/// crash leaves it written or not. To look for a new version, a process reads the number and the digest of one row.
///
/// The store works behind PgBouncer in transaction mode, because it keeps no statement between transactions.
#[derive(Clone)]
pub struct SqlPolicies {
    pool: Pool,
    name: String,
    timeout: Duration,
}

sql_constructors!(SqlPolicies);

/// Reads the id of the latest version.
macro_rules! latest {
    ($policies:ident, $connection:ident) => {{
        let latest: Option<IdRow> = unnamed!(sqlx::query_as, LATEST)
            .bind(&$policies.name)
            .fetch_optional(&mut *$connection)
            .await?;
        latest.map(id_of).transpose()?
    }};
}

impl SqlPolicies {
    /// Sets the name of the policy, for services that share a database, or a service with several policies. Default:
    /// `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the timeout of a call, in real time. Default: 5 s. A version that is not committed by then is rolled back.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Creates or migrates the table. Several processes may call this concurrently, and repeatedly. A call that finds
    /// no table also does this. If the service's database role may not create tables, call this once with a role that
    /// may, and grant `SELECT` and `INSERT` on `auth_trust_policies`, and `SELECT` on `auth_trust_schema_versions`. A
    /// table of a newer version of this crate stays as it is.
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses a statement.
    pub async fn migrate(&self) -> Result<(), SqlError> {
        SCHEMA.migrate(&self.pool).await
    }

    fn from_pool(pool: Pool) -> Self {
        Self { pool, name: "default".to_owned(), timeout: DEFAULT_TIMEOUT }
    }

    /// Runs `work` within the timeout. If the table is missing, creates it and runs `work` again.
    async fn run<T, F>(&self, work: impl Fn() -> F) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, SqlError>>,
    {
        let attempts = async {
            match work().await {
                Err(error) if error.is_missing_table() => {
                    self.migrate().await?;
                    work().await
                }
                outcome => outcome,
            }
        };
        match with_timeout(self.timeout, attempts).await {
            Some(outcome) => Ok(outcome?),
            None => Err(format!("the database did not answer within {:?}", self.timeout).into()),
        }
    }

    async fn find_latest(&self) -> Result<Option<PolicyVersionId>, SqlError> {
        Ok(with_connection!(&self.pool, connection => latest!(self, connection)))
    }

    async fn find(&self, number: i64) -> Result<Option<PolicyVersion>, SqlError> {
        let row: Option<Row> = with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, READ)
            .bind(&self.name)
            .bind(number)
            .fetch_optional(connection)
            .await?);
        let Some((change, Some(text))) = row.map(change_of).transpose()? else { return Ok(None) };
        match change.id.is_of(&text) {
            true => Ok(Some(PolicyVersion { change, text })),
            false => Err(damaged(change.id.number(), "its policy does not match its digest")),
        }
    }

    async fn find_changes(&self, below: i64, limit: i64) -> Result<Vec<PolicyChange>, SqlError> {
        let rows: Vec<Row> = with_connection!(&self.pool, connection => unnamed!(sqlx::query_as, HISTORY)
            .bind(&self.name)
            .bind(below)
            .bind(limit)
            .fetch_all(connection)
            .await?);
        let change = |row: Row| {
            let number = to_u64(row.0);
            change_of(row).map_or_else(|_| PolicyChange::damaged(number), |(change, _)| change)
        };
        Ok(rows.into_iter().map(change).collect())
    }

    /// Inserts a version, if `expected` is the latest one. A concurrent writer may insert the same number between
    /// the two statements; then this one inserts nothing.
    async fn insert(
        &self,
        version: &NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, SqlError> {
        let number = expected.map_or(0, PolicyVersionId::number).saturating_add(1);
        let id = PolicyVersionId::new(number, &version.text);
        let author = version.author.as_ref();
        Ok(in_transaction!(&self.pool, connection => {
            let found = latest!(self, connection);
            if found.as_ref() != expected {
                Appended::Conflict(found)
            } else if unnamed!(sqlx::query, INSERT)
                .bind(&self.name)
                .bind(to_i64(number))
                .bind(id.digest())
                .bind(&version.text)
                .bind(to_rfc3339(version.at))
                .bind(author.map(|author| &*author.issuer))
                .bind(author.map(|author| &*author.subject))
                .bind(author.and_then(|author| author.tenant.as_deref()))
                .bind(author.and_then(|author| author.name.as_deref()))
                .bind(version.note.as_deref())
                .bind(version.restores.map(to_i64))
                .execute(&mut *connection)
                .await?
                .rows_affected()
                == 1
            {
                Appended::Done(id)
            } else {
                Appended::Conflict(latest!(self, connection))
            }
        }))
    }
}

#[async_trait]
impl PolicyStore for SqlPolicies {
    fn kind(&self) -> &'static str {
        "sql"
    }

    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.run(|| self.find_latest()).await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        self.run(|| self.find(to_i64(number))).await
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.run(|| self.insert(&version, expected)).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        let below = to_i64(before.unwrap_or(u64::MAX));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(|| self.find_changes(below, limit)).await
    }
}

/// Number and digest.
type IdRow = (i64, String);

/// Number, digest and time; the author's issuer, subject, tenant and name; the note, the restored number, and the
/// policy.
type Row = (
    i64,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
);

fn id_of((number, digest): IdRow) -> Result<PolicyVersionId, SqlError> {
    let id = format!("{number}-{digest}").parse();
    id.map_err(|_| damaged(to_u64(number), "its number or digest is malformed"))
}

/// Returns the change and, if it was read, the policy.
fn change_of(row: Row) -> Result<(PolicyChange, Option<String>), SqlError> {
    let (number, digest, at, issuer, subject, tenant, name, note, restores, policy) = row;
    let id = id_of((number, digest))?;
    let at = from_rfc3339(&at).ok_or_else(|| damaged(id.number(), "its time is malformed"))?;
    let author =
        issuer.zip(subject).map(|(issuer, subject)| PolicyAuthor { issuer, subject, tenant, name });
    let restores = restores.map(to_u64);
    Ok((PolicyChange { author, note, restores, ..PolicyChange::new(id, at) }, policy))
}

fn damaged(number: u64, problem: &str) -> SqlError {
    let text = format!("version {number} in the table auth_trust_policies is damaged: {problem}");
    SqlError::Database(text.into())
}

/// Converts a number for the database. No version has the largest one.
fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

const LATEST: &str = "SELECT number, digest FROM auth_trust_policies WHERE name = $1 \
    ORDER BY number DESC LIMIT 1";

macro_rules! select {
    ($policy:literal WHERE $condition:literal) => {
        concat!(
            "SELECT number, digest, changed_at, author_issuer, author_subject, author_tenant, \
             author_name, note, restores, ",
            $policy,
            " FROM auth_trust_policies WHERE name = $1 AND ",
            $condition
        )
    };
}

const READ: &str = select!("policy" WHERE "number = $2");

const HISTORY: &str =
    select!("CAST(NULL AS TEXT)" WHERE "number < $2 ORDER BY number DESC LIMIT $3");

const INSERT: &str = "INSERT INTO auth_trust_policies \
    (name, number, digest, policy, changed_at, author_issuer, author_subject, author_tenant, author_name, \
    note, restores) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
    ON CONFLICT (name, number) DO NOTHING";

const SCHEMA: Schema = schema!("auth_trust_schema_versions", "7710492864550392117", MIGRATIONS);

const MIGRATIONS: &[&[&str]] = &[&["CREATE TABLE auth_trust_policies (\
        name {text} NOT NULL, \
        number BIGINT NOT NULL CHECK (number > 0), \
        digest TEXT NOT NULL, \
        policy TEXT NOT NULL, \
        changed_at TEXT NOT NULL, \
        author_issuer TEXT, \
        author_subject TEXT, \
        author_tenant TEXT, \
        author_name TEXT, \
        note TEXT, \
        restores BIGINT, \
        PRIMARY KEY (name, number))"]];
