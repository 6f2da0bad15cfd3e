//! Reads what the crate logs, at every level, on the thread of one test.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tracing::callsite::rebuild_interest_cache;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

thread_local! {
    /// What was logged on this thread since its test began to listen.
    static LOGGED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Everything logged on this thread since it was made.
pub(crate) struct Log(());

struct ToThread;

impl io::Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.as_mut().map(|logged| logged.extend(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One subscriber for the whole process: those that come and go with a thread make other threads miss
/// events. Where no test listens, nothing is written.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| ToThread);
        let heard = dynamic_filter_fn(|_, _| LOGGED.with_borrow(Option::is_some));
        tracing::subscriber::set_global_default(subscriber.finish().with(heard)).unwrap();
    });
    // An event that first happened on another thread while the subscriber came may be remembered as of
    // no interest.
    rebuild_interest_cache();
}

impl Log {
    /// Starts to listen. The runtime of `#[tokio::test]` has one thread, so all tasks are heard.
    pub(crate) fn start() -> Self {
        listen();
        LOGGED.set(Some(Vec::new()));
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        let logged = LOGGED.with_borrow(|logged| logged.clone().unwrap_or_default());
        String::from_utf8(logged).unwrap()
    }

    /// The lines of one level: `ERROR`, `WARN`, `INFO`, `DEBUG`.
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
