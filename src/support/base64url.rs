//! base64url as JOSE writes it (RFC 7515 §2): no padding, no other alphabet, no spare bits set, so
//! that every octet string has one spelling.

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};

pub(crate) fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode_to_vec(text).ok()
}

pub(crate) fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode_to_string(octets)
}

/// The common alphabet with padding (RFC 4648 §4), which HTTP Basic and PEM use.
pub(crate) fn encode_standard(octets: impl AsRef<[u8]>) -> String {
    STANDARD.encode_to_string(octets)
}

pub(crate) fn decode_standard(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    STANDARD.decode_to_vec(text).ok()
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
        // Whatever the length, and wherever the vector code hands over to the scalar.
        for length in 0..200 {
            let octets: Vec<u8> = (0..length).map(|n| n as u8 ^ 0xA5).collect();
            let text = encode(&octets);
            assert_eq!(decode(&text).as_deref(), Some(&*octets));
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
    fn spare_bits_are_refused() {
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
