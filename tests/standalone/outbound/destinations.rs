//! The list of places a token may go to, and the ways around it that there are not.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::Full;
use scaikey_auth::outbound::{OutboundLayer, OutboundToken};
use tower::{Layer, ServiceExt};

use super::{Downstream, World, by, http, send, why, within_timeout};

/// Sends a request through the layer to a client that connects to nobody. The token that it would
/// have sent, or why it was not asked to; a token that is none is `-`.
async fn try_it(layer: &OutboundLayer, uri: &str, hosts: &[&str]) -> String {
    let sent = Arc::new(Mutex::new(None));
    let book = sent.clone();
    let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers().get(AUTHORIZATION).map(|token| token.to_str().unwrap());
        *book.lock().unwrap() = Some(token.unwrap_or("-").to_owned());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let mut request = Request::get(uri);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    let outcome =
        within_timeout(layer.layer(client).oneshot(request.body(Full::default()).unwrap())).await;
    let sent = sent.lock().unwrap().take();
    match (outcome, sent) {
        (Ok(_), Some(token)) => token,
        (Err(error), None) => {
            format!("{:?}", error.downcast::<scaikey_auth::outbound::OutboundError>().unwrap())
        }
        (outcome, sent) => panic!("{uri}: {outcome:?} and {sent:?}"),
    }
}

/// `sent` when a token went along, else what there was instead.
async fn verdict(layer: &OutboundLayer, uri: &str, hosts: &[&str]) -> String {
    let outcome = try_it(layer, uri, hosts).await;
    if outcome.starts_with("Bearer ") { "sent".to_owned() } else { outcome }
}

#[tokio::test]
async fn a_token_goes_to_the_origin_it_was_configured_for_and_to_no_other() {
    let world = World::new().await;
    let builder = world.builder().destination("https://vault.example", OutboundToken::service());
    let builder = builder.destination("https://[2001:db8::1]:8443", OutboundToken::service());
    let builder = builder.destination("http://127.0.0.1:8080", OutboundToken::service());
    let layer = builder.destination("http://localhost", OutboundToken::service()).build().unwrap();
    let refused = |host: &str| format!("Destination({host:?})");
    let cases = [
        ("https://vault.example", "sent".to_owned()),
        ("https://vault.example/", "sent".to_owned()),
        ("https://vault.example/any/path?q=https://evil.example", "sent".to_owned()),
        ("https://vault.example?q", "sent".to_owned()),
        ("https://vault.example:443/", "sent".to_owned()),
        ("https://VAULT.Example/", "sent".to_owned()),
        ("HTTPS://vault.example/", "sent".to_owned()),
        ("https://[2001:db8::1]:8443/", "sent".to_owned()),
        ("https://[2001:DB8::1]:8443/", "sent".to_owned()),
        ("http://127.0.0.1:8080/", "sent".to_owned()),
        ("http://localhost:80/", "sent".to_owned()),
        // No paths are told apart here, so none is refused.
        ("https://vault.example/a/../b//%2e%2f", "sent".to_owned()),
        // Another port, or something that might be one.
        ("https://vault.example:8443/", refused("vault.example")),
        ("https://vault.example:80/", refused("vault.example")),
        ("https://vault.example:/", refused("vault.example")),
        ("https://vault.example:65979/", refused("vault.example")),
        ("https://vault.example:+443/", refused("vault.example")),
        ("https://[2001:db8::1]/", refused("[2001:db8::1]")),
        ("http://127.0.0.1/", refused("127.0.0.1")),
        ("http://localhost:443/", refused("localhost")),
        // Another scheme.
        ("http://vault.example/", refused("vault.example")),
        ("http://vault.example:443/", refused("vault.example")),
        ("ftp://vault.example:443/", refused("vault.example")),
        ("https://127.0.0.1:8080/", refused("127.0.0.1")),
        // A user in front.
        ("https://user@vault.example/", refused("vault.example")),
        ("https://user:pass@vault.example/", refused("vault.example")),
        ("https://vault.example@evil.example/", refused("evil.example")),
        ("https://vault.example:443@evil.example/", refused("evil.example")),
        ("https://vault.example@vault.example/", refused("vault.example")),
        ("https://evil.example:443@vault.example/", refused("vault.example")),
        ("https://@vault.example/", refused("vault.example")),
        // Another host.
        ("https://vault.example./", refused("vault.example.")),
        ("https://a.vault.example/", refused("a.vault.example")),
        ("https://vault.example.evil.example/", refused("vault.example.evil.example")),
        ("https://evil-vault.example/", refused("evil-vault.example")),
        ("https://vault.exampl/", refused("vault.exampl")),
        ("https://evil.example/?vault.example", refused("evil.example")),
        ("https://evil.example/https://vault.example/", refused("evil.example")),
        ("https://[2001:db8:0::1]:8443/", refused("[2001:db8:0::1]")),
        ("https://[::ffff:127.0.0.1]:8080/", refused("[::ffff:127.0.0.1]")),
        ("http://127.1:8080/", refused("127.1")),
        ("http://2130706433:8080/", refused("2130706433")),
        ("http://0x7f.0.0.1:8080/", refused("0x7f.0.0.1")),
        // Nobody at all.
        ("/", refused("")),
        ("/https://vault.example/", refused("")),
        ("*", refused("")),
        ("vault.example:443", refused("vault.example")),
    ];
    for (uri, expected) in cases {
        assert_eq!(verdict(&layer, uri, &[]).await, expected, "{uri}");
    }
}

#[tokio::test]
async fn a_host_header_may_only_say_what_the_uri_says() {
    let world = World::new().await;
    let builder = world.builder().destination("https://vault.example", OutboundToken::service());
    let layer = builder.destination("https://box.example:8443", OutboundToken::none());
    let layer = layer.build().unwrap();
    let (vault, other) = ("https://vault.example/", "https://box.example:8443/");
    let cases: [(&str, &[&str], &str); 20] = [
        (vault, &["vault.example"], "sent"),
        (vault, &["VAULT.example:443"], "sent"),
        (other, &["box.example:8443"], "-"),
        (vault, &["evil.example"], "Host"),
        (vault, &["box.example:8443"], "Host"),
        (vault, &["vault.example:8443"], "Host"),
        (vault, &["vault.example:80"], "Host"),
        (vault, &["vault.example:65979"], "Host"),
        (vault, &["vault.example:"], "Host"),
        (vault, &["vault.example."], "Host"),
        (vault, &["vault.example/x"], "Host"),
        (vault, &["user@vault.example"], "Host"),
        (vault, &["evil.example@vault.example"], "Host"),
        (vault, &["vault.example:443@evil.example"], "Host"),
        (vault, &["vault.example, evil.example"], "Host"),
        (vault, &[""], "Host"),
        (vault, &["vault.example", "vault.example"], "Host"),
        (vault, &["vault.example", "evil.example"], "Host"),
        (other, &["box.example"], "Host"),
        (other, &["vault.example"], "Host"),
    ];
    for (uri, hosts, expected) in cases {
        assert_eq!(verdict(&layer, uri, hosts).await, expected, "{uri} {hosts:?}");
    }
}

/// What the service tokens of these tests may be told apart by.
fn own(scope: &str) -> OutboundToken {
    OutboundToken::service().scopes(scope.parse().unwrap())
}

/// The scope of the token sent, or what there was instead.
async fn scope_of(layer: &OutboundLayer, uri: &str) -> String {
    let outcome = try_it(layer, uri, &[]).await;
    let Some(token) = outcome.strip_prefix("Bearer ") else { return outcome };
    let claims: serde_json::Value = scaikey_auth::validator::insecure_decode_claims(token).unwrap();
    claims["scope"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rule_for_a_path_holds_below_it_and_nowhere_else() {
    let world = World::new().await;
    let layer = world
        .builder()
        .destination("https://h.example/api/", own("read"))
        .destination("https://h.example/api/v2/open", OutboundToken::none())
        .destination("https://h.example/caf\u{e9}", own("write"))
        .build()
        .unwrap();
    let nowhere = r#"Destination("h.example")"#;
    let cases = [
        ("/api", "read"),
        ("/api/", "read"),
        ("/api?x=/../admin", "read"),
        ("/api/v2/x.y/..z/.w", "read"),
        ("/api/items;color=red", "read"),
        ("/api/100%25", "read"),
        ("/api/a%20b/%C3%A9", "read"),
        ("/api/v2/open", "-"),
        ("/api/v2/open/x", "-"),
        ("/api/v2/opened", "read"),
        ("/caf%C3%A9/x", "write"),
        ("/", nowhere),
        ("", nowhere),
        ("/apix", nowhere),
        ("/ap", nowhere),
        ("/admin", nowhere),
        ("/admin/api", nowhere),
        ("/x?/api/", nowhere),
        // Dots.
        ("/api/../admin", "Path"),
        ("/api/..", "Path"),
        ("/api/./x", "Path"),
        ("/api/%2e%2e/admin", "Path"),
        ("/api/.%2E/admin", "Path"),
        ("/api/%2e/x", "Path"),
        ("/api/%252e%252e/admin", "Path"),
        ("/api/..;/admin", "Path"),
        ("/api/..;a=b/admin", "Path"),
        ("/api/%2e%2e%3b/admin", "Path"),
        ("/admin/../api/x", "Path"),
        // Empty segments.
        ("//", "Path"),
        ("//api", "Path"),
        ("/api//x", "Path"),
        ("/api//", "Path"),
        ("/;/api", "Path"),
        // Slashes that are not seen.
        ("/api%2fx", "Path"),
        ("/api/..%2fadmin", "Path"),
        ("/api/x%2Fy", "Path"),
        ("/api/x%252fy", "Path"),
        ("/api/..%5cadmin", "Path"),
        ("/api/v2%5Copen", "Path"),
        (r"/api/..\admin", "Path"),
        (r"/api/v2\open", "Path"),
        // Other spellings of another rule.
        ("/api/v2/%6fpen", "Path"),
        ("/api/v2/%256fpen", "Path"),
        ("/api/v2/OPEN/x", "Path"),
        ("/api/v2;x/open", "Path"),
        ("/api/v2/open;x", "Path"),
        ("/%61pi", "Path"),
        ("/API", "Path"),
        ("/caf%c3%a9", "Path"),
    ];
    for (path, expected) in cases {
        let uri = format!("https://h.example{path}");
        assert_eq!(scope_of(&layer, &uri).await, expected, "{path}");
    }
}

#[tokio::test]
async fn of_several_rules_the_longest_counts_in_whatever_order_they_came() {
    let world = World::new().await;
    let rules = [
        ("https://h.example", own("read")),
        ("https://h.example/admin", own("write")),
        ("https://h.example/admin/open", OutboundToken::none()),
        ("https://h.example:8443/admin", own("read write")),
    ];
    for turn in 0..rules.len() {
        let mut rules = rules.to_vec();
        rules.rotate_left(turn);
        let with = |builder: scaikey_auth::outbound::OutboundBuilder, (url, token): (&str, _)| {
            builder.destination(url, token)
        };
        let layer = rules.into_iter().fold(world.builder(), with).build().unwrap();
        for (rest, expected) in [
            ("", "read"),
            ("/x", "read"),
            ("/administration", "read"),
            ("/admin", "write"),
            ("/admin/x", "write"),
            ("/admin/open/x", "-"),
            (":8443/admin/open", "read write"),
            (":8443/", r#"Destination("h.example")"#),
            ("/x/../admin", "Path"),
            ("/ADMIN", "Path"),
            ("/%61dmin", "Path"),
            ("/admin;x", "Path"),
        ] {
            let uri = format!("https://h.example{rest}");
            assert_eq!(scope_of(&layer, &uri).await, expected, "{turn} {rest}");
        }
    }
}

#[tokio::test]
async fn a_path_made_to_be_slow_is_read_at_once() {
    let world = World::new().await;
    let layer = world.builder().destination("https://h.example/api", own("read"));
    let layer = layer.build().unwrap();
    let begin = std::time::Instant::now();
    for part in ["%25", "25", "/..", ";", "%", "a;"] {
        let uri = format!("https://h.example/api/%{}", part.repeat(60_000 / part.len()));
        let _ = try_it(&layer, &uri, &[]).await;
    }
    // Read from end to end it takes milliseconds; read again for each layer of encoding, hours.
    assert!(begin.elapsed() < super::secs(60), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn on_real_sockets_a_refused_request_reaches_nobody() {
    let world = World::new().await;
    let (vault, evil) = (Downstream::start().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let alice = world.caller("alice-id").await;
    let mut disguised = vault.get("/");
    disguised.headers_mut().insert(HOST, evil.address().parse().unwrap());
    let mut dressed = evil.get("/");
    dressed.headers_mut().insert(HOST, vault.address().parse().unwrap());
    let userinfo = format!("http://{}@{}/", vault.address(), evil.address());
    let userinfo = Request::get(userinfo).body(Full::default()).unwrap();
    for request in [evil.get("/"), disguised, dressed, userinfo] {
        why(send(&layer, by(&alice, request)).await);
    }
    assert_eq!((vault.seen().len(), evil.seen().len()), (0, 0));
    // Not even a token was asked for.
    assert_eq!(world.provider.token_requests(), 0);
    // A service that sends elsewhere is not followed.
    vault.will_answer([307]);
    let answer = send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    assert_eq!((answer.status().as_u16(), vault.seen().len()), (307, 1));
}

#[tokio::test]
async fn ipv6_is_a_destination_like_others() {
    let world = World::new().await;
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else { return };
    let url = format!("http://[::1]:{}", listener.local_addr().unwrap().port());
    let app = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
        format!("{:?} {:?}", headers[HOST], headers.contains_key(AUTHORIZATION))
    });
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let layer = world.builder().destination(url.as_str(), OutboundToken::service());
    let layer = layer.build().unwrap();
    let request = Request::get(format!("{url}/")).body(Full::default()).unwrap();
    let answer = within_timeout(layer.layer(http()).oneshot(request)).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert!(body.ends_with(b"true") && body.starts_with(b"\"[::1]:"), "{body:?}");
    server.abort();
}

#[tokio::test]
async fn nothing_may_be_sent_where_nothing_is_configured() {
    let world = World::new().await;
    let layer = world.builder().build().unwrap();
    assert_eq!(verdict(&layer, "https://h.example/", &[]).await, r#"Destination("h.example")"#);
}

#[tokio::test]
async fn all_faults_of_the_destinations_are_told_at_once() {
    let world = World::new().await;
    let service = OutboundToken::service;
    let wrong = [
        ("vault.example", "is not a URL"),
        ("http://vault.example", "is not an https URL"),
        ("http://127.0.0.1:1", "is not an https URL"),
        ("ftp://vault.example", "is not an https URL"),
        ("https://vault.example?q", "has more than"),
        ("https://vault.example#f", "has more than"),
        ("https://user@vault.example", "has more than"),
        ("https://user:word@vault.example", "has more than"),
        ("https://:word@vault.example", "has more than"),
        ("https://vault.example/a//b", "has an ambiguous path"),
        ("https://vault.example/a%2fb", "has an ambiguous path"),
        ("https://good.example", "is given twice"),
        ("https://GOOD.example:443/", "is given twice"),
        ("https://good.example/API/", "is given twice"),
        ("https://good.example/%61pi", "is given twice"),
    ];
    let builder = world.builder().allow_loopback_http(false);
    let builder = builder.destination("https://good.example", service());
    let mut builder = builder.destination("https://good.example/api", OutboundToken::none());
    for (url, _) in wrong {
        builder = builder.destination(url, service());
    }
    let error = builder.build().unwrap_err();
    assert_eq!(error.faults().len(), wrong.len(), "{error}");
    for (fault, (url, problem)) in error.faults().iter().zip(wrong) {
        let text = format!("{fault:?}");
        assert!(text.contains(problem) && !text.contains("word@ "), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_had_as_it_is_described_is_a_fault() {
    let world = World::new().await;
    let scopes = || "read".parse().unwrap();
    let resource = || "https://vault.example/".parse().unwrap();
    let on_behalf = OutboundToken::on_behalf_of_caller;
    let cases = [
        (on_behalf("scaivault").scopes(scopes()).resource(resource()), None),
        (OutboundToken::service().scopes(scopes()), None),
        (OutboundToken::service_in_callers_tenant().scopes(scopes()), None),
        (on_behalf(""), Some("has an empty audience")),
        (OutboundToken::forwarded().scopes(scopes()), Some("has scopes for a token")),
        (OutboundToken::none().scopes(scopes()), Some("has scopes for a token")),
        (OutboundToken::service().resource(resource()), Some("has a resource for a token")),
        (OutboundToken::forwarded().resource(resource()), Some("has a resource for a token")),
        (OutboundToken::none().resource(resource()), Some("has a resource for a token")),
    ];
    for (token, problem) in cases {
        let case = format!("{token:?}");
        let built = world.builder().destination("https://vault.example", token).build();
        match (built, problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{error}"),
            (built, _) => panic!("{case}: {built:?}"),
        }
    }
}

#[tokio::test]
async fn plain_http_is_for_this_machine_and_only_when_allowed() {
    let world = World::new().await;
    for (url, is_good) in [
        ("http://127.0.0.1", true),
        ("http://127.9.9.9:1", true),
        ("http://[::1]:1", true),
        ("http://localhost:3000/api", true),
        ("http://localhost.evil.example", false),
        ("http://10.0.0.1", false),
        ("http://0.0.0.0", false),
        ("http://vault.example", false),
    ] {
        let builder = world.builder().destination(url, OutboundToken::service());
        assert_eq!(builder.clone().build().is_ok(), is_good, "{url}");
        assert!(builder.allow_loopback_http(false).build().is_err(), "{url}");
    }
}
