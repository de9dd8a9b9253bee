//! In turn, each endpoint as often as its weight says, spread as evenly as can be.
//!
//! The k-th turn of an endpoint of weight w is due at (k + ½) / w; whoever is due first goes. After
//! as many turns as all weights together each endpoint had exactly its weight. A heap makes a pick
//! logarithmic, where the usual smooth algorithm looks at every endpoint.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The length of a cycle in the time of turns; enough for weights to 10,000 and a billion picks.
const CYCLE: u64 = 1 << 32;

/// The order of turns.
#[derive(Debug)]
pub struct RoundRobin {
    turns: BinaryHeap<Turn>,
    /// Picks in a full cycle: the sum of the weights.
    cycle: u64,
    /// Picks that are left of this cycle.
    left: u64,
    /// Those passed over in a pick; kept to reuse its memory.
    passed: Vec<Turn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// (k + ½) / w in parts of [`CYCLE`]; the rounding is far below the distance of two turns.
    due: u64,
    /// 1 / w.
    step: u64,
    /// Who goes first among equals; differs between workers, or they would all start alike.
    tie: u32,
    endpoint: u32,
}

impl RoundRobin {
    /// Turns for these endpoints and weights; `random` decides where the order begins.
    pub fn new(ready: impl Iterator<Item = (u32, u32)>, random: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(random);
        let mut cycle = 0;
        let mut turn = |(endpoint, weight): (u32, u32)| {
            cycle += u64::from(weight);
            let step = CYCLE / u64::from(weight);
            Turn {
                due: step / 2,
                step,
                tie: rng.u32(..),
                endpoint,
            }
        };
        let ready = ready.filter(|(_, weight)| *weight > 0);
        let turns = ready.map(&mut turn).collect();
        Self {
            turns,
            cycle,
            left: cycle,
            passed: Vec::new(),
        }
    }

    /// Whose turn it is; none if no endpoint is ready.
    ///
    /// Those in `avoid` are passed over and keep their turn, unless there is no other.
    pub fn pick(&mut self, avoid: &[u32]) -> Option<u32> {
        if self.left == 0 {
            self.begin();
        }
        while let Some(turn) = self.turns.peek()
            && avoid.contains(&turn.endpoint)
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

    /// Begins a new cycle: numbers stay small, and what was passed over is forgotten.
    fn begin(&mut self) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for turn in &mut turns {
            turn.due = turn.step / 2;
        }
        self.turns = turns.into();
        self.left = self.cycle;
    }
}

impl Ord for Turn {
    /// The greatest is due first, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.tie, other.endpoint).cmp(&(self.due, self.tie, self.endpoint))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn numbered(weights: &[u32]) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(weights.iter().copied())
    }

    #[test]
    fn no_endpoint_means_no_pick() {
        assert_eq!(RoundRobin::new(numbered(&[]), 1).pick(&[]), None);
        assert_eq!(RoundRobin::new(numbered(&[0]), 1).pick(&[]), None);
    }

    #[test]
    fn turns_of_a_heavy_endpoint_are_spread() {
        let mut turns = RoundRobin::new(numbered(&[4, 2]), 7);
        let picks: Vec<_> = (0..6).filter_map(|_| turns.pick(&[])).collect();
        let longest = picks.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
        assert_eq!(longest, Some(2), "{picks:?}");
    }

    #[test]
    fn workers_begin_at_different_endpoints() {
        let first = |seed| RoundRobin::new(numbered(&[1; 10]), seed).pick(&[]);
        let firsts: std::collections::HashSet<_> = (0..50).map(first).collect();
        assert!(firsts.len() > 5, "{firsts:?}");
    }

    #[test]
    fn the_avoided_one_is_taken_only_if_there_is_no_other() {
        let mut turns = RoundRobin::new(numbered(&[1, 1, 1]), 3);
        for _ in 0..20 {
            assert_ne!(turns.pick(&[1]), Some(1));
        }
        assert_eq!(turns.pick(&[0, 2]), Some(1));
        assert!(turns.pick(&[0, 1, 2]).is_some());
    }

    proptest! {
        #[test]
        fn a_cycle_gives_each_exactly_its_weight(
            weights in proptest::collection::vec(1..20_u32, 1..30), seed: u64,
        ) {
            let mut turns = RoundRobin::new(numbered(&weights), seed);
            let total: u32 = weights.iter().sum();
            for _ in 0..3 {
                let mut counts = HashMap::<u32, u32>::new();
                for _ in 0..total {
                    *counts.entry(turns.pick(&[]).expect("ready")).or_default() += 1;
                }
                for (endpoint, weight) in numbered(&weights) {
                    prop_assert_eq!(counts.get(&endpoint), Some(&weight));
                }
            }
        }

        #[test]
        fn at_no_time_is_anyone_two_turns_from_its_share(
            weights in proptest::collection::vec(1..50_u32, 1..10), seed: u64,
        ) {
            let mut turns = RoundRobin::new(numbered(&weights), seed);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let mut counts = vec![0_u32; weights.len()];
            for picks in 1..=200_u32 {
                counts[turns.pick(&[]).expect("ready") as usize] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = f64::from(picks) * f64::from(*weight) / total;
                    prop_assert!((f64::from(*count) - share).abs() < 2.0, "{:?}", counts);
                }
            }
        }
    }
}
