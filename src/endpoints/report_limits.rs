//! The rate limit of reports: logout tokens and security events.
//!
//! A provider may report thousands of sign-outs within a second, so accepted reports are not counted. A refused
//! report is: after too many of them, the reports of its address are refused unread for a while.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::response::Failure;
use super::throttle::network;
use super::{Endpoint, EndpointRequest, Inner};
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};

/// The number of addresses that are refused at the same time. An address that is evicted is verified again, until its
/// next refused report.
const MAX_ADDRESSES: usize = 10_000;

/// The addresses whose reports are refused unread, each until a monotonic time. Most services get no such reports, so
/// the map is made for the first.
#[derive(Debug, Default)]
pub(super) struct RefusedAddresses(OnceLock<Bounded<Mac, Duration, BuildMacHasher>>);

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

    /// Handles a report, and charges its address if it is refused.
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
            Err(failure) => Err(self.charge(endpoint, &incoming.head, failure).await),
        }
    }

    /// Counts a refused report, and returns the failure to answer with. Reports that this service cannot judge or
    /// store are not counted, because the provider must repeat them. Other endpoints counted the request before.
    pub(super) async fn charge(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        failure: Failure,
    ) -> Failure {
        let is_refusal = match &failure {
            Failure::OAuth(..) | Failure::Body(..) => true,
            Failure::Auth(error) => !error.is_unavailable(),
            Failure::Throttled(_) | Failure::Exchange(_) | Failure::NotConfigured(_) => false,
        };
        if !endpoint.receives_reports() || !is_refusal {
            return failure;
        }
        let Err(Failure::Throttled(wait)) = self.admit(endpoint, head, None).await else {
            return failure;
        };
        if let Some(key) = self.address_key(endpoint, head) {
            let until = self.auth.clock().elapsed().saturating_add(wait);
            self.refused_addresses.0.get_or_init(|| bounded(MAX_ADDRESSES)).insert(key, until);
        }
        Failure::Throttled(wait)
    }

    fn check_address(&self, endpoint: Endpoint, head: &Parts) -> Result<(), Failure> {
        let Some(refused) = self.refused_addresses.0.get() else { return Ok(()) };
        let until = self.address_key(endpoint, head).and_then(|key| refused.get(&key));
        let wait = until.unwrap_or_default().saturating_sub(self.auth.clock().elapsed());
        if wait.is_zero() { Ok(()) } else { Err(Failure::Throttled(wait)) }
    }

    fn address_key(&self, endpoint: Endpoint, head: &Parts) -> Option<Mac> {
        let address = network(self.client_address.find(head)?);
        Some(Mac::of(&[endpoint.as_str().as_bytes(), &address].join(&0)))
    }
}
