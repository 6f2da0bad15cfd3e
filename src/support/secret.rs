//! [`Secret`]: text that must not appear in logs and errors. [`SecretSource`]: its value, or its file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A token, password or connection string.
///
/// `Debug` prints `[redacted]`, and neither `Display` nor `Serialize` is implemented. The memory is wiped on
/// drop, except for copies that the caller of [`expose`](Secret::expose) makes.
///
/// ```
/// use scaikey_auth::Secret;
///
/// let token = Secret::from("a-token");
/// assert_eq!(format!("{token:?}"), "[redacted]");
/// assert_eq!(token.expose(), "a-token");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the text. Every call is a place where the secret can leak.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

/// The source of a secret or a private key.
///
/// ```
/// use scaikey_auth::issuer::{ClientAuth, SecretSource};
///
/// // A text converts into a `Value`; a file must be named as one.
/// let from_text = ClientAuth::basic("scaidrive", "the secret");
/// let file = SecretSource::File("/run/secrets/scaidrive".into());
/// let from_file = ClientAuth::basic("scaidrive", file);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SecretSource {
    /// The text itself.
    Value(Secret),
    /// A file, which must exist when `build` is called. White space at its end and a byte order mark are
    /// ignored. The credentials of a client are read synchronously for every request to the provider, so the
    /// file must be small and local; a new secret in it is used immediately.
    File(PathBuf),
}

/// The error for a file without a usable secret. It contains the path, and never the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} {problem}")]
pub(crate) struct SecretFileError {
    path: String,
    problem: String,
}

impl SecretFileError {
    /// Creates the error for a file. `problem` continues a sentence that begins with the path.
    pub(crate) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path_for_errors(path), problem: problem.into() }
    }
}

/// Returns the path of a configured file, for errors and logs.
///
/// A text that does not look like a path is not repeated, because the content of the file may have been given
/// instead of its name, and errors are logged.
pub(crate) fn path_for_errors(path: &Path) -> String {
    let text = path.display().to_string();
    let is_path = path.is_absolute() || text.starts_with("./") || text.starts_with("../");
    match is_path && !text.contains("://") {
        true => text,
        false => NOT_REPEATED.to_owned(),
    }
}

const NOT_REPEATED: &str = "the path (which is not repeated here: it begins with neither `/` nor `./`, and may be the secret itself)";

impl SecretSource {
    /// Returns the secret. Reads the file, if there is one.
    pub(crate) fn read(&self) -> Result<Secret, SecretFileError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path),
        }
    }
}

impl<S: Into<Secret>> From<S> for SecretSource {
    fn from(secret: S) -> Self {
        Self::Value(secret.into())
    }
}

/// Reads a secret from a file. An empty file is an error: it is being written, or its volume is not mounted.
pub(crate) fn read_file(path: &Path) -> Result<Secret, SecretFileError> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text =
        text.map_err(|error| SecretFileError::new(path, format!("cannot be read: {error}")))?;
    // Editors of Windows begin a file with a byte order mark.
    match text.trim_start_matches('\u{feff}').trim_end() {
        "" => Err(SecretFileError::new(path, "is empty")),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_repeats_only_real_paths() {
        let path = |text: &str| SecretFileError::new(Path::new(text), "is empty").to_string();
        assert_eq!(path("/run/x"), "/run/x is empty");
        assert_eq!(path("./x"), "./x is empty");
        for secret in ["hunter2", "redis://:hunter2@r", "hunter2/AA=", "hunter2.x~", ""] {
            let error = path(secret);
            assert!(error.starts_with("the path (which") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn byte_order_mark_is_no_secret() {
        let path = std::env::temp_dir().join(format!("scaikey-auth-bom-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_file(&path)
        };
        assert_eq!(read("\u{feff}s\r\n"), Ok(Secret::new("s")));
        assert!(read("\u{feff}\r\n").unwrap_err().to_string().ends_with("is empty"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn debug_output_hides_the_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }
}
