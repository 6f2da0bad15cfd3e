//! The manual: one page for each thing one does with this crate. There are no items here, only text.
//!
//! To be read in this order; the first three are for every service:
//!
//! 1. [`modes`]: which tokens a service accepts in production, in staging and on a laptop.
//! 2. [`request`]: the steps of a request, the answers to refused ones, and guards for single routes.
//! 3. [`tenants`]: where tenants are looked up, and how a provider with one issuer for each is trusted.
//! 4. [`endpoints`]: sign-in, sessions, registration and workloads under `/v1/auth/`.
//! 5. [`exchange`]: how a service gets tokens for other services, and keeps them.
//! 6. [`outbound`]: how these tokens come onto the requests that a service sends.
//! 7. [`testing`]: a provider to test a service against, and exams for stores of your own.
//! 8. [`operating`]: every variable, log line and counter, and what happens in an outage.
//! 9. [`threats`]: what is defended, and what is not.
//! 10. [`decisions`]: why things are as they are, for those who want to change them.

#[doc = include_str!("modes.md")]
pub mod modes {}

#[doc = include_str!("request.md")]
pub mod request {}

#[doc = include_str!("exchange.md")]
pub mod exchange {}

#[doc = include_str!("outbound.md")]
pub mod outbound {}

#[doc = include_str!("endpoints.md")]
pub mod endpoints {}

#[doc = include_str!("tenants.md")]
pub mod tenants {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}
