//! [`Server`]: where Redis is, as URLs tell, and how to connect to it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, RedisResult, TlsCertificates, Value, cmd,
};

use super::slots::Slots;
use crate::config::{ConfigError, Fault};
use crate::support::secret::Secret;

/// The longest that one node of a cluster may take to connect or to answer.
const NODE: Duration = Duration::from_secs(2);

/// How a certificate begins in PEM.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// One server, or the nodes of a cluster.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each cache")]
pub(super) enum Server {
    One(Client),
    Cluster(ClusterClient),
}

/// A connection that all calls share.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The addresses in a list of URLs.
pub(super) fn nodes(urls: &Secret) -> Result<Vec<ConnectionInfo>, ConfigError> {
    urls.expose().split(',').map(|url| node(url.trim())).collect()
}

fn node(url: &str) -> Result<ConnectionInfo, ConfigError> {
    if url.contains('#') {
        // `#insecure` would turn the check of certificates off.
        return Err(wrong("has a URL with a fragment: leave out what follows the `#`"));
    }
    let known = ["redis://", "rediss://", "valkey://", "valkeys://"];
    let is_known = known.iter().any(|scheme| url.starts_with(scheme));
    // What the library says may quote the URL, with its password.
    let info = is_known.then(|| url.into_connection_info().ok()).flatten().ok_or_else(|| {
        wrong(
            "is not the URL of a Redis server: write redis://host:6379, or rediss://host:6379 for \
             TLS, and for a cluster several of them with commas between them",
        )
    })?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

impl Server {
    /// The server behind these addresses, trusting these certificates or the system's.
    pub(super) fn new(nodes: &[ConnectionInfo], roots: Option<&[u8]>) -> Result<Self, ConfigError> {
        if roots.is_some_and(|pem| memchr::memmem::find(pem, CERTIFICATE).is_none()) {
            return Err(wrong("cannot trust certificates that are not in PEM"));
        }
        let roots =
            roots.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_owned()) });
        match (nodes, roots) {
            ([node], None) => Client::open(node.clone()).map(Self::One).ok(),
            ([node], Some(roots)) => {
                Client::build_with_tls(node.clone(), roots).map(Self::One).ok()
            }
            (nodes, roots) => {
                let builder = ClusterClient::builder(nodes.iter().cloned())
                    .tcp_settings(TcpSettings::default().set_nodelay(true))
                    .connection_timeout(NODE)
                    .response_timeout(NODE)
                    .overall_response_timeout(None)
                    .retries(1);
                let builder = match roots {
                    Some(roots) => builder.certs(roots),
                    None => builder,
                };
                builder.build().map(Self::Cluster).ok()
            }
        }
        .ok_or_else(|| {
            wrong(
                "cannot be used: the nodes of a cluster need the same password, database and kind \
                 of URL, and certificates are for rediss://",
            )
        })
    }

    /// Connects within this time.
    pub(super) async fn connect(&self, limit: Duration) -> RedisResult<Link> {
        match self {
            Self::One(client) => {
                if let ConnectionAddr::TcpTls { .. } = client.get_connection_info().addr() {
                    choose_crypto();
                }
                // Calls have a deadline of their own.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Link::One)
            }
            Self::Cluster(client) => {
                choose_crypto();
                client.get_async_connection().await.map(Link::Cluster)
            }
        }
    }
}

/// The client for Redis takes the process's TLS backend, and panics if that is not chosen and two
/// are built in, because some other crate wants another one.
fn choose_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails if somebody else just chose.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

impl Link {
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(link) => command.query_async(link).await,
            Self::Cluster(link) => command.query_async(link).await,
        }
    }

    /// Which node of a cluster has which keys; of one server, nothing.
    pub(super) async fn slots(&mut self) -> RedisResult<Slots> {
        match self {
            Self::One(_) => Ok(Slots::default()),
            Self::Cluster(link) => {
                let told: Vec<Value> = cmd("CLUSTER").arg("SLOTS").query_async(link).await?;
                Ok(Slots::read(&told))
            }
        }
    }
}

fn wrong(what: &str) -> ConfigError {
    ConfigError::one(Fault::new("redis_url", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_one_server_or_a_cluster_and_anything_else_is_said_without_the_password() {
        let server = |urls: &str| nodes(&urls.into()).and_then(|nodes| Server::new(&nodes, None));
        for url in ["redis://r", "rediss://u:p@r:7000/3", "valkey://r", "redis://:p%2Cq@[::1]"] {
            assert!(matches!(server(url), Ok(Server::One(_))), "{url}");
        }
        for urls in ["redis://a, redis://b:7000", "rediss://u:hunter2@a,rediss://u:hunter2@b"] {
            assert!(matches!(server(urls), Ok(Server::Cluster(_))), "{urls}");
        }
        for urls in [
            "",
            "hunter2",
            "http://:hunter2@r",
            "unix:///hunter2",
            "redis://",
            "redis://:hunter2@r/hunter2",
            "redis://:hunter2@r:hunter2",
            "rediss://:hunter2@r/#insecure",
            "redis://:hunter2@a,",
            "redis://:hunter2@a,redis://:hunter3@b",
            "redis://:hunter2@a,rediss://:hunter2@b",
        ] {
            let error = server(urls).err().unwrap_or_else(|| panic!("{urls} should be refused"));
            assert!(error.to_string().contains("redis_url"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        }
    }
}
