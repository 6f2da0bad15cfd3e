//! Each public type whose values a user creates, or which a user implements, has an example in its documentation.

use std::collections::BTreeSet;
use std::fs;

use crate::public_paths::public_types;

/// The public types without an example, by the reason.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "an error that a user prints; the example of the type that returns it is enough",
        &[
            "config::Fault",
            "config::NotInJsonwebtoken",
            "config::UnknownAlgorithm",
            "config::UnknownAuthMode",
            "endpoints::InvalidNetwork",
            "error::SqlError",
            "error::TokenDataError",
            "exchange::InvalidSealingKeys",
            "identity::InvalidClaimPath",
            "identity::InvalidClaimTest",
            "identity::InvalidScope",
            "identity::InvalidTenantId",
            "registrar::InvalidLocalId",
            "replay::ReplayLogFull",
            "revocation::InvalidLogEntry",
            "testing::challenge::ParseError",
            "trust::InvalidPolicyVersionId",
            "trust::PolicyFault",
        ],
    ),
    (
        "a value that a user only reads; the example of the type that returns it shows it",
        &[
            "config::Variable",
            "exchange::CacheStatus",
            "exchange::Freshness",
            "identity::Actor",
            "issuer::KeyState",
            "issuer::UnusableKey",
            "mint::MintRequest",
            "testing::forge::Forged",
            "testing::forge::ValidToken",
            "trust::Appended",
            "trust::DecisionChange",
            "trust::ExplainedRule",
            "trust::PolicyChange",
            "trust::PolicyVersion",
            "validator::IntrospectedTokensStats",
            "validator::VerifiedTokensStats",
        ],
    ),
    (
        "a service, future or body that a layer returns; a user names it at most",
        &[
            "endpoints::EndpointsService",
            "endpoints::NotFound",
            "layer::Gated",
            "layer::ResponseFuture",
            "outbound::CallerService",
        ],
    ),
    (
        "sealed, or chosen through a function",
        &["error::ExtendedError", "testing::BadKey", "testing::Rewrite"],
    ),
];

#[test]
fn public_types_have_an_example() {
    let excepted: BTreeSet<String> =
        EXCEPTIONS.iter().flat_map(|(_, names)| *names).map(|name| (*name).to_owned()).collect();
    let mut missing = Vec::new();
    let mut names = BTreeSet::new();
    for item in public_types() {
        let has_example = has_rust_block(&documentation(&item.file, &item.name));
        let path = item.path();
        if !has_example && !excepted.contains(&path) {
            missing.push(format!("{path} ({})", item.file));
        }
        if !has_example {
            names.insert(path);
        }
    }
    assert!(missing.is_empty(), "{} types have no example: {missing:#?}", missing.len());
    let obsolete: Vec<_> = excepted.difference(&names).collect();
    assert!(obsolete.is_empty(), "these exceptions have an example or do not exist: {obsolete:?}");
}

/// Whether a doc comment has a block that rustdoc compiles.
fn has_rust_block(documentation: &str) -> bool {
    let fences = documentation
        .lines()
        .filter_map(|line| line.trim_start_matches("/// ").strip_prefix("```"));
    let mut openings = fences.step_by(2);
    openings.any(|language| ["", "rust", "no_run", "rust,no_run"].contains(&language))
}

#[test]
fn only_compiled_blocks_are_examples() {
    assert!(!has_rust_block("/// A table.\n/// ```sql\n/// SELECT 1\n/// ```"));
    assert!(!has_rust_block("/// ```text\n/// ```\n/// ```ignore\n/// ```"));
    assert!(has_rust_block(
        "/// ```sql\n/// SELECT 1\n/// ```\n///\n/// ```no_run\n/// f();\n/// ```"
    ));
}

/// Returns the doc comment of a type, including its attributes.
fn documentation(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let defines = |line: &&str| {
        let rest = ["struct", "enum", "trait"]
            .iter()
            .find_map(|kind| line.strip_prefix(&format!("pub {kind} {name}")));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let at = lines.iter().position(defines).unwrap_or_else(|| panic!("{file}: {name}"));
    let above = lines[..at].iter().rev().take_while(|line| !line.is_empty() && **line != "}");
    let mut doc: Vec<&str> = above.copied().filter(|line| line.starts_with("///")).collect();
    doc.reverse();
    doc.join("\n")
}
