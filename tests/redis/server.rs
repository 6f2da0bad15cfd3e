//! A private Redis server that can be killed, paused, filled and started again.
//!
//! `REDIS_SERVER` names another program that takes the same options, such as `valkey-server`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, cmd};
use scaikey_auth::Secret;

fn program() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A Redis server on the loopback interface. Dropping it kills the server and removes its files.
pub(crate) struct Redis {
    home: PathBuf,
    port: u16,
    options: Vec<String>,
    password: Option<&'static str>,
    server: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::with(&[], None)
    }

    pub(crate) fn with_password(password: &'static str) -> Self {
        Self::with(&["--requirepass", password], Some(password))
    }

    /// Starts a cluster of one node, which has all slots.
    pub(crate) fn cluster() -> Self {
        let this =
            Self::with(&["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"], None);
        let _: () = this.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let since = Instant::now();
        while !this.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            assert!(since.elapsed() < Duration::from_secs(30), "the cluster is not ready in time");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    /// Starts a cluster of three nodes without replicas, each with a third of the slots. With
    /// `allows_gaps` it continues when one node is missing.
    pub(crate) fn three(allows_gaps: bool) -> [Self; 3] {
        let coverage = if allows_gaps { "no" } else { "yes" };
        let options = [
            ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"],
            ["--cluster-require-full-coverage", coverage, "--cluster-node-timeout", "2000"],
        ];
        let nodes = [(); 3].map(|()| Self::with(options.as_flattened(), None));
        let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (index, (node, (first, last))) in nodes.iter().zip(ranges).enumerate() {
            let _: () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
            let _: () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let port = node.port.to_string();
            let _: () = nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        for node in &nodes {
            node.until_cluster_is_ready();
        }
        nodes
    }

    /// Waits until the node knows the owner of every slot.
    pub(crate) fn until_cluster_is_ready(&self) {
        let since = Instant::now();
        loop {
            let info: String = self.ask(&["CLUSTER", "INFO"]);
            let has = |what: &str| info.lines().any(|line| line == what);
            if has("cluster_state:ok") && has("cluster_slots_ok:16384") {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "the cluster is not ready: {info}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns a server that is not started yet.
    pub(crate) fn later() -> Self {
        // Below the range of ephemeral ports, so that no client socket takes the port.
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let seed = std::process::id() as u16 % 120 * 97;
        let port = 20_000 + (seed + number * 3) % 12_000;
        let home = env::temp_dir().join(format!("auth-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        Self { home, port, options: Vec::new(), password: None, server: None }
    }

    fn with(options: &[&str], password: Option<&'static str>) -> Self {
        for _ in 0..50 {
            let mut this = Self::later();
            this.options = options.iter().map(|option| (*option).to_owned()).collect();
            this.password = password;
            if this.try_start() {
                return this;
            }
        }
        panic!("redis-server does not start: {HINT}");
    }

    /// Starts a server with TLS on another port, and returns its self-signed certificate.
    pub(crate) fn with_tls() -> (Self, Vec<u8>) {
        let this = Self::start();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (key, cert) = (this.home.join("key.pem"), this.home.join("cert.pem"));
        fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        fs::write(&cert, own.cert.pem()).unwrap();
        let (port, key, file) =
            ((this.port + 1).to_string(), key.display().to_string(), cert.display().to_string());
        let set = ["CONFIG", "SET", "tls-key-file", &key, "tls-cert-file", &file];
        let set = [&set[..], &["tls-auth-clients", "no", "tls-port", &port]].concat();
        let _: () = this.ask(&set);
        (this, fs::read(cert).unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tls_url(&self) -> Secret {
        Secret::new(format!("rediss://127.0.0.1:{}", self.port + 1))
    }

    pub(crate) fn url(&self) -> Secret {
        let password = self.password.map(|it| format!(":{it}@")).unwrap_or_default();
        Secret::new(format!("redis://{password}127.0.0.1:{}", self.port))
    }

    /// Starts the server, without data.
    pub(crate) fn restart(&mut self) {
        let since = Instant::now();
        while !self.try_start() {
            assert!(since.elapsed() < Duration::from_secs(30), "redis-server does not start");
        }
    }

    /// Returns false if the port is in use.
    fn try_start(&mut self) -> bool {
        assert!(self.server.is_none(), "still running");
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", &program(), "--save", "", "--appendonly", "no"])
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(&self.home)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| panic!("redis-server did not start ({why}): {HINT}"));
        let server = self.server.insert(server);
        let (main, since) = (server.id(), Instant::now());
        loop {
            if self.server.as_mut().is_none_or(|server| server.try_wait().unwrap().is_some()) {
                self.server = None;
                return false;
            }
            // Another server may have the port, so compare the process id.
            if self.connect().is_some_and(|link| is_process(link, main)) {
                return true;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "redis-server is not ready in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server without closing its connections first.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            server.wait().unwrap();
        }
    }

    /// Stops the process, with its connections open.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.server.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    fn connect(&self) -> Option<Connection> {
        let client = redis::Client::open(self.url().expose()).unwrap();
        client.get_connection_with_timeout(Duration::from_secs(5)).ok()
    }

    /// Sends a command and returns the answer.
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut link = self.connect().expect("the server is up");
        cmd(command[0]).arg(&command[1..]).query(&mut link).unwrap()
    }

    /// Returns all keys and string values.
    pub(crate) fn stored(&self) -> Vec<(String, Vec<u8>)> {
        let mut link = self.connect().expect("the server is up");
        let names: Vec<String> = cmd("KEYS").arg("*").query(&mut link).unwrap();
        let values = names.into_iter().filter_map(|name| {
            let value: Option<Vec<u8>> = cmd("GET").arg(&name).query(&mut link).unwrap();
            Some((name, value?))
        });
        values.collect()
    }

    /// Returns the keys of tokens, without locks.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let names = self.stored().into_iter().map(|(name, _)| name);
        names.filter(|name| !name.ends_with(":lock")).collect()
    }

    pub(crate) fn overwrite(&self, name: &str, value: &[u8]) {
        let mut link = self.connect().expect("the server is up");
        cmd("SET").arg(name).arg(value).exec(&mut link).unwrap();
    }
}

fn is_process(mut link: Connection, id: u32) -> bool {
    let info: Result<String, _> = cmd("INFO").arg("server").query(&mut link);
    info.is_ok_and(|info| info.lines().any(|line| line == format!("process_id:{id}")))
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

const HINT: &str = "install the Debian package `redis-server`";
