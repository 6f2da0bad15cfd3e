//! Cargo unifies features in a workspace: the lines of the manual that keep `mock` out of a shipped binary.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::File;

/// A workspace with the binary `server`, and with another member whose tests need `mock`.
struct Workspace(File);

impl Workspace {
    /// `library` is the path of the package `scaikey-auth`. `tests_mock`: whether a member's tests need `mock`.
    fn new(library: &Path, tests_mock: bool) -> Self {
        let this = Self(File::reserve("workspace"));
        this.write(
            "Cargo.toml",
            "[workspace]\nmembers = [\"server\", \"other\"]\nresolver = \"3\"\n",
        );
        let library = format!("scaikey-auth = {{ path = {library:?}, default-features = false");
        let package = |name: &str| {
            format!("[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n")
        };
        let server = format!("{}[dependencies]\n{library} }}\n", package("server"));
        this.write("server/Cargo.toml", &server);
        this.write(
            "server/src/main.rs",
            &format!("{}fn main() {{}}\n", block("rust", "MOCK_COMPILED")),
        );
        let features = if tests_mock { ", features = [\"mock\"]" } else { "" };
        let other = format!("{}[dev-dependencies]\n{library}{features} }}\n", package("other"));
        this.write("other/Cargo.toml", &other);
        this.write("other/src/lib.rs", "");
        this
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs a program in the workspace, without the network.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path());
        command
            .env("CARGO_TARGET_DIR", self.0.path().join("target"))
            .env("CARGO_NET_OFFLINE", "true");
        command.output().unwrap()
    }
}

/// Returns the block of the page *modes* in this language that contains `part`.
fn block(language: &str, part: &str) -> String {
    let page = fs::read_to_string("src/manual/modes.md").unwrap();
    let fence = format!("```{language}\n");
    let mut blocks =
        page.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(part)).unwrap().to_owned()
}

/// The package is a stand-in with the same constant, because the real one takes minutes to build.
#[test]
fn release_binary_that_can_mock_fails() {
    let library = File::reserve("library");
    let manifest = "[package]\nname = \"scaikey-auth\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                    [features]\nmock = []\n";
    fs::create_dir_all(library.path().join("src")).unwrap();
    fs::write(library.path().join("Cargo.toml"), manifest).unwrap();
    let constant = fs::read_to_string("src/config/mode.rs").unwrap();
    let constant =
        constant.lines().find(|line| line.starts_with("pub const MOCK_COMPILED")).unwrap();
    fs::write(library.path().join("src/lib.rs"), constant).unwrap();

    let [clean, polluted] = [false, true].map(|mock| Workspace::new(library.path(), mock));
    for (workspace, arguments, compiles) in [
        (&clean, &["build", "--release", "--workspace", "--tests", "--bins"][..], true),
        (&polluted, &["build", "--release", "--workspace", "--bins"], true),
        (&polluted, &["build", "--release", "--workspace", "--tests", "--bins"], false),
        (&polluted, &["build", "--workspace", "--tests", "--bins"], true),
        (&polluted, &["build", "--release", "--package", "server", "--tests", "--bins"], true),
    ] {
        let output = workspace.run(env!("CARGO"), arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), compiles, "{arguments:?}: {errors}");
        assert_eq!(errors.contains("the cargo feature `mock`"), !compiles, "{errors}");
    }
}

#[test]
fn tree_of_the_build_finds_mock() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR"));
    let line = block("sh", "cargo tree").replacen("cargo", env!("CARGO"), 1);
    let with_tests = line.replace(",no-dev", "");
    for (tests_mock, line, is_clean) in [
        (false, &line, true),
        (false, &with_tests, true),
        (true, &line, true),
        (true, &with_tests, false),
    ] {
        let workspace = Workspace::new(library, tests_mock);
        // The versions of this repository, without the dependencies that the workspace does not have.
        fs::copy("Cargo.lock", workspace.0.path().join("Cargo.lock")).unwrap();
        let locked = workspace.run(env!("CARGO"), &["update", "--workspace"]);
        assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
        let output = workspace.run("sh", &["-c", line]);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), is_clean, "{line}\n{output:?}");
        assert_eq!(shown.contains("other v0.0.0"), !is_clean, "shows what enables it: {shown}");
    }
}

/// A package without the library must not look like a clean one.
#[test]
fn tree_without_the_library_fails() {
    let workspace = Workspace(File::reserve("workspace"));
    let manifest = "[package]\nname = \"server\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    workspace.write("Cargo.toml", manifest);
    workspace.write("src/lib.rs", "");
    assert!(workspace.run(env!("CARGO"), &["generate-lockfile"]).status.success());
    let line = block("sh", "cargo tree").replacen("cargo", env!("CARGO"), 1);
    assert!(!workspace.run("sh", &["-c", &line]).status.success());
}
