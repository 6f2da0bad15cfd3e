//! [`RevocationLog`]: revocations that several processes share.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::event::{Revocation, Target};
use super::index::Entry;
use super::key::{Key, Kind};
use crate::error::BoxError;
use crate::identity::{DIGEST_BYTES, TenantId};
use crate::support::base64url;

/// The version of the format of entries.
const VERSION: u8 = 1;

/// A log of revocations, to which all processes of a service append, and which all follow.
///
/// `RedisRevocations` (feature `redis`) is such a log. [`MemoryRevocationLog`](super::MemoryRevocationLog) serves one
/// process. The conformance suite is
/// [`testing::conformance::revocation_log`](crate::testing::conformance::revocation_log) (feature `testing`).
///
/// Harmless mistakes: an entry twice; an entry after its [end](LogEntry::until); a
/// [reset](LogPage::was_reset) without a reason, after which everything is read again. Security holes: an entry whose
/// cursor comes before one that a reader has seen, so that the reader never sees the entry (numbers that a database
/// hands out when a transaction begins do that); fewer than `limit` entries although there are more; an entry that is
/// removed before its end, without a reset; `Ok` for an entry that is not stored; entries of another writer than this
/// service, who can sign everybody out, or readable by others, because entries name subjects.
///
/// ```
/// # #[cfg(feature = "sqlite")] mod example {
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::revocation::{InvalidLogEntry, LogCursor, LogEntry, LogPage, RevocationLog};
///
/// /// A table with the columns `number` (`INTEGER PRIMARY KEY AUTOINCREMENT`) and `entry`. SQLite has one writer at a
/// /// time, so numbers are in the order in which entries become visible.
/// #[derive(Debug)]
/// struct Log(sqlx::SqlitePool);
///
/// #[async_trait]
/// impl RevocationLog for Log {
///     async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
///         let insert = sqlx::query("INSERT INTO revocations (entry) VALUES ($1)").bind(entry.to_bytes());
///         Ok(LogCursor::new(insert.execute(&self.0).await?.last_insert_rowid().to_string()))
///     }
///
///     async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
///         let after: i64 = after.map_or(Ok(0), |after| after.as_str().parse())?;
///         let select = "SELECT number, entry FROM revocations WHERE number > $1 ORDER BY number LIMIT $2";
///         let select = sqlx::query_as::<_, (i64, Vec<u8>)>(select).bind(after).bind(i64::try_from(limit)?);
///         let mut page = LogPage::default();
///         for (number, entry) in select.fetch_all(&self.0).await? {
///             page.entries.push((LogCursor::new(number.to_string()), LogEntry::from_bytes(&entry)));
///         }
///         Ok(page)
///     }
/// }
/// # }
/// ```
#[async_trait]
pub trait RevocationLog: fmt::Debug + Send + Sync + 'static {
    /// Appends an entry, and returns its cursor. When this returns, every reader of the log finds the entry.
    ///
    /// # Errors
    /// If the log may not have stored the entry. It may then be appended again.
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError>;

    /// Returns the entries after a cursor, oldest first, at most `limit` (1 or more). `None` means from the beginning.
    /// Fewer than `limit` entries mean that there are no others yet.
    ///
    /// If the log lacks entries that it had at this cursor, such as after a restart without persistence, it returns
    /// its entries from the beginning, and sets [`was_reset`](LogPage::was_reset).
    ///
    /// # Errors
    /// If the log cannot be read. An entry that cannot be read is no error of the log.
    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError>;
}

#[async_trait]
impl<L: RevocationLog + ?Sized> RevocationLog for Arc<L> {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        (**self).append(entry).await
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        (**self).read(after, limit).await
    }
}

/// A place in a [`RevocationLog`]: that of an entry. Only the log knows what it means.
///
/// ```
/// use scaikey_auth::revocation::LogCursor;
///
/// assert_eq!(LogCursor::new("17").as_str(), "17");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogCursor(Arc<str>);

impl LogCursor {
    /// Creates a cursor.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Some entries of a [`RevocationLog`].
///
/// ```
/// use scaikey_auth::revocation::{LogCursor, LogEntry, LogPage};
///
/// /// Reads rows of a table.
/// fn page(rows: &[(i64, Vec<u8>)]) -> LogPage {
///     let read = |(number, bytes): &(i64, Vec<u8>)| {
///         (LogCursor::new(number.to_string()), LogEntry::from_bytes(bytes))
///     };
///     LogPage { entries: rows.iter().map(read).collect(), was_reset: false }
/// }
/// assert!(page(&[(1, b"garbage".to_vec())]).entries[0].1.is_err());
/// ```
#[derive(Debug, Default)]
pub struct LogPage {
    /// The entries, oldest first, each with its cursor. An entry that cannot be read is logged and skipped.
    pub entries: Vec<(LogCursor, Result<LogEntry, InvalidLogEntry>)>,
    /// Whether the log has lost what it had at the cursor of the reader, so that it begins at its first entry. All
    /// readers then append what the log lacks.
    pub was_reset: bool,
}

/// The error for an entry of a [`RevocationLog`] that cannot be read: it was changed, or another version of this crate
/// wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the revocation log cannot be read: it {problem}")]
pub struct InvalidLogEntry {
    problem: Cow<'static, str>,
}

impl InvalidLogEntry {
    /// Creates an error. `problem` continues the sentence "an entry of the revocation log cannot be read: it …".
    pub fn new(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { problem: problem.into() }
    }
}

/// An entry of a [`RevocationLog`].
///
/// It names subjects and issuers. Protect it from being read and written by others: seal it.
///
/// ```
/// use scaikey_auth::revocation::LogEntry;
///
/// /// Whether an entry can be removed from a log.
/// fn has_ended(entry: &LogEntry, now: std::time::SystemTime) -> bool {
///     entry.until() + std::time::Duration::from_secs(60) < now
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry(pub(super) Content);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A revocation, with both times.
    Event(Box<Revocation>),
    /// Entries of an index, which a process writes if the log lacks them.
    Entries(Vec<Entry>),
}

impl LogEntry {
    /// Creates an entry of a revocation, which has both times.
    pub(crate) fn of_event(revocation: Revocation) -> Self {
        Self(Content::Event(Box::new(revocation)))
    }

    /// Returns the largest number of entries of an index that it has.
    pub(super) fn entries(&self) -> usize {
        match &self.0 {
            Content::Event(_) => 2,
            Content::Entries(entries) => entries.len(),
        }
    }

    /// Returns the end of the entry. It may be removed from the log one minute later, because clocks differ.
    pub fn until(&self) -> SystemTime {
        let seconds = match &self.0 {
            Content::Event(revocation) => {
                return revocation.until.unwrap_or(SystemTime::UNIX_EPOCH);
            }
            Content::Entries(entries) => entries.iter().map(|entry| entry.until).max(),
        };
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds.unwrap_or_default()))
    }

    /// Returns the entry in the form in which it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stored = match &self.0 {
            Content::Event(revocation) => StoredEntry::of_event(revocation),
            Content::Entries(entries) => {
                let bytes: Vec<_> = entries.iter().flat_map(packed).collect();
                StoredEntry { entries: Some(base64url::encode(bytes)), ..StoredEntry::default() }
            }
        };
        // Texts and numbers can always be written.
        serde_json::to_vec(&StoredEntry { v: VERSION, ..stored }).unwrap_or_default()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) returned.
    ///
    /// # Errors
    /// If it is something else, or of a version that this one does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidLogEntry> {
        let invalid = || InvalidLogEntry::new("has another form than this version writes");
        let stored: StoredEntry = serde_json::from_slice(bytes).map_err(|_| invalid())?;
        let content = match stored {
            StoredEntry { v, .. } if v != VERSION => None,
            StoredEntry { entries: Some(entries), .. } => {
                let bytes = base64url::decode(entries).ok_or_else(invalid)?;
                let entries = bytes.chunks(PACKED_BYTES).map(unpacked);
                entries.collect::<Option<_>>().map(Content::Entries)
            }
            stored => stored.into_event().map(|event| Content::Event(Box::new(event))),
        };
        content.map(Self).ok_or_else(invalid)
    }
}

/// An entry in JSON. Times are in milliseconds since 1970.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoredEntry {
    v: u8,
    /// The kind of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    /// Of a session, only the tokens that were issued before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    /// The time of the event, rounded down, if each reader knows the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<String>,
}

impl StoredEntry {
    fn of_event(revocation: &Revocation) -> Self {
        let (id, subject, tenant) = match &revocation.target {
            Target::Token { id, subject } | Target::Session { id, subject, .. } => {
                (Some(id.clone()), subject.clone(), None)
            }
            Target::SubjectWithoutTenant { id } => (Some(id.clone()), None, None),
            Target::Subject { id, tenant } | Target::Client { id, tenant } => {
                (Some(id.clone()), None, tenant.clone())
            }
            Target::Tenant(tenant) => (None, None, Some(tenant.clone())),
            Target::Issuer => (None, None, None),
        };
        Self {
            kind: Some(revocation.kind().as_str().into()),
            issuer: Some(revocation.issuer.clone()),
            id,
            subject,
            tenant,
            dated: matches!(revocation.target, Target::Session { is_dated: true, .. }),
            issued_before: revocation.issued_before.map(milliseconds),
            until: revocation.until.map(milliseconds),
            made_at: revocation.made_at.map(milliseconds_rounded_down),
            ..Self::default()
        }
    }

    fn into_event(self) -> Option<Revocation> {
        let Self {
            kind, issuer, id, subject, tenant, dated, issued_before, until, made_at, ..
        } = self;
        let kind = Kind::ALL.into_iter().find(|known| Some(known.as_str()) == kind.as_deref())?;
        let target = match (kind, id, tenant) {
            (Kind::Session, Some(id), None) => Target::Session { id, subject, is_dated: dated },
            _ if dated => return None,
            (Kind::Token, Some(id), None) => Target::Token { id, subject },
            (Kind::SubjectWithoutTenant, Some(id), None) => Target::SubjectWithoutTenant { id },
            (Kind::Subject, Some(id), None) => Target::Subject { id, tenant: None },
            (Kind::SubjectInTenant, Some(id), Some(it)) => Target::Subject { id, tenant: Some(it) },
            (Kind::Client, Some(id), None) => Target::Client { id, tenant: None },
            (Kind::ClientInTenant, Some(id), Some(it)) => Target::Client { id, tenant: Some(it) },
            (Kind::Tenant, None, Some(tenant)) => Target::Tenant(tenant),
            (Kind::Issuer, None, None) => Target::Issuer,
            _ => return None,
        };
        let (issued_before, until) = (Some(time(issued_before?)?), Some(time(until?)?));
        let made_at = made_at.and_then(time);
        Some(Revocation { issuer: issuer?, target, issued_before, until, made_at })
    }
}

/// Returns milliseconds since 1970, rounded up, so that a revocation never becomes weaker.
fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Returns milliseconds since 1970, so that a reader with the same lifetimes finds no later end.
fn milliseconds_rounded_down(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(milliseconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

/// The length of an entry of an index: kind, two keys and two times.
const PACKED_BYTES: usize = 1 + 2 * DIGEST_BYTES + 8;

fn packed(entry: &Entry) -> Vec<u8> {
    let Entry { kind, key, subject, issued_before, until } = entry;
    let times = [issued_before.to_be_bytes(), until.to_be_bytes()].concat();
    [&[*kind as u8][..], &key.0, &subject.0, &times].concat()
}

fn unpacked(bytes: &[u8]) -> Option<Entry> {
    let (kind, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (subject, rest) = rest.split_first_chunk()?;
    let (issued_before, until) = rest.split_first_chunk()?;
    Some(Entry {
        kind: Kind::from_number(*kind)?,
        key: Key(*key),
        subject: Key(*subject),
        issued_before: u32::from_be_bytes(*issued_before),
        until: u32::from_be_bytes(until.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(revocation: Revocation) -> Revocation {
        let at = |milliseconds| time(milliseconds).unwrap();
        revocation.issued_before(at(1_500)).until(at(9_000))
    }

    fn events() -> Vec<Revocation> {
        let (iss, tenant) = ("https://a", TenantId::new("acme").unwrap());
        let all = vec![
            Revocation::token(iss, "1"),
            Revocation::token(iss, "1").of_subject("alice"),
            Revocation::session(iss, "1"),
            Revocation::session(iss, "1").of_subject("alice"),
            Revocation::subject(iss, "\"\u{1F600}\n"),
            Revocation::subject(iss, "alice").in_tenant(tenant.clone()),
            Revocation::client(iss, "web"),
            Revocation::client(iss, "web").in_tenant(tenant.clone()),
            Revocation::tenant(iss, tenant),
            Revocation::issuer(iss),
            Revocation::tokens_of_session(iss, "1").of_subject("alice"),
            Revocation::subject_without_tenant(iss, "alice"),
        ];
        let mut all: Vec<_> = all.into_iter().map(times).collect();
        // The end is not set by its caller.
        all[5].made_at = time(1_700);
        all
    }

    fn entries() -> Vec<Entry> {
        let entry = |kind| Entry {
            kind,
            key: Key::new(kind, "https://a", &["1"]),
            subject: Key::NONE,
            issued_before: 2,
            until: u32::MAX,
        };
        Kind::ALL.into_iter().map(entry).collect()
    }

    #[test]
    fn entries_survive_the_log() {
        let snapshot = LogEntry(Content::Entries(entries()));
        for entry in events().into_iter().map(LogEntry::of_event).chain([snapshot]) {
            let bytes = entry.to_bytes();
            assert_eq!(LogEntry::from_bytes(&bytes), Ok(entry), "{}", bytes.escape_ascii());
        }
    }

    /// Processes of two versions may share a log.
    #[test]
    fn format_of_entries_is_fixed() {
        for (nth, text) in [
            (
                3,
                r#"{"v":1,"kind":"session","issuer":"https://a","id":"1","subject":"alice","issued_before":1500,"until":9000}"#,
            ),
            (
                5,
                r#"{"v":1,"kind":"subject_in_tenant","issuer":"https://a","id":"alice","tenant":"acme","issued_before":1500,"until":9000,"made_at":1700}"#,
            ),
            (
                10,
                r#"{"v":1,"kind":"session","issuer":"https://a","id":"1","subject":"alice","dated":true,"issued_before":1500,"until":9000}"#,
            ),
        ] {
            let event = LogEntry::of_event(events().swap_remove(nth));
            assert_eq!(String::from_utf8(event.to_bytes()).unwrap(), text);
            assert_eq!(event.until(), time(9_000).unwrap());
        }
        let entry = LogEntry(Content::Entries(vec![entries().swap_remove(8)]));
        let key = &crate::support::crypto::sha256_of_parts(["issuer", "https://a", "1"])[..16];
        let bytes = [&[8], key, &[0; 16], &[0, 0, 0, 2, 255, 255, 255, 255]].concat();
        let text = format!(r#"{{"v":1,"entries":"{}"}}"#, base64url::encode(bytes));
        assert_eq!(String::from_utf8(entry.to_bytes()).unwrap(), text);
    }

    #[test]
    fn equal_lifetimes_give_no_later_end() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_001);
        let lifetime = Duration::from_secs(60);
        let event = Revocation { made_at: Some(at), ..times(Revocation::issuer("https://a")) };
        let written = LogEntry::of_event(event.issued_before(at).until(at + lifetime));
        let read = LogEntry::from_bytes(&written.to_bytes()).unwrap();
        let Content::Event(event) = &read.0 else { unreachable!() };
        assert!(event.made_at.unwrap() + lifetime <= read.until());
    }

    #[test]
    fn other_forms_are_refused() {
        let packed = base64url::encode([0; PACKED_BYTES + 1]);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"v":1}"#,
            r#"{"v":2,"kind":"issuer","issuer":"a","issued_before":1,"until":2}"#,
            r#"{"v":1,"kind":"issuer","issuer":"a","issued_before":1,"until":2,"new":1}"#,
            r#"{"v":1,"kind":"realm","issuer":"a","issued_before":1,"until":2}"#,
            r#"{"v":1,"kind":"issuer","issuer":"a","id":"b","issued_before":1,"until":2}"#,
            r#"{"v":1,"kind":"issuer","issuer":"a","until":2}"#,
            r#"{"v":1,"kind":"issuer","issuer":"a","issued_before":1}"#,
            r#"{"v":1,"kind":"issuer","issuer":"a","issued_before":1,"until":-1}"#,
            r#"{"v":1,"kind":"token","issuer":"a","issued_before":1,"until":2}"#,
            r#"{"v":1,"kind":"subject","issuer":"a","id":"b","tenant":"c d","issued_before":1,"until":2}"#,
            r#"{"v":1,"kind":"subject_without_session","issuer":"a","id":"b","issued_before":1,"until":2}"#,
            r#"{"v":1,"entries":"%"}"#,
            &format!(r#"{{"v":1,"entries":"{packed}"}}"#),
            &format!(r#"{{"v":1,"entries":"{}"}}"#, base64url::encode([10; PACKED_BYTES])),
            r#"{"v":1,"kind":"subject","issuer":"a","id":"b","dated":true,"issued_before":1,"until":2}"#,
        ] {
            assert!(LogEntry::from_bytes(text.as_bytes()).is_err(), "{text}");
        }
    }
}
