//! [`Sent`]: the claims as they were sent, for whoever wants to read more of them.

use serde::de::{DeserializeOwned, Error};

use crate::base64url;

/// Claims as sent: what a token signs, that is its encoded header, a dot, and from `payload` on the
/// encoded claims. Without the signature this is no token, and opens nothing.
#[derive(Clone)]
pub(crate) struct Sent {
    text: Box<[u8]>,
    payload: usize,
}

impl Sent {
    pub(crate) fn signed(text: &[u8], payload: usize) -> Self {
        Self { text: text.into(), payload }
    }

    /// Claims that nobody signed.
    #[cfg(any(feature = "mock", feature = "testing"))]
    pub(crate) fn unsigned(claims: &str) -> Self {
        Self { text: base64url::encode(claims).into_bytes().into(), payload: 0 }
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let claims = self.text.get(self.payload..).and_then(base64url::decode);
        let claims = claims.ok_or_else(|| serde_json::Error::custom("no base64url"))?;
        serde_json::from_slice(&claims)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn footprint(&self) -> usize {
        self.text.len()
    }
}
