//! The README and the manual: every link has a target, and the cost tables repeat the measured results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// Links are full URLs, because relative links work either on docs.rs or on a repository's web page.
const DOCS: &str = "https://docs.rs/scaikey-auth/latest/scaikey_auth/";

#[test]
fn every_link_has_a_target() {
    let sources = sources();
    let mut dead = Vec::new();
    for (page, text) in pages() {
        for target in links(&text).targets {
            let exists = match (target.strip_prefix(DOCS), target.strip_prefix('#')) {
                (Some(path), _) => in_documentation(path, &sources),
                (_, Some(anchor)) => anchors(&text).contains(anchor),
                _ => target.starts_with("https://"),
            };
            if !exists {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_reference_has_a_definition() {
    for (page, text) in pages() {
        let links = links(&text);
        assert_eq!(links.used, links.defined, "{page}: references and definitions differ");
    }
}

/// The page of the index, which links to the others with paths of modules.
const INDEX: &str = "src/manual/mod.rs";

/// Words that readers search for, and a page that treats each.
const WORDS: &[(&str, &str)] = &[
    ("admission check", "request"),
    ("API key", "opaque"),
    ("audience", "start"),
    ("Auth0", "providers"),
    ("Azure", "providers"),
    ("audit log", "trust"),
    ("cache", "operating"),
    ("client authentication", "operating"),
    ("client credentials", "exchange"),
    ("CORS", "request"),
    ("default", "operating"),
    ("encrypted token", "request"),
    ("graceful shutdown", "deploying"),
    ("gRPC", "request"),
    ("introspection", "endpoints"),
    ("introspection", "opaque"),
    ("JWE", "request"),
    ("JWKS", "operating"),
    ("Keycloak", "providers"),
    ("keyless client", "exchange"),
    ("Kubernetes", "deploying"),
    ("log out", "endpoints"),
    ("logout", "endpoints"),
    ("MFA", "request"),
    ("mock", "modes"),
    ("multi-tenant", "tenants"),
    ("Okta", "providers"),
    ("on-behalf-of", "outbound"),
    ("outage", "operating"),
    ("personal access token", "opaque"),
    ("post-quantum signature", "costs"),
    ("Prometheus", "deploying"),
    ("rate limit", "endpoints"),
    ("readiness", "deploying"),
    ("Redis", "exchange"),
    ("refresh token", "exchange"),
    ("reqwest", "outbound"),
    ("revocation", "revocation"),
    ("revocation", "threats"),
    ("role", "request"),
    ("session", "endpoints"),
    ("sign-out", "endpoints"),
    ("Terraform", "trust"),
    ("token exchange", "exchange"),
    ("trust policy", "trust"),
    ("WebSocket", "request"),
];

#[test]
fn index_links_have_targets() {
    let index = fs::read_to_string(INDEX).unwrap();
    let mut dead = Vec::new();
    let targets = index.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    for (target, _) in targets.filter(|(target, _)| !target.contains("::")) {
        let (page, anchor) = target.split_once('#').unwrap_or((target, ""));
        let text = match page {
            "" => index.replace("//! ", ""),
            page => fs::read_to_string(format!("src/manual/{page}.md")).unwrap_or_default(),
        };
        let exists =
            if anchor.is_empty() { !text.is_empty() } else { anchors(&text).contains(anchor) };
        if !exists {
            dead.push(target.to_owned());
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn index_leads_from_words_to_pages() {
    let index = fs::read_to_string(INDEX).unwrap();
    let rows = index.split("//! # Index").nth(1).unwrap().lines();
    let rows: Vec<(String, &str)> = rows
        .filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(words, _)| *words != "word")
        .map(|(words, pages)| (words.to_lowercase(), pages))
        .collect();
    assert!(
        rows.is_sorted_by_key(|(words, _)| words.replace("e-", "e")),
        "the index is not sorted"
    );
    let leads_to = |word: &str, page: &str| {
        let word = word.to_lowercase();
        rows.iter().any(|(words, pages)| {
            let link = |end| pages.contains(&format!("]({page}{end}"));
            words.split(", ").any(|other| other == word) && (link('#') || link(')'))
        })
    };
    let missing: Vec<_> = WORDS.iter().filter(|(word, page)| !leads_to(word, page)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn two_tables_list_every_example() {
    let files = fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().path());
    let programs = files.filter(|file| file.extension().is_some_and(|kind| kind == "rs"));
    let names: BTreeSet<String> =
        programs.map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    for page in ["README.md", "src/manual/testing.md"] {
        let text = fs::read_to_string(page).unwrap();
        let rows = text.split("| example | shows | command |").nth(1).unwrap().lines().skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        let listed = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
        assert_eq!(names, listed, "{page}");
    }
}

#[test]
fn large_examples_fit_150_lines() {
    for example in ["axum_service", "grpc_mesh", "streams", "trust_admin", "web_app"] {
        let text = fs::read_to_string(format!("examples/{example}.rs")).unwrap();
        assert!(text.lines().count() <= 150, "{example} has {} lines", text.lines().count());
    }
}

#[test]
fn cost_tables_repeat_the_measured_results() {
    let results = cells(&fs::read_to_string("benches/peers/RESULTS.md").unwrap());
    for page in ["README.md", "src/manual/costs.md"] {
        let mut compared = 0;
        for ((row, column), shown) in cells(&fs::read_to_string(page).unwrap()) {
            let measured = [column.clone(), format!("one {column}")]
                .into_iter()
                .find_map(|column| results.get(&(row.clone(), column)));
            if let Some(measured) = measured {
                assert_eq!(&shown, measured, "{page}: {row}, {column}");
                compared += 1;
            }
        }
        assert!(compared >= 15, "{page} shows {compared} results");
    }
}

#[test]
fn maintainers_pages_name_existing_files() {
    let roots = ["src/", "tests/", "examples/", "benches/", ".ci/", ".github/"];
    let is_of_a_path = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let mut missing = Vec::new();
    for page in
        ["src/manual/architecture.md", "src/manual/contributing.md", ".github/CONTRIBUTING.md"]
    {
        let text = fs::read_to_string(page).unwrap();
        let words = text.split(|c| !is_of_a_path(c)).map(|word| word.trim_end_matches('.'));
        let paths = words.filter(|word| roots.iter().any(|root| word.starts_with(root)));
        missing.extend(
            paths.filter(|path| !fs::exists(path).unwrap()).map(|path| format!("{page}: {path}")),
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The README and the pages of the manual, without blocks of code.
fn pages() -> Vec<(String, String)> {
    let manual = fs::read_dir("src/manual").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = manual.filter(|file| file.extension().unwrap() == "md").collect();
    files.push("README.md".into());
    files.sort();
    let page = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let mut in_code = false;
        let lines = text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            in_code ^= is_fence;
            !in_code && !is_fence
        });
        (file.to_string_lossy().into_owned(), lines.collect::<Vec<_>>().join("\n"))
    };
    files.into_iter().map(page).collect()
}

#[derive(Default)]
struct Links {
    targets: Vec<String>,
    /// Labels in lower case, because Markdown compares them so.
    used: BTreeSet<String>,
    defined: BTreeSet<String>,
}

/// Reads `[text](target)`, `[text][label]`, `[label]` and `[label]: target`.
fn links(text: &str) -> Links {
    let mut links = Links::default();
    let mut rest = text;
    let mut is_line_start = true;
    while let Some(at) = rest.find(['[', '`', '\n']) {
        let (before, from) = rest.split_at(at);
        is_line_start &= before.is_empty();
        let (first, after) = from.split_at(1);
        match first {
            "\n" => (is_line_start, rest) = (true, after),
            "`" => (is_line_start, rest) = (false, after.split_once('`').map_or("", |code| code.1)),
            _ => {
                let (inner, after) = after.split_once(']').unwrap_or((after, ""));
                let label = inner.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
                rest = after;
                if let Some(target) = after.strip_prefix('(') {
                    links.targets.push(target.split(')').next().unwrap().to_owned());
                } else if let Some(full) = after.strip_prefix('[') {
                    links.used.insert(full.split(']').next().unwrap().to_lowercase());
                    rest = full.split_once(']').map_or("", |label| label.1);
                } else if let (true, Some(target)) = (is_line_start, after.strip_prefix(": ")) {
                    links.targets.push(target.split_whitespace().next().unwrap().to_owned());
                    links.defined.insert(label);
                } else {
                    links.used.insert(label);
                }
                is_line_start = false;
            }
        }
    }
    links
}

/// The anchors of a page's headings, as rustdoc names them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Returns whether rustdoc writes this file with this anchor, judged by the source.
fn in_documentation(path: &str, sources: &[String]) -> bool {
    let (file, anchor) = path.split_once('#').map_or((path, None), |(it, to)| (it, Some(to)));
    let (modules, file) = file.rsplit_once('/').unwrap_or(("", file));
    let page = match modules {
        "" => Some(PathBuf::from("src/lib.rs")),
        _ => ["rs", "md"]
            .map(|kind| PathBuf::from(format!("src/{modules}.{kind}")))
            .into_iter()
            .chain([PathBuf::from(format!("src/{modules}/mod.rs"))])
            .find(|page| page.exists()),
    };
    let Some(page) = page.map(|page| fs::read_to_string(page).unwrap()) else { return false };
    if file == "index.html" {
        return anchor.is_none_or(|anchor| anchors(&page).contains(anchor));
    }
    let Some([kind, name]) = file
        .strip_suffix(".html")
        .and_then(|item| item.split_once('.'))
        .map(|(kind, name)| [kind, name])
    else {
        return false;
    };
    let definition = format!("pub {kind} {name}").replace("constant", "const");
    let is_item = |line: &str| {
        let line = line.trim_start().replace("pub async fn", "pub fn");
        line.strip_prefix(&definition).is_some_and(|rest| !rest.starts_with(is_of_a_name))
    };
    let is_defined = sources.iter().any(|text| text.contains(name) && text.lines().any(is_item));
    let is_public_here = page.split(|c| !is_of_a_name(c)).any(|word| word == name);
    is_defined && is_public_here && anchor.is_none_or(|anchor| has_anchor(name, anchor, sources))
}

fn has_anchor(item: &str, anchor: &str, sources: &[String]) -> bool {
    let Some((kind, name)) = anchor.split_once('.') else { return false };
    // rustdoc calls a method of a trait `tymethod` if it has no body.
    let (member, has_body) = match kind {
        "method" => (format!("fn {name}"), Some(true)),
        "tymethod" => (format!("fn {name}"), Some(false)),
        "variant" => (format!("    {name}"), None),
        "structfield" => (format!("    pub {name}:"), None),
        _ => return false,
    };
    let is_member = |block: &str, at: usize| {
        let rest = &block[at + member.len()..];
        let end = rest.find(['{', ';']).map(|end| rest[end..].starts_with('{'));
        !rest.starts_with(is_of_a_name) && (has_body.is_none() || has_body == end)
    };
    sources
        .iter()
        .filter(|text| text.contains(item))
        .flat_map(|text| blocks(text, item))
        .any(|block| block.match_indices(&member).any(|(at, _)| is_member(&block, at)))
}

/// The definition and implementations of an item.
fn blocks(text: &str, item: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &&str| {
        ["impl", "pub struct", "pub enum", "pub trait"].iter().any(|kind| line.starts_with(kind))
            && line.split(|c| !is_of_a_name(c)).any(|word| word == item)
    };
    let block = |nth: usize| {
        let end = lines[nth..].iter().position(|line| *line == "}").unwrap_or(0);
        lines[nth..=nth + end].join("\n")
    };
    (0..lines.len()).filter(|nth| begins(&lines[*nth])).map(block).collect()
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text of every source file.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The cells of all tables of a page, by row and column. A later table does not replace a cell.
fn cells(text: &str) -> BTreeMap<(String, String), String> {
    let mut cells = BTreeMap::new();
    let mut head: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            head.clear();
            continue;
        };
        let row: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        if head.is_empty() {
            head = row;
            continue;
        }
        for (column, cell) in head.iter().zip(&row).skip(1) {
            cells.entry((row[0].clone(), column.clone())).or_insert_with(|| cell.clone());
        }
    }
    cells
}
