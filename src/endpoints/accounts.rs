//! Which user names are one account, so that another spelling is not another try.

use std::sync::Arc;

use icu_normalizer::uts46::Uts46MapperBorrowed;

use super::tokens::PasswordAttempt;

/// Names the account that an attempt is made on.
pub(super) type AccountRule = Arc<dyn Fn(&PasswordAttempt<'_>) -> String + Send + Sync>;

/// So many characters tell accounts apart. Single ones grow to 18 as they are folded.
const MOST: usize = 256;

/// Returns what all spellings of `name` have in common: as directories compare names (RFC 4518 §2),
/// without regard to case, compatibility forms, invisible characters and outer or repeated space.
///
/// UTS 46 is the mapping that host names go through: NFKC and case folding at once, from tables that
/// URLs need anyway. Small letters and then capitals make one of `ẞ`, `ß` and `SS`, which it keeps apart.
pub(super) fn folded(name: &str) -> String {
    let visible = name.chars().map(space_for_control).filter(|c| !is_ignored(*c));
    let capitals = visible.flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    let mapped: String = Uts46MapperBorrowed::new().map_normalize(capitals).take(MOST).collect();
    mapped.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Line ends and tabs are space (RFC 4518 §2.2).
fn space_for_control(c: char) -> char {
    if matches!(c, '\u{9}'..='\u{d}' | '\u{85}') { ' ' } else { c }
}

/// Invisible characters: RFC 4518 §2.2 maps them to nothing.
fn is_ignored(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{6dd}' | '\u{70f}' | '\u{1806}' | '\u{180b}'..='\u{180e}'
                | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2063}'
                | '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffc}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}'
                | '\u{e0020}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_fold_alike() {
        let table: &[(&str, &[&str])] = &[
            ("bob", &["BOB", " bob ", "\tbob\r\n", "ｂｏｂ", "𝐁𝐨𝐛", "b\u{ad}ob", "b\u{200d}ob"]),
            ("bob", &["\u{feff}bob", "bo\u{fe0f}b", "bob\0", "\u{a0}bob\u{3000}", "b\u{202e}ob"]),
            ("josé@x.example", &["JOSÉ@X.EXAMPLE", "jose\u{301}@x.example"]),
            ("strasse", &["straße", "STRASSE", "STRAẞE"]),
            ("σς", &["ΣΣ", "σσ"]),
            ("office", &["oﬃce", "OFFICE"]),
            ("a b", &["a  b", "A\u{2003}B", "a\u{a0}\u{a0}b"]),
            ("kelvin", &["\u{212a}elvin"]),
        ];
        for (name, spellings) in table {
            for spelling in *spellings {
                assert_eq!(folded(spelling), folded(name), "{spelling:?}");
            }
        }
        assert_eq!(folded("bob"), "bob");
    }

    #[test]
    fn folded_names_are_bounded() {
        assert!(folded(&"\u{fdfa}".repeat(300)).chars().count() <= MOST);
        assert_eq!(folded(&format!("bob{}", "\u{ad}".repeat(500))), "bob");
    }

    #[test]
    fn names_that_differ_stay_apart() {
        let names =
            ["bob", "bob2", "b-ob", "b.ob", "b_ob", "b ob", "bób", "bob@x", "x\\bob", "боб", ""];
        let folded: std::collections::HashSet<_> = names.iter().map(|name| folded(name)).collect();
        assert_eq!(folded.len(), names.len());
    }
}
