//! Captures the log of the thread of one test, at every level.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tracing::callsite::rebuild_interest_cache;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

thread_local! {
    /// The log of this thread since its test started a [`Log`].
    static LOGGED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// The log of this thread since [`Log::start`].
pub(crate) struct Log(());

struct ThreadWriter;

impl io::Write for ThreadWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.as_mut().map(|logged| logged.extend(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Installs one subscriber for the whole process, because a subscriber per thread makes other
/// threads miss events. It writes only on threads with a [`Log`].
fn install_subscriber() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| ThreadWriter);
        let has_log = dynamic_filter_fn(|_, _| LOGGED.with_borrow(Option::is_some));
        tracing::subscriber::set_global_default(subscriber.finish().with(has_log)).unwrap();
    });
    // Another thread may have cached "no interest" for a call site before the subscriber was
    // installed.
    rebuild_interest_cache();
}

impl Log {
    /// Starts to capture. The runtime of `#[tokio::test]` has one thread, so this captures all
    /// tasks.
    pub(crate) fn start() -> Self {
        install_subscriber();
        LOGGED.set(Some(Vec::new()));
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        let logged = LOGGED.with_borrow(|logged| logged.clone().unwrap_or_default());
        String::from_utf8(logged).unwrap()
    }

    /// Returns the lines of one level: `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub(crate) fn lines(&self, level: &str) -> Vec<String> {
        let of_level = |line: &&str| line.split_whitespace().nth(1) == Some(level);
        self.text().lines().filter(of_level).map(str::to_owned).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        LOGGED.set(None);
    }
}
