//! The same endpoint for the same key, by a table that the endpoints fill in turn (Eisenbud and
//! others, "Maglev", 2016).
//!
//! Each endpoint goes through the table in an order of its own and takes the next free entry, as
//! often as its weight says. Shares are even to an entry, where the ring's differ by a tenth; when
//! an endpoint of 100 leaves, 0.6 % of all keys move besides its own.

use std::cmp::Reverse;
use std::time::Instant;

use crate::base::key::mix;
use crate::upstream::balance::hashed::Hashed;
use crate::upstream::balance::settings::Hashing;
use crate::upstream::balance::{Candidate, Choice, Choose, Outcome, Start};

/// A prime, the paper's own, and the same for any number of endpoints: in a table of another size
/// nearly every key would have another place. Filling it takes about 2 ms, more than half of it to
/// find the last few free entries.
const SIZE: u32 = 65_537;

/// An entry that nobody has taken; not a place, of which there are fewer.
const FREE: u16 = u16::MAX;

/// The table and whom it leads to.
#[derive(Debug)]
pub(super) struct Maglev {
    /// Places; empty without candidates.
    table: Box<[u16]>,
    hashed: Hashed,
}

impl Maglev {
    pub(super) fn new(start: &Start<'_>, settings: &Hashing, before: Option<&Self>) -> Self {
        let hashed = Hashed::new(start, settings, before.map(|before| &before.hashed));
        Self {
            table: fill(hashed.candidates()),
            hashed,
        }
    }
}

impl Choose for Maglev {
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        let key = choice.key.unwrap_or(choice.random);
        self.hashed.take(probes(&self.table, key), choice.avoid)
    }

    fn begin(&mut self, number: u32) {
        self.hashed.begin(number);
    }

    fn settle(&mut self, number: u32, _: Outcome, _: Instant) {
        self.hashed.settle(number);
    }
}

/// Who has a key's entry, and then the entries of further hashes of it, without end.
fn probes(table: &[u16], key: u64) -> impl Iterator<Item = u16> {
    let next = |key: &u64| Some(mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    let hashes = std::iter::successors(Some(key), next);
    hashes.map_while(|hash| table.get(entry(hash)).copied())
}

/// The entry of a hash.
fn entry(hash: u64) -> usize {
    let entry = ((hash >> 32) * u64::from(SIZE)) >> 32;
    usize::try_from(entry).unwrap_or_default()
}

/// An endpoint's way through the table.
struct Way {
    next: u32,
    skip: u32,
    taken: u32,
    /// The entries that are its due; all together the whole table.
    quota: u32,
}

/// The table of endpoints that are sorted by hash.
///
/// In each of so many rounds that equals take one entry a round, each takes what is due until then.
fn fill(candidates: &[Candidate]) -> Box<[u16]> {
    let mut ways = ways(candidates);
    if ways.is_empty() {
        return Box::default();
    }
    let rounds = (SIZE as usize).div_ceil(ways.len()) as u64;
    let mut table = vec![FREE; SIZE as usize];
    for round in 1..=rounds {
        for (place, way) in (0..).zip(&mut ways) {
            let due = u64::from(way.quota) * round / rounds;
            while u64::from(way.taken) < due {
                way.take(&mut table, place);
            }
        }
    }
    table.into()
}

fn ways(candidates: &[Candidate]) -> Vec<Way> {
    let way = |(candidate, quota): (&Candidate, u32)| Way {
        next: below(SIZE, mix(candidate.hash ^ 0x6f66_6673_6574)),
        skip: 1 + below(SIZE - 1, mix(candidate.hash ^ 0x736b_6970)),
        taken: 0,
        quota,
    };
    candidates.iter().zip(quotas(candidates)).map(way).collect()
}

/// How many entries are due to each: rounded down, and what is left goes to the largest remainders,
/// among equals to the first, so that one that leaves changes few quotas.
fn quotas(candidates: &[Candidate]) -> Vec<u32> {
    let weight = |candidate: &Candidate| u64::from(candidate.weight);
    let total = candidates.iter().map(weight).sum::<u64>().max(1);
    let due = |candidate: &Candidate| u64::from(SIZE) * weight(candidate);
    let whole = |candidate: &Candidate| u32::try_from(due(candidate) / total).unwrap_or(SIZE);
    let mut quotas: Vec<u32> = candidates.iter().map(whole).collect();
    let left = SIZE.saturating_sub(quotas.iter().sum());
    let mut by_remainder: Vec<_> = candidates.iter().zip(&mut quotas).collect();
    by_remainder.sort_by_key(|(candidate, _)| Reverse(due(candidate) % total));
    for (_, quota) in by_remainder.into_iter().take(left as usize) {
        *quota += 1;
    }
    quotas
}

/// A number below `count`.
fn below(count: u32, hash: u64) -> u32 {
    u32::try_from(((hash >> 32) * u64::from(count)) >> 32).unwrap_or_default()
}

impl Way {
    /// Takes its next free entry. There is one while not all quotas are filled, and a way through a
    /// table of prime size passes every entry.
    fn take(&mut self, table: &mut [u16], place: u16) {
        self.taken += 1;
        for _ in 0..SIZE {
            let here = table.get_mut(self.next as usize);
            self.next += self.skip;
            if self.next >= SIZE {
                self.next -= SIZE;
            }
            if let Some(here) = here
                && *here == FREE
            {
                *here = place;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{candidates, map, moved, pick};
    use crate::upstream::balance::{Balance, Balancer};

    fn balance() -> Balance {
        serde_json::from_str(r#"{"maglev": {"by": "client_ip"}}"#).expect("a policy")
    }

    #[test]
    fn the_table_is_shared_by_weight_to_an_entry() {
        let check = |weights: &[u32]| {
            let table = fill(&candidates(weights));
            assert_eq!(table.len(), SIZE as usize);
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0_u32; weights.len()];
            table
                .iter()
                .for_each(|place| counts[usize::from(*place)] += 1);
            for (count, weight) in counts.iter().zip(weights) {
                let due = f64::from(SIZE) * f64::from(*weight) / f64::from(total);
                assert!(
                    (f64::from(*count) - due).abs() <= 1.0,
                    "{weights:?}: {count} of {due}"
                );
            }
        };
        check(&[1]);
        check(&[1, 1, 1]);
        check(&[1; 1_000]);
        check(&[1, 2, 3, 50]);
        check(&[&[1; 999][..], &[10_000]].concat());
        assert!(fill(&[]).is_empty());
    }

    #[test]
    fn an_endpoint_that_leaves_moves_less_than_a_hundredth_of_the_other_keys() {
        let check = |weights: &[u32], leaver: u32, most: usize| {
            let all = candidates(weights);
            let mut rest = all.clone();
            rest.retain(|candidate| candidate.number != leaver);
            let moved = moved(&balance(), &all, &rest, 20_000);
            assert!(
                moved.others <= most && moved.own > 0,
                "{leaver} of {}: {moved:?}",
                weights.len()
            );
        };
        for leaver in [0, 17, 50, 99] {
            check(&[1; 100], leaver, 200);
        }
        check(&[1; 1_000], 700, 200);
        check(&[&[1; 50][..], &[4; 50]].concat(), 60, 200);
        check(&[1, 1, 1], 1, 20);
    }

    #[test]
    fn a_key_keeps_its_place_in_every_version() {
        let now = Instant::now();
        let mut balancer = Balancer::new(&balance(), &candidates(&[1; 10]), 0, now, None);
        let picks: Vec<_> = (0..12).map(|key| pick(&mut balancer, mix(key))).collect();
        assert_eq!(picks, [5, 6, 2, 0, 4, 6, 8, 6, 7, 6, 1, 6]);
        assert_eq!(map(&balance(), &[], 1), Vec::<u32>::new());
    }
}
