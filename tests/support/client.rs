//! An HTTP client that says what came back.

use http::HeaderMap;
use serde_json::Value;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks for `url`, with a bearer token or without one.
pub(crate) async fn get(url: &str, token: Option<&str>) -> Answer {
    let request = client().get(url);
    send(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = String::from_utf8(response.bytes().await.unwrap().into()).unwrap();
    Answer { status, headers, body }
}

/// Not through a proxy, whatever the environment of the tests says.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
