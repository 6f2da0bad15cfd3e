//! A private PostgreSQL server that can be killed, paused and started again.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use scaikey_auth::Secret;

/// A private server on a Unix socket. It is stopped and removed when dropped.
pub(crate) struct Postgres {
    home: PathBuf,
    server: Option<Child>,
    _fresh: Arc<Template>,
}

/// A new cluster that was never started. Servers get copies of it, because `initdb` takes longer than most
/// tests. It exists as long as one of the servers.
struct Template(PathBuf);

impl Template {
    fn get() -> Arc<Self> {
        static TEMPLATE: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut made = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
        made.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Self(home("fresh")));
            *made = Arc::downgrade(&fresh);
            let done = run("initdb")
                .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
                .arg("--pgdata")
                .arg(&fresh.0)
                .output()
                .unwrap_or_else(|why| panic!("initdb did not run ({why}): {HINT}"));
            assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
            fresh
        })
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a folder that no other server uses, in this process or another.
fn home(kind: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    env::temp_dir().join(format!("auth-pg-{kind}-{}-{number}", std::process::id()))
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let (fresh, home) = (Template::get(), home("server"));
        let copied = Command::new("cp").arg("-a").arg(&fresh.0).arg(&home).status();
        assert!(copied.is_ok_and(|status| status.success()), "the cluster is copied");
        let mut this = Self { home, server: None, _fresh: fresh };
        this.restart();
        this
    }

    pub(crate) fn url(&self) -> Secret {
        Secret::new(format!("postgres://postgres@localhost/postgres?host={}", self.home.display()))
    }

    /// Starts a server that was killed.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "still running");
        // A killed server leaves this file behind, which would look like a running server.
        let _ = fs::remove_file(self.home.join("postmaster.pid"));
        let server = run("postgres")
            .arg("-D")
            .arg(&self.home)
            .arg("-k")
            .arg(&self.home)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| panic!("postgres did not start ({why}): {HINT}"));
        self.server = Some(server);
        let since = Instant::now();
        while !self.is_ready() {
            assert!(since.elapsed() < Duration::from_secs(60), "postgres is not ready in time");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server without closing its connections, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
    }

    /// Stops every process of the server. The connections stay open.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn is_ready(&self) -> bool {
        run("pg_isready").arg("-q").arg("-h").arg(&self.home).status().unwrap().success()
    }

    fn signal(&self, signal: &str) {
        let Some(server) = &self.server else { return };
        let main = server.id();
        let children = format!("/proc/{main}/task/{main}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, &main.to_string()]).args(children.split_whitespace());
        kill.stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// PgBouncer in front of a server, in transaction mode. Each transaction may get another server connection,
/// and there are fewer of those than clients. It is stopped when dropped.
pub(crate) struct Bouncer {
    home: PathBuf,
    process: Child,
}

impl Bouncer {
    pub(crate) fn before(server: &Postgres) -> Self {
        let home = server.home.clone();
        let settings = format!(
            "[databases]\n* = host={0} user=postgres\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {0}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n\
             max_client_conn = 300\n",
            home.display()
        );
        let file = home.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let mut command = run("pgbouncer");
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(Stdio::null()).spawn();
        let process = process.expect("install the Debian package `pgbouncer`");
        let this = Self { home, process };
        let since = Instant::now();
        while UnixStream::connect(this.home.join(".s.PGSQL.6432")).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "pgbouncer is not ready in time");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    pub(crate) fn url(&self) -> Secret {
        let home = self.home.display();
        Secret::new(format!("postgres://postgres@localhost:6432/postgres?host={home}"))
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

const HINT: &str = "install the Debian package `postgresql`";

/// Returns a command that runs a program of the server. As root, the program runs as the user `postgres`,
/// because it refuses root. It ends with the test. (`runuser` would stay as a parent process, which stops
/// when its child is paused.)
fn run(program: &str) -> Command {
    let path = find(program).unwrap_or_else(|| panic!("no `{program}` found: {HINT}"));
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg("--").arg(path).current_dir(env::temp_dir());
    command
}

/// Finds a program. Debian has the server's programs in one folder per version, outside of `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}
