//! [`Parameters`]: the parameters of a query, a form or a JSON object.

use std::fmt;
use std::string::FromUtf8Error;

use percent_encoding::percent_decode;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::EndpointRequest;
use super::response::{Failure, invalid_request};
use crate::support::media_type::{FORM, media_type};
use crate::support::secret::Secret;

/// Names and values, each name once. Values may be secrets.
///
/// Holds only parameters that the endpoint knows. In forms and queries, unknown parameters are
/// ignored, even if repeated: RFC 6749 requires this for requests (§3.1, §3.2) and for
/// authorization responses (§4.1.2). A known parameter must not be repeated (§3.1, §3.2), nor any
/// member of a JSON object.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, Secret)>);

/// Accepted formats of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFormat {
    Form,
    FormOrJson,
}

/// Maximum number of parameters, known or not. No endpoint knows more than ten. Each name is
/// compared with all earlier names, so the limit bounds that cost.
const MAX_PARAMETERS: usize = 64;

/// Maximum number of commas, colons and opening brackets in a JSON body, also inside strings. The
/// cost of parsing grows with them.
const MAX_JSON_DELIMITERS: usize = 4096;

const REPEATED: Failure = invalid_request("A parameter is repeated.");
const TOO_MANY_PARAMETERS: Failure = invalid_request("There are more than 64 parameters.");
const JSON_TOO_COMPLEX: Failure =
    invalid_request("The JSON object has more than 4096 commas, colons and opening brackets.");
const NOT_A_STRING: Failure = invalid_request("A parameter is not a string.");
const NOT_UTF8: Failure = invalid_request("A parameter is not UTF-8.");
const FORM_REQUIRED: Failure =
    Failure::Body(415, "The body must be application/x-www-form-urlencoded.");
const FORM_OR_JSON_REQUIRED: Failure =
    Failure::Body(415, "The body must be application/x-www-form-urlencoded or application/json.");
const NOT_AN_OBJECT: Failure = invalid_request("The body is not a JSON object.");

impl Parameters {
    pub(super) fn from_query(incoming: &EndpointRequest, known: &[&str]) -> Result<Self, Failure> {
        Self::from_form(incoming.head.uri.query().unwrap_or_default().as_bytes(), known)
    }

    /// Reads the body. An empty body of any type has no parameters.
    pub(super) fn from_body(
        incoming: &EndpointRequest,
        format: BodyFormat,
        known: &[&str],
    ) -> Result<Self, Failure> {
        if incoming.body.is_empty() {
            return Ok(Self::default());
        }
        match (media_type(&incoming.head.headers).as_str(), format) {
            (FORM, _) => Self::from_form(&incoming.body, known),
            ("application/json", BodyFormat::FormOrJson) => Self::from_json(&incoming.body, known),
            (_, BodyFormat::Form) => Err(FORM_REQUIRED),
            (_, BodyFormat::FormOrJson) => Err(FORM_OR_JSON_REQUIRED),
        }
    }

    fn from_form(text: &[u8], known: &[&str]) -> Result<Self, Failure> {
        // Counts pairs before decoding, including empty ones.
        if memchr::memchr_iter(b'&', text).count() >= MAX_PARAMETERS {
            return Err(TOO_MANY_PARAMETERS);
        }
        let longest = known.iter().map(|name| name.len()).max().unwrap_or_default();
        let mut read = Self::default();
        for pair in text.split(|byte| *byte == b'&') {
            let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(equals).unwrap_or_default();
            // Percent-encoding may triple the length of a name.
            if name.len() > 3 * longest {
                continue;
            }
            let Ok(name) = form_decode(name) else { continue };
            if known.contains(&name.as_str()) {
                let value = value.strip_prefix(b"=").unwrap_or_default();
                read.add(&name, &form_decode(value).map_err(|_| NOT_UTF8)?)?;
            }
        }
        Ok(read)
    }

    /// Reads a JSON object of strings. `null` counts as absent. A repeated member is an error even
    /// if the endpoint does not know it, because JSON parsers differ in which value they use (RFC
    /// 8259 §4). Reports the first problem.
    fn from_json(text: &[u8], known: &[&str]) -> Result<Self, Failure> {
        let delimiters =
            text.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
        if delimiters > MAX_JSON_DELIMITERS {
            return Err(JSON_TOO_COMPLEX);
        }
        let mut members = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(text);
        let outcome = json.deserialize_map(Members(&mut members)).and_then(|()| json.end());
        let mut read = Self::default();
        for (index, (name, value)) in members.iter().enumerate() {
            if members.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(REPEATED);
            }
            if index >= MAX_PARAMETERS {
                return Err(TOO_MANY_PARAMETERS);
            }
            let is_absent = value.get() == "null";
            if !is_absent && known.contains(&name.as_str()) {
                let value: String = serde_json::from_str(value.get()).map_err(|_| NOT_A_STRING)?;
                read.add(name, &value)?;
            }
        }
        outcome.map(|()| read).map_err(|_| NOT_AN_OBJECT)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        if self.0.iter().any(|(known, _)| known == name) {
            return Err(REPEATED);
        }
        self.0.push((name.to_owned(), value.into()));
        Ok(())
    }

    /// Returns whether no parameter that the endpoint knows was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a parameter. An empty value counts as absent (RFC 6749 §3.2).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.expose()).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str, missing: &'static str) -> Result<&str, Failure> {
        self.get(name).ok_or(invalid_request(missing))
    }
}

/// Decodes a name or a value of a form (<https://url.spec.whatwg.org/#urlencoded-parsing>). Rejects
/// invalid UTF-8: replacement characters would change the value.
fn form_decode(text: &[u8]) -> Result<String, FromUtf8Error> {
    let without_plus: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&without_plus).collect())
}

/// Collects the members of a JSON object, and stops above the limit.
struct Members<'r, 'a>(&'r mut Vec<(String, &'a RawValue)>);

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(member) = members.next_entry()? {
            self.0.push(member);
            if self.0.len() > MAX_PARAMETERS {
                return Err(A::Error::custom("too many members"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn read(
        content_type: &str,
        body: &str,
        format: BodyFormat,
    ) -> Result<Vec<(String, String)>, String> {
        let request = Request::builder().header("content-type", content_type).body(()).unwrap();
        let head = request.into_parts().0;
        let incoming = EndpointRequest { head, body: body.to_owned().into() };
        let read =
            Parameters::from_body(&incoming, format, &["a", "b", "c"]).map_err(|failure| {
                match failure {
                    Failure::OAuth(code, description) => format!("{code} {description}"),
                    other => format!("{other:?}"),
                }
            })?;
        let pairs = read.0.into_iter();
        Ok(pairs.map(|(name, value)| (name, value.expose().to_owned())).collect())
    }

    #[test]
    fn forms_and_json_are_read_alike() {
        let (form, json) = ("application/x-www-form-urlencoded", "Application/JSON; charset=utf-8");
        let expected = Ok(vec![("a".to_owned(), "1 ä".to_owned()), ("b".into(), "".into())]);
        assert_eq!(read(form, "a=1+%C3%A4&b=", BodyFormat::Form), expected);
        assert_eq!(read(json, r#"{"a":"1 ä","b":"","c":null}"#, BodyFormat::FormOrJson), expected);
        assert_eq!(read("text/plain", "", BodyFormat::Form), Ok(Vec::new()));
        // Unknown parameters are ignored, of any type and number.
        assert_eq!(read(form, "x=1&a=1+%C3%A4&x=2&b=&x=3", BodyFormat::Form), expected);
        assert_eq!(read(json, r#"{"x":1,"a":"1 ä","b":""}"#, BodyFormat::FormOrJson), expected);
    }

    #[test]
    fn forms_are_decoded_per_url_standard() {
        let form = "application/x-www-form-urlencoded";
        let table = [
            ("a=x%3D1=2", "x=1=2"),
            ("%61=1%2B1+1", "1+1 1"),
            ("&&a=%zz%4&", "%zz%4"),
            ("b%FF=1&a=%F0%9F%98%80", "\u{1f600}"),
        ];
        for (body, value) in table {
            let expected = Ok(vec![("a".to_owned(), value.to_owned())]);
            assert_eq!(read(form, body, BodyFormat::Form), expected, "{body}");
        }
        assert_eq!(read(form, "a", BodyFormat::Form), Ok(vec![("a".to_owned(), String::new())]));
    }

    #[test]
    fn complex_json_is_refused_before_parsing() {
        for unknown in ["[".repeat(5000), format!("[{}0]", "0,".repeat(5000))] {
            let body = format!("{{\"x\":{unknown}}}");
            let error = read("application/json", &body, BodyFormat::FormOrJson).unwrap_err();
            assert!(error.contains("more than 4096"), "{error}");
        }
    }

    #[test]
    fn ambiguous_and_mistyped_parameters_are_refused() {
        let (form, json) = ("application/x-www-form-urlencoded", "application/json");
        let table = [
            (form, "a=1&a=1", BodyFormat::Form, "repeated"),
            (form, "a=1&%61=2", BodyFormat::Form, "repeated"),
            (form, "x=%C3&a=%C3", BodyFormat::Form, "UTF-8"),
            (json, r#"{"a":"1","a":"2"}"#, BodyFormat::FormOrJson, "repeated"),
            (json, r#"{"a":null,"\u0061":"2"}"#, BodyFormat::FormOrJson, "repeated"),
            (json, r#"{"a":1,"a":2} x"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"b":"1","b":"2""#, BodyFormat::FormOrJson, "repeated"),
            (json, r#"{"x":[{}],"x":1}"#, BodyFormat::FormOrJson, "repeated"),
            (json, r#"{"a":"\ud800"}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"a":1}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"a":-1.5e3}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"a":true}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"a":{"b":[]}}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"{"a":"1"} x"#, BodyFormat::FormOrJson, "JSON object"),
            (json, r#"{"a":"1""#, BodyFormat::FormOrJson, "JSON object"),
            (json, r#"null"#, BodyFormat::FormOrJson, "JSON object"),
            (json, r#"{"a":["x"]}"#, BodyFormat::FormOrJson, "not a string"),
            (json, r#"["a"]"#, BodyFormat::FormOrJson, "JSON object"),
            (json, "a=1", BodyFormat::FormOrJson, "JSON object"),
            (json, r#"{"a":"1"}"#, BodyFormat::Form, "415"),
            ("text/plain", "a=1", BodyFormat::FormOrJson, "415"),
            ("", "a=1", BodyFormat::FormOrJson, "415"),
        ];
        for (content_type, body, format, problem) in table {
            let error = read(content_type, body, format).unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
        }
    }
}
