//! scaikey-auth
mod clock;
mod config;
mod json;
mod secret;
pub use clock::{Clock, SystemClock};
pub use config::Algorithm;
pub use secret::Secret;
#[cfg(feature = "testing")]
pub mod testing;
