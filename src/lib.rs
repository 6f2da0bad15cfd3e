//! scaikey-auth
mod base64url;
mod clock;
mod config;
mod error;
mod flight;
mod identity;
mod issuer;
mod json;
mod secret;
mod telemetry;
mod tenant;
mod validator;
pub use clock::{Clock, SystemClock};
pub use config::*;
pub use error::*;
pub use identity::*;
pub use issuer::*;
pub use secret::Secret;
pub use tenant::*;
pub use validator::*;
mod auth;
pub use auth::*;
#[cfg(feature = "testing")]
pub mod testing;
