//! A strict parser for `WWW-Authenticate` values (RFC 9110 §11.6.1; feature `testing`).
//!
//! ```
//! use scaikey_auth::testing::challenge;
//!
//! let sent = r#"Bearer realm="api", error="invalid_token""#;
//! let challenges = challenge::parse(sent)?;
//! assert_eq!(challenges[0].scheme, "Bearer");
//! assert_eq!(challenges[0].param("error"), Some("invalid_token"));
//! # Ok::<_, challenge::ParseError>(())
//! ```

/// One challenge of a header value.
///
/// ```
/// use scaikey_auth::testing::challenge;
///
/// let sent = r#"Bearer realm="docs", error="insufficient_scope", scope="docs:write", Basic realm="x""#;
/// let [bearer, basic] = &challenge::parse(sent)?[..] else { panic!("two challenges") };
/// assert_eq!(bearer.param("scope"), Some("docs:write"));
/// assert_eq!(basic.scheme, "Basic");
/// # Ok::<_, challenge::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Challenge {
    /// The scheme as sent. Compare schemes without regard to case.
    pub scheme: String,
    /// The parameters in the order sent: names as sent, values without quotes and escapes.
    pub params: Vec<(String, String)>,
    /// The single value of a scheme without parameters.
    pub token68: Option<String>,
}

impl Challenge {
    /// Returns the value of a parameter. Compares names without regard to case.
    pub fn param(&self, name: &str) -> Option<&str> {
        let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.params.iter().find(same).map(|(_, value)| value.as_str())
    }
}

/// The error of [`parse`]: the position, and the element that the grammar requires there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {offset} of a WWW-Authenticate value")]
#[non_exhaustive]
pub struct ParseError {
    /// The element that the grammar requires here.
    pub expected: &'static str,
    /// Its position in the value, in bytes.
    pub offset: usize,
}

/// Parses all challenges of one header value.
///
/// # Errors
/// [`ParseError`] if the value does not follow the grammar, contains no challenge, or repeats a
/// parameter within a challenge (RFC 9110 §11.2).
pub fn parse(value: &str) -> Result<Vec<Challenge>, ParseError> {
    let mut reader = Reader { text: value, offset: 0 };
    let mut challenges = Vec::new();
    loop {
        reader.skip_empty_elements();
        if reader.is_done() {
            break;
        }
        challenges.push(reader.challenge()?);
    }
    match challenges.is_empty() {
        true => Err(reader.expected("a challenge")),
        false => Ok(challenges),
    }
}

struct Reader<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Parses `auth-scheme [ 1*SP ( token68 / #auth-param ) ]`, up to the end or the comma before
    /// the next challenge.
    fn challenge(&mut self) -> Result<Challenge, ParseError> {
        let scheme = self.token("a scheme")?.to_owned();
        let mut challenge = Challenge { scheme, params: Vec::new(), token68: None };
        if self.skip(" ") == 0 {
            return self.end_of_element().map(|()| challenge);
        }
        if let Some(token68) = self.token68() {
            challenge.token68 = Some(token68.to_owned());
            return self.end_of_element().map(|()| challenge);
        }
        if !(self.is_done() || self.peek() == Some(',') || self.at_param()) {
            return Err(self.expected("a parameter or a token68"));
        }
        // After a comma, a name with `=` is a parameter of this challenge. A name without `=` is
        // the scheme of the next challenge.
        loop {
            self.skip_empty_elements();
            if self.is_done() || !self.at_param() {
                return Ok(challenge);
            }
            let (name, value) = self.param()?;
            if challenge.param(&name).is_some() {
                return Err(self.expected("a parameter without a repeated name"));
            }
            challenge.params.push((name, value));
            self.end_of_element()?;
        }
    }

    fn at_param(&self) -> bool {
        let mut ahead = Reader { text: self.text, offset: self.offset };
        ahead.token("").is_ok() && {
            ahead.skip(" \t");
            ahead.peek() == Some('=')
        }
    }

    /// Parses `token BWS "=" BWS ( token / quoted-string )`.
    fn param(&mut self) -> Result<(String, String), ParseError> {
        let name = self.token("a parameter name")?.to_owned();
        self.skip(" \t");
        if !self.eat('=') {
            return Err(self.expected("="));
        }
        self.skip(" \t");
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.token("a value")?.to_owned(),
        };
        Ok((name, value))
    }

    /// Parses a quoted string (RFC 9110 §5.6.4).
    fn quoted(&mut self) -> Result<String, ParseError> {
        let mut value = String::new();
        self.eat('"');
        loop {
            match self.next() {
                Some('"') => return Ok(value),
                Some('\\') => match self.next() {
                    Some(escaped) if is_text(escaped) => value.push(escaped),
                    _ => return Err(self.expected("an escaped character")),
                },
                Some(character) if is_text(character) => value.push(character),
                _ => return Err(self.expected("text or a closing quote")),
            }
        }
    }

    /// Parses a token68 that ends its list element. Otherwise consumes nothing.
    fn token68(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let body = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-._~+/".contains(c));
        let body = body.unwrap_or(rest.len());
        let padding = rest.get(body..)?.bytes().take_while(|b| *b == b'=').count();
        let after = rest.get(body + padding..)?.trim_start_matches([' ', '\t']);
        if body == 0 || !(after.is_empty() || after.starts_with(',')) {
            return None;
        }
        self.offset += body + padding;
        rest.get(..body + padding)
    }

    fn token(&mut self, what: &'static str) -> Result<&'a str, ParseError> {
        let rest = self.rest();
        let length = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        match rest.get(..length) {
            Some(token) if length > 0 => {
                self.offset += length;
                Ok(token)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn end_of_element(&mut self) -> Result<(), ParseError> {
        self.skip(" \t");
        match self.is_done() || self.peek() == Some(',') {
            true => Ok(()),
            false => Err(self.expected("a comma")),
        }
    }

    fn skip_empty_elements(&mut self) {
        self.skip(", \t");
    }

    fn skip(&mut self, characters: &str) -> usize {
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches(|c| characters.contains(c)).len();
        self.offset += skipped;
        skipped
    }

    fn eat(&mut self, character: char) -> bool {
        let found = self.peek() == Some(character);
        if found {
            self.offset += character.len_utf8();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.offset += character.len_utf8();
        Some(character)
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.offset >= self.text.len()
    }

    fn expected(&self, expected: &'static str) -> ParseError {
        ParseError { expected, offset: self.offset }
    }
}

/// Returns whether the character is a `tchar` (RFC 9110 §5.6.2).
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

/// Returns whether the character may stand within quotes: no control character except tab.
fn is_text(character: char) -> bool {
    character == '\t' || !character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scheme: &str, params: &[(&str, &str)], token68: Option<&str>) -> Challenge {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Challenge {
            scheme: scheme.to_owned(),
            params: params.iter().map(own).collect(),
            token68: token68.map(str::to_owned),
        }
    }

    #[test]
    fn valid_challenges_are_parsed() {
        let cases: [(&str, Vec<Challenge>); 12] = [
            ("Bearer", vec![one("Bearer", &[], None)]),
            ("Bearer ", vec![one("Bearer", &[], None)]),
            (r#"Bearer realm="a""#, vec![one("Bearer", &[("realm", "a")], None)]),
            (
                r#"Bearer realm = "a" , x	=	y"#,
                vec![one("Bearer", &[("realm", "a"), ("x", "y")], None)],
            ),
            (
                r#"Bearer realm="a\"b\\c, d=e""#,
                vec![one("Bearer", &[("realm", r#"a"b\c, d=e"#)], None)],
            ),
            ("Negotiate YWJj==", vec![one("Negotiate", &[], Some("YWJj=="))]),
            ("Negotiate a.b/c+d", vec![one("Negotiate", &[], Some("a.b/c+d"))]),
            ("A, B", vec![one("A", &[], None), one("B", &[], None)]),
            ("A x=, B", vec![one("A", &[], Some("x=")), one("B", &[], None)]),
            (
                ",, A  ,x=1,, y=2 ,B tok==,",
                vec![one("A", &[("x", "1"), ("y", "2")], None), one("B", &[], Some("tok=="))],
            ),
            (
                r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#,
                vec![
                    one(
                        "Newauth",
                        &[("realm", "apps"), ("type", "1"), ("title", r#"Login to "apps""#)],
                        None,
                    ),
                    one("Basic", &[("realm", "simple")], None),
                ],
            ),
            (
                r#"Bearer x="", DPoP algs="ES256 PS256""#,
                vec![
                    one("Bearer", &[("x", "")], None),
                    one("DPoP", &[("algs", "ES256 PS256")], None),
                ],
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value).as_ref(), Ok(&expected), "{value}");
        }
    }

    #[test]
    fn invalid_challenges_are_rejected() {
        for value in [
            "",
            " , ",
            "\"Bearer\"",
            "Bearer realm=\"a",
            "Bearer realm=\"a\\",
            "Bearer realm=\"a\nb\"",
            "Bearer realm=\"a\" error=\"b\"",
            "Bearer realm=\"a\"b",
            "Bearer realm=a b",
            "Bearer x=\"1\", realm=",
            "Bearer x=1, x=2",
            "Bearer x=1, X=2",
            "Bearer =1",
            "Bearer\trealm=a",
            "Bearer a b",
            "Bearer x=é",
        ] {
            assert!(parse(value).is_err(), "{value:?}: {:?}", parse(value));
        }
    }
}
