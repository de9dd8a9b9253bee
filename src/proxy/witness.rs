//! Somebody who watches a request on its way.
//!
//! A rehearsal has one, service has none. It changes nothing but what would reach beyond the request:
//! see [`Effects`] and [`Witness::stands_in`].

use std::borrow::Cow;

use crate::base::message::{RequestHead, Response};
use crate::handler::Handler;
use crate::middleware::Effects;
use crate::proxy::context::Exchange;
use crate::proxy::retry::Nature;

/// Hears of each decision about a request, in the order in which they are made.
pub(crate) trait Witness {
    /// What middlewares may change beyond the request.
    fn effects(&self) -> Effects;

    /// The head after admission: in its normal form, and with what is believed of it.
    fn admitted(&self, exchange: &Exchange, head: &RequestHead);

    /// The route is found, or not. The head is as it was admitted.
    fn routed(&self, exchange: &Exchange, route: Option<usize>, head: &RequestHead);

    /// A middleware has seen the request.
    fn passed(&self, hook: &Hook<'_>);

    /// The request has passed its chains, and goes to its backend.
    fn forwarded(&self, exchange: &Exchange, place: usize);

    /// It goes to an upstream: may it be repeated?
    fn nature(&self, nature: Nature);

    /// The answer of a handler that shall not run.
    fn stands_in(&self, handler: &Handler) -> Option<Response>;

    /// The record is closed.
    fn closed(&self, exchange: &Exchange);
}

/// A middleware's turn.
#[derive(Debug)]
pub(crate) struct Hook<'a> {
    /// Whose chain: 0 is the listener's, 1 the route's, 2 the backend's.
    pub chain: usize,
    /// Its name in the configuration, or its kind.
    pub label: &'a str,
    /// What it looks at, in a few words.
    pub about: Option<String>,
    /// The head that it saw.
    pub before: &'a RequestHead,
    /// The head that it left.
    pub after: &'a RequestHead,
    /// What it noted in the record.
    pub notes: &'a [Cow<'static, str>],
    /// Its answer, if it gave one.
    pub answer: Option<&'a Response>,
}
