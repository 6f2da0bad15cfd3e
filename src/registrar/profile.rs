//! [`Profile`]: the display data of a participant.

use crate::identity::Identity;

/// Maximum length of a name, in bytes. Longer names are cut.
const MAX_NAME: usize = 255;

/// Maximum length of an address, in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
const MAX_EMAIL: usize = 254;

/// The display data of a participant. Users can change it freely, so never base a decision on it.
///
/// A custom registrar stores it, and updates it at each registration:
///
/// ```
/// use scaikey_auth::Identity;
/// use scaikey_auth::registrar::Profile;
///
/// fn newest(stored: &Profile, identity: &Identity) -> Profile {
///     let mut profile = stored.clone();
///     profile.update(&Profile::new(identity));
///     profile
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Profile {
    /// The display name: one line of at most 255 bytes. `None` if it is not known.
    pub display_name: Option<Box<str>>,
    /// The e-mail address, of at most 254 bytes. `None` if it is not known.
    pub email: Option<Box<str>>,
    /// Whether the issuer has verified the address. Default false.
    pub email_verified: bool,
}

impl Profile {
    /// Creates the profile of `identity`. Control characters are removed from the name, and it is cut to 255
    /// bytes. An invalid or overlong address is omitted, because a cut address may belong to another person.
    pub fn new(identity: &Identity) -> Self {
        let email = identity.email().filter(|email| is_short_and_plain(email));
        Self {
            display_name: identity.display_name().and_then(one_line),
            email: email.map(Box::from),
            email_verified: email.is_some() && identity.email_verified(),
        }
    }

    /// Updates the profile with the fields of `newer` that are present. Absent fields keep their values,
    /// because not every token has profile claims.
    pub fn update(&mut self, newer: &Self) {
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
    (1..=MAX_EMAIL).contains(&email.len()) && !email.chars().any(char::is_control)
}

fn one_line(name: &str) -> Option<Box<str>> {
    let mut line = String::new();
    for character in name.chars().filter(|character| !character.is_control()) {
        if line.len() + character.len_utf8() > MAX_NAME {
            break;
        }
        line.push(character);
    }
    let line = line.trim();
    (!line.is_empty()).then(|| line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_bad_addresses_omitted() {
        let long = "é".repeat(200);
        for (name, expected) in [
            ("Alice Smith", Some("Alice Smith")),
            (" Alice\r\nSmith\0 ", Some("AliceSmith")),
            ("\n", None),
            ("", None),
            (long.as_str(), Some(&long[..254])),
        ] {
            assert_eq!(one_line(name).as_deref(), expected, "{name:?}");
        }
        assert!(is_short_and_plain("alice@acme.example"));
        for email in ["", "a\0@b", "a@b\r\nBcc: c", &format!("{}@b", "a".repeat(253))] {
            assert!(!is_short_and_plain(email), "{email:?}");
        }
    }

    #[test]
    fn update_keeps_absent_fields() {
        let text = |text: &str| Some(Box::from(text));
        let before = Profile {
            display_name: text("Alice"),
            email: text("a@acme.example"),
            email_verified: true,
        };
        let mut profile = before.clone();
        profile.update(&Profile::default());
        assert_eq!(profile, before);
        profile.update(&Profile { email: text("b@acme.example"), ..Profile::default() });
        assert_eq!(profile.display_name, before.display_name);
        assert!(!profile.email_verified, "a new address is not verified");
    }
}
