//! One look-up: from the name that is written to the endpoints that it means.
//!
//! Search domains are walked through once; then the full name that answered is asked alone, as long
//! as it exists. In a pod, where `ndots` is 5, that is one question instead of up to five.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hickory_resolver::proto::rr::{Name, Record as Row, RecordType};

use super::ask::{Addresses, Asker, Miss};
use super::records::{self, MAX_TARGETS, Targets, addresses, least_ttl, written};
use super::settings::{Family, Record, Settings};
use super::system::{Places, System};
use crate::upstream::discovery::{Found, MAX_FOUND};

/// So many targets of SRV records are asked for at once.
const AT_ONCE: usize = 8;

/// Looks a name up, again and again.
pub(super) struct Looks<'a> {
    settings: &'a Settings,
    places: Places,
    system: Option<System>,
    /// The full name that answered last.
    known: Option<Name>,
    asked: Cell<u32>,
    /// Whether it was told that there are more targets than are followed.
    is_cut: bool,
}

/// The endpoints that a name means, and for how long they count.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) found: Vec<Found>,
    pub(super) ttl: Duration,
    left_out: usize,
}

impl<'a> Looks<'a> {
    /// Nothing looked up yet.
    pub(super) fn new(settings: &'a Settings, places: Places) -> Self {
        Self {
            settings,
            places,
            system: None,
            known: None,
            asked: Cell::new(0),
            is_cut: false,
        }
    }

    /// How many questions the last look-up took.
    pub(super) fn asked(&self) -> u32 {
        self.asked.get()
    }

    /// Looks it up: at least one endpoint, or the reason why there is none.
    pub(super) async fn look(&mut self) -> Result<Answer, String> {
        self.asked.set(0);
        let system = match self.system.take() {
            Some(system) if system.is_current(&self.places) => system,
            _ => {
                self.known = None;
                System::read(&self.places, self.settings.server, self.settings.timeout)?
            }
        };
        let system = self.system.insert(system);
        let asker = Asker {
            system,
            settings: self.settings,
            asked: &self.asked,
        };
        let host = self.settings.host.as_str();
        let name = Name::from_ascii(host).map_err(|error| format!("`{host}`: {error}"))?;
        let answer = asker.find(&name, &mut self.known).await.map_err(|miss| {
            let record = match (self.settings.record, self.settings.family) {
                (Record::Srv, _) => "SRV",
                (_, Family::Ipv4) => "A",
                (_, Family::Ipv6) => "AAAA",
                (_, Family::PreferIpv4 | Family::Both) => "A or AAAA",
            };
            miss.about(host, record)
        })?;
        if answer.found.len() > MAX_FOUND {
            return Err(format!("`{host}` has more than {MAX_FOUND} endpoints"));
        }
        if answer.left_out > 0 && !self.is_cut {
            let left_out = answer.left_out;
            tracing::warn!(
                host,
                left_out,
                "only {MAX_TARGETS} targets of SRV records are followed"
            );
        }
        self.is_cut = answer.left_out > 0;
        Ok(answer)
    }
}

impl Asker<'_> {
    /// Asks for the name that answered last, or for each that may be meant until one answers.
    async fn find(&self, name: &Name, known: &mut Option<Name>) -> Result<Answer, Miss> {
        let is_address = matches!(self.settings.record, Record::Address { .. });
        if let Some(addresses) = self.hosts(name).filter(|_| is_address) {
            return Ok(self.endpoints(&addresses));
        }
        if let Some(full) = known.take() {
            let answer = self.full(&full).await;
            if !matches!(&answer, Err(miss) if miss.is_absence()) {
                *known = Some(full);
                return answer;
            }
        }
        let mut worst: Option<Miss> = None;
        for full in self.system.names(name) {
            match self.full(&full).await {
                Ok(answer) => {
                    // With a failure before, another name may be the one that is meant.
                    let is_certain = worst.as_ref().is_none_or(Miss::is_absence);
                    *known = is_certain.then_some(full);
                    return Ok(answer);
                }
                Err(miss @ Miss::Silent(_)) => return Err(miss),
                Err(miss) => worst = Some(worse(worst, miss)),
            }
        }
        Err(worst.unwrap_or(Miss::NoName))
    }

    async fn full(&self, full: &Name) -> Result<Answer, Miss> {
        match self.settings.record {
            Record::Address { .. } => self.addresses(full).await.map(|all| self.endpoints(&all)),
            Record::Srv => self.services(full).await,
        }
    }

    fn endpoints(&self, addresses: &Addresses) -> Answer {
        let Record::Address { port } = self.settings.record else {
            return Answer::new(Duration::ZERO);
        };
        let host = self.settings.host.as_str();
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut answer = Answer::new(addresses.ttl);
        answer.add(host, &addresses.list, &[(port, 1)]);
        answer
    }

    async fn services(&self, full: &Name) -> Result<Answer, Miss> {
        let lookup = self.records(full, RecordType::SRV).await?;
        let Targets { list, left_out } = records::targets(lookup.answers());
        if list.is_empty() {
            let reason = format!("the SRV records of `{full}` say that there is no such service");
            return Err(Miss::Refused(reason));
        }
        let glue = lookup.additionals();
        let resolved: Vec<_> = stream::iter(list)
            .map(|(target, ports)| async move {
                match self.target(&target, glue).await {
                    Ok(addresses) => Ok(Some((target, ports, addresses))),
                    // A pod that has gone; its record will follow.
                    Err(miss) if miss.is_absence() => Ok(None),
                    Err(miss) => Err(miss),
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut answer = Answer::new(least_ttl(lookup.answers()));
        answer.left_out = left_out;
        for (target, ports, addresses) in resolved.into_iter().flatten() {
            answer.ttl = answer.ttl.min(addresses.ttl);
            answer.add(&written(&target), &addresses.list, &ports);
        }
        if answer.found.is_empty() {
            let reason = format!("no target of the SRV records of `{full}` has an address");
            return Err(Miss::Refused(reason));
        }
        Ok(answer)
    }

    /// The addresses of a target: from what came along with its record, or asked for.
    async fn target(&self, target: &Name, glue: &[Row]) -> Result<Addresses, Miss> {
        if let Some(addresses) = self.hosts(target) {
            return Ok(addresses);
        }
        match along(target, glue, self.settings.family) {
            Some(addresses) => Ok(addresses),
            None => self.addresses(target).await,
        }
    }
}

impl Answer {
    fn new(ttl: Duration) -> Self {
        Self {
            found: Vec::new(),
            ttl,
            left_out: 0,
        }
    }

    fn add(&mut self, host: &str, addresses: &[IpAddr], ports: &[(u16, u32)]) {
        for &(port, weight) in ports {
            self.found.extend(addresses.iter().map(|&ip| Found {
                address: SocketAddr::new(ip, port).into(),
                weight,
                zone: None,
                host: Some(host.to_owned()),
            }));
        }
    }
}

/// The addresses of a target that a server sent along unasked.
fn along(target: &Name, glue: &[Row], family: Family) -> Option<Addresses> {
    let own: Vec<Row> = glue
        .iter()
        .filter(|record| &record.name == target && record.data.ip_addr().is_some())
        .cloned()
        .collect();
    let is_whole = match family {
        // A packet that is full ends where it ends: what is missing may exist.
        Family::Both => {
            let has = |kind| own.iter().any(|record| record.record_type() == kind);
            has(RecordType::A) && has(RecordType::AAAA)
        }
        Family::PreferIpv4 | Family::Ipv4 => own.iter().any(|r| r.record_type() == RecordType::A),
        Family::Ipv6 => own.iter().any(|r| r.record_type() == RecordType::AAAA),
    };
    is_whole.then(|| Addresses {
        list: family.choose(|kind| addresses(&own, kind)),
        ttl: least_ttl(&own),
    })
}

/// What is told of several: a failure before an absence, and of absences the one that knew the name.
fn worse(before: Option<Miss>, now: Miss) -> Miss {
    match (before, now) {
        (None | Some(Miss::NoName), now) => now,
        (Some(Miss::NoRecord), now) if !now.is_absence() => now,
        (Some(before), _) => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::RData;

    #[test]
    fn what_came_along_is_used_only_if_it_is_whole() {
        let row = |name: &str, address: &str| {
            let address: IpAddr = address.parse().expect(address);
            let name = Name::from_ascii(name).expect(name);
            Row::from_rdata(name, 30, RData::from(address))
        };
        let four = row("a.", "10.0.0.1");
        let six = row("a.", "::1");
        let other = row("b.", "10.0.0.2");
        let check = |glue: &[&Row], family: Family, expected: Option<usize>| {
            let glue: Vec<Row> = glue.iter().map(|&row| row.clone()).collect();
            let target = Name::from_ascii("a.").expect("a name");
            let found = along(&target, &glue, family);
            assert_eq!(
                found.map(|all| all.list.len()),
                expected,
                "{glue:?} {family:?}"
            );
        };
        check(&[&four, &six, &other], Family::PreferIpv4, Some(1));
        check(&[&six], Family::PreferIpv4, None);
        check(&[&six], Family::Ipv6, Some(1));
        check(&[&four], Family::Ipv6, None);
        check(&[&four, &six], Family::Both, Some(2));
        check(&[&four], Family::Both, None);
        check(&[&other], Family::Ipv4, None);
        check(&[], Family::Ipv4, None);
    }

    #[test]
    fn a_failure_is_told_before_an_absence() {
        let failed = || Miss::Refused("SERVFAIL".into());
        assert_eq!(worse(None, Miss::NoName), Miss::NoName);
        assert_eq!(worse(Some(Miss::NoName), Miss::NoRecord), Miss::NoRecord);
        assert_eq!(worse(Some(Miss::NoRecord), Miss::NoName), Miss::NoRecord);
        assert_eq!(worse(Some(Miss::NoRecord), failed()), failed());
        assert_eq!(worse(Some(failed()), Miss::NoName), failed());
    }
}
