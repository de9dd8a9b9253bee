//! Where a check goes, and until when it may take.

use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use tokio::time::Instant;

use crate::base::address::Address;
use crate::upstream::Endpoint;
use crate::upstream::connect::{self, Socket};
use crate::upstream::failure::words;

/// An endpoint, or another port of its host.
#[derive(Debug)]
pub(super) struct Place<'e> {
    address: Cow<'e, Address>,
    /// The address as people read it.
    label: Cow<'e, str>,
    /// What a request calls the host.
    pub(super) host: Authority,
}

impl<'e> Place<'e> {
    pub(super) fn new(endpoint: &'e Endpoint, port: Option<NonZeroU16>) -> Self {
        let (address, label, host) = match (&endpoint.address, port) {
            (Address::Tcp(address), Some(port)) => {
                let other = Address::Tcp(SocketAddr::new(address.ip(), port.get()));
                let label = other.to_string();
                let host = Authority::try_from(label.as_str()).ok();
                (Cow::Owned(other), Cow::Owned(label), host)
            }
            (address, _) => (
                Cow::Borrowed(address),
                Cow::Borrowed(&*endpoint.label),
                Authority::try_from(endpoint.host.as_bytes()).ok(),
            ),
        };
        Self {
            address,
            label,
            host: host.unwrap_or_else(|| Authority::from_static("localhost")),
        }
    }

    /// The address as people read it.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// A new connection, or why there is none.
    pub(super) async fn connect(&self, deadline: Deadline) -> Result<Socket, String> {
        // Nobody is told of informational answers to a check.
        let informs = Arc::default();
        connect::connect(&self.address, deadline.left(), &informs)
            .await
            .map_err(|error| match error {
                Some(error) => format!("{} {}", words(&error), self.label),
                None => deadline.missed(&format!("no connection to {}", self.label)),
            })
    }
}

/// Until when a check may take, all in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self {
            at: Instant::now() + timeout,
            timeout,
        }
    }

    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// What the future gives in time; else `what` has not happened.
    pub(super) async fn bound<F: Future>(self, what: &str, future: F) -> Result<F::Output, String> {
        tokio::time::timeout_at(self.at, future)
            .await
            .map_err(|_| self.missed(&what))
    }

    fn missed(self, what: &dyn Display) -> String {
        format!("{what} within {:?}", self.timeout)
    }
}
