//! Runs programs as a user would, and reads their output.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// The time limit for each step of a program. Long, because the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The environment variable with the job of a child process: a text that the test gives to the
/// child.
const JOB: &str = "SCAIKEY_AUTH_TEST_JOB";

/// A running program. It is killed on drop.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Program {
    /// Starts an example of this crate with only these environment variables.
    pub(crate) fn example(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(example_path(name));
        command.env_clear().envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Starts the `service` example and returns it with its URL. It listens on a free port, or where
    /// `LISTEN` says.
    pub(crate) async fn service(environment: &[(&str, &str)]) -> (Self, String) {
        let environment = [&[("LISTEN", "127.0.0.1:0")], environment].concat();
        let mut service = Self::example("service", &environment);
        let line = service.stderr.line("listening on ").await;
        let (_, url) = line.split_once("listening on ").unwrap();
        (service, url.to_owned())
    }

    /// Runs the ignored test `child` of this binary in another process with `job`, and waits until
    /// it is ready.
    pub(crate) async fn child(child: &str, job: String) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child, "--ignored", "--nocapture"]).env(JOB, job);
        let mut this = Self::start(command, Stdio::piped());
        assert_eq!(this.next_message().await, "ready");
        this
    }

    /// Lets a child continue after [`ready`].
    pub(crate) async fn go(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    }

    /// Returns the next message of a child.
    pub(crate) async fn next_message(&mut self) -> String {
        match self.stdout.find("child: ").await {
            Some(line) => line.split_once("child: ").unwrap().1.to_owned(),
            None => panic!("{}\n{}", self.stdout.rest().await, self.stderr.rest().await),
        }
    }

    pub(crate) fn spawn(command: Command) -> Self {
        Self::start(command, Stdio::null())
    }

    fn start(mut command: Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Waits until a server prints its URL, and returns the URL. Panics with `install_hint` if the server
    /// ends before.
    pub(crate) async fn url(&mut self, install_hint: &str) -> String {
        match self.stdout.find("http://").await {
            Some(url) => url,
            None => panic!("{install_hint}:\n{}", self.stderr.rest().await),
        }
    }

    /// Sends it a signal by name, such as `HUP`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the program runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits until the program exits. Returns its exit code, stdout and stderr.
    pub(crate) async fn end(mut self) -> (Option<i32>, String, String) {
        let status = timeout(TIMEOUT, self.child.wait()).await;
        let code = status.expect("the program ends by itself").unwrap().code();
        (code, self.stdout.rest().await, self.stderr.rest().await)
    }

    /// Kills the program and waits until it has exited and its port is free.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Returns the job of this process, or `None` if it is not a child of a test.
pub(crate) fn job() -> Option<String> {
    std::env::var(JOB).ok()
}

/// Reports that this child is ready, and waits for [`Program::go`].
pub(crate) async fn ready() {
    println!("child: ready");
    BufReader::new(tokio::io::stdin()).lines().next_line().await.unwrap();
}

/// The output of a program, line by line.
pub(crate) struct Lines {
    incoming: UnboundedReceiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        // Reads continuously, because a full pipe would block the program.
        let (send, incoming) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { incoming, seen: String::new() }
    }

    /// Waits for the next line that contains `part`.
    pub(crate) async fn line(&mut self, part: &str) -> String {
        let line = self.find(part).await;
        line.unwrap_or_else(|| panic!("no line contains `{part}`:\n{}", self.seen))
    }

    async fn find(&mut self, part: &str) -> Option<String> {
        while let Ok(Some(line)) = timeout(TIMEOUT, self.incoming.recv()).await {
            self.seen.push_str(&line);
            self.seen.push('\n');
            if line.contains(part) {
                return Some(line);
            }
        }
        None
    }

    async fn rest(&mut self) -> String {
        while let Ok(Some(line)) = timeout(TIMEOUT, self.incoming.recv()).await {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        std::mem::take(&mut self.seen)
    }
}

/// Returns the path of a compiled example. Builds the example if it is out of date, because Cargo
/// does not build examples for a single test binary.
fn example_path(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
    let example =
        profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let modified = |path: &Path| path.metadata().and_then(|of| of.modified()).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = ["rs", "html", "js", "css", "sql", "toml"]
        .into_iter()
        .filter_map(|kind| modified(&root.join(format!("examples/{name}.{kind}"))))
        .max();
    let source = newest(&root.join("src")).max(newest(&root.join("examples/serve"))).max(own);
    if modified(&example) < source {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = std::process::Command::new(cargo);
        build.current_dir(root).args(["build", "--example", name, "--target-dir"]);
        build.arg(profile.parent().expect("target"));
        // Uses the features of this build: other features would rebuild all dependencies.
        let features = [
            ("metrics", cfg!(feature = "metrics")),
            ("postgres", cfg!(feature = "postgres")),
            ("redis", cfg!(feature = "redis")),
            ("reqwest-middleware", cfg!(feature = "reqwest-middleware")),
            ("sqlite", cfg!(feature = "sqlite")),
        ];
        for (feature, _) in features.iter().filter(|(_, on)| *on) {
            build.args(["--features", feature]);
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().is_ok_and(|status| status.success()), "{build:?}");
    }
    example
}

/// Returns the time of the last change to a file below `folder`.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let times = entries.map(|path| match path.is_dir() {
        true => newest(&path),
        false => path.metadata().and_then(|of| of.modified()).ok(),
    });
    times.max().flatten()
}
