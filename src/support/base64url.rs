//! base64url as in JOSE (RFC 7515 §2), without padding, and standard base64 with padding. Only canonical text
//! is decoded, so every byte string has exactly one encoding of each kind.

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};

/// Decodes base64url. Returns `None` for any other text.
pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode_to_vec(text).ok()
}

/// Encodes as base64url.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// Encodes with the standard alphabet and padding (RFC 4648 §4), as HTTP Basic and PEM require.
pub(crate) fn encode_standard(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Decodes the standard alphabet with padding (RFC 4648 §4).
pub(crate) fn decode_standard(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    STANDARD.decode_to_vec(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_text_is_decoded() {
        assert_eq!(decode("-_8").unwrap(), [0xfb, 0xff]);
        for text in ["-_9", "-_8=", "+/8", "-_8\n", " -_8", "-", "é"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        // All lengths, so that the switch from SIMD to scalar code falls on each position.
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8 ^ 0xA5).collect();
            let text = encode(&bytes);
            assert_eq!(decode(&text).as_deref(), Some(&*bytes));
            for at in 0..text.len() {
                for wrong in [b'+', b'/', b'=', b' ', b'\n', b'.', 0, 0x80, 0xff] {
                    let mut broken = text.clone().into_bytes();
                    broken[at] = wrong;
                    assert_eq!(decode(&broken), None, "{wrong:#x} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn trailing_bits_are_refused() {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for prefix in
            ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            for (value, last) in ALPHABET.iter().enumerate() {
                let last = char::from(*last);
                assert_eq!(decode(format!("{prefix}A{last}")).is_some(), value % 16 == 0);
                assert_eq!(decode(format!("{prefix}AA{last}")).is_some(), value % 4 == 0);
            }
        }
    }
}
