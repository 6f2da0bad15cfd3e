//! [`TokenFile`]: a workload token in a file, which the platform replaces.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::claims::TokenClaims;
use super::{MAX_BYTES, Rules, WorkloadTokenError};
use crate::support::secret::{Secret, path_for_errors};

/// The end of the path at which Kubernetes mounts the token for its API server.
const DEFAULT_MOUNT: &str = "kubernetes.io/serviceaccount/token";

const NO_JWT: &str = "has no JWT: name the file with the token alone";

/// A file that is read at each use.
#[derive(Debug, Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the token and checks it against `rules`.
    pub(super) fn token(&self, rules: Rules<'_>) -> Result<Secret, WorkloadTokenError> {
        let (token, claims) = self.read()?;
        // The API server may have a name of the operator's choice.
        if self.path.ends_with(DEFAULT_MOUNT)
            && rules.audience.is_some_and(|audience| !claims.has_audience(audience))
        {
            return Err(self.error(&claims.api_server_problem(rules.audience)));
        }
        rules.check(&claims).map_err(|problem| self.error(&problem))?;
        Ok(token)
    }

    /// Reads a token, whose audience and expiry are not checked yet. It is not for the API server of
    /// Kubernetes.
    pub(super) fn read(&self) -> Result<(Secret, TokenClaims), WorkloadTokenError> {
        let bytes = read_at_most(&self.path, MAX_BYTES).map_err(|problem| self.error(&problem))?;
        let (token, claims) = parse(&bytes).map_err(|problem| self.error(problem))?;
        let checked = claims.check_not_for_api_server(None);
        checked.map_err(|problem| self.error(&problem))?;
        Ok((token, claims))
    }

    fn error(&self, problem: &str) -> WorkloadTokenError {
        WorkloadTokenError::new(format!("{} {problem}", path_for_errors(&self.path)))
    }
}

/// Reads a regular file. Any other one, such as a pipe, could block.
fn read_at_most(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable =
        |error| format!("cannot be read: {error}: let the platform mount the workload token there");
    let file = match std::fs::metadata(path).map_err(unreadable)?.is_file() {
        true => File::open(path).map_err(unreadable)?,
        false => return Err("is not a file: name the file with the workload token".to_owned()),
    };
    // The buffer never grows, because that would leave a copy of the token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() > limit {
        true => Err(format!("has more than {limit} bytes, so it is no workload token")),
        false => Ok(bytes),
    }
}

/// Reads the token in the content of a file. For fuzzing.
#[cfg(feature = "testing")]
pub(crate) fn workload_token_in(bytes: &[u8]) -> Option<Secret> {
    let (token, claims) = parse(bytes).ok()?;
    let _ =
        (claims.expires(), claims.audiences_for_errors(), claims.check_not_for_api_server(None));
    Some(token)
}

/// Reads the content of a token file: a JWT, with white space or a byte order mark around it.
fn parse(bytes: &[u8]) -> Result<(Secret, TokenClaims), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| NO_JWT)?;
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err("is empty: the platform has not written the workload token yet"),
        token => {
            let claims = TokenClaims::read(token).ok_or(NO_JWT)?;
            Ok((Secret::new(token), claims))
        }
    }
}
