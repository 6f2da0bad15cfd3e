//! [`Profile`]: what a participant is shown as, and never found by.

use crate::identity::Identity;

/// Longest name in bytes; longer ones are cut.
const LONGEST_NAME: usize = 255;

/// Longest address in bytes (RFC 5321 §4.5.3.1.3, less the angle brackets).
const LONGEST_EMAIL: usize = 254;

/// What a participant is shown as. It changes, and people choose it themselves: decide nothing by
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Profile {
    /// A name to show: one line of at most 255 bytes.
    pub display_name: Option<Box<str>>,
    /// The e-mail address, of at most 254 bytes.
    pub email: Option<Box<str>>,
    /// Whether the issuer says it verified the address.
    pub email_verified: bool,
}

impl Profile {
    /// What `identity` says of itself, made to fit: a name loses its control characters and what is
    /// too long; an address that does not fit is left out, since a part of one may be somebody
    /// else's.
    pub fn of(identity: &Identity) -> Self {
        let email = identity.email().filter(|email| is_short_and_plain(email));
        Self {
            display_name: identity.display_name().and_then(one_line),
            email: email.map(Box::from),
            email_verified: email.is_some() && identity.email_verified(),
        }
    }

    /// Takes over what `newer` says. What it does not speak of stays as it is: not every token has
    /// the claims of a profile.
    pub fn refresh(&mut self, newer: &Self) {
        if newer.display_name.is_some() {
            self.display_name.clone_from(&newer.display_name);
        }
        if newer.email.is_some() {
            self.email.clone_from(&newer.email);
            self.email_verified = newer.email_verified;
        }
    }
}

fn is_short_and_plain(email: &str) -> bool {
    (1..=LONGEST_EMAIL).contains(&email.len()) && !email.chars().any(char::is_control)
}

fn one_line(name: &str) -> Option<Box<str>> {
    let mut line = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if line.len() + letter.len_utf8() > LONGEST_NAME {
            break;
        }
        line.push(letter);
    }
    let line = line.trim();
    (!line.is_empty()).then(|| line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line_and_addresses_whole_or_absent() {
        let long = "é".repeat(200);
        for (name, shown) in [
            ("Alice Smith", Some("Alice Smith")),
            (" Alice\r\nSmith\0 ", Some("AliceSmith")),
            ("\n", None),
            ("", None),
            (long.as_str(), Some(&long[..254])),
        ] {
            assert_eq!(one_line(name).as_deref(), shown, "{name:?}");
        }
        assert!(is_short_and_plain("alice@acme.example"));
        for email in ["", "a\0@b", "a@b\r\nBcc: c", &format!("{}@b", "a".repeat(253))] {
            assert!(!is_short_and_plain(email), "{email:?}");
        }
    }

    #[test]
    fn what_a_token_does_not_speak_of_stays() {
        let text = |text: &str| Some(Box::from(text));
        let known = Profile {
            display_name: text("Alice"),
            email: text("a@acme.example"),
            email_verified: true,
        };
        let mut profile = known.clone();
        profile.refresh(&Profile::default());
        assert_eq!(profile, known);
        profile.refresh(&Profile { email: text("b@acme.example"), ..Profile::default() });
        assert_eq!(profile.display_name, known.display_name);
        assert!(!profile.email_verified, "another address is not verified because the last was");
    }
}
