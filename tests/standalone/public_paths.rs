//! Public names: few at the root, one path for each, and none that shadows another crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The names at the root, except modules.
const ROOT_NAMES: [&str; 22] = [
    "Auth",
    "AuthBuilder",
    "AuthConfig",
    "AuthContext",
    "AuthError",
    "AuthLayer",
    "AuthMode",
    "ConfigError",
    "ExchangeRequest",
    "Identity",
    "IssuerConfig",
    "JwksValidator",
    "MOCK_COMPILED",
    "Secret",
    "Tenant",
    "TenantId",
    "TenantResolver",
    "TokenCache",
    "TokenExchangeClient",
    "TokenValidator",
    "role",
    "scope",
];

/// Compiles only if no module of this crate has the name of one of these crates.
mod glob {
    use scaikey_auth::*;

    #[test]
    fn glob_import_shadows_no_other_crate() {
        let auth = Auth::builder().issuer("https://idp.example").audience("wave").build().unwrap();
        let _app: axum::Router = axum::Router::new().layer(auth.layer());
        let _request: http::Request<()> = http::Request::new(());
        let _service = tower::service_fn(async |_: ()| Ok::<_, ConfigError>(()));
        let _value: serde_json::Value = serde_json::Value::Null;
        let _runtime = tokio::runtime::Handle::try_current();
        let _status = tonic::Code::Ok;
        let _scope = extract::Claims(scope("read"));
    }
}

#[test]
fn root_has_the_expected_names_only() {
    let names: Vec<String> = re_exports("src/lib.rs").into_iter().map(last).collect();
    let sorted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(sorted.into_iter().collect::<Vec<_>>(), ROOT_NAMES);
    assert_eq!(names.len(), ROOT_NAMES.len(), "a name occurs twice");
    assert_eq!(items("src/lib.rs"), [""; 0], "items are defined in modules");
}

#[test]
fn public_item_has_one_path() {
    let mut offences = Vec::new();
    let mut paths: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut record = |page: &str, path: Vec<String>| {
        let (definition, is_public) = resolve(page, &path);
        if is_public {
            offences.push(format!("{page}: {} has a public path already", path.join("::")));
        }
        paths.entry(definition).or_default().push(format!("{page}: {}", path.join("::")));
    };
    let mut todo = vec!["src/lib.rs".to_owned()];
    while let Some(page) = todo.pop() {
        for path in re_exports(&page) {
            record(&page, path);
        }
        todo.extend(modules(&page, "pub ").into_iter().map(|name| file_of(&page, &name)));
    }
    offences.extend(paths.into_values().filter(|paths| paths.len() > 1).map(|all| all.join(" = ")));
    assert!(offences.is_empty(), "{offences:#?}");
}

/// A public struct, enum or trait.
pub(crate) struct PublicType {
    /// The public module, such as `testing::forge`; empty for the root.
    module: String,
    pub(crate) name: String,
    /// The file that defines it.
    pub(crate) file: String,
}

impl PublicType {
    /// Returns the path below the crate.
    pub(crate) fn path(&self) -> String {
        let separator = if self.module.is_empty() { "" } else { "::" };
        format!("{}{separator}{}", self.module, self.name)
    }
}

/// Returns all public types, except those that a macro with parameters defines.
pub(crate) fn public_types() -> Vec<PublicType> {
    let mut found = Vec::new();
    let mut todo = vec![("src/lib.rs".to_owned(), String::new())];
    while let Some((page, module)) = todo.pop() {
        let own = items(&page).into_iter().map(|item| (name_of(&item), page.clone()));
        let re_exported = re_exports(&page).into_iter().map(|path| {
            let (definition, _) = resolve(&page, &path);
            (last(path), definition.parent().unwrap().to_str().unwrap().to_owned())
        });
        for (name, file) in own.chain(re_exported) {
            if is_type(&file, &name) {
                found.push(PublicType { module: module.clone(), name, file });
            }
        }
        for name in modules(&page, "pub ") {
            let separator = if module.is_empty() { "" } else { "::" };
            todo.push((file_of(&page, &name), format!("{module}{separator}{name}")));
        }
    }
    found
}

/// Returns the name in `pub struct Name<T> {`.
fn name_of(item: &str) -> String {
    let name = item.split([' ', '<', '(', '{', ';', ':']).filter(|word| !word.is_empty());
    name.skip_while(|word| {
        !["struct", "enum", "trait", "fn", "const", "type", "static"].contains(word)
    })
    .nth(1)
    .unwrap()
    .to_owned()
}

/// Returns whether a file defines a public struct, enum or trait with this name.
fn is_type(file: &str, name: &str) -> bool {
    let definitions = ["struct", "enum", "trait"].map(|kind| format!("pub {kind} {name}"));
    let begins = |line: &str| {
        let rest = definitions.iter().find_map(|definition| line.strip_prefix(definition.as_str()));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    code(file).lines().any(|line| begins(line.trim_start()))
}

/// Returns the definition of a path on a page, and whether all its modules are public. If they are, the item is
/// reachable without the re-export.
fn resolve(page: &str, path: &[String]) -> (PathBuf, bool) {
    let (name, mut parents) = path.split_last().unwrap();
    let mut at = page.to_owned();
    if parents.first().is_some_and(|first| first == "crate") {
        (at, parents) = ("src/lib.rs".to_owned(), &parents[1..]);
    }
    let mut is_public = true;
    for module in parents {
        is_public &= modules(&at, "pub ").contains(module);
        at = file_of(&at, module);
    }
    match uses(&at).into_iter().find(|(_, path)| path.last() == Some(name)) {
        Some((further_is_public, path)) => {
            let (definition, defined_in_public) = resolve(&at, &path);
            (definition, is_public && further_is_public || defined_in_public)
        }
        None => (Path::new(&at).join(name), is_public),
    }
}

/// Returns the file of a module that a page declares.
fn file_of(page: &str, module: &str) -> String {
    let page = Path::new(page);
    let folder = match page.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "mod.rs") => page.parent().unwrap().to_owned(),
        _ => page.with_extension(""),
    };
    let [file, page] = [folder.join(format!("{module}.rs")), folder.join(module).join("mod.rs")];
    let found = if file.exists() { file } else { page };
    found.to_str().unwrap().to_owned()
}

fn modules(page: &str, visibility: &str) -> Vec<String> {
    let text = code(page);
    let begin = format!("{visibility}mod ");
    let names = text.lines().filter_map(|line| line.strip_prefix(&begin)?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

/// Returns the public items that a page itself defines.
fn items(page: &str) -> Vec<String> {
    let kinds = ["struct", "enum", "trait", "fn", "async fn", "const", "type", "static"];
    let begins = |line: &&str| kinds.iter().any(|kind| line.starts_with(&format!("pub {kind} ")));
    code(page).lines().filter(begins).map(str::to_owned).collect()
}

/// Returns the paths after `pub use` on a page.
fn re_exports(page: &str) -> Vec<Vec<String>> {
    uses(page).into_iter().filter(|(is_public, _)| *is_public).map(|(_, path)| path).collect()
}

/// Returns the paths that a page imports from this crate, without braces, and whether it re-exports them.
fn uses(page: &str) -> Vec<(bool, Vec<String>)> {
    let own = ["", "pub ", "pub(crate) "].map(|kind| modules(page, kind)).concat();
    let mut found = Vec::new();
    for statement in code(page).split(';') {
        let Some(start) = statement.lines().position(|line| line.contains("use ")) else {
            continue;
        };
        let statement: String = statement.lines().skip(start).map(str::trim).collect();
        let Some((visibility, tree)) = statement.split_once("use ") else { continue };
        if !["", "pub ", "pub(crate) "].contains(&visibility) {
            continue;
        }
        let paths =
            flat(tree).into_iter().filter(|path| path[0] == "crate" || own.contains(&path[0]));
        found.extend(paths.map(|path| (visibility == "pub ", path)));
    }
    found
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn flat(tree: &str) -> Vec<Vec<String>> {
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let head: Vec<String> =
        head.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let inner = rest.strip_suffix('}').unwrap();
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for char in inner.chars() {
        depth += i32::from(char == '{') - i32::from(char == '}');
        if char == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(char);
        }
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(flat).map(|path| head.iter().cloned().chain(path).collect()).collect()
}

fn last(path: Vec<String>) -> String {
    path.into_iter().next_back().unwrap()
}

/// Returns a page without its unit tests.
fn code(page: &str) -> String {
    let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{page}: {error}"));
    text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}
