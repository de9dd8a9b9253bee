//! What is counted of each handler, and of each middleware that answers.

use std::time::Duration;

use super::catalogue::Metric;
use super::codes::{Codes, Key, Method};
use super::exposition::{Admission, Exposition, HISTOGRAM_LINES};
use super::family::Series;
use super::histogram::{Histogram, LATENCY, Total};
use super::shard::Shards;

/// The series of one handler.
#[derive(Debug)]
pub struct HandlerSeries {
    handler: Box<str>,
    shards: Shards<Shard>,
    admission: Admission,
}

#[derive(Debug, Default)]
struct Shard {
    codes: Codes,
    duration: Histogram,
}

impl HandlerSeries {
    pub(super) fn new(handler: &str, workers: usize) -> Self {
        Self {
            handler: handler.into(),
            shards: Shards::new(workers),
            admission: Admission::default(),
        }
    }

    /// The handler has answered with a head.
    #[inline]
    pub fn answer(&self, worker: usize, status: u16, took: Duration) {
        let shard = self.shards.of(worker);
        shard.codes.add(Key::new(Method::Other, Some(status), None));
        shard.duration.observe(&LATENCY, took);
    }
}

impl Series for HandlerSeries {
    fn collect(&self, out: &mut Exposition<'_>) {
        if self.shards.used().next().is_none() {
            return;
        }
        let handler = &*self.handler;
        if self.admission.all(out.budget, HISTOGRAM_LINES) {
            let duration = Total::of(&self.shards, |shard| &shard.duration);
            out.histogram(Metric::HandlerDuration, &[handler], &duration);
        }
        for (key, count) in Codes::merge(&self.shards, |shard| &shard.codes) {
            if self.admission.by_key(out.budget, key) {
                out.number(Metric::HandlerRequests, &[handler, &key.code()], count);
            }
        }
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }
}

/// The series of one middleware on one route.
#[derive(Debug)]
pub struct MiddlewareSeries {
    route: Box<str>,
    middleware: Box<str>,
    shards: Shards<Codes>,
    admission: Admission,
}

impl MiddlewareSeries {
    pub(super) fn new(route: &str, middleware: &str, workers: usize) -> Self {
        Self {
            route: route.into(),
            middleware: middleware.into(),
            shards: Shards::new(workers),
            admission: Admission::default(),
        }
    }

    /// The middleware has answered itself.
    #[inline]
    pub fn answer(&self, worker: usize, status: u16) {
        let key = Key::new(Method::Other, Some(status), None);
        self.shards.of(worker).add(key);
    }
}

impl Series for MiddlewareSeries {
    fn collect(&self, out: &mut Exposition<'_>) {
        for (key, count) in Codes::merge(&self.shards, |codes| codes) {
            if self.admission.by_key(out.budget, key) {
                let labels = [&*self.route, &*self.middleware, &key.code()];
                out.number(Metric::MiddlewareAnswers, &labels, count);
            }
        }
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }
}
