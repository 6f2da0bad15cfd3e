//! [`SecretFile`]: a file with keys, which is read again while the keys are used.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::secret::{Secret, SecretFileError, read_file};
use crate::support::telemetry::{self, Outage};

/// The time between two reads of a file.
const INTERVAL: Duration = Duration::from_secs(10);

/// A file with keys, and the text that was read last.
pub(crate) struct SecretFile {
    path: PathBuf,
    /// The name of the content, for logs: "sealing keys".
    content: &'static str,
    state: Mutex<State>,
    outage: Outage,
}

struct State {
    /// The time of the last read, by the monotonic clock of its caller.
    read_at: Duration,
    /// The text of the keys in force.
    text: Secret,
}

impl SecretFile {
    /// Reads a file for the first time. `parse` returns the problem of an invalid content.
    pub(crate) fn read<T>(
        path: &Path,
        content: &'static str,
        parse: impl Fn(&Secret) -> Result<T, String>,
    ) -> Result<(Self, T), SecretFileError> {
        let text = read_file(path)?;
        let parsed = parse(&text).map_err(|problem| SecretFileError::new(path, problem))?;
        let state = Mutex::new(State { read_at: Duration::ZERO, text });
        Ok((Self { path: path.to_owned(), content, state, outage: Outage::default() }, parsed))
    }

    /// Reads the file again, unless another thread is reading it or that was done recently. Returns its
    /// content if that has changed. If the file cannot be used, the previous content stays in force.
    pub(crate) fn read_again<T>(
        &self,
        now: Duration,
        parse: impl Fn(&Secret) -> Result<T, String>,
    ) -> Option<T> {
        let Ok(mut state) = self.state.try_lock() else { return None };
        // The keys may serve two clocks, which need not have started together.
        if now.abs_diff(state.read_at) < INTERVAL {
            return None;
        }
        state.read_at = now;
        match self.read_changed(&state.text, parse) {
            Ok(None) => {
                if self.outage.record_success(|| now) {
                    telemetry::secret_file_readable(self.content, &self.path);
                }
                None
            }
            Ok(Some((text, parsed))) => {
                self.outage.record_success(|| now);
                state.text = text;
                telemetry::secret_file_replaced(self.content, &self.path);
                Some(parsed)
            }
            Err(error) => {
                let is_new = self.outage.record_failure(&error, now);
                telemetry::secret_file_not_read(self.content, &error, is_new);
                None
            }
        }
    }

    /// Returns the content of the file, unless it is `text`.
    fn read_changed<T>(
        &self,
        text: &Secret,
        parse: impl Fn(&Secret) -> Result<T, String>,
    ) -> Result<Option<(Secret, T)>, SecretFileError> {
        let read = read_file(&self.path)?;
        if read == *text {
            return Ok(None);
        }
        let parsed = parse(&read).map_err(|problem| SecretFileError::new(&self.path, problem))?;
        Ok(Some((read, parsed)))
    }
}
