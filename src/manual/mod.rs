//! The manual: guides for users and for maintainers. These modules contain text only.
//!
//! For users, in reading order. Begin with [`start`]; the four pages after it are for every service:
//!
//! 1. [`start`]: how do I get from `cargo new` to the first 200?
//! 2. [`modes`]: which tokens are accepted in production, in staging and in local development?
//! 3. [`request`]: how is a request checked, how is it refused, and how do guards protect a route?
//! 4. [`providers`]: how do I configure Keycloak, Entra ID, Auth0 and others, and what must I not trust there?
//! 5. [`tenants`]: how are tenants found, and how do I use a provider with one issuer per tenant?
//! 6. [`endpoints`]: how do I add sign-in, browser sessions, registration and workload tokens?
//! 7. [`exchange`]: how do I get tokens for other services, and how are they cached?
//! 8. [`outbound`]: how do I add these tokens to outgoing requests?
//! 9. [`testing`]: how do I test a service and its stores?
//! 10. [`operating`]: which variables, logs and metrics exist, and what happens in an outage?
//! 11. [`threats`]: which attacks are prevented, and which are not?
//! 12. [`costs`]: how much time and memory does authentication take?
//! 13. [`migrating`]: how do I replace `jsonwebtoken`, or a middleware of my own?
//!
//! For maintainers:
//!
//! 1. [`architecture`]: where is what, and which path does a request take through the code?
//! 2. [`contributing`]: how do I change, test and release the crate?
//! 3. [`decisions`]: why is the crate built this way?

#[doc = include_str!("start.md")]
pub mod start {}

#[doc = include_str!("modes.md")]
pub mod modes {}

#[doc = include_str!("request.md")]
pub mod request {}

#[doc = include_str!("providers.md")]
pub mod providers {}

#[doc = include_str!("tenants.md")]
pub mod tenants {}

#[doc = include_str!("endpoints.md")]
pub mod endpoints {}

#[doc = include_str!("exchange.md")]
pub mod exchange {}

#[doc = include_str!("outbound.md")]
pub mod outbound {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("contributing.md")]
pub mod contributing {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}
