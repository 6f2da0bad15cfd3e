//! scaikey-auth
mod clock;
mod config;
mod error;
mod flight;
mod identity;
mod json;
mod secret;
mod telemetry;
mod tenant;
pub use clock::{Clock, SystemClock};
pub use config::*;
pub use error::*;
pub use identity::*;
pub use secret::Secret;
pub use tenant::*;
#[cfg(feature = "testing")]
pub mod testing;
