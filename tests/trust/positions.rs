//! The places of faults: lines and columns in characters.

use scaikey_auth::trust::{PolicyError, PolicyFault, TrustPolicy};

/// Stands in a text before the place where the first fault is expected.
const MARK: char = '¦';

type Read = fn(&str) -> Result<TrustPolicy, PolicyError>;

/// Checks that the first fault is at the mark.
fn check_place(read: Read, marked: &str, problem: &str) {
    let (before, _) = marked.split_once(MARK).unwrap();
    let before = before.trim_start_matches('\u{feff}');
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before[line_start..].chars().count() + 1;
    let error = read(&marked.replacen(MARK, "", 1)).expect_err(marked);
    let PolicyFault { line: found_line, column: found_column, problem: found, .. } =
        &error.faults()[0];
    let line = before.matches('\n').count() + 1;
    assert_eq!((*found_line, *found_column), (Some(line), Some(column)), "{marked:?}: {error}");
    assert!(found.contains(problem), "{marked:?}: {error}");
}

#[test]
fn toml_fault_has_line_and_column() {
    let table = [
        ("trust = ¦7", "is a number"),
        ("[[trust]]\nid = \"k8s\"\nissuer =\t¦7\n", "is a number"),
        ("[[trust]]\r\nid = \"k8s\"\r\nissuer = ¦7\r\n", "is a number"),
        ("\u{feff}trust = ¦7", "is a number"),
        ("\u{feff}[[trust]]\nid = \"é😀\" # e\u{301}\nissuer = ¦7", "is a number"),
        ("¦[[trust]]\nissuer = \"https://a.example\"", "is missing"),
        ("\"é\" = ¦\"😀\"", "is unknown"),
        ("trust = [¦{ issuer = \"😀\", x = 1 }]", "is missing"),
        ("trust = [\n{ id = '''a\nb''', issuer = ¦[\n7] } ]", "is a list"),
        ("a = 1\nb = ¦\n", "is not valid TOML"),
        ("a = 1\n¦a = 2\n", "duplicate key"),
        ("\"😀\" = ¦\0", "is not valid TOML"),
        ("a = \"é¦\0\"", "is not valid TOML"),
        ("a = \"\"\"\nä ¦\0\"\"\"", "is not valid TOML"),
        ("a = \"x¦\n", "is not valid TOML"),
    ];
    for (marked, problem) in table {
        check_place(TrustPolicy::from_toml, marked, problem);
    }
}

#[test]
fn json_fault_has_line_and_column() {
    let table = [
        ("¦", "EOF"),
        ("¦7", "is a number"),
        ("{¦", "EOF"),
        ("{\"trust\": ¦7}", "is a number"),
        ("\u{feff}{\"trust\": ¦7}", "is a number"),
        ("{\r\n\"trust\": [\r\n\t¦7]}", "is a number"),
        ("{\"é😀\":¦1}", "is unknown"),
        ("{\"trust\": [{\"id\": \"😀\", \"issuer\": ¦7}]}", "is a number"),
        ("{\n\"ä\": ¦}", "is not valid JSON: expected value"),
        ("{\"ä\": ¦\"\0\"}", "is not valid JSON: control character"),
        ("{\"ä\": \"\u{1f600}¦\n\"}", "is not valid JSON: control character"),
        ("{\"a\": 1,\n \"a\": ¦2}", "is given twice"),
        ("{\"ä\": {\n \"b\": \"\\udff¦f\"}}", "unpaired surrogate"),
        ("{\"ä\": [1, 1e99¦9]}", "out of range"),
    ];
    for (marked, problem) in table {
        check_place(TrustPolicy::from_json, marked, problem);
    }
}

#[test]
fn policy_without_text_has_no_places() {
    let value = serde_json::json!({ "trust": 7 });
    let error = serde_json::from_value::<TrustPolicy>(value).unwrap_err().to_string();
    assert!(error.contains("\n  trust is a number") && !error.contains("line"), "{error}");
}
