//! Any `tower::Service` is a handler.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Answering, Context, Failed, Handle};
use crate::base::body::{Body, BodyError};
use crate::base::message::{Request, Response, ResponseHead};

/// A service behind the family's door.
pub(super) struct Service<S>(S);

impl<S> Service<S> {
    pub(super) fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S, B> Handle for Service<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: fmt::Display,
    S::Future: 'static,
    B: http_body::Body<Data = Bytes, Error: fmt::Display> + Send + 'static,
{
    fn handle(&self, request: Request, _: Context) -> Answering {
        let service = self.0.clone();
        let Request { mut head, body } = request;
        head.extensions.insert(head.params.clone());
        head.extensions.insert(head.client);
        // `oneshot` waits until the clone is ready, then calls it.
        let call = service.oneshot(head.into_http(body));
        async move {
            let response = call
                .await
                .map_err(|error| Failed::new(format!("the service failed: {error}")))?;
            let (parts, body) = response.into_parts();
            Ok(Response {
                head: ResponseHead::from_http(parts),
                body: erased(body),
            })
        }
        .boxed_local()
    }
}

/// A body of any type as ours; ours stays as it is.
fn erased<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: fmt::Display> + Send + 'static,
{
    let mut body = Some(body);
    let any: &mut dyn Any = &mut body;
    if let Some(ours) = any.downcast_mut::<Option<Body>>().and_then(Option::take) {
        return ours;
    }
    match body {
        Some(body) if body.is_end_stream() => Body::empty(),
        Some(body) => Body::stream(body.map_err(|error| BodyError::Source(error.to_string()))),
        None => Body::empty(),
    }
}
