//! [`EventStream`]: whose events are accepted, and [`EventHandler`], which hears of them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::BoxError;
use crate::support::secret::Secret;

/// A stream of security events that a provider pushes to `POST /v1/auth/events` (RFC 8935; the Shared Signals
/// Framework, CAEP and RISC). Set with [`security_events`](super::super::EndpointsBuilder::security_events).
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
        }
    }

    /// Sets the value of the header `Authorization` that the provider must send, with its scheme: `Bearer …`. It is
    /// compared in constant time. Default: none, so that the signature of the token alone authenticates the provider.
    pub fn authorization(mut self, value: impl Into<Secret>) -> Self {
        self.authorization = Some(value.into());
        self
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
/// It is called once for each event of a token, after its revocations are in force, and before the provider is told
/// that the token was accepted. Another process, or this one after 10,000 further tokens, may be called again for the
/// same token. It has 5 s.
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
    /// If the event could not be handled. The provider gets 503, and sends the token again.
    async fn handle(&self, event: &SecurityEvent<'_>) -> Result<(), BoxError>;
}
