//! SHA-256 of what must be recognised and not be readable.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// The digest of several texts, each with its length, so that their boundaries count.
pub(super) fn of_parts(parts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// The digest of a text, in hexadecimal: what `printf %s TEXT | sha256sum` prints.
pub(super) fn of_text(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum_and_boundaries_count() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_text("abc"), abc);
        assert_ne!(of_parts(&["a", "bc"]), of_parts(&["ab", "c"]));
        assert_ne!(of_parts(&["a", ""]), of_parts(&["a"]));
    }
}
