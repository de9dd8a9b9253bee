//! What a client sends, and by which listener.

use http::{HeaderMap, Method, header};

use super::{Scene, check_once};
use crate::base::problem::{Problem, Spanned};
use crate::base::values::{Name, OneOrMany, Value};
use crate::config::raw::Protocol;
use crate::config::raw::test as raw;
use crate::config::test::Request;
use crate::config::types::Listener;

pub(super) fn settle(request: Spanned<raw::Request>, scene: &Scene<'_>) -> Request {
    let raw::Request {
        method,
        url,
        headers,
        body,
        client,
        listener,
        protocol,
    } = request.value;
    let hosts = headers.0.iter().map(|(name, _)| name);
    if let Some(host) = hosts.into_iter().find(|name| name.value.0 == header::HOST) {
        let message = "the host of a request is in its `url`";
        let help = "write `url: \"http://api.example.com/…\"`, and remove this header";
        scene.report(Problem::error(host.span, message).help(help));
    }
    let number = listener.as_ref().and_then(|name| number(name, scene));
    let at = scene.listeners.get(number.unwrap_or(0));
    // What is known to be missing is not the first one.
    let at = at.filter(|_| listener.is_none() || number.is_some());
    Request {
        method: method.map_or(Method::GET, |method| method.0),
        url: url.0,
        headers: self::headers(headers, scene),
        body: body.unwrap_or_default().into(),
        client: client.unwrap_or_default().0,
        listener: number,
        protocol: settle_protocol(protocol, at, scene),
        span: request.span,
    }
}

/// Which listener it is; none if there is no such one, which is reported.
fn number(name: &Spanned<String>, scene: &Scene<'_>) -> Option<usize> {
    let is_known = scene.house.listener_names.knows(name, scene.house.reading);
    let mut all = scene.listeners.iter();
    is_known
        .then(|| all.position(|listener| *listener.name == *name.value))
        .flatten()
}

fn settle_protocol(
    protocol: Option<Spanned<Protocol>>,
    listener: Option<&Listener>,
    scene: &Scene<'_>,
) -> Protocol {
    let takes = |protocol: Protocol| {
        listener.is_none_or(|listener| match protocol {
            Protocol::Http1 => listener.protocols.http1,
            Protocol::Http2 => listener.protocols.http2,
        })
    };
    let Some(protocol) = protocol else {
        return if takes(Protocol::Http1) {
            Protocol::Http1
        } else {
            Protocol::Http2
        };
    };
    if let Some(listener) = listener.filter(|_| !takes(protocol.value)) {
        let name = &listener.name;
        let message = format!("the listener `{name}` does not speak it");
        scene.report(Problem::error(protocol.span, message).related(listener.span, "the listener"));
    }
    protocol.value
}

/// Names with their values, each name once.
pub(super) fn headers(
    written: raw::Pairs<Spanned<Name>, OneOrMany<Value>>,
    scene: &Scene<'_>,
) -> HeaderMap {
    check_once(written.0.iter(), scene);
    let mut headers = HeaderMap::new();
    for (name, values) in written.0 {
        for value in values.0 {
            headers.append(name.value.0.clone(), value.0);
        }
    }
    headers
}
