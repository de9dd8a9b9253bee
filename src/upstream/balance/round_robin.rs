//! In turn, each endpoint as often as its weight says, spread as evenly as can be.
//!
//! The k-th turn of an endpoint of weight w is due at (k + p) / w, where its phase p is between 0 and
//! 1; whoever is due first goes. After as many turns as all weights together each endpoint had
//! exactly its weight. A heap makes a pick logarithmic, where the usual smooth algorithm looks at
//! every endpoint.
//!
//! Phases are drawn anew for each list and follow each other by the golden ratio, which keeps those
//! of equal weight apart: light endpoints do not all take their turn at once, and lists that change
//! often do not always begin with the heaviest.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::upstream::balance::{Candidate, Choice, Choose, Start};

/// The length of a cycle in the time of turns: the rounding of a step, times the heaviest weight of
/// 100,000, stays below a hundredth of that step.
const CYCLE: u64 = 1 << 40;

/// The golden ratio's part after the point, of 2⁶⁴.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The order of turns.
#[derive(Debug)]
pub(super) struct RoundRobin {
    turns: BinaryHeap<Turn>,
    /// Picks in a full cycle: the sum of the weights.
    cycle: u64,
    /// Picks that are left of this cycle.
    left: u64,
    /// Those passed over in a pick; room for all of them, so that a pick does not allocate.
    passed: Vec<Turn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// (k + p) / w in parts of [`CYCLE`].
    due: u64,
    /// 1 / w.
    step: u64,
    /// p / w.
    first: u64,
    endpoint: u32,
}

impl RoundRobin {
    /// The order of turns; the random number decides where it begins.
    pub(super) fn new(start: &Start<'_>, _before: Option<&Self>) -> Self {
        let mut rng = fastrand::Rng::with_seed(start.random);
        let mut order = start.candidates.to_vec();
        rng.shuffle(&mut order);
        let mut phase = rng.u64(..);
        let turn = |candidate: &Candidate| {
            phase = phase.wrapping_add(GOLDEN);
            let step = CYCLE / u64::from(candidate.weight.max(1));
            // 24 bits of the phase are enough, and more would not fit.
            let first = ((phase >> 40) * step) >> 24;
            Turn {
                due: first,
                step,
                first,
                endpoint: candidate.number,
            }
        };
        let turns: BinaryHeap<Turn> = order.iter().map(turn).collect();
        let cycle = order.iter().map(|each| u64::from(each.weight)).sum();
        Self {
            passed: Vec::with_capacity(turns.len()),
            turns,
            cycle,
            left: cycle,
        }
    }

    /// Begins a new cycle: numbers stay small, and what was passed over is forgotten.
    fn begin(&mut self) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for turn in &mut turns {
            turn.due = turn.first;
        }
        self.turns = turns.into();
        self.left = self.cycle;
    }
}

impl Choose for RoundRobin {
    /// Those to avoid are passed over and keep their turn, unless there is no other.
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        if self.left == 0 {
            self.begin();
        }
        while let Some(turn) = self.turns.peek()
            && choice.avoid.contains(&turn.endpoint)
            && let Some(turn) = self.turns.pop()
        {
            self.passed.push(turn);
        }
        if self.turns.is_empty() {
            self.turns.extend(self.passed.drain(..));
        }
        let endpoint = self.turns.peek_mut().map(|mut turn| {
            turn.due = turn.due.saturating_add(turn.step);
            turn.endpoint
        });
        self.turns.extend(self.passed.drain(..));
        self.left = self.left.saturating_sub(1);
        endpoint
    }
}

impl Ord for Turn {
    /// The greatest is due first, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.first, other.endpoint).cmp(&(self.due, self.first, self.endpoint))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::upstream::balance::testing::{candidates, choice};

    fn over(weights: &[u32], random: u64) -> RoundRobin {
        let start = Start {
            candidates: &candidates(weights),
            random,
            now: Instant::now(),
        };
        RoundRobin::new(&start, None)
    }

    fn next(turns: &mut RoundRobin, avoid: &[u32]) -> Option<u32> {
        turns.pick(&Choice {
            avoid,
            ..choice(0, Instant::now())
        })
    }

    #[test]
    fn no_endpoint_means_no_pick() {
        assert_eq!(next(&mut over(&[], 1), &[]), None);
    }

    #[test]
    fn turns_of_a_heavy_endpoint_are_spread() {
        let mut turns = over(&[4, 2], 7);
        let picks: Vec<_> = (0..6).filter_map(|_| next(&mut turns, &[])).collect();
        let longest = picks.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
        assert_eq!(longest, Some(2), "{picks:?}");
    }

    #[test]
    fn workers_begin_at_different_endpoints() {
        let first = |seed| next(&mut over(&[1; 10], seed), &[]);
        let firsts: HashSet<_> = (0..50).map(first).collect();
        assert!(firsts.len() > 5, "{firsts:?}");
    }

    #[test]
    fn a_list_that_changes_often_does_not_always_begin_with_the_heaviest() {
        let firsts = (0..1_000).filter_map(|seed| next(&mut over(&[4, 1, 1], seed), &[]));
        let heavy = firsts.filter(|first| *first == 0).count();
        assert!((550..850).contains(&heavy), "{heavy} of 1000");
    }

    #[test]
    fn light_endpoints_do_not_all_take_their_turn_at_once() {
        for seed in 0..50 {
            let mut turns = over(&[&[50][..], &[1; 50]].concat(), seed);
            let picks: Vec<_> = (0..100).filter_map(|_| next(&mut turns, &[])).collect();
            let runs = picks.chunk_by(|a, b| (*a > 0) == (*b > 0));
            let longest = runs.map(<[u32]>::len).max();
            assert!(longest <= Some(4), "{picks:?}");
        }
    }

    #[test]
    fn the_avoided_one_is_taken_only_if_there_is_no_other() {
        let mut turns = over(&[1, 1, 1], 3);
        for _ in 0..20 {
            assert_ne!(next(&mut turns, &[1]), Some(1));
        }
        assert_eq!(next(&mut turns, &[0, 2]), Some(1));
        assert!(next(&mut turns, &[0, 1, 2]).is_some());
    }

    proptest! {
        #[test]
        fn a_cycle_gives_each_exactly_its_weight(
            weights in proptest::collection::vec(1..20_u32, 1..30), seed: u64,
        ) {
            let mut turns = over(&weights, seed);
            let total: u32 = weights.iter().sum();
            for _ in 0..3 {
                let mut counts = HashMap::<u32, u32>::new();
                for _ in 0..total {
                    *counts.entry(next(&mut turns, &[]).expect("ready")).or_default() += 1;
                }
                for (endpoint, weight) in (0..).zip(weights.iter().copied()) {
                    prop_assert_eq!(counts.get(&endpoint), Some(&weight));
                }
            }
        }

        #[test]
        fn at_no_time_is_anyone_three_turns_from_its_share(
            weights in proptest::collection::vec(1..50_u32, 1..10), seed: u64,
        ) {
            let mut turns = over(&weights, seed);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let mut counts = vec![0_u32; weights.len()];
            for picks in 1..=200_u32 {
                counts[next(&mut turns, &[]).expect("ready") as usize] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = f64::from(picks) * f64::from(*weight) / total;
                    prop_assert!((f64::from(*count) - share).abs() < 3.0, "{:?}", counts);
                }
            }
        }
    }
}
