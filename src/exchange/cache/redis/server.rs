//! [`Server`]: a Redis server or cluster, and the connections to it.

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

/// The time limit for one node of a cluster to connect or to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first line of a certificate in PEM.
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// One server, or the nodes of a cluster.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each cache")]
pub(super) enum Server {
    One(Client),
    Cluster(ClusterClient),
}

/// A connection that all calls share.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Parses a comma-separated list of URLs.
pub(super) fn nodes(urls: &Secret) -> Result<Vec<ConnectionInfo>, ConfigError> {
    urls.expose().split(',').map(|url| node(url.trim())).collect()
}

fn node(url: &str) -> Result<ConnectionInfo, ConfigError> {
    if url.contains('#') {
        // The client library reads `#insecure` as "do not check certificates".
        return Err(redis_url_fault(
            "has a URL with a fragment: remove the `#` and the text after it",
        ));
    }
    let known = ["redis://", "rediss://", "valkey://", "valkeys://"];
    let is_known = known.iter().any(|scheme| url.starts_with(scheme));
    // The library's error may quote the URL, with its password.
    let info = is_known.then(|| url.into_connection_info().ok()).flatten().ok_or_else(|| {
        redis_url_fault(
            "is not a Redis URL, such as redis://host:6379, or rediss://host:6379 for TLS; for a \
             cluster, separate the URLs with commas",
        )
    })?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

impl Server {
    /// Returns the server at these addresses. `roots`, in PEM, replaces the certificate authorities of
    /// the operating system.
    pub(super) fn new(nodes: &[ConnectionInfo], roots: Option<&[u8]>) -> Result<Self, ConfigError> {
        if roots.is_some_and(|pem| memchr::memmem::find(pem, PEM_CERTIFICATE).is_none()) {
            let fault = Fault::new("root_certificates", "contains no certificate in PEM");
            return Err(ConfigError::one(fault));
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
                    .connection_timeout(NODE_TIMEOUT)
                    .response_timeout(NODE_TIMEOUT)
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
            redis_url_fault(
                "cannot be used: all nodes of a cluster need the same scheme, password and database; \
                 root certificates need rediss:// URLs",
            )
        })
    }

    /// Connects within `limit`.
    pub(super) async fn connect(&self, limit: Duration) -> RedisResult<Connection> {
        match self {
            Self::One(client) => {
                if let ConnectionAddr::TcpTls { .. } = client.get_connection_info().addr() {
                    install_tls_backend();
                }
                // `SharedConnection` limits the time of each call.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(None);
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
                    .map(Connection::One)
            }
            Self::Cluster(client) => {
                install_tls_backend();
                client.get_async_connection().await.map(Connection::Cluster)
            }
        }
    }
}

/// Installs a default TLS backend if the process has none. Without one, the Redis client panics when
/// two backends are compiled in.
fn install_tls_backend() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread has just installed one, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

impl Connection {
    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Returns the slots of each cluster node. Empty for a single server.
    pub(super) async fn slots(&mut self) -> RedisResult<Slots> {
        match self {
            Self::One(_) => Ok(Slots::default()),
            Self::Cluster(connection) => {
                let ranges: Vec<Value> =
                    cmd("CLUSTER").arg("SLOTS").query_async(connection).await?;
                Ok(Slots::read(&ranges))
            }
        }
    }
}

fn redis_url_fault(problem: &str) -> ConfigError {
    ConfigError::one(Fault::new("redis_url", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_without_leaking_the_password() {
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
            let error = server(urls).err().unwrap_or_else(|| panic!("{urls} should be rejected"));
            assert!(error.to_string().contains("redis_url"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        }
    }
}
