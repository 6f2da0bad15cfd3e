//! Builds the children, each as its own executable, starts them and sends them commands.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::protocol::{Answer, Command as Request};

/// A running child process.
pub(crate) struct Child {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Builds the child with only this feature, and copies the executable, because the next build
/// overwrites it.
pub(crate) fn build(feature: &str) -> Result<PathBuf, String> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bin", "child"])
        .args(["--no-default-features", "--features", feature])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err("its child does not build on this machine".to_owned());
    }
    let built = executable(&output.stdout).ok_or("cargo reports no executable")?;
    let folder = built.with_file_name("peers-children");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let copy = folder.join(feature);
    std::fs::copy(&built, &copy).map_err(|error| error.to_string())?;
    Ok(copy)
}

fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n');
    let mut messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    messages.find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

impl Child {
    pub(crate) fn start(file: &Path, name: &str) -> Result<Self, String> {
        let mut process = Command::new(file)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let output = process.stdout.take().ok_or("no output")?;
        let input = process.stdin.take();
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        let answer =
            self.exchange(request).map_err(|error| format!("its child exited: {error}"))?;
        if let Answer::Failed(reason) = answer { Err(reason) } else { Ok(answer) }
    }

    fn exchange(&mut self, request: &Request) -> Result<Answer, std::io::Error> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let input = self.input.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        input.write_all(&line)?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Child {
    /// Closes the input of the child, which makes it exit.
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}
