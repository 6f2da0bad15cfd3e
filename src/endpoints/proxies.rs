//! [`TrustedProxies`], and the search for the client's address behind them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Once};

use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;

use crate::support::telemetry;

/// A function that returns the address of a connection.
pub(super) type PeerAddress = Arc<dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync>;

/// The settings for finding a client's address.
pub(super) struct ClientAddress {
    /// The address of the connection.
    pub(super) peer: PeerAddress,
    pub(super) proxies: TrustedProxies,
    /// The prefix of the environment variables, so that the log can name them.
    pub(super) variables: Option<String>,
    /// Ensures that a missing address is logged once.
    unknown_logged: Once,
    /// Ensures that an untrusted proxy is logged once.
    untrusted_logged: Once,
}

const FORWARDED: &str = "x-forwarded-for";

/// Maximum number of addresses to read. The client controls the length of the list.
const MAX_HOPS: usize = 32;

impl ClientAddress {
    /// Returns the address that attempts are counted by, if known.
    pub(super) fn find(&self, head: &Parts) -> Option<IpAddr> {
        let Some(peer) = (self.peer)(head) else {
            self.unknown_logged.call_once(telemetry::no_client_address);
            return None;
        };
        // A header from a public address is most likely forged, not sent by a proxy.
        let is_proxy = || is_private_network(peer) && head.headers.contains_key(FORWARDED);
        if !self.untrusted_logged.is_completed() && !self.proxies.trusts(peer) && is_proxy() {
            self.untrusted_logged.call_once(|| {
                telemetry::untrusted_proxy(peer, self.variables.as_deref());
            });
        }
        Some(self.proxies.client(peer, &head.headers))
    }
}

impl Default for ClientAddress {
    fn default() -> Self {
        let (unknown_logged, untrusted_logged) = (Once::new(), Once::new());
        let proxies = TrustedProxies::default();
        let peer = Arc::new(connection_address);
        Self { peer, proxies, variables: None, unknown_logged, untrusted_logged }
    }
}

/// Returns the address that axum, or another server, put into the request's extensions.
fn connection_address(head: &Parts) -> Option<IpAddr> {
    #[cfg(feature = "axum")]
    if let Some(info) = head.extensions.get::<::axum::extract::ConnectInfo<SocketAddr>>() {
        return Some(info.0.ip());
    }
    head.extensions.get::<SocketAddr>().map(SocketAddr::ip)
}

/// Returns whether an address is loopback, private or link-local.
fn is_private_network(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Networks of proxies whose `X-Forwarded-For` is trusted. Default: none, because any client can
/// send that header.
///
/// Each proxy appends the address of its peer. The list is therefore read from its end: the first
/// address that is not a trusted proxy is the client's. The client may have forged the addresses
/// before it. If all addresses are trusted proxies, the first one counts as the client. At most 32
/// entries are read.
///
/// ```
/// use scaikey_auth::endpoints::TrustedProxies;
///
/// # fn example(auth: &scaikey_auth::Auth) -> Result<(), Box<dyn std::error::Error>> {
/// let proxies = TrustedProxies::new(["10.0.0.7", "2001:db8::/32"])?;
/// let builder = auth.endpoints().trusted_proxies(proxies);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// The error for an entry that is neither an address nor a network. It contains the entry's
/// position, counted from 1, but not its text, which may be a misplaced secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} is neither an address nor a network: write 10.0.0.7 or 10.0.0.0/8")]
pub struct InvalidNetwork(usize);

impl TrustedProxies {
    /// Parses addresses and networks: `10.0.0.7`, `10.0.0.0/8`, `2001:db8::/32`.
    ///
    /// # Errors
    /// Returns the position of the first invalid entry.
    pub fn new<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidNetwork> {
        let networks = networks.into_iter().zip(1..);
        let networks =
            networks.map(|(text, nth)| network(text.as_ref()).ok_or(InvalidNetwork(nth)));
        networks.collect::<Result<_, _>>().map(Self)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // An untrusted peer may have forged the header.
        if !self.trusts(client) {
            return client;
        }
        let values = headers.get_all(FORWARDED).iter().rev();
        // Split as bytes: a client may send invalid UTF-8, which must not hide the proxy's entry.
        let entries = values.flat_map(|value| value.as_bytes().rsplit(|b| *b == b','));
        for entry in entries.take(MAX_HOPS) {
            // An unreadable entry ends the search: the proxy that wrote it is the last known
            // address.
            let Some(address) = std::str::from_utf8(entry).ok().and_then(|it| address(it.trim()))
            else {
                break;
            };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok();
    network.or_else(|| text.parse::<IpAddr>().ok().map(|it| it.to_canonical().into()))
}

/// Parses an address. Some proxies add a port, or brackets around an IPv6 address without port.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let bare = inner.parse::<IpAddr>().ok();
    let bare = bare.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    bare.map(|address| address.to_canonical())
}

impl fmt::Debug for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(IpNet::to_string)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_first_untrusted_address_from_end() {
        let proxies = TrustedProxies::new(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]).unwrap();
        let client = |peer: &str, forwarded: &[&str]| {
            let values = forwarded.iter().map(|text| text.parse().unwrap());
            let name = http::HeaderName::from_static("x-forwarded-for");
            let headers = values.map(|value| (name.clone(), value)).collect();
            proxies.client(peer.parse().unwrap(), &headers).to_string()
        };
        let table: &[(&str, &[&str], &str)] = &[
            ("203.0.113.9", &[], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.1, 192.0.2.7"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("2001:db8::1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.2.3", &["[2001:dead::1]:443"], "2001:dead::1"),
            ("10.1.2.3", &["[2001:dead::1]"], "2001:dead::1"),
            ("10.1.2.3", &["unknown"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1, unknown, 10.9.9.9"], "10.9.9.9"),
            ("10.1.2.3", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            ("192.0.2.8", &["6.6.6.6"], "192.0.2.8"),
        ];
        for (peer, forwarded, expected) in table {
            assert_eq!(client(peer, forwarded), *expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn invalid_utf8_does_not_hide_client() {
        let proxies = TrustedProxies::new(["10.0.0.0/8"]).unwrap();
        for (forwarded, expected) in [
            (&b"\xe9, 192.0.2.7"[..], "192.0.2.7"),
            (b"6.6.6.6\xff,192.0.2.7 , 10.9.9.9", "192.0.2.7"),
            (b"192.0.2.7, \xe9, 10.9.9.9", "10.9.9.9"),
        ] {
            let value = http::HeaderValue::from_bytes(forwarded).unwrap();
            let name = http::HeaderName::from_static(FORWARDED);
            let client =
                proxies.client("10.1.2.3".parse().unwrap(), &HeaderMap::from_iter([(name, value)]));
            assert_eq!(client.to_string(), expected);
        }
    }

    #[test]
    fn forwarded_list_is_bounded() {
        let proxies = TrustedProxies::new(["10.0.0.0/8"]).unwrap();
        let hops = |many: usize| format!("198.51.100.1{}", ", 10.9.9.9".repeat(many));
        let client = |list: String| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(FORWARDED),
                list.parse().unwrap(),
            )]);
            proxies.client("10.1.2.3".parse().unwrap(), &headers).to_string()
        };
        assert_eq!(client(hops(MAX_HOPS - 1)), "198.51.100.1");
        assert_eq!(client(hops(MAX_HOPS)), "10.9.9.9");
    }

    #[test]
    fn networks_are_parsed_and_matched() {
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/-1", "2001:db8::/129", "10.0.0.0/a"] {
            assert!(TrustedProxies::new([bad]).is_err(), "{bad}");
        }
        let trusts = |network: &str, address: &str| {
            TrustedProxies::new([network]).unwrap().trusts(address.parse().unwrap())
        };
        for (network, address, expected) in [
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("0.0.0.0/0", "::ffff:8.8.8.8", true),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.6", false),
            ("::/0", "8.8.8.8", false),
            ("2001:db8::7", "2001:db8::7", true),
            ("2001:db8::/127", "2001:db8::2", false),
        ] {
            assert_eq!(trusts(network, address), expected, "{network} {address}");
        }
    }
}
