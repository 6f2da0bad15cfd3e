//! Policies in the bodies of requests.

use http::{HeaderMap, HeaderName, header};
use serde::Serialize;

use super::problem::Problem;
use crate::support::media_type::media_type;
use crate::trust::{PolicyError, PolicyFault, TrustPolicy};

/// The format of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

/// A fault or warning in an answer.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    line: Option<usize>,
    column: Option<usize>,
    field: String,
    problem: String,
}

impl Fault {
    /// Returns a fault of the whole policy.
    pub(super) fn of_policy(problem: &str) -> Self {
        Self {
            line: None,
            column: None,
            field: "the policy".to_owned(),
            problem: problem.to_owned(),
        }
    }
}

impl Format {
    /// Returns the format of the body.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match media_type(headers).as_str() {
            "application/toml" => Ok(Self::Toml),
            "application/json" => Ok(Self::Json),
            _ => Err(Problem::unsupported_media_type(
                "The body must be application/toml or application/json.",
            )),
        }
    }

    pub(super) fn parse(self, text: &str) -> Result<TrustPolicy, PolicyError> {
        match self {
            Self::Toml => TrustPolicy::from_toml(text),
            Self::Json => TrustPolicy::from_json(text),
        }
    }
}

/// Refuses a body that is compressed, or whose characters are not in UTF-8. Otherwise a fault of its text would name a
/// line that the caller does not see.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let parts = |name, separator| {
        let values = headers.get_all::<HeaderName>(name).iter();
        let values = values.map(|value| value.to_str().unwrap_or("?"));
        values.flat_map(move |value| value.split(separator)).map(str::trim)
    };
    let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    if !parts(header::CONTENT_ENCODING, ',').all(is_plain) {
        return Err(Problem::compressed());
    }
    let charset = |parameter: &'_ str| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"))
    };
    match parts(header::CONTENT_TYPE, ';').filter_map(charset).all(|is_utf8| is_utf8) {
        true => Ok(()),
        false => Err(Problem::unsupported_media_type("The body must be UTF-8: correct charset.")),
    }
}

/// Returns the text of a body.
pub(super) fn utf8(body: &[u8]) -> Result<String, Problem> {
    String::from_utf8(body.to_vec()).map_err(|_| Problem::NOT_UTF8)
}

/// Returns faults for an answer.
pub(super) fn faults(faults: &[PolicyFault]) -> Vec<Fault> {
    let fault = |fault: &PolicyFault| Fault {
        line: fault.line,
        column: fault.column,
        field: fault.field.clone(),
        problem: fault.problem.clone(),
    };
    faults.iter().map(fault).collect()
}
