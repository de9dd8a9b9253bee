//! Listeners: their addresses, their limits, their chains.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::House;
use super::chain::Owner;
use crate::base::address::Address;
use crate::base::problem::{Problem, Span, Spanned};
use crate::base::values::Size;
use crate::config::de::Held;
use crate::config::raw::{self, Protocol};
use crate::config::types::{Limits, Listener, Protocols};

/// Less is refused by hyper, and a head of a real client may need as much.
const LEAST_HEADER_BYTES: u64 = 8 << 10;
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Who is at which address.
#[derive(Default)]
pub(super) struct Places(HashMap<Address, (String, Option<Span>)>);

impl Places {
    /// The address of one of our own ports, or its default.
    pub(super) fn own(
        &mut self,
        section: &str,
        address: Option<Spanned<Address>>,
        default: impl Into<SocketAddr>,
    ) -> Address {
        let span = address.as_ref().map(|address| address.span);
        let address = address.map_or_else(|| Address::Tcp(default.into()), |address| address.value);
        self.take(address.clone(), format!("`{section}`"), span);
        address
    }

    /// What is wrong with an address that someone has already.
    pub(super) fn conflict(&self, address: Option<&Spanned<Address>>) -> Option<Problem> {
        let address = address?;
        let (who, span) = self.0.get(&address.value)?;
        let message = format!("`{}` is already the address of {who}", address.value);
        let problem = Problem::error(address.span, message);
        Some(match span {
            Some(span) => problem.related(*span, "first used here"),
            None => problem.help(format!("{who} has it by default: give one of them another")),
        })
    }

    fn take(&mut self, address: Address, who: String, span: Option<Span>) {
        // Port 0 is a new one each time.
        if address.tcp().is_none_or(|address| address.port() != 0) {
            self.0.entry(address).or_insert((who, span));
        }
    }
}

pub(super) fn settle(
    item: Held<raw::Listener>,
    house: &mut House<'_>,
    places: &mut Places,
) -> Listener {
    let raw::Listener {
        name,
        address,
        protocols,
        trusted_proxies,
        middlewares,
        limits,
    } = item.value;
    let text = name.value.0;
    if let Some(problem) = places.conflict(Some(&address)) {
        house.report(problem);
    }
    places.take(
        address.value.clone(),
        format!("the listener `{text}`"),
        Some(address.span),
    );
    let place = format!("listeners/{text}");
    let middlewares = house.chains.flatten(&Owner::Place(&place), middlewares);
    Listener {
        name: Arc::from(text),
        address: address.value,
        protocols: settle_protocols(protocols, house),
        trusted_proxies: trusted_proxies.into_iter().map(|range| range.0).collect(),
        middlewares: middlewares.unwrap_or_default(),
        limits: settle_limits(&limits, house),
        span: name.span,
        fingerprint: item.fingerprint,
    }
}

fn settle_protocols(protocols: Option<Spanned<Vec<Protocol>>>, house: &House<'_>) -> Protocols {
    let Some(Spanned {
        value: protocols,
        span,
    }) = protocols
    else {
        return Protocols {
            http1: true,
            http2: true,
        };
    };
    if protocols.is_empty() {
        let message = "a listener without protocols understands nobody";
        house.report(Problem::error(span, message).help("leave `protocols` out for both"));
    }
    Protocols {
        http1: protocols.contains(&Protocol::Http1),
        http2: protocols.contains(&Protocol::Http2),
    }
}

fn settle_limits(limits: &raw::Limits, house: &House<'_>) -> Limits {
    let Spanned {
        value: Size(bytes),
        span,
    } = limits.header_bytes;
    if !(LEAST_HEADER_BYTES..=MOST_HEADER_BYTES).contains(&bytes) {
        house.report(Problem::error(
            span,
            "`header_bytes` must be from 8KiB to 16MiB",
        ));
    }
    Limits {
        connections: limits.connections,
        header_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        headers: limits.headers,
        header_timeout: limits.header_timeout.0,
        idle_timeout: limits.idle_timeout.0,
        connection_age: limits.connection_age.map(|age| age.0),
        streams: limits.streams,
    }
}
