//! HTTP/2 with prior knowledge: many requests on one connection.
//!
//! A worker keeps one connection to an endpoint. While it is being made, everyone waits for the same
//! attempt: without that a burst of requests opens a connection each. A further one is made only
//! when every stream that the endpoint allows is in use.
//!
//! No request is handed to a connection before the endpoint has said how many it allows, and none over
//! that number: hyper would hold it back, and lose it if the connection ended meanwhile.

mod connection;
mod shared;

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;

use crate::base::body::{Body, Noted};
use crate::base::clock;
use crate::base::message::{Request, Response, ResponseHead};
use crate::base::seats::Hold;
use crate::upstream::client::Connections;
use crate::upstream::client::exchange::{Anew, Exchange, Sent};
use crate::upstream::client::{Site, Unanswered, wire};
use crate::upstream::failure::{Cause, Failure};
use connection::Connection;
pub(super) use shared::Shared;

/// How often a request is sent again that a dying connection handed back untouched.
const TRIES: u32 = 3;

/// A request that is given up after less than this says nothing about its connection.
const SILENCE: Duration = Duration::from_millis(500);

/// Sends a request as one more stream.
pub(super) fn send(
    site: Rc<Site>,
    request: Request,
) -> impl Future<Output = Result<Response, Box<Failure>>> + use<> {
    match shared(&site).and_then(|shared| shared.take(&site)) {
        Some(connection) => Exchange::new(start(site, connection, request)),
        None => Exchange::Anew {
            sending: Box::pin(send_anew(site, request)),
        },
    }
}

/// The same after the first connection turned out to be dead, or there was none.
async fn send_anew(site: Rc<Site>, mut request: Request) -> Result<Response, Box<Failure>> {
    let mut tries = 1;
    loop {
        let connection = match find(&site).await {
            Ok(connection) => connection,
            Err(failure) => return Err(failure.with_request(request)),
        };
        let (answer, sent) = start(Rc::clone(&site), connection, request);
        request = match answer.await {
            Ok(response) => return sent.answered(response),
            Err(error) => {
                let unsent = sent.unsent(error)?;
                if tries == TRIES {
                    let detail = format!(
                        "{} closes every connection before a request is sent on it",
                        site.label()
                    );
                    return Err(site.failure(Cause::Closed, detail).with_request(unsent));
                }
                unsent
            }
        };
        tries += 1;
    }
}

fn shared(site: &Site) -> Option<&Shared> {
    match &site.connections {
        Connections::Http1(_) => None,
        Connections::Http2(shared) => Some(shared),
    }
}

/// A connection with a stream to spare, made or waited for if there is none.
async fn find(site: &Rc<Site>) -> Result<Rc<Connection>, Box<Failure>> {
    match shared(site) {
        Some(shared) => shared.find(site).await,
        None => Err(site.failure(Cause::Protocol, "the endpoint does not speak HTTP/2".into())),
    }
}

/// Hands a request to its connection.
fn start(
    site: Rc<Site>,
    connection: Rc<Connection>,
    mut request: Request,
) -> (
    impl Future<Output = Result<http::Response<Incoming>, Unanswered>> + use<>,
    InFlight,
) {
    let now = site.tally.now.get();
    let aside = wire::Aside::take(&mut request.head);
    let noted = note_overflow(&mut request);
    let (hold, answer) = connection.send(wire::http2(request, &site.endpoint), now);
    let sent = InFlight {
        site,
        hold,
        watch: Watch {
            heard: connection.traffic.heard(),
            written: connection.traffic.written(),
            since: now,
            connection,
        },
        aside,
        noted,
    };
    (answer, sent)
}

/// What a request leaves behind when it was handed to its connection.
struct InFlight {
    site: Rc<Site>,
    hold: Hold,
    watch: Watch,
    aside: wire::Aside,
    noted: Option<Noted>,
}

/// Takes a connection out of use when a request is given up on it and nothing came in meanwhile.
///
/// The host may be gone without a word. What is under way goes on to its end, and the next request
/// finds out on a new connection. Asking with a ping would be surer, but some endpoints close
/// connections on which they are pinged often.
struct Watch {
    connection: Rc<Connection>,
    since: Instant,
    /// What had come and gone before the request.
    heard: u32,
    written: u32,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An answer is heard, so only requests without one read the clock.
        if self.connection.traffic.heard() == self.heard && clock::since(self.since) >= SILENCE {
            self.connection.retire();
        }
    }
}

impl Sent for InFlight {
    fn answered(self, response: http::Response<Incoming>) -> Result<Response, Box<Failure>> {
        let (parts, body) = response.into_parts();
        Ok(Response {
            head: ResponseHead::from_http(parts),
            body: Body::wire_held(body, self.hold),
        })
    }

    fn unanswered(self, error: Unanswered) -> Result<Anew, Box<Failure>> {
        let site = Rc::clone(&self.site);
        let request = self.unsent(error)?;
        Ok(Box::pin(send_anew(site, request)))
    }
}

impl InFlight {
    /// The request, if it was not made a stream; else the failure.
    fn unsent(self, mut error: Unanswered) -> Result<Request, Box<Failure>> {
        if let Some(message) = error.take_message() {
            return Ok(self.aside.restore(message));
        }
        let mut failure = self.site.explain(&error.into_error());
        if matches!(failure.cause, Cause::Closed)
            && self.watch.connection.traffic.written() == self.watch.written
        {
            // Nothing at all was written since: neither was this.
            failure.unprocessed = true;
        }
        Err(with_body_error(failure, self.noted.as_ref()))
    }
}

/// Has the body's failure noted, where it can be our own limit.
///
/// hyper answers a failed body with a reset of the stream and forgets why; "too large" is worth an
/// allocation, for it is the client's fault and not the endpoint's.
fn note_overflow(request: &mut Request) -> Option<Noted> {
    if !request.body.has_limit() {
        return None;
    }
    let (body, noted) = std::mem::take(&mut request.body).noted();
    request.body = body;
    Some(noted)
}

fn with_body_error(mut failure: Box<Failure>, noted: Option<&Noted>) -> Box<Failure> {
    if let Some(error) = noted.and_then(Noted::get) {
        failure.detail = format!("the body of the request failed: {error}");
        failure.cause = Cause::RequestBody(error);
    }
    failure
}
