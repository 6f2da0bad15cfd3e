//! [`off_thread`]: work that blocks, beside the tasks of the runtime.

use tokio::task::JoinError;

/// Runs work that reads files or computes for longer than a task should, on a thread for such work. Outside a tokio
/// runtime, runs it here. The work is completed even if the caller is dropped.
///
/// # Errors
/// The work panicked, or the runtime shuts down.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await,
        Err(_) => Ok(work()),
    }
}
