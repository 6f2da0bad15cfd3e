//! [`PlainHttp`]: the URLs of a provider that may be `http` instead of `https`.

use url::Url;

use super::is_loopback;

/// The end of the problem of an `http` URL whose host is not a loopback address.
pub(crate) const MESH_REMEDY: &str = "; for a provider in a network that encrypts all traffic, such as a service mesh, name its host in insecure_http_hosts (`P_INSECURE_HTTP_HOSTS`)";

/// The settings that allow `http` URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PlainHttp {
    /// Whether loopback addresses are allowed.
    pub(crate) loopback: bool,
    /// The allowed hosts: `host` or `host:port`.
    pub(crate) hosts: Vec<String>,
}

impl PlainHttp {
    /// Returns whether the URL is `https`, or `http` with an allowed host.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        self.check(url).is_ok()
    }

    /// Checks that the URL is `https`, or `http` with an allowed host. The error contains the remedy.
    pub(crate) fn check(&self, url: &Url) -> Result<(), String> {
        let is_named =
            || self.hosts.iter().filter_map(|host| Host::parse(host)).any(|it| it.is_of(url));
        match url.scheme() {
            "https" => Ok(()),
            "http" if (self.loopback && is_loopback(url)) || is_named() => Ok(()),
            "http" if is_loopback(url) => Err("must be https; for a provider on this machine, set allow_loopback_http = true (`P_ALLOW_LOOPBACK_HTTP=true`)".to_owned()),
            "http" => Err(format!("must be https{MESH_REMEDY}")),
            _ => Err("must be https".to_owned()),
        }
    }

    /// Returns the problem of the first entry that is not a host. It does not quote the entry, which may be
    /// a secret in the wrong setting.
    pub(crate) fn problem_of_hosts(&self) -> Option<String> {
        let nth = self.hosts.iter().position(|host| Host::parse(host).is_none())?;
        Some(format!(
            "entry {} is not a host: write a name or an address, such as keycloak.auth.svc or keycloak.auth.svc:8080, without scheme, path and wildcard",
            nth + 1
        ))
    }
}

/// A host, and its port if only that one is meant.
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        // The URL parser would remove some of these characters, or take them for another part of a URL.
        let is_foreign = |c: char| c.is_whitespace() || c.is_control() || r"/\?#@*%{".contains(c);
        if text.contains(is_foreign) || text.ends_with(':') {
            return None;
        }
        let url = |scheme: &str| Url::parse(&format!("{scheme}://{text}")).ok();
        let (http, https) = (url("http")?, url("https")?);
        // A parsed URL lacks its port if it is the default port of its scheme.
        Some(Self { name: http.host_str()?.to_owned(), port: http.port().or(https.port()) })
    }

    fn is_of(&self, url: &Url) -> bool {
        url.host_str() == Some(&self.name)
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(hosts: &[&str]) -> PlainHttp {
        PlainHttp { loopback: false, hosts: hosts.iter().map(|&host| host.to_owned()).collect() }
    }

    #[test]
    fn only_named_hosts_are_allowed() {
        for (named, allowed, refused) in [
            (
                "Keycloak.auth.svc",
                &["http://keycloak.auth.svc/x", "http://KEYCLOAK.auth.svc:8080"][..],
                &["http://auth.svc", "http://a.keycloak.auth.svc", "http://keycloak.auth.svc.evil"]
                    [..],
            ),
            (
                "k.svc:8080",
                &["http://k.svc:8080/realms/x"],
                &["http://k.svc", "http://k.svc:80", "http://k.svc:8081", "ftp://k.svc:8080"],
            ),
            ("k.svc:80", &["http://k.svc", "http://k.svc:80"], &["http://k.svc:443"]),
            ("k.svc:443", &["http://k.svc:443"], &["http://k.svc"]),
            ("10.0.0.7", &["http://10.0.0.7:1"], &["http://10.0.0.70"]),
            ("[FD00::7]:81", &["http://[fd00:0::7]:81"], &["http://[fd00::7]"]),
            ("bücher.svc", &["http://xn--bcher-kva.svc"], &["http://bucher.svc"]),
        ] {
            let plain = hosts(&[named]);
            assert_eq!(plain.problem_of_hosts(), None, "{named}");
            for url in allowed {
                assert!(plain.allows(&url.parse().unwrap()), "{named} {url}");
            }
            for url in refused {
                assert!(!plain.allows(&url.parse().unwrap()), "{named} {url}");
            }
        }
        assert!(PlainHttp::default().allows(&"https://k.svc".parse().unwrap()));
        assert!(hosts(&["127.0.0.1"]).allows(&"http://127.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn entry_that_is_no_host_is_refused() {
        for wrong in [
            "",
            " ",
            "*",
            "*.svc",
            "http://k.svc",
            "k.svc/",
            "k.svc:",
            "k.svc:99999",
            "a@k.svc",
            "k.svc?",
            "k.svc#",
            "k.svc\t",
            "[::1",
            "fd00::7",
            "k%2esvc",
            "{tenant_id}.svc",
        ] {
            let plain = hosts(&["k.svc", wrong]);
            let problem = plain.problem_of_hosts();
            assert!(problem.is_some_and(|it| it.starts_with("entry 2 is not")), "{wrong}");
        }
    }
}
