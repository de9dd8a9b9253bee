//! The same endpoint for the same key, by a ring of hashes (Karger and others, 1997).
//!
//! Every endpoint has points on a ring, as many as its weight asks for; a key belongs to the next
//! point clockwise. An endpoint that leaves leaves its keys to its neighbours on the ring and no
//! other key moves; the same when one comes. Weights count relative to the heaviest: only when that
//! one changes its weight, or was the only one of it and leaves, points of all others come or go.
//!
//! Shares differ by about a tenth, those of light endpoints by more, as points fall by chance;
//! `maglev` is more even.

use std::time::Instant;

use crate::base::key::mix;
use crate::upstream::balance::hashed::Hashed;
use crate::upstream::balance::settings::Hashing;
use crate::upstream::balance::{Candidate, Choice, Choose, Outcome, Start};

/// Points of the heaviest endpoint: its share is right to about a tenth.
const POINTS: u64 = 128;

/// The largest ring: a megabyte, built in about 3 ms. Where it would be larger, all have half the
/// points, and so on: from 1,025 endpoints of equal weight.
const LARGEST: u64 = 1 << 17;

/// A point that takes every key.
const ALWAYS: u16 = u16::MAX;

/// The ring and who stands on it.
#[derive(Debug)]
pub(super) struct RingHash {
    /// In ascending order.
    points: Box<[Point]>,
    hashed: Hashed,
}

/// Ordered by where it stands, and on the same spot by the endpoint's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: u32,
    place: u16,
    /// The part of keys that it takes: all, but for an endpoint's last point, which makes up the
    /// fraction of a point that its weight asks for.
    takes: u16,
}

impl RingHash {
    pub(super) fn new(start: &Start<'_>, settings: &Hashing, before: Option<&Self>) -> Self {
        let hashed = Hashed::new(start, settings, before.map(|before| &before.hashed));
        Self {
            points: ring(hashed.candidates()),
            hashed,
        }
    }
}

impl Choose for RingHash {
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        let key = choice.key.unwrap_or(choice.random);
        self.hashed.take(clockwise(&self.points, key), choice.avoid)
    }

    fn begin(&mut self, number: u32) {
        self.hashed.begin(number);
    }

    fn settle(&mut self, number: u32, _: Outcome, _: Instant) {
        self.hashed.settle(number);
    }
}

/// Whose points come after a key, once around the ring.
fn clockwise(points: &[Point], key: u64) -> impl Iterator<Item = u16> {
    let at = spot(key);
    let first = points.partition_point(|point| point.at < at);
    let (before, after) = points.split_at_checked(first).unwrap_or((points, &[]));
    let takes = move |point: &&Point| {
        point.takes == ALWAYS || spot(mix(key ^ u64::from(point.at))) >> 16 < point.takes.into()
    };
    let around = after.iter().chain(before);
    around.filter(takes).map(|point| point.place)
}

/// The points of endpoints that are sorted by hash.
fn ring(candidates: &[Candidate]) -> Box<[Point]> {
    let weights = candidates.iter().map(|each| u64::from(each.weight));
    let heaviest = weights.clone().max().unwrap_or(1);
    let heaviest_ones = weights.sum::<u64>().div_ceil(heaviest);
    let mut each = POINTS;
    while each > 1 && each * heaviest_ones > LARGEST {
        each /= 2;
    }
    let mut points = Vec::new();
    for (place, candidate) in (0..).zip(candidates) {
        let due = u64::from(candidate.weight) * each;
        let (whole, rest) = (due / heaviest, due % heaviest);
        let point = |number: u64, takes: u16| Point {
            at: spot(mix(candidate.hash.wrapping_add(mix(number + 1)))),
            place,
            takes,
        };
        points.extend((0..whole).map(|number| point(number, ALWAYS)));
        let part = u16::try_from(rest * u64::from(ALWAYS) / heaviest).unwrap_or(ALWAYS - 1);
        if rest > 0 {
            points.push(point(whole, part.max(1)));
        }
    }
    points.sort_unstable();
    points.into()
}

/// Where a hash stands on the ring.
fn spot(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::testing::{candidates, map, moved, pick};
    use crate::upstream::balance::{Balance, Balancer};

    fn balance() -> Balance {
        serde_json::from_str(r#"{"ring_hash": {"by": "client_ip"}}"#).expect("a policy")
    }

    #[test]
    fn an_endpoint_that_leaves_moves_its_own_keys_only() {
        let check = |weights: &[u32], leaver: u32| {
            let all = candidates(weights);
            let mut rest = all.clone();
            rest.retain(|candidate| candidate.number != leaver);
            let moved = moved(&balance(), &all, &rest, 20_000);
            assert_eq!(moved.others, 0, "{leaver} of {weights:?}: {moved:?}");
            assert!(moved.own > 0, "{leaver} of {weights:?}: {moved:?}");
        };
        for leaver in [0, 17, 50, 99] {
            check(&[1; 100], leaver);
        }
        check(&[1, 2, 3, 10, 10], 1);
        check(&[100, 100, 7], 2);
        check(&[1, 1], 0);
    }

    #[test]
    fn an_endpoint_that_grows_draws_keys_to_itself_only() {
        let mut before = map(&balance(), &candidates(&[10, 10, 1]), 20_000);
        for weight in 2..=10 {
            let after = map(&balance(), &candidates(&[10, 10, weight]), 20_000);
            for (before, after) in before.iter().zip(&after) {
                assert!(
                    before == after || *after == 2,
                    "{weight}: {before} to {after}"
                );
            }
            before = after;
        }
        // The same weights in another unit are the same ring.
        let scaled = map(&balance(), &candidates(&[1, 1, 1]), 20_000);
        assert_eq!(before, scaled);
    }

    #[test]
    fn the_ring_is_as_large_as_it_should_be() {
        let check = |weights: &[u32], least: usize, most: usize| {
            let start = Start {
                candidates: &candidates(weights),
                random: 0,
                now: Instant::now(),
            };
            let Balance::RingHash(settings) = balance() else {
                panic!("it is a ring");
            };
            let points = RingHash::new(&start, &settings, None).points.len();
            assert!((least..=most).contains(&points), "{points}");
        };
        check(&[], 0, 0);
        check(&[7], 128, 128);
        check(&[1; 3], 384, 384);
        check(&[1; 1_000], 128_000, 128_000);
        check(&[1; 1_025], 65_600, 65_600);
        check(&vec![10_000; 5_000], 80_000, 80_000);
        check(&[&[1; 999][..], &[10_000]].concat(), 1_127, 1_127);
        check(&vec![1; 70_000], 131_068, 131_072);
    }

    #[test]
    fn weights_that_are_next_to_nothing_hold_too() {
        let weights = [&[1; 500][..], &[1_000]].concat();
        let picks = map(&balance(), &candidates(&weights), 30_000);
        let light = picks.iter().filter(|number| **number < 500).count();
        assert!((9_000..11_000).contains(&light), "{light}");
    }

    #[test]
    fn a_key_keeps_its_place_in_every_version() {
        let now = Instant::now();
        let mut balancer = Balancer::new(&balance(), &candidates(&[1; 10]), 0, now, None);
        let picks: Vec<_> = (0..12).map(|key| pick(&mut balancer, mix(key))).collect();
        assert_eq!(picks, [2, 8, 6, 1, 2, 2, 1, 2, 4, 2, 3, 4]);
    }
}
