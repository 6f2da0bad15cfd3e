//! The rules for the crate's structure that a machine can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The attribute of unit tests, which are exempt from the rules.
const TESTS: &str = "#[cfg(test)]";

/// The files and folders that may use an outside dependency: its name, its text in code, and the paths.
const ALLOWED_USERS: &[(&str, &str, &[&str])] = &[
    ("the network", "reqwest::", &["src/issuer/http.rs", "src/outbound/reqwest_client.rs"]),
    (
        "the crypto library",
        "aws_lc_rs::",
        &[
            "src/issuer/jwk.rs",
            "src/issuer/signing.rs",
            "src/exchange/cache/redis/server.rs",
            "src/support/mac.rs",
            "src/support/crypto.rs",
            "src/support/seal.rs",
            "src/support/jwe/",
            "src/validator/id_token.rs",
            "src/testing/",
        ],
    ),
    ("random bytes", "getrandom::", &["src/support/crypto.rs"]),
    (
        "the cache library",
        "quick_cache::",
        &[
            "src/support/bounded.rs",
            "src/validator/verified.rs",
            "src/validator/opaque/cache.rs",
            "src/exchange/cache/memory.rs",
        ],
    ),
    // The age of a file is by the clock of the system.
    (
        "the wall clock",
        "SystemTime::now",
        &["src/clock.rs", "src/testing/", "src/trust/store/file.rs"],
    ),
    (
        "redis",
        "redis::",
        // `src/trust/store/` and `src/session/store/` name their own modules `redis`.
        &[
            "src/exchange/cache/mod.rs",
            "src/exchange/cache/redis.rs",
            "src/exchange/cache/redis/",
            "src/trust/store/mod.rs",
            "src/session/store/mod.rs",
        ],
    ),
    ("TLS", "rustls::", &["src/exchange/cache/redis/server.rs"]),
    ("the monotonic clock", "Instant::now", &["src/clock.rs", "src/testing/"]),
    ("timers", "tokio::time", &["src/clock.rs", "src/testing/"]),
    ("the environment", "std::env::", &["src/config/"]),
    ("events", "tracing::", &["src/support/telemetry.rs"]),
    (
        "databases",
        "sqlx::",
        &[
            "src/support/sql.rs",
            "src/tenant/sql.rs",
            "src/support/schema.rs",
            "src/registrar/sql.rs",
            "src/trust/store/sql.rs",
            "src/session/store/sql.rs",
        ],
    ),
    ("base64", "base64_simd::", &["src/support/base64url.rs"]),
    ("calendars", "humantime::", &["src/endpoints/identity_id.rs", "src/trust/time.rs"]),
    ("TOML", "toml::", &["src/trust/normal_form.rs", "src/trust/tree.rs"]),
    ("edits of TOML", "toml_edit::", &["src/trust/normal_form.rs", "src/trust/rule_text.rs"]),
    ("josekit", "josekit::", &["src/support/jwe/", "src/config/decryption_keys.rs"]),
];

#[test]
fn modules_import_only_from_modules_above() {
    let mut offences = import_offences("src", "src/lib.rs", "crate::");
    offences.extend(import_offences("src/support", "src/support/mod.rs", "crate::support::"));
    assert!(offences.is_empty(), "{offences:#?}");
}

/// Returns the imports in `folder` that go against the order in which `root` declares its modules.
fn import_offences(folder: &str, root: &str, prefix: &str) -> Vec<String> {
    let declared = modules_declared_in(&source(root));
    let rank = |module: &str| declared.iter().position(|name| name == module);
    let mut offences = Vec::new();
    for file in rust_files(folder) {
        let Some(own) = module_of(&file, folder).and_then(|module| rank(&module)) else { continue };
        for used in modules_used(&without_tests(&file), prefix) {
            match rank(&used) {
                Some(used_rank) if used_rank > own => offences
                    .push(format!("{} imports `{used}`, which is declared later", file.display())),
                Some(_) => {}
                None => offences.push(format!(
                    "{} imports `{prefix}{used}`: name the module that declares it",
                    file.display()
                )),
            }
        }
    }
    offences
}

#[test]
fn each_outside_dependency_has_one_module() {
    let mut offences = Vec::new();
    for file in rust_files("src") {
        let code = without_tests(&file);
        let path = file.to_string_lossy().replace('\\', "/");
        for (dependency, needle, allowed) in ALLOWED_USERS {
            let uses = code.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//") && line.contains(needle)
            });
            if uses && !allowed.iter().any(|prefix| path.starts_with(prefix)) {
                offences.push(format!("{path} uses {dependency} (`{needle}`)"));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn every_file_begins_with_a_doc_comment() {
    for root in ["src", "tests", "examples", "benches"] {
        for file in rust_files(root) {
            let text = fs::read_to_string(&file).unwrap();
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("//! ") && first.len() > 10, "{}: {first}", file.display());
        }
    }
}

#[test]
fn every_source_file_has_a_mod_line() {
    let mut reachable = BTreeSet::from([PathBuf::from("src/lib.rs")]);
    let mut todo = vec![PathBuf::from("src/lib.rs")];
    while let Some(file) = todo.pop() {
        let folder = match file.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "mod.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        for module in modules_declared_in(&fs::read_to_string(&file).unwrap()) {
            for place in [folder.join(format!("{module}.rs")), folder.join(&module).join("mod.rs")]
            {
                if place.exists() && reachable.insert(place.clone()) {
                    todo.push(place);
                }
            }
        }
    }
    let all: BTreeSet<_> = rust_files("src").into_iter().collect();
    assert_eq!(all.difference(&reachable).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn top_level_has_only_the_expected_entries() {
    const EXPECTED: [&str; 10] = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "examples",
        "src",
        "tests",
    ];
    let mut visible: Vec<String> = fs::read_dir(".")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    visible.sort();
    assert_eq!(visible, EXPECTED);
}

#[test]
fn dependencies_include_no_second_crypto_library() {
    let tree = |features: &[&str]| {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "tree", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}", "--locked",
            ])
            .args(features)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The feature `josekit` links OpenSSL, and its documentation says so.
    let manifest: toml::Table = std::fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    let others = manifest["features"].as_table().unwrap().keys().filter(|name| *name != "josekit");
    let others = others.map(String::as_str).collect::<Vec<_>>().join(",");
    for features in [&[][..], &["--features", &others]] {
        let tree = tree(features);
        for line in tree.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            assert!(!["openssl", "openssl-sys", "native-tls", "ring"].contains(&name), "{line}");
            let crypto = name == "jsonwebtoken"
                && ["aws_lc_rs", "rust_crypto"].iter().any(|f| line.contains(f));
            assert!(!crypto, "{line}");
        }
    }
}

#[test]
fn the_manual_lists_every_environment_variable() {
    let manual = source("src/manual/operating.md");
    for variable in scaikey_auth::config::ENVIRONMENT {
        let row =
            format!("| `P_{}` | {} | {} |", variable.name, variable.meaning, variable.default);
        assert!(manual.contains(&row), "src/manual/operating.md lacks this row:\n{row}");
    }
    let rows = manual.lines().filter(|line| line.starts_with("| `P_")).count();
    assert_eq!(
        rows,
        scaikey_auth::config::ENVIRONMENT.len(),
        "the manual lists variables that do not exist"
    );
}

#[test]
fn no_file_names_a_build_machine() {
    let hosts = ["index.crates", "static.crates", "registry.npm", "pypi.org", "deb.debian"];
    for root in ["src", "tests", "examples", "benches", ".ci", ".github"] {
        for file in all_files(root) {
            if file == Path::new("tests/standalone/architecture.rs") {
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            for needle in hosts.iter().copied().chain(["/root/", "/home/", "/opt/", "/work/"]) {
                assert!(!text.contains(needle), "{} names {needle}", file.display());
            }
        }
    }
}

#[test]
fn test_names_have_at_most_seven_words() {
    let mut offences = Vec::new();
    for root in ["src", "tests", "examples", "benches"] {
        for file in rust_files(root) {
            let names = test_names(&fs::read_to_string(&file).unwrap());
            let long = names.into_iter().filter(|name| name.split('_').count() > 7);
            offences.extend(long.map(|name| format!("{}: {name}", file.display())));
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

/// Returns the names of the functions with a test attribute.
fn test_names(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if let Some((_, signature)) = line.split_once("fn ")
            && std::mem::take(&mut is_test)
        {
            names.extend(signature.split(['(', '<']).next().map(str::to_owned));
        }
    }
    names
}

fn source(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn modules_declared_in(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
        let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
        Some(name.to_owned())
    };
    text.lines().filter_map(|line| name(line.trim())).collect()
}

/// Returns the module of `folder` that `file` belongs to: `issuer` for `src/issuer/keys.rs`, and nothing
/// for the file that declares the modules. The manual names everything, so it is exempt.
fn module_of(file: &Path, folder: &str) -> Option<String> {
    let inside = file.strip_prefix(folder).ok()?;
    let first = Path::new(inside.components().next()?.as_os_str()).with_extension("");
    let first = first.to_string_lossy().into_owned();
    (!["lib", "mod", "manual"].contains(&first.as_str())).then_some(first)
}

/// Returns the code of a file without its unit tests.
fn without_tests(file: &Path) -> String {
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let begins = |line: &str| line.starts_with("mod tests") || line.contains(") mod tests");
    match text.match_indices(TESTS).find(|(at, attribute)| {
        text[at + attribute.len()..].trim_start().lines().next().is_some_and(begins)
    }) {
        Some((tests, _)) => text[..tests].to_owned(),
        None => text,
    }
}

/// Returns the first name after each `prefix`, such as `crate::`. A `use` with braces there gives an empty
/// name, which no module has.
fn modules_used(code: &str, prefix: &str) -> BTreeSet<String> {
    let name =
        |after: &str| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.split(" //").next().unwrap_or(line))
        .flat_map(|line| line.split(prefix).skip(1).map(name))
        .collect()
}

fn rust_files(root: &str) -> Vec<PathBuf> {
    all_files(root).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

fn all_files(root: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "node_modules"].contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
