//! A proxy that publishes a service under a sub-path, as browsers see it.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;

use super::http::{Server, client};

/// Whether the proxy removes its sub-path before it forwards a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Stripped,
    Whole,
}

/// Forwards `/app/…` to the service, and answers 404 to all other paths. `Host` becomes the address of the
/// service, as in the default settings of nginx.
pub(crate) fn sub_path(service: String, forwarded: Forwarded) -> Router {
    let http = client();
    Router::new().fallback(move |request: Request| {
        let (service, http) = (service.clone(), http.clone());
        async move {
            let target = request.uri().path_and_query().unwrap().as_str().to_owned();
            let Some(rest) = target.strip_prefix("/app").filter(|rest| rest.starts_with('/'))
            else {
                return Response::builder().status(404).body(Body::from("not under /app")).unwrap();
            };
            let path = if forwarded == Forwarded::Stripped { rest } else { &target };
            let (head, body) = request.into_parts();
            let mut headers = head.headers;
            headers.remove("host");
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let forwarded = http.request(head.method, format!("{service}{path}"));
            let answer = forwarded.headers(headers).body(body).send().await.unwrap();
            let mut response = Response::builder().status(answer.status());
            *response.headers_mut().unwrap() = answer.headers().clone();
            response.headers_mut().unwrap().remove("transfer-encoding");
            response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
        }
    })
}

/// Starts the proxy on a free port.
pub(crate) async fn start(service: String, forwarded: Forwarded) -> Server {
    Server::axum(sub_path(service, forwarded)).await
}
