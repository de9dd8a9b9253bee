//! What the files handler promises, on a site in a directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use serde_json::json;
use smallvec::smallvec;
use tempfile::TempDir;

use super::*;
use crate::base::message::Params;
use crate::handler::testing::{ask, get, header, problem, request, text, with_header};

/// A site in a directory, with a secret beside it.
fn site() -> (TempDir, PathBuf) {
    let outside = tempfile::tempdir().expect("a directory");
    let root = outside.path().join("www");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    };
    fs::create_dir_all(&root).expect("made");
    fs::write(outside.path().join("secret"), "secret").expect("written");
    write("index.html", "<h1>home</h1>");
    write("home.htm", "another home");
    write("app.js", "0123456789");
    write("app.js.gz", "gz");
    write("app.js.br", "br");
    write("a b/é.txt", "accents");
    write("docs/index.html", "docs");
    write(".env", "hidden");
    write(".well-known/x", "known");
    symlink(outside.path().join("secret"), root.join("out")).expect("linked");
    symlink(outside.path(), root.join("up")).expect("linked");
    symlink("app.js", root.join("in")).expect("linked");
    symlink("loop", root.join("loop")).expect("linked");
    symlink(outside.path().join("secret"), root.join("index.html.gz")).expect("linked");
    (outside, root)
}

fn with(root: &PathBuf, more: &serde_json::Value) -> serde_json::Value {
    let mut settings = json!({"root": root});
    let map = settings.as_object_mut().expect("a map");
    map.extend(more.as_object().cloned().unwrap_or_default());
    json!({"files": settings})
}

async fn served(root: &PathBuf, target: &str) -> (u16, String) {
    let response = ask(with(root, &json!({})), get(target)).await;
    (response.head.status.as_u16(), text(response).await)
}

#[tokio::test]
async fn files_and_indexes_are_served() {
    let (_site, root) = site();
    let check = async |target: &str, expected: &str| {
        assert_eq!(
            served(&root, target).await,
            (200, expected.to_owned()),
            "{target}"
        );
    };
    check("/app.js", "0123456789").await;
    check("/", "<h1>home</h1>").await;
    check("/?x=1", "<h1>home</h1>").await;
    check("/docs/", "docs").await;
    check("/a%20b/%C3%A9.txt", "accents").await;
    check("/in", "0123456789").await;
    check("/.well-known/x", "known").await;
    check("//app.js", "0123456789").await;
    let response = ask(with(&root, &json!({})), get("/app.js")).await;
    assert_eq!(header(&response, "content-type"), Some("text/javascript"));
    assert_eq!(header(&response, "content-length"), Some("10"));
    let settings = with(
        &root,
        &json!({"index": "home.htm", "cache_control": "no-store"}),
    );
    let response = ask(settings, get("/")).await;
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(text(response).await, "another home");
}

#[tokio::test]
async fn nothing_outside_the_root_is_served() {
    let (_site, root) = site();
    let long = format!("/{}", "x".repeat(5_000));
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/%2E%2e%2fsecret",
        "/docs/../../secret",
        "/..%5csecret",
        "/a\\..\\secret",
        "/%00",
        "/app.js%00.txt",
        "/%2Fetc%2Fpasswd",
        "//etc/passwd",
        "/out",
        "/up/secret",
        "/up/www/app.js/../../secret",
        "/loop",
        "/.env",
        "/%2eenv",
        "/x%2f.env",
        "/app.js/",
        "/app.js/x",
        "/nothing",
        &long,
    ] {
        let (status, text) = served(&root, target).await;
        assert_eq!((status, &*text), (404, "not found\n"), "{target}");
    }
    // Inside again by a way that leads outside is inside.
    assert_eq!(served(&root, "/up/www/app.js").await.0, 200);
    let hidden = ask(with(&root, &json!({"hidden": true})), get("/.env")).await;
    assert_eq!(text(hidden).await, "hidden");
    let hidden = ask(with(&root, &json!({"hidden": true})), get("/../secret")).await;
    assert_eq!(hidden.head.status, 404);
}

#[tokio::test]
async fn a_pipe_is_not_opened() {
    let (_site, root) = site();
    let pipe = root.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    assert_eq!(served(&root, "/pipe").await.0, 404);
}

#[tokio::test]
async fn a_directory_without_its_slash_is_a_redirect() {
    let (_site, root) = site();
    let settings = with(&root, &json!({"strip_prefix": "/static"}));
    let response = ask(settings.clone(), get("/static/docs?x=1")).await;
    assert_eq!(response.head.status, 307);
    assert_eq!(header(&response, "location"), Some("/static/docs/?x=1"));
    let response = ask(with(&root, &json!({})), get("//docs")).await;
    assert_eq!(header(&response, "location"), Some("/docs/"));
    assert_eq!(
        text(ask(settings, get("/static")).await).await,
        "<h1>home</h1>"
    );
}

#[tokio::test]
async fn the_path_comes_from_a_parameter_or_behind_a_prefix() {
    let (_site, root) = site();
    let settings = with(&root, &json!({"param": "file"}));
    let check = async |file: &str, status: u16| {
        let mut request = get("/static/whatever");
        let names: Arc<[Box<str>]> = Arc::from(["file".into()]);
        request.head.params = Params::new(names, smallvec![file.into()]);
        assert_eq!(
            ask(settings.clone(), request).await.head.status,
            status,
            "{file}"
        );
    };
    check("a b/é.txt", 200).await;
    check("/app.js", 200).await;
    check("../secret", 404).await;
    check("%2e%2e/secret", 404).await;
    check("a\0b", 404).await;
    assert_eq!(ask(settings.clone(), get("/app.js")).await.head.status, 404);
    let settings = with(&root, &json!({"strip_prefix": "/static/"}));
    assert_eq!(
        ask(settings.clone(), get("/static/app.js"))
            .await
            .head
            .status,
        200
    );
    assert_eq!(
        ask(settings.clone(), get("/staticapp.js"))
            .await
            .head
            .status,
        404
    );
    assert_eq!(ask(settings, get("/app.js")).await.head.status, 404);
}

#[tokio::test]
async fn ranges_are_served_and_checked() {
    let (_site, root) = site();
    let check = async |range: &str, status: u16, expected: &str, told: Option<&str>| {
        let request = with_header(get("/app.js"), "range", range);
        let response = ask(with(&root, &json!({})), request).await;
        assert_eq!(response.head.status, status, "{range}");
        assert_eq!(header(&response, "content-range"), told, "{range}");
        assert_eq!(text(response).await, expected, "{range}");
    };
    check("bytes=0-3", 206, "0123", Some("bytes 0-3/10")).await;
    check("bytes=-2", 206, "89", Some("bytes 8-9/10")).await;
    check("bytes=8-", 206, "89", Some("bytes 8-9/10")).await;
    check("bytes=10-", 416, "", Some("bytes */10")).await;
    check("bytes=0-1,3-4", 200, "0123456789", None).await;
}

#[tokio::test]
async fn validators_save_the_body() {
    let (_site, root) = site();
    let settings = with(&root, &json!({"cache_control": "max-age=60"}));
    let first = ask(settings.clone(), get("/app.js")).await;
    let etag = header(&first, "etag").expect("an etag").to_owned();
    let date = header(&first, "last-modified").expect("a date").to_owned();
    let check = async |name: &'static str, value: &str, status: u16| {
        let response = ask(settings.clone(), with_header(get("/app.js"), name, value)).await;
        assert_eq!(response.head.status, status, "{name}: {value}");
        assert_eq!(response.body.is_empty(), status != 200);
        response
    };
    let response = check("if-none-match", &etag, 304).await;
    assert_eq!(header(&response, "etag"), Some(&*etag));
    assert_eq!(header(&response, "cache-control"), Some("max-age=60"));
    check("if-none-match", &format!("\"other\", W/{etag}"), 304).await;
    check("if-none-match", "\"other\"", 200).await;
    check("if-modified-since", &date, 304).await;
    check("if-match", "\"other\"", 412).await;

    let check = async |condition: &str, status: u16| {
        let request = with_header(get("/app.js"), "range", "bytes=0-1");
        let request = with_header(request, "if-range", condition);
        assert_eq!(
            ask(settings.clone(), request).await.head.status,
            status,
            "{condition}"
        );
    };
    check(&etag, 206).await;
    check(&date, 206).await;
    check("\"other\"", 200).await;
    check("Thu, 01 Jan 1970 00:00:00 GMT", 200).await;
}

#[tokio::test]
async fn head_tells_the_length_without_a_body_and_other_methods_are_refused() {
    let (_site, root) = site();
    let settings = with(&root, &json!({}));
    let response = ask(settings.clone(), request(Method::HEAD, "/app.js")).await;
    assert_eq!(response.head.status, 200);
    assert_eq!(header(&response, "content-length"), Some("10"));
    assert!(response.body.is_empty());
    let response = ask(settings, request(Method::POST, "/app.js")).await;
    assert_eq!(response.head.status, 405);
    assert_eq!(header(&response, "allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn a_compressed_twin_is_served_to_whom_it_suits() {
    let (_site, root) = site();
    let settings = with(&root, &json!({"precompressed": ["gzip", "br"]}));
    let check = async |target: &str, accepts: &str, coding: Option<&str>| {
        let request = with_header(get(target), "accept-encoding", accepts);
        let response = ask(settings.clone(), request).await;
        assert_eq!(response.head.status, 200);
        assert_eq!(
            header(&response, "content-encoding"),
            coding,
            "{target} {accepts}"
        );
        assert_eq!(header(&response, "vary"), Some("accept-encoding"));
        text(response).await
    };
    assert_eq!(check("/app.js", "gzip", Some("gzip")).await, "gz");
    assert_eq!(check("/app.js", "gzip;q=0.5, br", Some("br")).await, "br");
    check("/app.js", "gzip;q=0, zstd", None).await;
    check("/app.js", "identity", None).await;
    check("/docs/", "gzip", None).await;
    // Its twin is a link to the outside.
    assert_eq!(check("/", "gzip", None).await, "<h1>home</h1>");
}

#[tokio::test]
async fn a_fallback_stands_for_what_is_not_there() {
    let (_site, root) = site();
    let settings = with(&root, &json!({"fallback": "index.html"}));
    for target in ["/app/route/7", "/.env", "/../secret"] {
        let response = ask(settings.clone(), get(target)).await;
        assert_eq!(response.head.status, 200);
        assert_eq!(text(response).await, "<h1>home</h1>");
    }
    let settings = with(&root, &json!({"fallback": "../secret"}));
    assert_eq!(ask(settings, get("/nothing")).await.head.status, 404);
}

#[tokio::test]
async fn a_root_that_is_switched_or_missing_is_seen_at_once() {
    let (site, root) = site();
    let current = site.path().join("current");
    assert_eq!(served(&current, "/app.js").await.0, 404);
    symlink(&root, &current).expect("linked");
    assert_eq!(served(&current, "/app.js").await.0, 200);
}

#[test]
fn contradictions_are_problems() {
    let check = |settings: serde_json::Value, words: &str| {
        let problem = problem(with(&"/srv".into(), &settings));
        assert!(problem.contains(words), "{problem}");
    };
    check(json!({"param": "x", "strip_prefix": "/x"}), "not both");
    check(json!({"index": "a/b"}), "not a file name");
    check(json!({"strip_prefix": "x"}), "must begin with `/`");
    check(
        json!({"precompressed": ["deflate"]}),
        "unknown variant `deflate`",
    );
}
