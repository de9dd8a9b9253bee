//! Upstreams for rehearsals: with the endpoints of the real ones, and without a network.
//!
//! What such an upstream decides is decided by the code of the real one. It only does not look for
//! endpoints, does not check them, and tells nobody how they do.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::clock;
use crate::telemetry::metrics::UpstreamSeries;
use crate::upstream::discovery::{self, dns::Record};
use crate::upstream::endpoint::{self, Endpoint, EndpointSettings, Target};
use crate::upstream::limits;
use crate::upstream::members::{Member, Members};
use crate::upstream::roster::Roster;
use crate::upstream::{Settings, Upstream};

impl Upstream {
    /// The upstream of those settings where nothing can be asked: each host name is one endpoint of
    /// that name, discovery finds a single one, and all of them are healthy.
    pub fn rehearsed(
        name: &str,
        settings: &Settings,
        zone: Option<&str>,
        series: Arc<UpstreamSeries>,
    ) -> Arc<Self> {
        let written = settings.endpoints.iter().flatten();
        let mut endpoints: Vec<Endpoint> = written
            .enumerate()
            .map(|(place, entry)| stand_in(place, entry))
            .collect();
        endpoints.extend(settings.discovery.as_ref().map(found));
        let settings = Settings {
            health_check: None,
            discovery: None,
            ..settings.clone()
        };
        let mut roster = Roster::new(&settings, zone);
        let now = clock::now();
        roster.list(endpoint::merged(endpoints), now);
        let members = roster.members(now);
        Self::assemble(name, settings, zone, series, (roster, members), true)
    }

    /// The same upstream with its endpoints as they stand now, for a rehearsal beside it: nothing that
    /// happens there is held against them, and its limits have room.
    #[must_use]
    pub fn understudy(&self) -> Arc<Self> {
        let settings = Settings {
            health_check: None,
            discovery: None,
            outlier: None,
            limits: limits::Settings::default(),
            ..self.settings.clone()
        };
        let zone = self.zone.as_deref();
        let roster = Roster::new(&settings, zone);
        let members = self.members().unwatched();
        let series = Arc::clone(&self.series);
        Self::assemble(&self.name, settings, zone, series, (roster, members), true)
    }
}

impl Members {
    /// The same members without anybody who counts their failures.
    fn unwatched(&self) -> Self {
        let slot = |slot: &Option<Member>| {
            slot.as_ref().map(|member| Member {
                watch: None,
                in_use: Arc::default(),
                ..member.clone()
            })
        };
        self.with_slots(slot)
    }
}

/// An endpoint as it is written, under its own name.
fn stand_in(place: usize, entry: &EndpointSettings) -> Endpoint {
    let EndpointSettings {
        address,
        weight,
        zone,
    } = entry;
    match address {
        Target::Address(address) => Endpoint::new(address.clone(), *weight, zone.clone()),
        Target::Name { host, port } => {
            let mut endpoint = Endpoint::new(nowhere(place, *port), *weight, zone.clone());
            endpoint.label = format!("{host}:{port}").into();
            endpoint
        }
    }
}

/// The one endpoint that discovery finds.
fn found(settings: &discovery::Settings) -> Endpoint {
    let (label, port) = match settings {
        discovery::Settings::Dns(dns) => match dns.record {
            Record::Address { port } => (format!("{}:{port}", dns.host.as_str()), port),
            Record::Srv => (dns.host.as_str().to_owned(), 80),
        },
        discovery::Settings::File(_) => ("an endpoint of the files".to_owned(), 80),
    };
    let mut endpoint = Endpoint::new(nowhere(0, port), 1, None);
    if let discovery::Settings::Dns(dns) = settings {
        endpoint.be_called(dns.host.as_str());
    }
    endpoint.label = label.into();
    endpoint
}

/// An address that leads nowhere (RFC 5737), a different one for each place.
fn nowhere(place: usize, port: u16) -> Address {
    let last = u8::try_from(place % 254).unwrap_or(0) + 1;
    Address::Tcp((Ipv4Addr::new(192, 0, 2, last), port).into())
}
