//! Random bytes and digests, by the crypto library.
