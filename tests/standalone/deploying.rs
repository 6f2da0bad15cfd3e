//! The page *deploying*: its metrics, settings, numbers and refusal reasons are those of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use scaikey_auth::config::ENVIRONMENT;

const PREFIX: &str = "scaikey_auth_";

fn page() -> String {
    fs::read_to_string("src/manual/deploying.md").unwrap()
}

/// Returns all words of a text that begin with `start`.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let is_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_a_word(c)).filter(|word| word.starts_with(start));
    words.map(str::to_owned).collect()
}

/// Returns the rows of the table whose first column has this heading, as cells.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let start = text.find(&format!("\n| {heading} |")).unwrap();
    let rows = text[start + 1..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|it| it.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// Returns the first cells of a table's rows, without backticks.
fn names(table: &[Vec<String>]) -> Vec<String> {
    table.iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

/// The rows of the table of counters, by name.
fn counters() -> BTreeMap<String, String> {
    let operating = fs::read_to_string("src/manual/operating.md").unwrap();
    let rows = operating.lines().filter(|line| line.starts_with(&format!("| `{PREFIX}")));
    rows.map(|row| (words(row, PREFIX).pop_first().unwrap(), row.to_owned())).collect()
}

#[test]
fn counters_are_those_of_the_code() {
    let code = fs::read_to_string("src/support/telemetry.rs").unwrap();
    let counted = words(&code, PREFIX);
    let listed: BTreeSet<String> = counters().into_keys().collect();
    assert_eq!(listed, counted, "src/manual/operating.md");
    let used = words(&page(), PREFIX);
    assert!(used.is_subset(&counted), "{:?}", used.difference(&counted));
}

/// Every value that a rule compares a label with.
#[test]
fn alerts_use_existing_label_values() {
    let (page, counters) = (page(), counters());
    let mut compared = 0;
    for selector in page.split(PREFIX).skip(1).filter(|rest| rest.contains('{')) {
        let Some((name, rest)) = selector.split_once('{') else { continue };
        let Some(row) = counters.get(&format!("{PREFIX}{name}")) else { continue };
        let labels = rest.split_once('}').unwrap().0;
        let (label, value) = labels.split_once('=').unwrap();
        let label = label.trim_end_matches('!');
        assert!(row.contains(&format!("`{label}`")), "{name} has no label {label}");
        for value in values(value.trim_start_matches('~').trim_matches('"')) {
            let is_reason = name == "refusals_total" && refusal_reasons().contains(&value);
            let is_outcome = name == "trust_decisions_total" && denial_reasons().contains(&value);
            let is_known = is_reason || is_outcome || row.contains(&format!("`{value}`"));
            assert!(is_known, "{name}: {label} is never {value}");
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared}");
}

/// Returns the values of `start_(one|two)`.
fn values(pattern: &str) -> Vec<String> {
    let (start, rest) = pattern.split_once('(').unwrap_or((pattern, ""));
    rest.trim_end_matches(')').split('|').map(|end| format!("{start}{end}")).collect()
}

#[test]
fn manifest_uses_existing_variables() {
    let existing: BTreeSet<&str> = ENVIRONMENT.iter().map(|variable| variable.name).collect();
    for prefix in ["SCAIWAVE_", "P_"] {
        let used = words(&page(), prefix);
        assert!(used.len() >= 9, "{used:?}");
        for name in used {
            assert!(existing.contains(name.strip_prefix(prefix).unwrap()), "{name}");
        }
    }
}

#[test]
fn grace_period_covers_delay_and_requests() {
    let page = page();
    let after = |text: &str| -> u32 {
        let rest = &page[page.find(text).unwrap() + text.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let delay = after("name: STOP_DELAY, value: \"");
    let limit = after("name: STOP_LIMIT, value: \"");
    assert!(after("terminationGracePeriodSeconds: ") > delay + limit);
    // The text repeats the defaults of the example.
    let example = fs::read_to_string("examples/service.rs").unwrap();
    for (name, seconds) in [("STOP_DELAY", delay), ("STOP_LIMIT", limit)] {
        assert!(example.contains(&format!("seconds(\"{name}\", {seconds})")), "{name}");
        assert!(page.contains(&format!("`{name}` ({seconds} s)")), "{name}");
    }
}

/// Returns the names that a function of the code maps variants to.
fn mapped_to(file: &str, function: &str) -> Vec<String> {
    let code = fs::read_to_string(file).unwrap();
    let bodies = code.split(function).skip(1);
    let arms = bodies.flat_map(|rest| rest.split("\n    }\n").next().unwrap().lines());
    let names = arms.filter_map(|arm| arm.trim().split_once("=> \"")?.1.strip_suffix("\","));
    names.map(str::to_owned).collect()
}

fn refusal_reasons() -> Vec<String> {
    mapped_to("src/error/auth_error.rs", "pub fn reason(&self)")
}

fn denial_reasons() -> Vec<String> {
    mapped_to("src/trust/outcome.rs", "pub fn as_str(&self)")
}

#[test]
fn every_refusal_reason_has_a_remedy() {
    let reasons = refusal_reasons();
    assert!(reasons.len() >= 30, "{reasons:?}");
    let rows = table(&page(), "`reason`");
    assert_eq!(sorted(names(&rows)), sorted(reasons));
    let responses = fs::read_to_string("src/error/public.rs").unwrap();
    for row in rows {
        let reason = row[0].trim_matches('`');
        // Invalid tokens share a response, and so do refusals without a remedy for the caller.
        let response = match responses.contains(&format!("= \"{reason}\",")) {
            true => reason,
            false if reason.starts_with("token_") => "token_invalid",
            false => "forbidden",
        };
        let status = &row[1][..3];
        assert!(responses.contains(&format!("= \"{response}\", {status} ")), "{reason}: {status}");
        assert!(row[2..].iter().all(|cell| !cell.is_empty()), "{reason}");
    }
}

#[test]
fn every_denial_of_workloads_has_a_remedy() {
    let outcomes = denial_reasons();
    assert!(outcomes.len() >= 14, "{outcomes:?}");
    assert_eq!(sorted(names(&table(&page(), "`outcome`"))), sorted(outcomes));
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
