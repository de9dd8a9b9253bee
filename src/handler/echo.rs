//! Answers with what arrived: to see what a request looks like behind the middlewares.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Failed, Kind, Registry, Reply};
use crate::base::body::{Body, BodyError};
use crate::base::message::{Request, RequestHead, Response};
use crate::base::problem::Problem;
use crate::base::values::Size;

/// Settings of the echo.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "EchoHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Sends the body back as it comes, with its content type, instead of describing the request
    /// in JSON. Default: false.
    #[serde(default)]
    pub raw: bool,
    /// How much of the body the description holds; what is longer is cut and marked
    /// `body_truncated`. Default: 64KiB.
    #[serde(default = "limit")]
    pub limit: Size,
}

fn limit() -> Size {
    Size(64 << 10)
}

/// The echo.
#[derive(Debug)]
pub(super) struct Echo {
    raw: bool,
    limit: usize,
}

/// A request, described.
#[derive(Serialize)]
struct Description {
    method: String,
    path: String,
    query: Option<String>,
    params: BTreeMap<String, String>,
    version: String,
    scheme: &'static str,
    host: Option<String>,
    client_ip: Option<String>,
    /// Every value of every header, in order.
    headers: BTreeMap<String, Vec<String>>,
    /// The body as text, or as base64 where it is not UTF-8.
    body: String,
    body_encoding: &'static str,
    body_truncated: bool,
}

impl Kind for Echo {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Registry) -> Result<Self, Problem> {
        Ok(Self {
            raw: settings.raw,
            limit: settings.limit.0.try_into().unwrap_or(usize::MAX),
        })
    }

    fn reply(&self, request: Request, _: Context) -> Reply {
        let Request { head, body } = request;
        if self.raw {
            return Reply::Now(sent_back(&head, body));
        }
        let limit = self.limit;
        Reply::later(async move {
            let (bytes, is_cut) = beginning(body, limit).await.map_err(Failed::reading)?;
            Ok(Response::json(
                StatusCode::OK,
                &describe(&head, &bytes, is_cut),
            ))
        })
    }
}

fn sent_back(head: &RequestHead, body: Body) -> Response {
    let mut response = Response::status(StatusCode::OK);
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response
            .head
            .headers
            .set(header::CONTENT_TYPE, kind.clone());
    }
    response.body = body;
    response
}

/// The first bytes of a body, and whether there were more.
async fn beginning(mut body: Body, limit: usize) -> Result<(BytesMut, bool), BodyError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.next_frame().await {
        let Ok(chunk) = frame?.into_data() else {
            continue;
        };
        let room = limit - bytes.len();
        bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}

fn describe(head: &RequestHead, body: &[u8], is_cut: bool) -> Description {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in head.headers.iter() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    let (text, encoding) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), "text"),
        Err(_) => (BASE64_STANDARD.encode(body), "base64"),
    };
    let params = head.params.iter();
    Description {
        method: head.method().to_string(),
        path: head.path().to_owned(),
        query: head.query().map(str::to_owned),
        params: params.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        version: format!("{:?}", head.version()),
        scheme: head.client.scheme(),
        host: head.authority().map(str::to_owned),
        client_ip: head.client.ip.map(|ip| ip.to_string()),
        headers,
        body: text,
        body_encoding: encoding,
        body_truncated: is_cut,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use serde_json::{Value, json};

    use super::*;
    use crate::handler::testing::{ask, get, request, text, with_header};

    async fn echo(settings: Value, request: Request) -> Value {
        let response = ask(json!({"echo": settings}), request).await;
        serde_json::from_str(&text(response).await).expect("JSON")
    }

    #[tokio::test]
    async fn the_request_is_described() {
        let mut request = request(Method::PUT, "http://a.example:81/x%20y?q=1&q=2");
        request = with_header(request, "x-many", "1");
        request = with_header(request, "x-many", "2");
        request.head.client.ip = Some([127, 0, 0, 1].into());
        request.body = Body::full("héllo");
        let told = echo(json!({}), request).await;
        assert_eq!(
            told,
            json!({
                "method": "PUT", "path": "/x%20y", "query": "q=1&q=2", "params": {},
                "version": "HTTP/1.1", "scheme": "http", "host": "a.example:81",
                "client_ip": "127.0.0.1",
                "headers": {"host": ["a.example:81"], "x-many": ["1", "2"]},
                "body": "héllo", "body_encoding": "text", "body_truncated": false,
            })
        );
    }

    #[tokio::test]
    async fn bodies_are_cut_at_the_limit_and_encoded_where_needed() {
        let check = async |body: &'static [u8], limit: &str, expected: [Value; 3]| {
            let mut request = get("/");
            request.body = Body::full(body);
            let told = echo(json!({"limit": limit}), request).await;
            let got = ["body", "body_encoding", "body_truncated"].map(|key| told[key].clone());
            assert_eq!(got, expected);
        };
        check(
            b"12345",
            "5B",
            [json!("12345"), json!("text"), json!(false)],
        )
        .await;
        check(
            b"123456",
            "5B",
            [json!("12345"), json!("text"), json!(true)],
        )
        .await;
        check(
            b"\xff\x00",
            "5B",
            [json!("/wA="), json!("base64"), json!(false)],
        )
        .await;
        check(b"1", "0B", [json!(""), json!("text"), json!(true)]).await;
    }

    #[tokio::test]
    async fn raw_sends_the_body_back() {
        let mut request = get("/");
        let kind = HeaderValue::from_static("application/x-thing");
        request.head.set_header(header::CONTENT_TYPE, kind);
        request.body = Body::full(vec![0xff_u8; 100_000]);
        let response = ask(json!({"echo": {"raw": true}}), request).await;
        assert_eq!(
            response.head.headers.text("content-type"),
            Some("application/x-thing")
        );
        assert_eq!(response.body.len(), Some(100_000));
    }
}
