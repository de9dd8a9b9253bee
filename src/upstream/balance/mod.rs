//! How an endpoint is chosen: one file a policy, one line here.
//!
//! A policy is built for one immutable list of endpoints that may take requests and belongs to one
//! worker; it is built anew when the list changes, and takes over what the one before has learned.
//! Choosing is a function of its state, the request's key, a random number and the time: no clock,
//! no socket, no lock, no allocation.

mod draw;
mod hashed;
mod in_flight;
mod least_request;
mod maglev;
mod p2c_ewma;
mod random;
mod ring_hash;
mod round_robin;
mod settings;
mod slots;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::de::{Error, MapAccess};

pub use settings::{Bound, Hashing};

/// One endpoint that may take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number: small, and its own for as long as it is known.
    pub number: u32,
    /// Its share of requests, relative to the others; more than 0.
    pub weight: u32,
    /// The hash of its address, by which every process knows it.
    pub hash: u64,
}

/// What a choice may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Endpoints to take only if there is no other: those where earlier attempts failed.
    pub avoid: &'a [u32],
    /// The hash of the request's key, for policies that send a key to one place; none chooses by
    /// chance.
    pub key: Option<u64>,
    /// A random number.
    pub random: u64,
    /// The time.
    pub now: Instant,
}

/// How a request at an endpoint ended, as far as balancing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of an answer came after this time.
    Answered(Duration),
    /// No usable answer: refused, broken off, or an answer that says "not me" (502, 503, 504).
    Failed(Duration),
    /// Nobody waited for the answer any longer than this.
    Abandoned(Duration),
}

/// What a policy is built from.
#[derive(Debug, Clone, Copy)]
struct Start<'a> {
    candidates: &'a [Candidate],
    random: u64,
    now: Instant,
}

/// What every policy does.
trait Choose {
    /// The endpoint for a request; none if there is no candidate. It counts as started.
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32>;

    /// A request starts at an endpoint that something else has chosen.
    fn begin(&mut self, _number: u32) {}

    /// What became of a request; its endpoint may have left since.
    fn settle(&mut self, _number: u32, _outcome: Outcome, _now: Instant) {}
}

/// Makes of the list of policies what names them: settings, building, dispatch.
macro_rules! policies {
    ($($(#[$attribute:meta])* $kind:ident => $Type:ident $(($settings:ident: $Settings:ty))?,)*) => {
        /// How an endpoint is chosen for each request.
        #[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
        #[schemars(rename_all = "snake_case")]
        pub enum Balance {$(
            $(#[$attribute])*
            $Type $(($Settings))?,
        )*}

        impl Balance {
            /// Every kind, as it is written.
            const KINDS: &'static [&'static str] = &[$(stringify!($kind)),*];

            /// The kind, as it is written.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$Type { .. } => stringify!($kind),)* }
            }

            /// A kind that stands alone.
            fn bare<E: Error>(kind: &str) -> Result<Self, E> {
                match kind {
                    $(stringify!($kind) => policies!(@bare $kind $Type $($settings)?),)*
                    _ => Err(E::unknown_variant(kind, Self::KINDS)),
                }
            }

            /// A kind whose settings are the next value of the map.
            fn configured<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<Self, A::Error> {
                match kind {
                    $(stringify!($kind) => policies!(@configured map $kind $Type $($settings)?),)*
                    _ => Err(A::Error::unknown_variant(kind, Self::KINDS)),
                }
            }
        }

        /// The state of a policy.
        #[derive(Debug)]
        enum Policy {$(
            $Type($kind::$Type),
        )*}

        impl Policy {
            fn new(balance: &Balance, start: &Start<'_>, before: Option<&Self>) -> Self {
                match balance {$(
                    Balance::$Type $(($settings))? => {
                        let before = match before {
                            Some(Self::$Type(before)) => Some(before),
                            _ => None,
                        };
                        Self::$Type($kind::$Type::new(start, $($settings,)? before))
                    }
                )*}
            }
        }

        impl Choose for Policy {
            fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
                match self {$( Self::$Type(policy) => policy.pick(choice), )*}
            }

            fn begin(&mut self, number: u32) {
                match self {$( Self::$Type(policy) => policy.begin(number), )*}
            }

            fn settle(&mut self, number: u32, outcome: Outcome, now: Instant) {
                match self {$( Self::$Type(policy) => policy.settle(number, outcome, now), )*}
            }
        }
    };

    (@bare $kind:ident $Type:ident) => { Ok(Self::$Type) };
    (@bare $kind:ident $Type:ident $settings:ident) => {
        Err(E::custom(settings::needs_settings(stringify!($kind))))
    };
    (@configured $map:ident $kind:ident $Type:ident) => {
        Err(A::Error::custom(settings::has_no_settings(stringify!($kind))))
    };
    (@configured $map:ident $kind:ident $Type:ident $settings:ident) => {
        $map.next_value().map(Self::$Type)
    };
}

policies! {
    /// In turn, each as often as its weight says.
    round_robin => RoundRobin,
    /// By chance, each as often as its weight says.
    random => Random,
    /// The one of two random ones that has fewer requests in flight for its weight.
    least_request => LeastRequest,
    /// The better of two random ones, by latency and requests in flight: slow and failing endpoints
    /// get little traffic, without any configuration.
    #[default]
    p2c_ewma => P2cEwma,
    /// The same endpoint for the same key, by a ring of hashes: an endpoint that comes or goes moves
    /// no keys but its own.
    ring_hash => RingHash(settings: Hashing),
    /// The same endpoint for the same key, by a table of hashes: even shares, and little more than
    /// its own keys moves when an endpoint comes or goes.
    maglev => Maglev(settings: Hashing),
}

/// The balancer of one worker for one upstream.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
}

impl Balancer {
    /// A balancer over these endpoints.
    ///
    /// `before` is the balancer of the list before this one: what it has learned of an endpoint with
    /// the same number and hash is taken over.
    pub fn new(
        balance: &Balance,
        candidates: &[Candidate],
        random: u64,
        now: Instant,
        before: Option<&Self>,
    ) -> Self {
        let weighs = |candidate: &&Candidate| candidate.weight > 0;
        let candidates: Vec<Candidate> = candidates.iter().filter(weighs).copied().collect();
        let start = Start {
            candidates: &candidates,
            random,
            now,
        };
        Self {
            policy: Policy::new(balance, &start, before.map(|before| &before.policy)),
        }
    }

    /// The endpoint for a request that starts now; none if there is no candidate.
    ///
    /// Every pick is to be followed by one [`Self::settle`], at this balancer or the one after it.
    pub fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        self.policy.pick(choice)
    }

    /// A request starts at an endpoint that its client stays with; to be settled like a pick.
    pub fn begin(&mut self, number: u32) {
        self.policy.begin(number);
    }

    /// What became of a picked endpoint's request; harmless if the endpoint has left since.
    pub fn settle(&mut self, number: u32, outcome: Outcome, now: Instant) {
        self.policy.settle(number, outcome, now);
    }
}
