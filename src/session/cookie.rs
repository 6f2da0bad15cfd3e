//! Reads cookies from requests, and sets them so that no script, no other host and no plain-text
//! connection can access them (RFC 6265).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

use super::stored::StoredPart;
use crate::exchange::{AccessToken, Fence};
use crate::identity::{Identity, TenantId};
use crate::support::crypto;

/// Maximum size of a part. Browsers store 4096 bytes per cookie, name and value together (RFC
/// 6265bis §5.6).
const MAX_PART_BYTES: usize = 3800;

/// Maximum number of parts. Servers and proxies reject requests with larger heads.
const MAX_PARTS: usize = 4;

/// Maximum number of parts of a session with an ID token. Many servers and proxies allow 8 KiB for a header
/// field, so a token that only sign-out needs must not make the cookies larger than that.
const MAX_PARTS_WITH_ID_TOKEN: usize = 2;

/// Maximum number of cookies that one response clears. The next response clears the rest.
pub(super) const MAX_CLEARED: usize = 24;

/// Maximum number of session cookies that are read from a request. Browsers have a few.
const MAX_READ: usize = 64;

/// Maximum number of sessions that are tried, newest first. Late responses leave one or two behind.
const MAX_TRIED: usize = 4;

/// Suffixes of the names used before sessions had markers.
const LEGACY_SUFFIXES: [&str; 4] = ["", ".1", ".2", ".3"];

/// Length of the tag of a [`CookieId`]: the start time in milliseconds as hexadecimal digits,
/// followed by eight random characters.
const TAG_LEN: usize = TIME_LEN + 8;
const TIME_LEN: usize = 12;

/// The common start of the names of all session cookies: `__Host-` and the configured name.
///
/// A session has two kinds of cookies. Sign-in sets a *marker*, `NAME-TAG`, and sign-out clears it.
/// *Data* cookies, `NAME-TAG.GENERATION.PART`, hold the tokens; each renewal replaces them with the
/// next generation. Data without a marker is ignored. Of several sessions and generations, the
/// newest is used.
///
/// A session in a store has one cookie: the marker, whose value is the session's secret.
///
/// Responses may therefore arrive in any order. A late response may set data of a session that
/// ended, was renewed or was replaced; these cookies are ignored, and the next response clears
/// them. The same happens to `NAME` and `NAME.PART`, which older versions set.
#[derive(Debug, Clone)]
pub(super) struct CookiePrefix(String);

/// A session read from its cookies. Public because a public layer type names it, but not exported.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) token: AccessToken,
    /// When the user signed in.
    pub(super) started_at: SystemTime,
    /// The names of its cookies.
    pub(super) id: CookieId,
    /// The user, if the claims of the access token cannot be read without keys or questions.
    pub(super) user: Option<UserHash>,
    /// The session in the store, if the sessions have one.
    pub(super) stored: Option<Arc<StoredPart>>,
}

/// The hash of issuer, subject and tenant of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserHash(pub(super) [u8; 32]);

impl UserHash {
    pub(super) fn of(identity: &Identity) -> Self {
        let user = [identity.issuer(), identity.subject()];
        let tenant = identity.tenant_id().map(TenantId::as_str);
        Self(crypto::sha256_of_parts(user.into_iter().chain(tenant)))
    }
}

/// The id of a session and its number of renewals. A newer one is greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CookieId {
    /// Start time in milliseconds, and 48 random bits so that ids are unique. Not a secret.
    tag: String,
    generation: u32,
}

impl CookieId {
    /// Creates the id of a session that starts at `now`, or returns `None` if the operating system
    /// returns no random bytes.
    pub(super) fn new(now: SystemTime) -> Option<Self> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let random = Fence::random().ok()?;
        let mut tag = format!("{:0TIME_LEN$x}{}", since.as_millis(), random.as_str());
        tag.truncate(TAG_LEN);
        Some(Self { tag, generation: 0 })
    }

    /// Returns the id after another renewal.
    pub(super) fn next(&self) -> Self {
        Self { tag: self.tag.clone(), generation: self.generation.saturating_add(1) }
    }
}

impl fmt::Display for CookieId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.tag, self.generation)
    }
}

/// The kind of a session cookie.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CookieKind<'n> {
    /// A part in the format that earlier versions used, without markers.
    Legacy(usize),
    Marker(&'n str),
    Data(&'n str, u32, usize),
}

/// The names of the session cookies in a request.
#[derive(Debug, Default)]
pub(super) struct CookieNames {
    /// The cookies of the session in use.
    pub(super) marker: Option<String>,
    pub(super) data: Vec<String>,
    /// Cookies of ended sessions and earlier generations, and invalid ones.
    pub(super) stale: Vec<String>,
}

impl CookieNames {
    /// Returns when the newest session began whose marker the request has, but which cannot be used.
    pub(super) fn newest_start(&self, prefix: &CookiePrefix) -> Option<SystemTime> {
        let starts = self.stale.iter().filter_map(|name| match prefix.kind(name)? {
            CookieKind::Marker(tag) => {
                let milliseconds = u64::from_str_radix(tag.get(..TIME_LEN)?, 16).ok()?;
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
            }
            _ => None,
        });
        starts.max()
    }
}

impl CookiePrefix {
    /// Creates the prefix, with `__Host-` before the name: browsers accept such a cookie only over
    /// TLS, for one host and all its paths. Returns `None` if the name is invalid.
    pub(super) fn new(name: &str) -> Option<Self> {
        is_cookie_name(name).then(|| Self(format!("__Host-{name}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of a session's marker.
    pub(super) fn marker(&self, id: &CookieId) -> String {
        format!("{}-{}", self.0, id.tag)
    }

    /// Returns the prefix of a generation's data cookies, which is also authenticated when they are
    /// sealed.
    pub(super) fn data(&self, id: &CookieId) -> String {
        format!("{}-{id}", self.0)
    }

    fn part(&self, id: &CookieId, index: usize) -> String {
        format!("{}-{id}.{index}", self.0)
    }

    fn kind<'n>(&self, name: &'n str) -> Option<CookieKind<'n>> {
        let rest = name.strip_prefix(self.as_str())?;
        if let Some(index) = LEGACY_SUFFIXES.iter().position(|part| *part == rest) {
            return Some(CookieKind::Legacy(index));
        }
        let rest = rest.strip_prefix('-')?;
        let mut fields = rest.split('.');
        let is_tag_char = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let tag =
            fields.next().filter(|tag| tag.len() == TAG_LEN && tag.bytes().all(is_tag_char))?;
        match (fields.next(), fields.next(), fields.next()) {
            (None, ..) => Some(CookieKind::Marker(tag)),
            (Some(generation), Some(index), None) => {
                Some(CookieKind::Data(tag, generation.parse().ok()?, index.parse().ok()?))
            }
            _ => None,
        }
    }

    fn kind_of_bytes<'n>(&self, name: &'n [u8]) -> Option<(CookieKind<'n>, &'n str)> {
        let name = std::str::from_utf8(name).ok()?;
        Some((self.kind(name)?, name))
    }

    /// Reads the session cookies of a request. Uses the newest session that `open` accepts.
    pub(super) fn read<T>(
        &self,
        headers: &HeaderMap,
        mut open: impl FnMut(&CookieId, &str) -> Option<T>,
    ) -> (Option<T>, CookieNames) {
        let (mut names, sent) = self.sent(headers);
        let candidates = sent.iter().rev().filter_map(|(kind, value)| match *kind {
            CookieKind::Data(tag, generation, 0) if sent.contains_key(&CookieKind::Marker(tag)) => {
                let part = |index| sent.get(&CookieKind::Data(tag, generation, index)).copied();
                Some((CookieId { tag: tag.to_owned(), generation }, join_parts(value, part)?))
            }
            _ => None,
        });
        for (id, (count, sealed)) in candidates.take(MAX_TRIED) {
            let Some(opened) = open(&id, &sealed) else { continue };
            let data: Vec<_> = (0..count).map(|index| self.part(&id, index)).collect();
            let marker = self.marker(&id);
            names.stale.retain(|name| *name != marker && !data.contains(name));
            (names.marker, names.data) = (Some(marker), data);
            return (Some(opened), names);
        }
        (None, names)
    }

    /// Reads the cookies of stored sessions: the markers whose value `parse` accepts, newest first. All other session
    /// cookies are stale.
    pub(super) fn read_markers<T>(
        &self,
        headers: &HeaderMap,
        parse: impl Fn(&str) -> Option<T>,
    ) -> (Vec<(CookieId, T)>, CookieNames) {
        let (mut names, sent) = self.sent(headers);
        let markers = sent.iter().rev().filter_map(|(kind, value)| match *kind {
            CookieKind::Marker(tag) => {
                Some((CookieId { tag: tag.to_owned(), generation: 0 }, parse(value)?))
            }
            _ => None,
        });
        let markers: Vec<_> = markers.take(MAX_TRIED).collect();
        names.stale.retain(|name| markers.iter().all(|(id, _)| *name != self.marker(id)));
        (markers, names)
    }

    /// Returns the session cookies of a request, and their names as stale.
    fn sent<'h>(&self, headers: &'h HeaderMap) -> (CookieNames, BTreeMap<CookieKind<'h>, &'h str>) {
        let (mut names, mut sent) = (CookieNames::default(), BTreeMap::new());
        let session_cookies =
            cookie_pairs(headers).filter_map(name_and_value).filter_map(|(name, value)| {
                let (kind, name) = self.kind_of_bytes(name)?;
                Some((kind, name, value))
            });
        for (kind, name, value) in session_cookies.take(MAX_READ) {
            names.stale.push(name.to_owned());
            sent.entry(kind).or_insert(std::str::from_utf8(value).unwrap_or_default());
        }
        (names, sent)
    }

    /// Returns the marker cookie of a session in cookies. Only its presence matters.
    pub(super) fn marker_cookie(&self, id: &CookieId, lifetime: Duration) -> Option<HeaderValue> {
        self.marker_value(id, &id.tag, lifetime)
    }

    /// Returns the marker cookie with this value, which is the secret of a stored session.
    pub(super) fn marker_value(
        &self,
        id: &CookieId,
        value: &str,
        lifetime: Duration,
    ) -> Option<HeaderValue> {
        set_cookie(&self.marker(id), value, lifetime)
    }

    /// Returns the data cookies, in as many parts as needed, or `None` if the value is too large.
    pub(super) fn data_cookies(
        &self,
        id: &CookieId,
        sealed: &str,
        lifetime: Duration,
    ) -> Option<Vec<HeaderValue>> {
        let count = sealed.len().div_ceil(MAX_PART_BYTES);
        if count > MAX_PARTS {
            return None;
        }
        let part = |index: usize| {
            let text = sealed
                .get(index * MAX_PART_BYTES..((index + 1) * MAX_PART_BYTES).min(sealed.len()))?;
            let prefix = if index == 0 { format!("{count}.") } else { String::new() };
            set_cookie(&self.part(id, index), &format!("{prefix}{text}"), lifetime)
        };
        (0..count).map(part).collect()
    }

    /// Clears the marker, which ends the session: data without a marker is ignored.
    pub(super) fn clear_marker(&self, id: &CookieId) -> Option<HeaderValue> {
        clear_cookie(&self.marker(id))
    }

    /// Returns whether this `Set-Cookie` starts, renews or ends a session.
    pub(super) fn is_session_cookie(&self, set_cookie: &HeaderValue) -> bool {
        let kind =
            name_and_value(set_cookie.as_bytes()).and_then(|(name, _)| self.kind_of_bytes(name));
        matches!(kind, Some((CookieKind::Marker(_) | CookieKind::Data(..), _)))
    }

    /// Removes the session cookies from a request, so that the inner service does not see them.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let is_own = |pair: &&[u8]| self.kind_of_bytes(name_of(pair)).is_some();
        if !cookie_pairs(headers).any(|pair| is_own(&pair)) {
            return;
        }
        let kept: Vec<_> = cookie_pairs(headers).filter(|pair| !is_own(pair)).collect();
        match HeaderValue::from_bytes(&kept.join(&b"; "[..])) {
            Ok(rest) if !rest.is_empty() => headers.insert(header::COOKIE, rest),
            _ => headers.remove(header::COOKIE),
        };
    }
}

/// Returns whether a sealed value with an ID token is small enough for cookies.
pub(super) fn has_room_for_id_token(sealed: &str) -> bool {
    sealed.len() <= MAX_PARTS_WITH_ID_TOKEN * MAX_PART_BYTES
}

/// Joins the parts of a value. Part 0 begins with their number.
fn join_parts<'v>(first: &str, part: impl Fn(usize) -> Option<&'v str>) -> Option<(usize, String)> {
    let (count, first) = first.split_once('.')?;
    let count: usize = count.parse().ok().filter(|count| (1..=MAX_PARTS).contains(count))?;
    let fits = |text: &&str| text.len() <= MAX_PART_BYTES;
    let mut sealed = Some(first).filter(fits)?.to_owned();
    for index in 1..count {
        sealed.push_str(part(index).filter(fits)?);
    }
    Some((count, sealed))
}

/// Returns whether the text can follow `__Host-` in the name of a cookie: 1 to 64 letters, digits,
/// `-`, `_` or `.`.
pub(crate) fn is_cookie_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(token)
}

/// Returns the cookies of a request as bytes, because cookies of other applications need not be
/// UTF-8.
fn cookie_pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(header::COOKIE).iter();
    let pairs = values.flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn name_and_value(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|b| *b == b'=')?;
    let (name, value) = pair.split_at_checked(at)?;
    Some((name, value.strip_prefix(b"=")?))
}

/// Returns the name of a cookie in a `Cookie` or `Set-Cookie` header.
pub(super) fn name_of(pair: &[u8]) -> &[u8] {
    name_and_value(pair).map_or(pair, |(name, _)| name)
}

/// Returns the cookies whose names begin with `prefix`: the rest of the name, and the value.
pub(crate) fn cookies_named<'h>(
    headers: &'h HeaderMap,
    prefix: &str,
) -> impl Iterator<Item = (&'h str, &'h str)> {
    cookie_pairs(headers).filter_map(name_and_value).filter_map(move |(name, value)| {
        let rest = std::str::from_utf8(name.strip_prefix(prefix.as_bytes())?).ok()?;
        Some((rest, std::str::from_utf8(value).ok()?))
    })
}

/// Returns a `Set-Cookie` value. `SameSite=Lax`: browsers send the cookie if a link or redirect of
/// another site leads here, as after a sign-in, but not with other cross-site requests.
pub(crate) fn set_cookie(name: &str, value: &str, lifetime: Duration) -> Option<HeaderValue> {
    set_cookie_for(SameSite::Lax, name, value, lifetime)
}

/// When browsers send a cookie with requests that other sites cause (RFC 6265bis §5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SameSite {
    /// With links and redirects only.
    Lax,
    /// With each request, such as a form that another site posts.
    None,
}

/// Returns a `Set-Cookie` value, as [`set_cookie`] does, for these requests of other sites.
pub(crate) fn set_cookie_for(
    same_site: SameSite,
    name: &str,
    value: &str,
    lifetime: Duration,
) -> Option<HeaderValue> {
    let seconds = lifetime.as_secs();
    let attributes = format!("Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite={same_site:?}");
    let text = format!("{name}={value}; {attributes}");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns a `Set-Cookie` value that clears a cookie.
pub(crate) fn clear_cookie(name: &str) -> Option<HeaderValue> {
    set_cookie(name, "", Duration::ZERO)
}

/// Returns `Set-Cookie` values that clear these cookies, up to [`MAX_CLEARED`].
pub(super) fn clear_cookies<'n>(
    names: impl IntoIterator<Item = &'n String>,
) -> impl Iterator<Item = HeaderValue> {
    names.into_iter().take(MAX_CLEARED).filter_map(|name| clear_cookie(name))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(9);

    fn headers(cookies: &[&[u8]]) -> HeaderMap {
        let values = cookies.iter().map(|text| HeaderValue::from_bytes(text).unwrap());
        values.map(|value| (header::COOKIE, value)).collect()
    }

    /// Returns the cookies as a browser sends them.
    fn sent(cookies: &[HeaderValue]) -> Vec<Vec<u8>> {
        let pair =
            |cookie: &HeaderValue| cookie.as_bytes().split(|b| *b == b';').next().unwrap().to_vec();
        cookies.iter().map(pair).collect()
    }

    fn id(tag: char, generation: u32) -> CookieId {
        CookieId { tag: tag.to_string().repeat(TAG_LEN), generation }
    }

    /// Returns the candidates for the session, newest first.
    fn candidates(
        prefix: &CookiePrefix,
        headers: &HeaderMap,
    ) -> (Vec<(CookieId, String)>, CookieNames) {
        let mut candidates = Vec::new();
        let (_, names) = prefix.read(headers, |id, sealed| {
            candidates.push((id.clone(), sealed.to_owned()));
            None::<()>
        });
        (candidates, names)
    }

    fn read(prefix: &CookiePrefix, cookies: &[Vec<u8>]) -> Vec<(CookieId, String)> {
        let headers = headers(&cookies.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (candidates, names) = candidates(prefix, &headers);
        assert_eq!(names.stale.len(), cookies.len());
        candidates
    }

    #[test]
    fn long_value_is_split_into_parts() {
        let prefix = CookiePrefix::new("session").unwrap();
        let id = CookieId::new(SystemTime::UNIX_EPOCH + LIFETIME).unwrap();
        for length in
            [1, MAX_PART_BYTES, MAX_PART_BYTES + 1, 2 * MAX_PART_BYTES, MAX_PARTS * MAX_PART_BYTES]
        {
            let value = "x".repeat(length);
            let mut set = prefix.data_cookies(&id, &value, LIFETIME).unwrap();
            set.push(prefix.marker_cookie(&id, LIFETIME).unwrap());
            let sent = sent(&set);
            assert!(sent.iter().all(|cookie| cookie.len() < 4096));
            assert_eq!(read(&prefix, &sent), [(id.clone(), value.clone())], "{length}");
            let joined = sent.join(&b"; "[..]);
            assert_eq!(candidates(&prefix, &headers(&[&joined])).0, [(id.clone(), value.clone())]);
            for missing in 0..sent.len() {
                let mut some = sent.clone();
                some.remove(missing);
                assert_eq!(read(&prefix, &some), [], "part {missing} of {length}");
            }
        }
        assert!(
            prefix
                .data_cookies(&id, &"x".repeat(MAX_PARTS * MAX_PART_BYTES + 1), LIFETIME)
                .is_none()
        );
        // Parts larger than those that are set are rejected.
        let large = [
            prefix.marker(&id) + "=1",
            prefix.part(&id, 0) + "=1." + &"x".repeat(MAX_PART_BYTES + 1),
        ];
        assert_eq!(read(&prefix, &large.map(String::into_bytes)), []);
    }

    #[test]
    fn newest_marked_generation_comes_first() {
        let prefix = CookiePrefix::new("s").unwrap();
        let all: Vec<_> = [id('1', 0), id('2', 9), id('2', 10), id('3', 0)]
            .iter()
            .flat_map(|id| prefix.data_cookies(id, &id.to_string(), LIFETIME).unwrap())
            .chain(['1', '2'].map(|tag| prefix.marker_cookie(&id(tag, 0), LIFETIME).unwrap()))
            .collect();
        let found: Vec<_> = read(&prefix, &sent(&all)).into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, [id('2', 10), id('2', 9), id('1', 0)]);
    }

    #[test]
    fn cookies_in_use_are_not_stale() {
        let prefix = CookiePrefix::new("s").unwrap();
        let (old, new) = (id('1', 0), id('2', 1));
        let mut cookies: Vec<_> = [&old, &new]
            .iter()
            .flat_map(|id| {
                prefix.data_cookies(id, &"x".repeat(MAX_PART_BYTES + 1), LIFETIME).unwrap()
            })
            .collect();
        cookies.extend([&old, &new].map(|id| prefix.marker_cookie(id, LIFETIME).unwrap()));
        let sent = sent(&cookies);
        let headers = headers(&sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (found, names) = prefix.read(&headers, |id, _| (*id == old).then_some("old"));
        assert_eq!(found, Some("old"), "the newest session that opens");
        assert_eq!(names.marker, Some(prefix.marker(&old)));
        assert_eq!(names.data, [prefix.part(&old, 0), prefix.part(&old, 1)]);
        let stale = [prefix.part(&new, 0), prefix.part(&new, 1), prefix.marker(&new)];
        assert_eq!(names.stale, stale);
    }

    #[test]
    fn cookies_are_restricted_to_this_host() {
        let prefix = CookiePrefix::new("s").unwrap();
        let id = id('a', 3);
        let tag = "a".repeat(TAG_LEN);
        let set = prefix.data_cookies(&id, "short", LIFETIME).unwrap();
        let rules = "Secure; HttpOnly; SameSite=Lax";
        assert_eq!(set, [format!("__Host-s-{tag}.3.0=1.short; Path=/; Max-Age=9; {rules}")]);
        let end = prefix.clear_marker(&id).unwrap();
        assert_eq!(end, format!("__Host-s-{tag}=; Path=/; Max-Age=0; {rules}"));
        assert!(prefix.is_session_cookie(&set[0]) && prefix.is_session_cookie(&end));
        assert!(!prefix.is_session_cookie(&HeaderValue::from_static("__Host-sign-in-x=1")));
        let many: Vec<_> = (0..100).map(|index| format!("n{index}")).collect();
        assert_eq!(clear_cookies(&many).count(), MAX_CLEARED);
    }

    #[test]
    fn only_own_cookies_are_stripped() {
        let prefix = CookiePrefix::new("s").unwrap();
        let tag = "0".repeat(TAG_LEN);
        let strip = |cookies: &[&[u8]]| {
            let mut headers = headers(cookies);
            prefix.strip(&mut headers);
            let values = headers.get_all(header::COOKIE).iter();
            values.map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>()
        };
        let (marker, data) = (format!("__Host-s-{tag}=1"), format!("__Host-s-{tag}.0.0=1.x"));
        let first = format!("a=1; {marker}; caf\u{e9}=\u{fffd}");
        let second = format!("{data}; __Host-sx=2; b");
        let kept = "a=1; caf\u{e9}=\u{fffd}; __Host-sx=2; b".as_bytes().to_vec();
        assert!(strip(&[b"__Host-s=old; __Host-s.3=old"]).is_empty());
        assert!(!prefix.is_session_cookie(&HeaderValue::from_static("__Host-s=1")));
        assert_eq!(strip(&[first.as_bytes(), second.as_bytes()]), [kept]);
        assert_eq!(strip(&[b"\xff=1;\xfe"]), [b"\xff=1;\xfe"], "other cookies are not changed");
        assert!(strip(&[marker.as_bytes()]).is_empty());
        assert!(strip(&[]).is_empty());
        // Names that only resemble session cookies.
        for other in ["__Host-s-", "__Host-s-0", "__Host-s.4", "__Host-s.01", "__Host-t-0", "x"] {
            assert_eq!(prefix.kind(other), None, "{other}");
        }
        for other in ["x", ".1", ".1.", ".1.2.3", ".x.0", ".0.x", ".99999999999.0"] {
            assert_eq!(prefix.kind(&format!("__Host-s-{tag}{other}")), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn other_cookies_pass_unchanged(
            others in vec(vec(prop::sample::select(b"a=\" \t,\x80\xff.-_%0123s".to_vec()), 0..20), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let prefix = CookiePrefix::new("s").unwrap();
            let id = id('a', 1);
            let value = "x".repeat(MAX_PART_BYTES + 1);
            let mut own = sent(&prefix.data_cookies(&id, &value, LIFETIME).unwrap());
            own.extend(sent(&[prefix.marker_cookie(&id, LIFETIME).unwrap()]));
            let mut all = others.clone();
            let at = at.index(others.len() + 1);
            all.splice(at..at, own);
            let mut headers = headers(&[&all.join(&b';')]);
            let (found, _) = candidates(&prefix, &headers);
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].0, &id);
            prefix.strip(&mut headers);
            let left: Vec<_> = cookie_pairs(&headers).collect();
            let others = others.iter().map(|pair| pair.trim_ascii());
            prop_assert_eq!(left, others.filter(|pair| !pair.is_empty()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_valid_cookie_names_are_accepted() {
        for bad in ["", "a b", "a=b", "a;b", "ä", &"a".repeat(65)] {
            assert!(CookiePrefix::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(CookiePrefix::new("a-b_c.9").unwrap().as_str(), "__Host-a-b_c.9");
    }

    #[test]
    fn later_session_has_greater_id() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let [first, second] =
            [1_000, 2_000_000_000].map(|seconds| CookieId::new(at(seconds)).unwrap());
        assert!(first < first.next() && first.next() < second && first.tag.len() == TAG_LEN);
    }
}
