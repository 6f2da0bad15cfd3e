//! Counts the instructions of the main paths and compares them with a budget. Unlike times, the
//! counts are the same on a busy machine.
//!
//! ```sh
//! cargo bench --bench instructions             # counts and compares
//! cargo bench --bench instructions -- --check  # fails if a path exceeds its budget by more than 10 %
//! cargo bench --bench instructions -- --write  # writes the counts as the new budget
//! ```
//! The bench runs itself under callgrind, for each path with few and with many calls, so that the
//! set-up cancels out. `-- path=bare calls=1000` does one such run without callgrind, for a
//! profiler. The budget of a path excludes the bare service and the bare signature verification.

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

/// The paths with a budget: name, counted path, and the paths to subtract.
const BUDGETED: [(&str, Path, &[Path]); 5] = [
    ("cached RS256 token", Path::Cached, &[Path::Bare]),
    ("new RS256 token", Path::NewRs256, &[Path::Bare, Path::VerifyRs256]),
    ("new ES256 token", Path::NewEs256, &[Path::Bare, Path::VerifyEs256]),
    ("expired token", Path::Expired, &[Path::Bare]),
    ("exchange, cached in memory", Path::Exchange, &[]),
];

/// A path, the instructions of a call, and the instructions without the subtracted paths.
struct Row {
    name: &'static str,
    total: f64,
    own: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name));
    if let Some(name) = value("path=") {
        let path = Path::named(name).expect("a path of this bench");
        let calls = value("calls=").map_or(1, |it| it.parse().expect("a number of calls"));
        paths::run(path, calls, value("inputs="));
        return ExitCode::SUCCESS;
    }
    let has_flag = |flag: &str| arguments.iter().any(|it| it == flag);
    match count() {
        Ok(rows) if has_flag("--write") => {
            Budget::of(&rows).write();
            report(&rows, &Budget::read())
        }
        Ok(rows) => {
            let within = report(&rows, &Budget::read());
            if has_flag("--check") { within } else { ExitCode::SUCCESS }
        }
        Err(Unavailable(why)) => {
            println!("Nothing is counted: {why}.");
            ExitCode::SUCCESS
        }
    }
}

fn count() -> Result<Vec<Row>, Unavailable> {
    callgrind::available()?;
    // The provider must run until the counting ends, because exchanges call it.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_provider, inputs) = runtime.block_on(Inputs::make());
    let inputs = inputs.write();
    let counts = Path::ALL.map(|path| callgrind::per_call(path, inputs.path()));
    let of = |path: &Path| counts[*path as usize];
    let row = |(name, path, subtracted): &(&'static str, Path, &[Path])| {
        let total = of(path);
        Row { name, total, own: total - subtracted.iter().map(of).sum::<f64>() }
    };
    Ok(BUDGETED.iter().map(row).collect())
}

/// Prints all paths, and advice for paths that differ from their budget by more than the tolerance.
/// Fails if a path exceeds its budget by more than the tolerance, or has no budget.
fn report(rows: &[Row], budget: &Budget) -> ExitCode {
    let tolerance = budget::TOLERANCE;
    budget.compare_tools();
    println!(
        "instructions per call: total; own (without the bare service and the bare verification); budget"
    );
    println!("{:28} {:>10} {:>10} {:>10} {:>8}", "", "total", "own", "budget", "diff");
    let mut advice = Vec::new();
    for Row { name, total, own } in rows {
        let Some(allowed) = budget.of_path(name) else {
            println!("{name:28} {total:>10.0} {own:>10.0} {:>10} {:>8}", "none", "");
            advice.push(format!("FAILED: `{name}` has no budget"));
            continue;
        };
        let by = 100.0 * (own / allowed - 1.0);
        println!("{name:28} {total:>10.0} {own:>10.0} {allowed:>10.0} {by:>+6.1} %");
        if by > tolerance {
            advice.push(format!(
                "FAILED: `{name}` exceeds its budget by {:.0} instructions ({by:+.1} %, {tolerance} % allowed)",
                own - allowed
            ));
        } else if by < -tolerance {
            advice.push(format!(
                "below: `{name}` is {:.0} instructions below its budget ({by:+.1} %): lower the budget to keep the gain",
                allowed - own
            ));
        }
    }
    advice.iter().for_each(|line| println!("{line}"));
    if !advice.is_empty() {
        println!("If the change is intended, update the budget: {}", budget::UPDATE);
    }
    ExitCode::from(u8::from(advice.iter().any(|line| line.starts_with("FAILED"))))
}
