//! How many instructions the main paths take, beside a budget: a measure that holds on busy machines.
//!
//! ```sh
//! cargo bench --bench instructions             # counts, beside the budget
//! cargo bench --bench instructions -- --check  # fails where a path takes more than its budget
//! cargo bench --bench instructions -- --write  # makes what it counts the budget
//! ```
//! It runs itself under callgrind, for each path with few calls and with many, so that what comes
//! before the calls cancels out. `-- path=bare calls=1000` does such a run by itself, for a profiler.
//! What a path is budgeted for is its own share: without the bare service and the bare verification.

mod budget;
mod callgrind;
mod paths;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::process::ExitCode;

use budget::Budget;
use callgrind::Unavailable;
use paths::{Inputs, Path};

/// A path of the budget: what is counted, and what of that is not ours.
const BUDGETED: [(&str, Path, &[Path]); 5] = [
    ("known RS256 token", Path::Known, &[Path::Bare]),
    ("first-seen RS256 token", Path::FirstRs256, &[Path::Bare, Path::VerifyRs256]),
    ("first-seen ES256 token", Path::FirstEs256, &[Path::Bare, Path::VerifyEs256]),
    ("expired token", Path::Expired, &[Path::Bare]),
    ("exchange, kept in memory", Path::Exchange, &[]),
];

/// A path, the instructions of a call, and our share of them.
struct Row {
    name: &'static str,
    total: f64,
    ours: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name));
    if let Some(name) = value("path=") {
        let path = Path::named(name).expect("a path of this bench");
        let calls = value("calls=").map_or(1, |it| it.parse().expect("a number of calls"));
        paths::walk(path, calls, value("inputs="));
        return ExitCode::SUCCESS;
    }
    let asked = |flag: &str| arguments.iter().any(|it| it == flag);
    match count() {
        Ok(rows) if asked("--write") => {
            Budget::of(&rows).write();
            report(&rows, &Budget::read())
        }
        Ok(rows) => {
            let within = report(&rows, &Budget::read());
            if asked("--check") { within } else { ExitCode::SUCCESS }
        }
        Err(Unavailable(why)) => {
            println!("Nothing is counted: {why}.");
            ExitCode::SUCCESS
        }
    }
}

fn count() -> Result<Vec<Row>, Unavailable> {
    callgrind::available()?;
    // Outlives the counting: exchanges ask its provider.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_provider, inputs) = runtime.block_on(Inputs::make());
    let inputs = inputs.write();
    let counts = Path::ALL.map(|path| callgrind::per_call(path, inputs.path()));
    let of = |path: &Path| counts[*path as usize];
    let row = |(name, path, foreign): &(&'static str, Path, &[Path])| {
        let total = of(path);
        Row { name, total, ours: total - foreign.iter().map(of).sum::<f64>() }
    };
    Ok(BUDGETED.iter().map(row).collect())
}

/// Prints all paths and what is to be done about them; fails if one is above its budget.
fn report(rows: &[Row], budget: &Budget) -> ExitCode {
    let tolerance = budget::TOLERANCE;
    budget.compare_tools();
    println!("instructions per call, whole and of our own, beside the budget");
    println!("{:28} {:>10} {:>10} {:>10} {:>8}", "", "whole", "ours", "budget", "by");
    let mut advice = Vec::new();
    for Row { name, total, ours } in rows {
        let Some(allowed) = budget.of_path(name) else {
            println!("{name:28} {total:>10.0} {ours:>10.0} {:>10} {:>8}", "none", "");
            advice.push(format!("ABOVE: `{name}` has no budget"));
            continue;
        };
        let by = 100.0 * (ours / allowed - 1.0);
        println!("{name:28} {total:>10.0} {ours:>10.0} {allowed:>10.0} {by:>+6.1} %");
        if by > tolerance {
            advice.push(format!(
                "ABOVE: `{name}` takes {:.0} instructions more than its budget ({by:+.1} %, {tolerance} % allowed)",
                ours - allowed
            ));
        } else if by < -tolerance {
            advice.push(format!(
                "below: `{name}` takes {:.0} instructions less than its budget ({by:+.1} %): lower it, or the gain may be lost again unseen",
                allowed - ours
            ));
        }
    }
    advice.iter().for_each(|line| println!("{line}"));
    if !advice.is_empty() {
        println!("What is meant to be becomes the budget by: {}", budget::RENEW);
    }
    ExitCode::from(u8::from(advice.iter().any(|line| line.starts_with("ABOVE"))))
}
