//! [`Sent`]: the claims as they were sent, for whoever wants to read more of them.

use serde::de::{DeserializeOwned, Error};

use crate::base64url;

/// Claims as sent.
#[derive(Clone)]
pub(crate) enum Sent {
    /// As JSON.
    Json(Box<[u8]>),
    /// As a signed token has them: its encoded header, a dot, and from `payload` on the encoded
    /// claims. Without the signature this is no token, and opens nothing.
    Signed { text: Box<[u8]>, payload: usize },
}

impl Sent {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            Self::Json(text) => serde_json::from_slice(text),
            Self::Signed { text, payload } => {
                let claims = text.get(*payload..).and_then(base64url::decode);
                let claims = claims.ok_or_else(|| serde_json::Error::custom("no base64url"))?;
                serde_json::from_slice(&claims)
            }
        }
    }

    pub(super) fn signed_text(&self) -> Option<&[u8]> {
        match self {
            Self::Json(_) => None,
            Self::Signed { text, .. } => Some(text),
        }
    }

    pub(super) fn footprint(&self) -> usize {
        match self {
            Self::Json(text) | Self::Signed { text, .. } => text.len(),
        }
    }
}
