//! Runs a program as its user would, and reads what it prints.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a child of a test is to do, in its environment.
const JOB: &str = "SCAIKEY_AUTH_TEST_JOB";

/// A program under way. It is killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Running {
    /// Starts an example of this crate with this environment and no other.
    pub(crate) fn example(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(built(name));
        command.env_clear().envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Starts the `service` example on a free port and returns it with its URL.
    pub(crate) async fn service(environment: &[(&str, &str)]) -> (Self, String) {
        let mut environment = environment.to_vec();
        environment.push(("LISTEN", "127.0.0.1:0"));
        let mut service = Self::example("service", &environment);
        let line = service.stderr.line("listening on ").await;
        let (_, url) = line.split_once("listening on ").unwrap();
        (service, url.to_owned())
    }

    /// Starts the ignored test `child` of this binary as a process of its own, which is to do `job`, and
    /// waits until it is ready.
    pub(crate) async fn child(child: &str, job: String) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child, "--ignored", "--nocapture"]).env(JOB, job);
        let mut this = Self::start(command, Stdio::piped());
        assert_eq!(this.said().await, "ready");
        this
    }

    /// Sets a child off.
    pub(crate) async fn go(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    }

    /// What a child says next.
    pub(crate) async fn said(&mut self) -> String {
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

    /// Sends it a signal by name, such as `HUP`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits for its end: exit code, all of stdout, all of stderr.
    pub(crate) async fn end(mut self) -> (Option<i32>, String, String) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let code = status.expect("the program ends by itself").unwrap().code();
        (code, self.stdout.rest().await, self.stderr.rest().await)
    }

    /// Kills it and waits until it is gone, and its port free.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// In a child: what it is to do. `None` when nobody started it for that.
pub(crate) fn job() -> Option<String> {
    std::env::var(JOB).ok()
}

/// In a child: says that it is ready, and waits to be set off.
pub(crate) async fn ready() {
    println!("child: ready");
    BufReader::new(tokio::io::stdin()).lines().next_line().await.unwrap();
}

/// What a program prints, line by line.
pub(crate) struct Lines {
    coming: UnboundedReceiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        // Read all the time: a full pipe would stop the program.
        let (send, coming) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { coming, seen: String::new() }
    }

    /// Waits for the next line with `part` in it.
    pub(crate) async fn line(&mut self, part: &str) -> String {
        let line = self.find(part).await;
        line.unwrap_or_else(|| panic!("no line has `{part}` in it:\n{}", self.seen))
    }

    async fn find(&mut self, part: &str) -> Option<String> {
        while let Ok(Some(line)) = timeout(PATIENCE, self.coming.recv()).await {
            self.seen.push_str(&line);
            self.seen.push('\n');
            if line.contains(part) {
                return Some(line);
            }
        }
        None
    }

    async fn rest(&mut self) -> String {
        while let Ok(Some(line)) = timeout(PATIENCE, self.coming.recv()).await {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        std::mem::take(&mut self.seen)
    }
}

/// The path of a compiled example. Cargo tells tests where binaries are, but not examples, and does
/// not build them when a single test binary is asked for.
fn built(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
    let example =
        profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let modified = |path: &Path| path.metadata().and_then(|of| of.modified()).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = modified(&root.join(format!("examples/{name}.rs")));
    let source = newest(&root.join("src")).max(newest(&root.join("examples/serve"))).max(own);
    if modified(&example) < source {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = std::process::Command::new(cargo);
        build.current_dir(root).args(["build", "--example", name, "--target-dir"]);
        build.arg(profile.parent().expect("target"));
        // With the features of this build: with others, all dependencies would be built once more.
        let features = [
            ("metrics", cfg!(feature = "metrics")),
            ("postgres", cfg!(feature = "postgres")),
            ("redis", cfg!(feature = "redis")),
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

/// When a file below `folder` was last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let times = entries.map(|path| match path.is_dir() {
        true => newest(&path),
        false => path.metadata().and_then(|of| of.modified()).ok(),
    });
    times.max().flatten()
}
