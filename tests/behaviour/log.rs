//! Reads what the crate logs, at every level, on the thread of one test.

use std::io;
use std::sync::{Arc, Mutex, Once};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// Everything logged on this thread since it was made.
pub(crate) struct Log {
    text: Buffer,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Buffer {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Starts to listen. The runtime of `#[tokio::test]` has one thread, so all tasks are heard.
    pub(crate) fn start() -> Self {
        listen_everywhere();
        let text = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(text.clone());
        Self { text, _guard: tracing::subscriber::set_default(subscriber.finish()) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of one level: `ERROR`, `WARN`, `INFO`, `DEBUG`.
    #[allow(dead_code, reason = "not every binary with this file asks for it")]
    pub(crate) fn lines(&self, level: &str) -> Vec<String> {
        let of_level = |line: &&str| line.split_whitespace().nth(1) == Some(level);
        self.text().lines().filter(of_level).map(str::to_owned).collect()
    }
}

/// Has threads without a listener listen, too, to nothing. Whether an event is of interest to anybody
/// is remembered when it first happens: if that is on a thread where nobody listens, nobody else
/// would hear of it.
fn listen_everywhere() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let deaf = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(io::sink)
            .finish();
        tracing::subscriber::set_global_default(deaf).unwrap();
    });
}
