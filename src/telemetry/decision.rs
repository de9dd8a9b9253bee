//! The decision record: which route, who answered, whom we tried, and why.
//!
//! One small record per request, filled as it goes. The access log, the metrics and whoever asks
//! later all read this one record, so they can never disagree.

use std::borrow::Cow;
use std::time::Duration;

use smallvec::SmallVec;

macro_rules! flags {
    ($($name:ident $code:literal $text:literal,)*) => {
        /// Why the gateway itself answered, or how an upstream failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Flag {$(
            #[doc = $text]
            $name,
        )*}

        impl Flag {
            /// Every flag, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The letters of every flag, in the same order.
            pub const CODES: &[&str] = &[$($code),*];

            /// The flag of these letters.
            pub fn by_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The letters in logs and metrics.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// One sentence of meaning.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

flags! {
    NoRoute "NR" "no route matches the request",
    MethodNotAllowed "MNA" "a route matches, but not with this method",
    NoHealthyEndpoint "UH" "the upstream has no endpoint that may take a request",
    ConnectFailed "UF" "the connection to the upstream could not be made",
    UpstreamClosed "UC" "the upstream closed the connection before its answer was complete",
    UpstreamTimeout "UT" "the upstream did not answer in time",
    Overflow "UO" "a limit of the upstream or of the gateway is reached",
    RetriesExhausted "URX" "every attempt failed",
    UpstreamProtocol "UPE" "the upstream broke the protocol",
    ClientLeft "DC" "the client left before the answer was complete",
    Deadline "DT" "the request's deadline passed",
    RateLimited "RL" "a rate limit is used up",
    Unauthenticated "AN" "the client did not prove who it is",
    Unauthorized "AZ" "the client may not do this",
    FaultInjected "FI" "a fault was injected on purpose",
    Draining "LR" "the gateway is shutting down",
    BodyTooLarge "BTL" "the request's body is over its limit",
    HeadersTooLarge "HTL" "the request's head is over its limit",
    HandlerFailed "HE" "the handler failed",
    HandlerTimeout "HT" "the handler did not answer in time",
    BadRequest "BR" "the request is malformed or ambiguous",
    Loop "LOOP" "the request has passed through gateways too often",
}

/// One try of a request at one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Which endpoint, by its number in the upstream.
    pub endpoint: u32,
    /// From the choice of the endpoint to the answer's head, or to the failure.
    pub took: Duration,
    /// The answer's status.
    pub status: Option<u16>,
    /// How it failed.
    pub flag: Option<Flag>,
}

/// What was decided about one request.
#[derive(Debug, Default)]
pub struct Decision {
    /// Why the gateway answered itself, or how the upstream failed; none for a plain answer.
    pub flag: Option<Flag>,
    /// One sentence that adds to the flag.
    pub detail: Option<Cow<'static, str>>,
    /// The middleware that answered, by its kind.
    pub middleware: Option<&'static str>,
    /// Rules that acted, each with what it did; empty unless something notable happened.
    pub notes: SmallVec<[Cow<'static, str>; 1]>,
    /// Whom we tried.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// The request's id, once a middleware or the client has set one.
    pub request_id: Option<http::HeaderValue>,
}

impl Decision {
    /// Says why, once; the first reason stays.
    pub fn fail(&mut self, flag: Flag, detail: impl Into<Cow<'static, str>>) {
        if self.flag.is_none() {
            self.flag = Some(flag);
            self.detail = Some(detail.into());
        }
    }

    /// Notes what a rule did.
    pub fn note(&mut self, note: impl Into<Cow<'static, str>>) {
        self.notes.push(note.into());
    }
}
