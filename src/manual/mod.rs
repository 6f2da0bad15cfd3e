//! The manual: one page for each thing one does with this crate. There are no items here, only text.
//!
//! Begin with [`modes`] and [`request`]. [`threats`] says what is defended and what is not;
//! [`decisions`] why things are as they are.

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
