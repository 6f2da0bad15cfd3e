//! [`ClientRequest`]: a form, sent to an endpoint of the provider with client authentication.

use std::time::SystemTime;

use url::Url;
use url::form_urlencoded::Serializer;

use super::client_auth::{ClientAuth, ClientAuthError, ClientCredentials};
use super::http::{FetchError, Http, Limits, Posted};
use crate::config::Route;

/// A POST request to the token, revocation or introspection endpoint.
#[derive(Debug)]
pub(crate) struct ClientRequest<'r> {
    pub(crate) http: &'r Http,
    pub(crate) auth: &'r ClientAuth,
    /// The issuer identifier of the provider.
    pub(crate) issuer: &'r str,
    pub(crate) url: &'r Url,
    /// The value of the header `Accept`.
    pub(crate) accept: &'static str,
    pub(crate) limits: Limits,
    pub(crate) route: &'r Route,
    pub(crate) now: SystemTime,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The credentials could not be read or used, so nothing was sent.
    NoCredentials(ClientAuthError),
    NoAnswer(FetchError),
}

impl ClientRequest<'_> {
    /// Sends the form that `fill` writes, and returns an answer with any status.
    pub(crate) async fn send(
        &self,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> Result<Posted, RequestError> {
        let credentials = self.auth.credentials(self.issuer, self.now).await;
        let credentials = credentials.map_err(RequestError::NoCredentials)?;
        self.send_with(&credentials, &fill).await
    }

    async fn send_with(
        &self,
        credentials: &ClientCredentials,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> Result<Posted, RequestError> {
        // In a block of its own, because a serializer must not live across an await.
        let form = {
            let mut form = Serializer::new(String::new());
            fill(&mut form);
            credentials.append_to(&mut form);
            form.finish()
        };
        let Self { http, url, accept, limits, route, now, .. } = *self;
        let sent = http.post_form(url, accept, credentials.header(), form, limits, route, now);
        sent.await.map_err(RequestError::NoAnswer)
    }
}
