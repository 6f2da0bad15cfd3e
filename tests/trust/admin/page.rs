//! The files of the page.

use super::fixture::World;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[tokio::test]
async fn page_needs_no_token_and_is_confined() {
    let world = World::new().await;
    let service = world.start_read_only().await;
    for (path, media_type) in [
        ("/ui", "text/html; charset=utf-8"),
        ("/ui/app.js", "text/javascript; charset=utf-8"),
        ("/ui/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = service.get(path, "").await;
        assert_eq!(answer.status, 200, "{path}");
        for (name, value) in [
            ("content-type", media_type),
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        // A refused token of an old session does not matter either.
        assert_eq!(service.get(path, "not a token").await.status, 200);
        let tag = answer.header("etag").to_owned();
        let weak = format!("\"x\", W/{tag}");
        for known in [tag.as_str(), "*", &weak] {
            let again = service.send("GET", path, "", &[("if-none-match", known)], "").await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{path} {known}");
            assert_eq!(again.header("etag"), tag);
            assert_eq!(again.header("content-security-policy"), POLICY);
        }
        let other = service.send("GET", path, "", &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200);
    }
}

#[tokio::test]
async fn page_imports_only_served_files() {
    let world = World::new().await;
    let service = world.start_read_only().await;
    let mut missing = vec!["app.js".to_owned()];
    let mut seen = Vec::new();
    while let Some(name) = missing.pop() {
        let script = service.get(&format!("/ui/{name}"), "").await;
        assert_eq!(
            (script.status, script.header("content-type")),
            (200, "text/javascript; charset=utf-8"),
            "{name}"
        );
        let imports = script.body.lines().filter(|line| line.starts_with("import "));
        for import in imports.filter_map(|line| line.split_once(" from \"./")) {
            let imported = import.1.trim_end_matches("\";").to_owned();
            if !seen.contains(&imported) && !missing.contains(&imported) {
                missing.push(imported);
            }
        }
        // Text of tokens and policies never becomes HTML, and nothing of a token outlives the page.
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "sessionStorage",
            "indexedDB",
            "document.cookie",
        ] {
            assert!(!script.body.contains(forbidden), "{name}: {forbidden}");
        }
        seen.push(name);
    }
    assert!(seen.len() > 10, "{seen:?}");
    assert_eq!(service.get("/ui/", "").await.status, 404, "relative URLs would lead elsewhere");
}

#[tokio::test]
async fn page_has_no_inline_code() {
    let world = World::new().await;
    let service = world.start_read_only().await;
    let page = service.get("/ui", "").await.body;
    assert!(page.contains("<title>Access → Token Exchange</title>"), "{page}");
    for forbidden in ["<style", " style=", " onclick=", "javascript:", "http://", "https://"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for script in page.split("<script").skip(1) {
        assert!(script.contains("src=") && script.contains("></script>"), "{script}");
    }
}
