//! What can be read from records without asking.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::upstream::discovery::MAX_WEIGHT;

/// So many targets of SRV records are looked up; there may be a question for each.
pub(super) const MAX_TARGETS: usize = 256;

/// The targets that SRV records name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Targets {
    /// Those that are taken, in order: a name, and the ports and weights that it has.
    pub(super) list: Vec<(Name, Vec<(u16, u32)>)>,
    /// How many were too many.
    pub(super) left_out: usize,
}

/// The targets of the lowest priority value, which are those that come first (RFC 2782).
pub(super) fn targets(records: &[Record]) -> Targets {
    let services = || {
        records.iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service),
            _ => None,
        })
    };
    let first = services().map(|service| service.priority).min();
    // The root as a target says that there is no such service.
    let is_taken = |service: &&SRV| {
        Some(service.priority) == first && !service.target.is_root() && service.port > 0
    };
    let heaviest = services()
        .filter(is_taken)
        .map(|service| service.weight)
        .max();
    let mut by_name = BTreeMap::<Name, Vec<(u16, u32)>>::new();
    for service in services().filter(is_taken) {
        let mut target = service.target.clone();
        target.set_fqdn(true);
        let weight = weight(service.weight, heaviest.unwrap_or_default());
        by_name
            .entry(target)
            .or_default()
            .push((service.port, weight));
    }
    let left_out = by_name.len().saturating_sub(MAX_TARGETS);
    // The same ones are left out each time, so that the list stands still.
    let list = by_name.into_iter().take(MAX_TARGETS).collect();
    Targets { list, left_out }
}

/// A weight of 0 means that none was meant. Weights that are too large for us keep their relations.
fn weight(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let weight = if heaviest > MAX_WEIGHT {
        weight * MAX_WEIGHT / heaviest
    } else {
        weight
    };
    weight.max(1)
}

/// The addresses of one kind.
pub(super) fn addresses(records: &[Record], kind: RecordType) -> Vec<IpAddr> {
    let of_kind = records.iter().filter(|record| record.record_type() == kind);
    of_kind.filter_map(|record| record.data.ip_addr()).collect()
}

/// For how long all of them count. An alias on the way counts, too.
pub(super) fn least_ttl(records: &[Record]) -> Duration {
    let least = records.iter().map(|record| record.ttl).min();
    Duration::from_secs(least.unwrap_or_default().into())
}

/// A name without the dot of the root.
pub(super) fn written(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect(text)
    }

    fn service(priority: u16, weight: u16, port: u16, target: &str) -> Record {
        let data = RData::SRV(SRV::new(priority, weight, port, name(target)));
        Record::from_rdata(name("_grpc._tcp.users."), 30, data)
    }

    fn taken(records: &[Record]) -> Vec<(String, Vec<(u16, u32)>)> {
        let list = targets(records).list.into_iter();
        list.map(|(target, ports)| (written(&target), ports))
            .collect()
    }

    #[test]
    fn only_the_lowest_priority_value_counts() {
        let records = [
            service(20, 9, 80, "c."),
            service(10, 5, 80, "b."),
            service(10, 0, 81, "b."),
            service(10, 7, 80, "a."),
        ];
        let expected = [
            ("a".to_owned(), vec![(80, 7)]),
            ("b".to_owned(), vec![(80, 5), (81, 1)]),
        ];
        assert_eq!(taken(&records), expected);
    }

    #[test]
    fn large_weights_keep_their_relations_within_ours() {
        let records = [
            service(0, 60_000, 80, "a."),
            service(0, 30_000, 80, "b."),
            service(0, 1, 80, "c."),
        ];
        let weights: Vec<u32> = taken(&records)
            .iter()
            .flat_map(|(_, ports)| ports.iter().map(|(_, weight)| *weight))
            .collect();
        assert_eq!(weights, [10_000, 5_000, 1]);
    }

    #[test]
    fn the_root_as_a_target_is_no_endpoint() {
        assert_eq!(taken(&[service(0, 0, 0, ".")]), []);
        assert_eq!(taken(&[]), []);
    }

    #[test]
    fn too_many_targets_are_left_out_always_the_same() {
        let mut records: Vec<Record> = (0..300)
            .map(|number| service(0, 1, 80, &format!("pod-{number:03}.")))
            .collect();
        let there = targets(&records);
        assert_eq!((there.list.len(), there.left_out), (256, 44));
        records.reverse();
        assert_eq!(targets(&records), there);
    }

    #[test]
    fn the_least_time_to_live_counts() {
        let mut records = [service(0, 1, 80, "a."), service(0, 1, 80, "b.")];
        records[1].ttl = 7;
        assert_eq!(least_ttl(&records), Duration::from_secs(7));
        assert_eq!(least_ttl(&[]), Duration::ZERO);
    }
}
