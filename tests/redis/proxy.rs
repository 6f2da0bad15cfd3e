//! A proxy in front of Redis that delays or holds answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scaikey_auth::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::Redis;

/// A proxy between caches and a server.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    /// The number of answers held since the start.
    caught: watch::Receiver<usize>,
    open: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    /// The delay of each answer.
    delay: Duration,
    /// Holds the answers to this many commands that contain this word.
    catch: Option<(&'static str, usize)>,
}

impl Proxy {
    pub(crate) async fn before(server: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (catching, caught) = watch::channel(0);
        let open = Arc::new(watch::Sender::new(true));
        let (to, catching) = (server.port(), Arc::new(catching));
        let (shared, gate) = (state.clone(), open.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let pair = Pair {
                    state: shared.clone(),
                    catching: catching.clone(),
                    open: gate.subscribe(),
                };
                tokio::spawn(pair.pass(client, server));
            }
        });
        Self { port, state, caught, open }
    }

    pub(crate) fn url(&self) -> Secret {
        Secret::new(format!("redis://127.0.0.1:{}", self.port))
    }

    /// Delays every answer.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Holds the answers to the next `count` commands with this word, until [`release`].
    ///
    /// [`release`]: Self::release
    pub(crate) fn catch(&self, word: &'static str, count: usize) {
        self.open.send_replace(false);
        self.state.lock().unwrap().catch = Some((word, count));
    }

    /// Waits until this many answers were held since the start.
    pub(crate) async fn caught(&self, count: usize) {
        let mut caught = self.caught.clone();
        let seen =
            tokio::time::timeout(Duration::from_secs(60), caught.wait_for(|it| *it >= count));
        seen.await.expect("the command arrives").unwrap();
    }

    pub(crate) fn release(&self) {
        self.state.lock().unwrap().catch = None;
        self.open.send_replace(true);
    }
}

/// One connection through the proxy.
struct Pair {
    state: Arc<Mutex<State>>,
    catching: Arc<watch::Sender<usize>>,
    open: watch::Receiver<bool>,
}

impl Pair {
    async fn pass(mut self, client: TcpStream, server: TcpStream) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        // Whether the next answer is held.
        let (hold, is_held) = watch::channel(false);
        let (state, catching) = (self.state.clone(), self.catching.clone());
        let asking = async move {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                {
                    let mut state = state.lock().unwrap();
                    if let Some((word, left @ 1..)) = &mut state.catch
                        && contains(&bytes[..count], word)
                    {
                        *left -= 1;
                        hold.send_replace(true);
                        catching.send_modify(|caught| *caught += 1);
                    }
                }
                if to_server.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
        };
        let answering = async move {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                if *is_held.borrow() {
                    let _ = self.open.wait_for(|open| *open).await;
                }
                let delay = self.state.lock().unwrap().delay;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                if to_client.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = asking => {}
            () = answering => {}
        }
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}
