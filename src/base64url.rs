//! base64url as JOSE writes it (RFC 7515 §2): no padding, no other alphabet, no spare bits set, so
//! that every octet string has one spelling.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(crate) fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_is_read() {
        assert_eq!(decode("-_8").unwrap(), [0xfb, 0xff]);
        for text in ["-_9", "-_8=", "+/8", "-_8\n", " -_8", "-", "é"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
