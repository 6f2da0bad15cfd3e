//! Folds user names, so that different spellings of one account share a rate limit.

use std::sync::Arc;

use icu_normalizer::uts46::Uts46MapperBorrowed;

use super::tokens::PasswordAttempt;
use crate::support::invisible::is_invisible;

/// A function that names the account of a password attempt.
pub(super) type AccountRule = Arc<dyn Fn(&PasswordAttempt<'_>) -> String + Send + Sync>;

/// Maximum number of characters of a folded name. One character folds to at most 18.
const MAX_CHARS: usize = 256;

/// Normalises a user name so that equivalent spellings become equal, as directories compare names
/// (RFC 4518 §2): ignores case, compatibility forms, invisible characters, and outer or repeated
/// spaces.
///
/// UTS 46, the mapping for host names, does NFKC and case folding in one step, with tables that the
/// crate `url` already contains. It keeps `ẞ`, `ß` and `SS` apart; mapping to lower and then to
/// upper case makes them equal.
pub(super) fn fold(name: &str) -> String {
    let visible = name.chars().map(control_to_space).filter(|c| !is_ignored(*c));
    let capitals = visible.flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    let mapper = Uts46MapperBorrowed::new();
    let mapped = mapper.map_normalize(capitals);
    // Collapses before truncating: leading spaces must not use up the limit.
    let mut folded: String = collapse_spaces(mapped).take(MAX_CHARS).collect();
    folded.truncate(folded.trim_end().len());
    folded
}

/// Removes leading spaces, and collapses runs of spaces.
fn collapse_spaces(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut follows_space = true;
    let text = text.map(|c| if c.is_whitespace() { ' ' } else { c });
    text.filter(move |c| !std::mem::replace(&mut follows_space, *c == ' ') || *c != ' ')
}

/// Maps line ends and tabs to spaces (RFC 4518 §2.2).
fn control_to_space(c: char) -> char {
    if matches!(c, '\u{9}'..='\u{d}' | '\u{85}') { ' ' } else { c }
}

/// Returns whether RFC 4518 §2.2 maps a character to nothing; others that are invisible were added to Unicode later.
fn is_ignored(c: char) -> bool {
    c.is_control() || is_invisible(c) || matches!(c, '\u{fe00}'..='\u{fe0f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_fold_equal() {
        let table: &[(&str, &[&str])] = &[
            ("bob", &["BOB", " bob ", "\tbob\r\n", "ｂｏｂ", "𝐁𝐨𝐛", "b\u{ad}ob", "b\u{200d}ob"]),
            ("bob", &["\u{feff}bob", "bo\u{fe0f}b", "bob\0", "\u{a0}bob\u{3000}", "b\u{202e}ob"]),
            ("bob", &["b\u{2064}o\u{2066}b\u{2069}", "\u{61c}bob"]),
            ("josé@x.example", &["JOSÉ@X.EXAMPLE", "jose\u{301}@x.example"]),
            ("strasse", &["straße", "STRASSE", "STRAẞE"]),
            ("σς", &["ΣΣ", "σσ"]),
            ("office", &["oﬃce", "OFFICE"]),
            ("a b", &["a  b", "A\u{2003}B", "a\u{a0}\u{a0}b"]),
            ("kelvin", &["\u{212a}elvin"]),
        ];
        for (name, spellings) in table {
            for spelling in *spellings {
                assert_eq!(fold(spelling), fold(name), "{spelling:?}");
            }
        }
        assert_eq!(fold("bob"), "bob");
    }

    #[test]
    fn folded_names_are_bounded() {
        assert!(fold(&"\u{fdfa}".repeat(300)).chars().count() <= MAX_CHARS);
        for filler in ["\u{ad}", " ", "\t", "\u{3000}"] {
            let filler = filler.repeat(500);
            for spelling in [format!("{filler}bob"), format!("bob{filler}")] {
                assert_eq!(fold(&spelling), "bob", "{filler:?}");
            }
        }
        assert_eq!(fold(&format!("a{}b", " ".repeat(500))), "a b");
        let long = "x".repeat(MAX_CHARS - 1);
        assert_eq!(fold(&format!("{long} y")), long);
    }

    #[test]
    fn different_names_stay_different() {
        let names =
            ["bob", "bob2", "b-ob", "b.ob", "b_ob", "b ob", "bób", "bob@x", "x\\bob", "боб", ""];
        let folded: std::collections::HashSet<_> = names.iter().map(|name| fold(name)).collect();
        assert_eq!(folded.len(), names.len());
    }
}
