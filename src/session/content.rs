//! The content of a sealed session: its start, its user and its tokens.

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::cookie::UserHash;
use crate::clock::{Clock, unix_time};
use crate::exchange::AccessToken;

/// The byte in front of the hash of the user. The tokens, in JSON, begin with another one.
const USER_MARK: u8 = b'u';

/// The content of a session, without its name.
pub(super) struct Content {
    pub(super) started_at: SystemTime,
    pub(super) user: Option<UserHash>,
    pub(super) token: AccessToken,
}

/// Puts the start and the user before the serialized tokens.
pub(super) fn to_bytes(
    started_at: SystemTime,
    user: Option<UserHash>,
    mut tokens: Zeroizing<Vec<u8>>,
) -> Zeroizing<Vec<u8>> {
    if let Some(UserHash(user)) = user {
        tokens.splice(0..0, [USER_MARK].into_iter().chain(user));
    }
    tokens.splice(0..0, unix_time(started_at).to_be_bytes());
    tokens
}

/// Reads the output of [`to_bytes`]. Returns `None` for any other input.
pub(super) fn from_bytes(bytes: &[u8], clock: &dyn Clock) -> Option<Content> {
    let (started_at, rest) = bytes.split_first_chunk()?;
    let started_at = Duration::try_from_secs_f64(f64::from_be_bytes(*started_at)).ok()?;
    let started_at = SystemTime::UNIX_EPOCH.checked_add(started_at)?;
    let (user, token) = split_user(rest)?;
    Some(Content { started_at, user, token: AccessToken::from_bytes(token, clock)? })
}

/// Splits the content after the start into the user and the tokens.
fn split_user(content: &[u8]) -> Option<(Option<UserHash>, &[u8])> {
    match content.strip_prefix(&[USER_MARK]) {
        Some(content) => {
            let (user, token) = content.split_first_chunk()?;
            Some((Some(UserHash(*user)), token))
        }
        None => Some((None, content)),
    }
}
