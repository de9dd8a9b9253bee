//! Serves files from a directory, with ranges, validators and precompressed variants.
//!
//! The protocol is tower-http's `ServeDir`; this file decides which file a request means, and that
//! nothing outside the root is ever read. `..` in any spelling is refused by path; symbolic links
//! are followed only while they stay inside: the real path of the file is compared with the real
//! path of the root, both taken anew for each request, so that a root that is itself a link can be
//! switched to another release. Who can write below the root while we read could still win a race
//! between that check and the opening: do not serve what strangers can rename.

mod confined;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;

use self::confined::{Confined, is_absence};
use super::{Context, Failed, Kind, Registry, Reply};
use crate::base::body::{Body, BodyError};
use crate::base::message::{Request, RequestHead, Response, ResponseHead};
use crate::base::problem::Problem;
use crate::base::values::Value;

/// Settings of a directory of files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "FilesHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The directory. Nothing outside of it is served, not by a symbolic link either. Example:
    /// `/srv/www`.
    pub root: PathBuf,
    /// The path parameter of the route that names the file, as in `/static/{file:path}`. Default:
    /// the whole path names it.
    pub param: Option<String>,
    /// The beginning of the path that does not count, as in `path_prefix: /static`. Default: none.
    pub strip_prefix: Option<String>,
    /// The file that stands for a directory. Default: `index.html`.
    #[serde(default = "index")]
    pub index: String,
    /// Encodings for which a file may have a compressed twin beside it (`app.js.br` beside
    /// `app.js`); the client's `accept-encoding` decides. Default: none.
    #[serde(default)]
    pub precompressed: Vec<Encoding>,
    /// The `cache-control` of files. Default: none. Example: `public, max-age=3600`.
    pub cache_control: Option<Value>,
    /// The file, relative to the root, that is served where none is found, as single-page
    /// applications want it. Default: none, the answer is 404. Example: `index.html`.
    pub fallback: Option<String>,
    /// Whether files and directories whose names begin with a dot are served; `.well-known`
    /// always is. Default: false.
    #[serde(default)]
    pub hidden: bool,
}

fn index() -> String {
    "index.html".to_owned()
}

/// A content coding of files on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "FileEncoding")]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `.gz`
    Gzip,
    /// `.br`
    Br,
    /// `.zst`
    Zstd,
}

/// A directory, ready to serve.
#[derive(Debug)]
pub(super) struct Files(Arc<Directory>);

#[derive(Debug)]
struct Directory {
    files: Server,
    settings: Settings,
}

type Server = ServeDir<DefaultServeDirFallback, Confined>;
type Incoming = http::Request<Empty<Bytes>>;

impl Kind for Files {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Registry) -> Result<Self, Problem> {
        if settings.param.is_some() && settings.strip_prefix.is_some() {
            let message = "`files` takes the path from `param` or by `strip_prefix`, not both";
            return Err(Problem::error(None, message));
        }
        if settings.index.is_empty() || settings.index.contains('/') {
            let message = format!("the index `{}` is not a file name", settings.index);
            return Err(Problem::error(None, message));
        }
        if let Some(prefix) = &settings.strip_prefix
            && !prefix.starts_with('/')
        {
            let message = format!("the prefix `{prefix}` must begin with `/`");
            return Err(Problem::error(None, message));
        }
        let confined = Confined::to(&settings.root);
        let mut files =
            ServeDir::with_backend(&settings.root, confined).ignore_multi_range_requests(true);
        for encoding in &settings.precompressed {
            files = match encoding {
                Encoding::Gzip => files.precompressed_gzip(),
                Encoding::Br => files.precompressed_br(),
                Encoding::Zstd => files.precompressed_zstd(),
            };
        }
        let settings = settings.clone();
        Ok(Self(Arc::new(Directory { files, settings })))
    }

    fn reply(&self, request: Request, _: Context) -> Reply {
        let head = request.head;
        if !matches!(*head.method(), Method::GET | Method::HEAD) {
            let allow = HeaderValue::from_static("GET, HEAD");
            let response = Response::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            return Reply::Now(response.with_header(header::ALLOW, allow));
        }
        let directory = Arc::clone(&self.0);
        Reply::later(async move { directory.serve(&head).await })
    }
}

impl Directory {
    async fn serve(&self, head: &RequestHead) -> Result<Response, Failed> {
        let mut response = match self.path(head) {
            Some(path) => self.file(head, &path).await?,
            None => not_found(),
        };
        if response.head.status == StatusCode::NOT_FOUND
            && let Some(fallback) = &self.settings.fallback
        {
            let path = format!("/{}", encoded(fallback.trim_start_matches('/')));
            response = self.file(head, &path).await?;
        }
        Ok(self.finished(head, response))
    }

    /// The path of the file below the root, percent-encoded; none where it cannot be served.
    fn path(&self, head: &RequestHead) -> Option<String> {
        let asked = if let Some(param) = &self.settings.param {
            encoded(head.params.get(param)?)
        } else if let Some(prefix) = &self.settings.strip_prefix {
            let rest = head.path().strip_prefix(prefix.trim_end_matches('/'))?;
            if !(rest.is_empty() || rest.starts_with('/')) {
                return None;
            }
            rest.to_owned()
        } else {
            head.path().to_owned()
        };
        let asked = asked.trim_start_matches('/');
        if !self.settings.hidden && asked.split('/').any(is_hidden) {
            return None;
        }
        if asked.is_empty() || asked.ends_with('/') {
            Some(format!("/{asked}{}", encoded(&self.settings.index)))
        } else {
            Some(format!("/{asked}"))
        }
    }

    async fn file(&self, head: &RequestHead, path: &str) -> Result<Response, Failed> {
        let Some(mut request) = incoming(head, path) else {
            return Ok(not_found());
        };
        if self.has_changed(&request).await? {
            request.headers_mut().remove(header::RANGE);
        }
        self.call(request).await
    }

    /// True if a range is asked of a version that is no longer there: then all of it is the
    /// answer (RFC 9110, 13.1.5), which `ServeDir` does not know.
    async fn has_changed(&self, request: &Incoming) -> Result<bool, Failed> {
        let headers = request.headers();
        let (Some(condition), true) = (
            headers.get(header::IF_RANGE),
            headers.contains_key(header::RANGE),
        ) else {
            return Ok(false);
        };
        let mut ask = request.clone();
        *ask.method_mut() = Method::HEAD;
        *ask.headers_mut() = HeaderMap::new();
        if let Some(encodings) = headers.get(header::ACCEPT_ENCODING) {
            ask.headers_mut()
                .insert(header::ACCEPT_ENCODING, encodings.clone());
        }
        let now = self.call(ask).await?.head.headers;
        let is_same = [header::ETAG, header::LAST_MODIFIED]
            .into_iter()
            .any(|name| now.get(name) == Some(condition));
        Ok(!is_same)
    }

    async fn call(&self, request: Incoming) -> Result<Response, Failed> {
        let served = self.files.clone().try_call(request).await;
        match served {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => Ok(not_found()),
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = body.map_err(|error| BodyError::Source(error.to_string()));
                Ok(Response {
                    head: ResponseHead::from_http(parts),
                    body: if http_body::Body::is_end_stream(&body) {
                        Body::empty()
                    } else {
                        Body::stream(body)
                    },
                })
            }
            Err(error) if is_absence(&error) => Ok(not_found()),
            Err(error) => {
                let root = self.settings.root.display();
                Err(Failed::new(format!(
                    "cannot read a file below {root}: {error}"
                )))
            }
        }
    }

    fn finished(&self, head: &RequestHead, mut response: Response) -> Response {
        if response.head.status == StatusCode::TEMPORARY_REDIRECT {
            // `ServeDir` knows the path below the root; the client has to see its own. Two slashes
            // would begin a host.
            let path = head.path().trim_start_matches('/');
            let query = head.query().map(|query| format!("?{query}"));
            let target = format!("/{path}/{}", query.unwrap_or_default());
            match HeaderValue::from_str(&target) {
                Ok(target) => response.head.headers.set(header::LOCATION, target),
                Err(_) => return not_found(),
            }
        }
        let status = response.head.status;
        if let Some(Value(value)) = &self.settings.cache_control
            && (status.is_success() || status == StatusCode::NOT_MODIFIED)
        {
            let value = value.clone();
            response.head.headers.set(header::CACHE_CONTROL, value);
        }
        response
    }
}

fn not_found() -> Response {
    Response::text(StatusCode::NOT_FOUND, "not found\n")
}

/// The request that `ServeDir` sees: what concerns files, and nothing else.
fn incoming(head: &RequestHead, path: &str) -> Option<Incoming> {
    let target = match head.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut request = http::Request::new(Empty::new());
    *request.method_mut() = head.method().clone();
    *request.uri_mut() = target.parse().ok()?;
    for name in [
        header::ACCEPT_ENCODING,
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ] {
        for value in head.headers.all(&name) {
            request.headers_mut().append(&name, value.clone());
        }
    }
    Some(request)
}

/// What stands in a path as it is, slashes included.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

fn is_hidden(segment: &str) -> bool {
    let name = percent_decode_str(segment).decode_utf8_lossy();
    // An encoded slash may hide more segments.
    name.split('/')
        .any(|name| name.starts_with('.') && name != ".well-known")
}

#[cfg(test)]
mod tests {
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
}
