//! Characters that readers do not see, or that change what they see.

/// Returns whether a character has no width, or changes the direction of the text around it (UAX 9). RFC 4518 §2.2 maps
/// most of them to nothing. Control characters and variation selectors are not among them.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{1806}'
            | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
    )
}

/// Returns whether a character of one user's text misleads another user who reads it: it is invisible, or a line break
/// that editors show in different ways. The control characters of ASCII are not among them.
#[cfg(feature = "trust")]
pub(crate) fn is_misleading(c: char) -> bool {
    is_invisible(c) || matches!(c, '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}
