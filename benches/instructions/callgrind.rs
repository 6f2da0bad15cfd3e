//! Runs this bench under callgrind, and computes the instructions of one call from its reports.

use std::env;
use std::fs;
use std::path::Path as File;
use std::process::{Child, Command, Stdio};

use super::paths::Path;

/// The reason why nothing can be counted on this machine.
pub(super) struct Unavailable(pub(super) &'static str);

/// Checks that counts are comparable: libraries choose code by the features of the processor.
pub(super) fn available() -> Result<(), Unavailable> {
    if !has_avx2() {
        return Err(Unavailable("the budget is for Linux on x86-64 with AVX2"));
    }
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Unavailable("valgrind is missing; install the Debian package `valgrind`")),
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn has_avx2() -> bool {
    false
}

/// Returns the instructions of one call.
pub(super) fn per_call(path: Path, inputs: &File) -> f64 {
    let (few, many) = path.calls();
    // In parallel: callgrind counts only the instructions of its own process.
    let runs = [few, many].map(|calls| Run::start(path, calls, inputs));
    let [of_few, of_many] = runs.map(Run::instructions);
    (of_many - of_few) / f64::from(many - few)
}

struct Run {
    child: Child,
    report: std::path::PathBuf,
}

impl Run {
    fn start(path: Path, calls: u32, inputs: &File) -> Self {
        let report = inputs.with_extension(format!("{path:?}.{calls}"));
        let child = Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=*counted_calls*"])
            .arg(format!("--callgrind-out-file={}", report.display()))
            .arg(env::current_exe().expect("this program"))
            .args([format!("path={path:?}"), format!("calls={calls}")])
            .arg(format!("inputs={}", inputs.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("valgrind starts");
        Self { child, report }
    }

    fn instructions(self) -> f64 {
        let output = self.child.wait_with_output().expect("valgrind exits");
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a run under callgrind failed:\n{messages}");
        let report = fs::read_to_string(&self.report).expect("callgrind's report");
        let _ = fs::remove_file(&self.report);
        let totals = report.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = totals.and_then(|it| it.trim().parse().ok()).expect("the total of the report");
        assert!(total > 0.0, "callgrind counted no call:\n{messages}");
        total
    }
}
