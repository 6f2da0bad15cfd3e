//! [`EventStream`]: whose events are accepted, and [`EventHandler`], which hears of them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

use super::poll::PollToken;
use crate::config::PlainHttp;
use crate::error::BoxError;
use crate::exchange::{ServiceTokenRequest, TokenExchangeClient};
use crate::support::secret::Secret;

/// A stream of security events (the Shared Signals Framework, CAEP and RISC). The provider pushes them to
/// `POST /v1/auth/events` (RFC 8935), or this service polls them (RFC 8936). Set with
/// [`security_events`](super::super::EndpointsBuilder::security_events).
///
/// ```
/// use scaikey_auth::endpoints::{Endpoints, EventStream};
/// use scaikey_auth::{Auth, ConfigError, Secret};
///
/// /// `authorization` is the header that was agreed with the provider, such as `Bearer …`.
/// fn endpoints(auth: &Auth, authorization: Secret) -> Result<Endpoints, ConfigError> {
///     let stream = EventStream::push("https://scaikey.example", "https://wave.example/events");
///     auth.endpoints().security_events(stream.authorization(authorization)).build()
/// }
/// ```
#[derive(Clone)]
#[must_use = "give it to `EndpointsBuilder::security_events`"]
pub struct EventStream {
    pub(in super::super) issuer: String,
    pub(in super::super) audience: String,
    pub(in super::super) authorization: Option<Secret>,
    pub(super) handler: Option<Arc<dyn EventHandler>>,
    /// The URL that is polled.
    pub(in super::super) url: Option<String>,
    pub(in super::super) token: Option<PollToken>,
}

impl EventStream {
    /// Accepts the events of `issuer`, which must be an issuer of this service, for `audience`: the `aud` that the
    /// provider puts into the tokens of this stream.
    pub fn push(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            authorization: None,
            handler: None,
            url: None,
            token: None,
        }
    }

    /// Polls the events of `issuer` for `audience` at `url`, the polling endpoint of the stream (RFC 8936). For a
    /// service that the provider cannot reach. The URL must be `https`, or `http` with a loopback address.
    ///
    /// ```
    /// use scaikey_auth::endpoints::{Endpoints, EventStream};
    /// use scaikey_auth::exchange::ServiceTokenRequest;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
    ///
    /// fn endpoints(auth: &Auth, client: TokenExchangeClient) -> Result<Endpoints, ConfigError> {
    ///     let url = "https://scaikey.example/ssf/streams/7/poll";
    ///     let stream = EventStream::poll("https://scaikey.example", "https://wave.example/events", url);
    ///     let stream = stream.service_token(client, ServiceTokenRequest::default());
    ///     auth.endpoints().security_events(stream).build()
    /// }
    /// ```
    ///
    /// A task of the tokio runtime polls from [`build`](super::super::EndpointsBuilder::build) on; without a runtime,
    /// from the first request on that the endpoints see, for any path, and the log warns. It ends when the last clone
    /// of the endpoints is dropped. In mock mode nothing is polled.
    ///
    /// Each token is treated like a pushed one, but the revocations of all tokens of an answer are in force before the
    /// handler is called, for several tokens at the same time. A token is acknowledged when its revocations are in
    /// force and the handler has returned, and reported with a code of RFC 8935 §2.4 if it is refused: `invalid_key`
    /// after its second delivery, because keys may be published late. If a revocation could not be stored, the handler
    /// failed, or there were no keys, the token is neither, so that the provider sends it again. While more than 224
    /// tokens wait for the handler, further ones are acknowledged without it, and the log warns: revocations go first.
    ///
    /// The provider may delay an answer until there is an event (long polling); after 50 s the service asks again. That
    /// a gateway ends such a request after 5 s or more, with 408, 504 or without an answer, is no failure. An answer
    /// may have 5 MiB; 32 new tokens of it are read. If nothing new came, requests are at least 1 s apart. After a
    /// failure, the service waits for up to 60 s, longer after each further one, or for `Retry-After`; for up to 5 s,
    /// if only an event could not be stored or handled. The log warns once, and says when it works again. Requests use
    /// the [HTTP client](crate::issuer::HttpClient) and the CA file of the issuer, and follow no redirect.
    ///
    /// Several processes poll one stream without harm, but each event reaches only one of them for sure: share the
    /// revocations in a [log](crate::revocation::RevocationsBuilder::log).
    pub fn poll(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        url: impl Into<String>,
    ) -> Self {
        Self { url: Some(url.into()), ..Self::push(issuer, audience) }
    }

    /// Sets the token with which a [polled](Self::poll) stream is requested: a service token of `client` (client
    /// credentials). If the provider answers 401, another token is obtained once. Default: none.
    pub fn service_token(
        mut self,
        client: TokenExchangeClient,
        request: ServiceTokenRequest,
    ) -> Self {
        self.token = Some(PollToken::new(client, request));
        self
    }

    /// Sets the value of the header `Authorization`, with its scheme: `Bearer …`. A provider that pushes must send it;
    /// it is compared in constant time. To a provider that is polled, this service sends it. Default: none, so that
    /// the signature of the token alone authenticates the provider.
    pub fn authorization(mut self, value: impl Into<Secret>) -> Self {
        self.authorization = Some(value.into());
        self
    }

    /// Returns the problems of a stream that is polled at `url`. They do not quote it.
    pub(in super::super) fn url_problems(&self, url: &str) -> impl Iterator<Item = &'static str> {
        let url = url.parse::<Url>().ok().filter(Url::has_host);
        let is_secure = |url: &Url| PlainHttp { loopback: true, hosts: Vec::new() }.allows(url);
        let is_insecure = url.as_ref().is_some_and(|url| !is_secure(url));
        let has_password =
            url.as_ref().is_some_and(|it| !it.username().is_empty() || it.password().is_some());
        let has_both = self.authorization.is_some() && self.token.is_some();
        let problems = [
            (url.is_none(), "has a polling endpoint that is not a URL"),
            (is_insecure, "has a polling endpoint that is not https"),
            (
                has_password,
                "has credentials in the URL of its polling endpoint: call `authorization`",
            ),
            (has_both, "has an authorization and a service token: set only one"),
        ];
        problems.into_iter().filter_map(|(is_there, problem)| is_there.then_some(problem))
    }

    /// Sets the handler of all events of this stream. Default: none.
    pub fn handler(mut self, handler: impl EventHandler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// A security event from a verified token.
///
/// The ids of users are in it, so its `Debug` output has only the type.
///
/// ```
/// use scaikey_auth::endpoints::SecurityEvent;
///
/// /// The state of a verification event, which the service compares with the one that it asked for (SSF 1.0).
/// fn state<'a>(event: &SecurityEvent<'a>) -> Option<&'a str> {
///     let is_verification = event.event_type.ends_with("/ssf/event-type/verification");
///     event.payload["state"].as_str().filter(|_| is_verification)
/// }
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct SecurityEvent<'a> {
    /// The issuer of the token.
    pub issuer: &'a str,
    /// The id of the token (`jti`), unique within the issuer. A token may have several events of different types.
    pub token_id: &'a str,
    /// The type, a URI such as `https://schemas.openid.net/secevent/caep/event-type/device-compliance-change`.
    pub event_type: &'a str,
    /// The subject as it was sent (RFC 9493): `sub_id` of the token, or `subject` in the event. *Not* checked: that
    /// it belongs to the issuer, unless [`has_revoked`](Self::has_revoked).
    pub subject: Option<&'a Value>,
    /// The members of the event, a JSON object.
    pub payload: &'a Value,
    /// When the event happened: `event_timestamp` of the event, `toe` of the token, or `iat`, if that is earlier.
    pub occurred_at: SystemTime,
    /// Whether tokens are refused because of the event.
    pub has_revoked: bool,
}

impl fmt::Debug for SecurityEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityEvent")
            .field("event_type", &self.event_type)
            .field("has_revoked", &self.has_revoked)
            .finish_non_exhaustive()
    }
}

/// A handler of security events, for those that revoke nothing by themselves.
///
/// It is called for each event of a token, after all revocations of the token are in force, and before the provider is
/// told that the token was accepted. If it fails, it is called again for the same event when the token comes again, and
/// not for the earlier events of the token, which it has accepted. Deliveries of the same token wait for each other.
/// Another process, or this one after 10,000 further tokens, may be called again for the same token. It has 5 s.
///
/// Harmless mistakes: handling an event twice. Security holes: returning `Ok` before the event is stored; and taking
/// an e-mail address for an identity, because the provider may give it to another person.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::endpoints::{EventHandler, SecurityEvent};
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::revocation::{Revocation, Revocations};
///
/// const COMPLIANCE: &str =
///     "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";
///
/// /// Signs users out whose device is not compliant. `revocations` are those of the `Auth`.
/// #[derive(Debug)]
/// struct Devices(Revocations);
///
/// #[async_trait]
/// impl EventHandler for Devices {
///     async fn handle(&self, event: &SecurityEvent<'_>) -> Result<(), BoxError> {
///         let is_compliant = event.payload["current_status"] == "compliant";
///         let user = event.subject.map(|subject| &subject["user"]);
///         // The issuer has a say only about its own users.
///         let user = user.filter(|user| user["iss"] == event.issuer);
///         let user = user.and_then(|user| user["sub"].as_str());
///         if let (COMPLIANCE, false, Some(user)) = (event.event_type, is_compliant, user) {
///             let user = Revocation::subject(event.issuer, user);
///             self.0.revoke(user.issued_before(event.occurred_at)).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait EventHandler: fmt::Debug + Send + Sync + 'static {
    /// Handles an event.
    ///
    /// # Errors
    /// If the event could not be handled. A provider that pushes gets 503. The token comes again. *Not* guaranteed:
    /// that a provider repeats it for ever.
    async fn handle(&self, event: &SecurityEvent<'_>) -> Result<(), BoxError>;
}
