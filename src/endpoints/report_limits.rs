//! The rate limit of reports: logout tokens and security events.
//!
//! A provider may report thousands of sign-outs within a second, so accepted reports are not counted. Forged ones are:
//! after too many of them, the reports of their address are refused unread for some seconds.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::response::Failure;
use super::seen_tokens::RETRY_AFTER;
use super::throttle::network;
use super::{Endpoint, EndpointRequest, Inner};
use crate::error::{AuthError, InvalidToken};
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::validator::{EventTokenError, is_encrypted};

/// The number of addresses that are refused at the same time. An address that is evicted is verified again, until its
/// next refused report.
const MAX_ADDRESSES: usize = 10_000;

/// The longest time that an address is refused. The provider may share it with an attacker.
const MAX_BLOCK: Duration = Duration::from_secs(5);

/// The addresses whose reports are refused unread, each until a monotonic time. Most services get no such reports, so
/// the map is made for the first.
#[derive(Debug, Default)]
pub(super) struct RefusedAddresses(OnceLock<Bounded<Mac, Duration, BuildMacHasher>>);

/// The reason why a report is not accepted.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    /// Whether it counts: the token costs a signature or a decryption, or needs a fetch of keys.
    is_charged: bool,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, is_charged: false }
    }
}

impl Refusal {
    /// Returns the refusal of a token that was not verified. `failure` is for any but one whose key may exist.
    pub(super) fn of(
        token: &str,
        error: EventTokenError,
        failure: impl FnOnce(AuthError) -> Failure,
    ) -> Self {
        match error {
            EventTokenError::Auth(error) => {
                // Anyone can encrypt for this service, and opening costs as much as a signature.
                let is_charged = is_encrypted(token)
                    || matches!(
                        error,
                        AuthError::InvalidToken(
                            InvalidToken::Signature
                                | InvalidToken::Key
                                | InvalidToken::Algorithm
                                | InvalidToken::Decryption(_)
                        )
                    );
                Self { failure: failure(error), is_charged }
            }
            EventTokenError::KeyNotFetched => {
                let problem = "the key of the report is unknown, and keys were fetched lately";
                let error = AuthError::unavailable("keys", Some(RETRY_AFTER), problem);
                Self { failure: error.into(), is_charged: true }
            }
        }
    }
}

impl Endpoint {
    /// Returns whether providers report at this endpoint.
    fn receives_reports(self) -> bool {
        matches!(self, Self::BackchannelLogout | Self::Events)
    }
}

impl Inner {
    /// Decides whether the body of a request is read.
    pub(super) async fn admit_head(&self, endpoint: Endpoint, head: &Parts) -> Result<(), Failure> {
        match endpoint.receives_reports() {
            true => self.check_address(endpoint, head),
            false => self.admit(endpoint, head, None).await,
        }
    }

    /// Handles a report, and charges its address if it is forged.
    pub(super) async fn report(
        &self,
        endpoint: Endpoint,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        // While the body was read, other reports of the address may have been refused.
        self.check_address(endpoint, &incoming.head)?;
        let outcome = match endpoint {
            Endpoint::Events => self.events(incoming).await,
            _ => self.backchannel_logout(incoming).await,
        };
        match outcome {
            Ok(response) => Ok(response),
            Err(Refusal { failure, is_charged: false }) => Err(failure),
            Err(Refusal { failure, .. }) => {
                Err(self.charge(endpoint, &incoming.head).await.unwrap_or(failure))
            }
        }
    }

    /// Counts a forged report. Returns the failure to answer with, if there were too many.
    async fn charge(&self, endpoint: Endpoint, head: &Parts) -> Option<Failure> {
        if self.has_stream_authorization(endpoint, head) {
            return None;
        }
        let Err(Failure::Throttled(wait)) = self.admit(endpoint, head, None).await else {
            return None;
        };
        let wait = wait.min(MAX_BLOCK);
        if let Some(key) = self.address_key(endpoint, head) {
            let until = self.auth.clock().elapsed().saturating_add(wait);
            self.refused_addresses.0.get_or_init(|| bounded(MAX_ADDRESSES)).insert(key, until);
        }
        Some(Failure::Throttled(wait))
    }

    fn check_address(&self, endpoint: Endpoint, head: &Parts) -> Result<(), Failure> {
        let Some(refused) = self.refused_addresses.0.get() else { return Ok(()) };
        let until = self.address_key(endpoint, head).and_then(|key| refused.get(&key));
        let wait = until.unwrap_or_default().saturating_sub(self.auth.clock().elapsed());
        match wait.is_zero() || self.has_stream_authorization(endpoint, head) {
            true => Ok(()),
            false => Err(Failure::Throttled(wait)),
        }
    }

    fn address_key(&self, endpoint: Endpoint, head: &Parts) -> Option<Mac> {
        let address = network(self.client_address.find(head)?);
        Some(Mac::of(&[endpoint.as_str().as_bytes(), &address].join(&0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_costly_refusals_are_charged() {
        use super::super::response::INVALID_REQUEST;
        let failure = |_| Failure::OAuth(INVALID_REQUEST, "It is not valid.");
        let charged = |token: &str, fault: InvalidToken| {
            Refusal::of(token, EventTokenError::Auth(fault.into()), failure).is_charged
        };
        for (token, fault, is_charged) in [
            ("a.b.c", InvalidToken::Signature, true),
            ("a.b.c", InvalidToken::Key, true),
            ("a.b.c", InvalidToken::Algorithm, true),
            ("a.b.c", InvalidToken::Audience, false),
            ("a.b.c", InvalidToken::Expired, false),
            // Opening it costs as much as a signature, whatever is inside.
            ("a.b.c.d.e", InvalidToken::Audience, true),
            ("a.b.c.d.e", InvalidToken::Expired, true),
        ] {
            assert_eq!(charged(token, fault), is_charged, "{token} {fault:?}");
        }
        assert!(Refusal::of("a.b.c", EventTokenError::KeyNotFetched, failure).is_charged);
    }
}
