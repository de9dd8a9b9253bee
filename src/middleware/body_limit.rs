//! Refuses request bodies that are too long, before or while they come.

use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Hooks, Kind, Natives, Step};
use crate::base::message::{Request, RequestHead, Response};
use crate::base::values::Size;
use crate::telemetry::decision::Flag;

/// Refuses requests whose body is longer than a limit, with status 413.
///
/// A body whose length is announced is refused before a byte of it is read; one that is sent without a
/// length is cut off at the limit. Example: `body_limit: {max: 1MiB}`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "BodyLimit")]
pub struct Settings {
    /// The longest body that is let through, in bytes. Example: `64KiB`.
    pub max: Size,
}

/// Refuses request bodies over a limit.
#[derive(Debug)]
pub struct BodyLimit {
    max: u64,
}

impl Kind for BodyLimit {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        Ok(Self {
            max: settings.max.0,
        })
    }
}

impl Hooks for BodyLimit {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        // The header as well: the client may wait for a 100 before it sends the first byte.
        let announced = request
            .head
            .header(header::CONTENT_LENGTH)
            .and_then(|text| text.parse().ok());
        match request.body.len().max(announced) {
            Some(length) if length > self.max => {
                let detail = "the length that the request announces is over `body_limit`";
                cx.record.fail(Flag::BodyTooLarge, detail);
                return Step::answer(Response::status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Some(_) if request.body.len().is_some() => {}
            // Only a body of unknown length needs to be counted as it comes.
            _ => request.body = std::mem::take(&mut request.body).limited(self.max),
        }
        Step::Next
    }

    fn about(&self, _: &RequestHead) -> Option<String> {
        Some(format!("up to {} bytes", self.max))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::StreamBody;

    use super::super::testing::*;
    use super::*;
    use crate::base::body::{Body, BodyError};

    fn stream(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok(http_body::Frame::data(Bytes::from_static(chunk.as_bytes()))))
            .collect();
        Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[test]
    fn an_announced_length_is_refused_at_once() {
        let check = |headers: &[(&str, &str)], body: Body, passes: bool| {
            let it = build(r#"{"body_limit": {"max": "5B"}}"#);
            let mut world = World::new();
            let mut request = request("POST", "/", headers);
            request.body = body;
            let answer = world.down(&it, &mut request);
            assert_eq!(answer.is_none(), passes, "{headers:?}");
            if let Some(answer) = answer {
                assert_eq!(answer.head.status, 413);
                assert_eq!(world.record.flag, Some(Flag::BodyTooLarge));
            }
        };
        check(&[], Body::empty(), true);
        check(&[], Body::full("12345"), true);
        check(&[], Body::full("123456"), false);
        check(&[("content-length", "5")], stream(&["12345"]), true);
        check(&[("content-length", "6")], stream(&["123456"]), false);
        check(
            &[("content-length", "18446744073709551615")],
            Body::empty(),
            false,
        );
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_cut_at_the_limit() {
        let it = build(r#"{"body_limit": {"max": "5B"}}"#);
        let read = |body: Body| {
            let mut request = get("/");
            request.body = body;
            assert!(World::new().down(&it, &mut request).is_none());
            request.body.collect(100)
        };
        assert_eq!(read(stream(&["123", "45"])).await.expect("fits"), "12345");
        let cut = read(stream(&["123", "456"])).await;
        assert!(matches!(cut, Err(BodyError::TooLarge)));
    }
}
