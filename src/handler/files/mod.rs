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
mod tests;
