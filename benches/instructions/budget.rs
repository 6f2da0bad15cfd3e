//! [`Budget`]: what the paths may take, kept in `budget.txt` with the tools it was counted with.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::Row;

/// What makes the counts of this run the budget.
pub(super) const RENEW: &str = "cargo bench --bench instructions -- --write";

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/budget.txt");

/// What the name of the tools begins the line with.
const TOOLS: &str = "counted with";

/// By how many per cent a path may differ from its budget. Counts repeat to 0.3 %, but another compiler
/// generates other code, and a check more on the way of a token is no reason to fail.
pub(super) const TOLERANCE: f64 = 10.0;

/// Instructions per call by the name of the path.
pub(super) struct Budget {
    tools: String,
    paths: Vec<(String, f64)>,
}

impl Budget {
    /// What was counted now.
    pub(super) fn of(rows: &[Row]) -> Self {
        let paths = rows.iter().map(|row| (row.name.to_owned(), row.ours.round())).collect();
        Self { tools: tools(), paths }
    }

    /// The file as it is. Without one there is no budget for anything.
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(FILE).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut budget = Self { tools: String::new(), paths: Vec::new() };
        for (name, value) in lines.filter_map(|line| line.split_once(" = ")) {
            match name {
                TOOLS => value.clone_into(&mut budget.tools),
                name => budget.paths.push((name.to_owned(), value.parse().expect("a count"))),
            }
        }
        budget
    }

    pub(super) fn write(&self) {
        let mut text = format!("# Instructions per call, our own share. Renewed by: {RENEW}\n");
        let _ = writeln!(text, "{TOOLS} = {}", self.tools);
        for (name, count) in &self.paths {
            let _ = writeln!(text, "{name} = {count}");
        }
        fs::write(FILE, text).expect("the budget can be written");
    }

    pub(super) fn of_path(&self, name: &str) -> Option<f64> {
        self.paths.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
    }

    /// Says so when the budget was counted with other tools than are here.
    pub(super) fn compare_tools(&self) {
        let here = tools();
        if here != self.tools {
            println!("the budget was counted with other tools: {}\n  here: {here}", self.tools);
        }
    }
}

/// What else than our code decides the counts: compiler, C library, emulated processor.
fn tools() -> String {
    let said = [("rustc", "-V"), ("ldd", "--version"), ("valgrind", "--version")];
    said.map(|(program, flag)| first_line(program, flag)).join("; ")
}

fn first_line(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    text.ok().and_then(|it| it.lines().next().map(str::to_owned)).unwrap_or_default()
}
