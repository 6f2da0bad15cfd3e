//! [`Budget`]: the allowed instructions of each path, stored in `budget.txt` with the tool
//! versions.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::Row;

/// The command that writes the counts of a run as the new budget.
pub(super) const UPDATE: &str = "cargo bench --bench instructions -- --write";

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/budget.txt");

/// The name of the line with the tool versions.
const TOOLS: &str = "counted with";

/// The allowed difference from the budget, in per cent. Counts repeat within 0.3 %, but compilers
/// generate different code, and one more check of a token should not fail the bench.
pub(super) const TOLERANCE: f64 = 10.0;

/// Instructions per call by the name of the path.
pub(super) struct Budget {
    tools: String,
    paths: Vec<(String, f64)>,
}

impl Budget {
    /// Returns the budget for these counts.
    pub(super) fn of(rows: &[Row]) -> Self {
        let paths = rows.iter().map(|row| (row.name.to_owned(), row.own.round())).collect();
        Self { tools: tools(), paths }
    }

    /// Reads the budget file. If it is missing, the budget is empty.
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
        let mut text = format!(
            "# Instructions per call without the bare service and verification. Update with: {UPDATE}\n"
        );
        let _ = writeln!(text, "{TOOLS} = {}", self.tools);
        for (name, count) in &self.paths {
            let _ = writeln!(text, "{name} = {count}");
        }
        fs::write(FILE, text).expect("the budget can be written");
    }

    pub(super) fn of_path(&self, name: &str) -> Option<f64> {
        self.paths.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
    }

    /// Prints a notice if the budget was counted with other tools.
    pub(super) fn compare_tools(&self) {
        let here = tools();
        if here != self.tools {
            println!(
                "the budget was counted with other tools: {}\n  this machine has: {here}",
                self.tools
            );
        }
    }
}

/// Returns the tools that influence the counts: compiler, C library, emulated processor.
fn tools() -> String {
    let commands = [("rustc", "-V"), ("ldd", "--version"), ("valgrind", "--version")];
    commands.map(|(program, flag)| first_line(program, flag)).join("; ")
}

fn first_line(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    text.ok().and_then(|it| it.lines().next().map(str::to_owned)).unwrap_or_default()
}
