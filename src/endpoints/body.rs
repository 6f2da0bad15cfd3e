//! Reads request bodies, with a size limit and a timeout.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;

use super::response::{Failure, invalid_request};
use crate::clock::with_timeout;

/// Maximum size of a body without a trust policy. Tokens have at most 16 KiB, and requests add only a few parameters.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Default time that a client has to send its body.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

const TOO_LARGE: Failure = Failure::Body(413, "The body is too large.");
/// The response to a body that is too slow (RFC 9110 §15.5.9).
const TOO_LATE: Failure = Failure::Body(408, "The body did not arrive in time.");

/// Reads a whole body of at most `max_bytes`, which must arrive within `timeout`.
pub(super) async fn read<B: Body>(
    body: B,
    max_bytes: usize,
    timeout: Duration,
) -> Result<Bytes, Failure> {
    with_timeout(timeout, collect(body, max_bytes)).await.unwrap_or(Err(TOO_LATE))
}

async fn collect<B: Body>(body: B, max_bytes: usize) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(TOO_LARGE);
    }
    let (mut body, mut read) = (pin!(body), BytesMut::new());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let broken = |_| invalid_request("The body could not be read.");
        // Endpoints do not use trailers.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if read.len() + data.remaining() > max_bytes {
            return Err(TOO_LARGE);
        }
        read.put(data);
    }
    Ok(read.freeze())
}
