//! Decryption of tokens: JWE in compact serialisation (RFC 7516), with a private key of this service.

mod key;

pub(crate) use key::{DecryptionKey, parse_keys};
