//! The token in the protocols that a web socket client offers: `bearer`, followed by the token.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::source::TWO_TOKENS;
use crate::error::AuthError;
use crate::support::request_head::RequestHead;

/// The protocol that stands before the token.
const BEARER: &str = "bearer";

/// Returns the protocols that the client offers, in their order. The header may have several lines
/// (RFC 6455 §11.3.4), and a list may have empty elements (RFC 9110 §5.6.1.2).
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
}

fn is_bearer(name: &&[u8]) -> bool {
    *name == BEARER.as_bytes()
}

/// Returns the token that the request offers as a protocol, if it opens a web socket.
pub(super) fn token(head: RequestHead<'_>) -> Result<Option<HeaderValue>, AuthError> {
    let mut names = offered(head.headers);
    if !head.opens_web_socket() || !names.any(|name| is_bearer(&name)) {
        return Ok(None);
    }
    let token = names.next().ok_or(NO_TOKEN)?;
    // Protocols are unique (RFC 6455 §4.1), so a second `bearer` was added by a third party.
    if is_bearer(&token) || names.any(|name| is_bearer(&name)) {
        return Err(TWO_TOKENS);
    }
    let mut token = HeaderValue::from_bytes(token).map_err(|_| NO_TOKEN)?;
    token.set_sensitive(true);
    Ok(Some(token))
}

const NO_TOKEN: AuthError =
    AuthError::MalformedCredentials("The web socket protocol `bearer` has no token behind it.");

/// Removes the protocol behind each `bearer`. Returns whether there was one.
pub(super) fn remove(headers: &mut HeaderMap) -> bool {
    let mut is_token = false;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut found = false;
    for name in offered(headers) {
        if !is_token {
            kept.push(name);
        }
        found |= is_token;
        is_token = is_bearer(&name);
    }
    if !found {
        return false;
    }
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(kept) => headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept),
        Err(_) => headers.remove(header::SEC_WEBSOCKET_PROTOCOL),
    };
    true
}

/// Selects `bearer` in the response that opens the web socket, if the service selected no protocol.
/// Browsers close a web socket if they offered protocols and none was selected. The status is 101, or
/// 2xx after an extended `CONNECT` (RFC 8441 §5).
pub(super) fn select_protocol<B>(response: &mut Response<B>) {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS || status.is_success() {
        let selected = response.headers_mut().entry(header::SEC_WEBSOCKET_PROTOCOL);
        selected.or_insert(HeaderValue::from_static(BEARER));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Found = Result<Option<&'static str>, ()>;

    fn request(lines: &[&str]) -> Request<()> {
        let mut request = Request::builder().header("upgrade", "h2c, WebSocket");
        for line in lines {
            request = request.header("sec-websocket-protocol", *line);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn token_follows_bearer() {
        let table: [(&[&str], Found, &str); 13] = [
            (&[], Ok(None), ""),
            (&["chat, graphql-ws"], Ok(None), "chat, graphql-ws"),
            (&["bearer, a.b-c_"], Ok(Some("a.b-c_")), "bearer"),
            (&["bearer,a"], Ok(Some("a")), "bearer"),
            (&["chat, bearer ,\t a , v2"], Ok(Some("a")), "chat, bearer, v2"),
            (&["chat,, bearer", ", a", "v2"], Ok(Some("a")), "chat, bearer, v2"),
            (&["bearer", "a, v2"], Ok(Some("a")), "bearer, v2"),
            (&["bearer"], Err(()), "bearer"),
            (&["chat, bearer, "], Err(()), "chat, bearer, "),
            (&["bearer, bearer"], Err(()), "bearer"),
            (&["bearer, a, bearer, b"], Err(()), "bearer, bearer"),
            (&["bearer, bearer, a"], Err(()), "bearer"),
            (&["Bearer, a"], Ok(None), "Bearer, a"),
        ];
        for (lines, expected, left) in table {
            let mut request = request(lines);
            let found = token(RequestHead::of(&request)).map_err(|_| ());
            let found = found.map(|found| found.map(|it| it.to_str().unwrap().to_owned()));
            assert_eq!(found, expected.map(|it| it.map(str::to_owned)), "{lines:?}");
            remove(request.headers_mut());
            let values = request.headers().get_all("sec-websocket-protocol").iter();
            let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
            assert_eq!(values.join("|"), left, "{lines:?}");
        }
    }

    #[test]
    fn only_requests_for_web_sockets_carry_it() {
        let opens = |method: &str, header: (&str, &str)| {
            let request = Request::builder().method(method).header(header.0, header.1);
            let request = request.header("sec-websocket-protocol", "bearer, a").body(()).unwrap();
            token(RequestHead::of(&request)).unwrap().is_some()
        };
        assert!(opens("GET", ("upgrade", "websocket")));
        assert!(opens("CONNECT", ("sec-websocket-version", "13")));
        for (method, header) in [
            ("GET", ("upgrade", "h2c")),
            ("GET", ("upgrade", "websocket/13x")),
            ("GET", ("sec-websocket-version", "13")),
            ("POST", ("upgrade", "websocket")),
            ("CONNECT", ("upgrade", "websocket")),
        ] {
            assert!(!opens(method, header), "{method} {header:?}");
        }
    }

    #[test]
    fn selection_of_the_service_stays() {
        let selected = |status: u16, own: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(own) = own {
                response = response.header("sec-websocket-protocol", own);
            }
            let mut response = response.body(()).unwrap();
            select_protocol(&mut response);
            let value = response.headers().get("sec-websocket-protocol");
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(selected(101, None).as_deref(), Some("bearer"));
        assert_eq!(selected(200, None).as_deref(), Some("bearer"));
        assert_eq!(selected(101, Some("chat")).as_deref(), Some("chat"));
        assert_eq!(selected(426, None), None);
    }
}
