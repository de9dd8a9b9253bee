//! Draws by weight: one endpoint, or two to choose from.

use crate::base::key::mix;
use crate::upstream::balance::Candidate;

/// How often chance may hit an endpoint to avoid before all are looked at.
const TRIES: u64 = 8;

/// Endpoints and their weights, to draw from.
#[derive(Debug)]
pub(super) struct Draw {
    numbers: Box<[u32]>,
    /// Running sums of the weights; empty where all are equal.
    sums: Box<[u64]>,
}

impl Draw {
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        let first = candidates.first().map(|candidate| candidate.weight);
        let equal = candidates.iter().all(|each| Some(each.weight) == first);
        let weighted = if equal { &[] } else { candidates };
        let sums = weighted.iter().scan(0, |sum, candidate| {
            *sum += u64::from(candidate.weight);
            Some(*sum)
        });
        Self {
            numbers: candidates.iter().map(|each| each.number).collect(),
            sums: sums.collect(),
        }
    }

    /// True if not all weights are equal.
    pub(super) fn is_weighted(&self) -> bool {
        !self.sums.is_empty()
    }

    /// One by weight; one to avoid only if there is no other.
    pub(super) fn one(&self, avoid: &[u32], random: u64) -> Option<u32> {
        if avoid.is_empty() {
            return self.at(self.place(random));
        }
        self.other(avoid, None, random)
            .or_else(|| self.at(self.place(random)))
    }

    /// Two different ones, of which the first is drawn by weight, and the second by weight *with*
    /// replacement: of two endpoints, draws without it would always compare the same pair, and
    /// weights would mean nothing. If both draws hit the same, the second is any other; else a bad
    /// endpoint with a share s of the weights would be compared with nobody in s² of the draws.
    ///
    /// The same twice if there is no other.
    pub(super) fn two(&self, avoid: &[u32], random: u64) -> Option<(u32, u32)> {
        if !avoid.is_empty()
            && let Some(one) = self.other(avoid, None, random)
        {
            let two = self.other(avoid, Some(one), mix(random));
            return Some((one, two.unwrap_or(one)));
        }
        let others = match self.numbers.len() {
            0 => return None,
            1 => return self.at(0).map(|only| (only, only)),
            count => count - 1,
        };
        let one = self.place(random >> 32);
        let mut two = if self.is_weighted() {
            self.place(random)
        } else {
            one
        };
        if one == two {
            let random = if self.is_weighted() {
                random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
            } else {
                random
            };
            let after = one + 1 + scale(random, others);
            two = if after > others {
                after - others - 1
            } else {
                after
            };
        }
        Some((self.at(one)?, self.at(two)?))
    }

    /// One by weight that is neither to avoid nor `taken`; none if there is none.
    fn other(&self, avoid: &[u32], taken: Option<u32>, random: u64) -> Option<u32> {
        let allowed = |number: u32| Some(number) != taken && !avoid.contains(&number);
        for attempt in 0..TRIES {
            let number = self.at(self.place(mix(random.wrapping_add(attempt))))?;
            if allowed(number) {
                return Some(number);
            }
        }
        // Few of them, or light ones: look at all.
        let places = || {
            (0..)
                .zip(&self.numbers)
                .filter(|(_, number)| allowed(**number))
        };
        let total = places().map(|(place, _)| self.weight(place)).sum();
        let mut ticket = portion(mix(!random), total);
        for (place, number) in places() {
            let weight = self.weight(place);
            if ticket < weight {
                return Some(*number);
            }
            ticket -= weight;
        }
        None
    }

    /// A place by weight, from the lower 32 bits of a random number.
    fn place(&self, random: u64) -> usize {
        match self.sums.last() {
            None => scale(random, self.numbers.len()),
            Some(total) => {
                let ticket = portion(random, *total);
                self.sums.partition_point(|sum| *sum <= ticket)
            }
        }
    }

    fn weight(&self, place: usize) -> u64 {
        if !self.is_weighted() {
            return 1;
        }
        let sum = |place: usize| self.sums.get(place).copied().unwrap_or_default();
        let before = place.checked_sub(1).map_or(0, sum);
        sum(place).saturating_sub(before)
    }

    fn at(&self, place: usize) -> Option<u32> {
        self.numbers.get(place).copied()
    }
}

/// A number below `total` from the lower 32 bits of a random one (Lemire, 2019).
///
/// Sums of weights stay far below 2⁶⁴; split, the product cannot pass it either.
fn portion(random: u64, total: u64) -> u64 {
    let random = random & 0xffff_ffff;
    random * (total >> 32) + ((random * (total & 0xffff_ffff)) >> 32)
}

/// The same for a place.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below `count`, which is a usize"
)]
fn scale(random: u64, count: usize) -> usize {
    portion(random, count as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::balance::testing::candidates;

    #[test]
    fn one_is_drawn_by_weight_and_those_to_avoid_leave_their_share_to_the_others() {
        let check = |weights: &[u32], avoid: &[u32], shares: &[f64]| {
            let draw = Draw::new(&candidates(weights));
            let mut rng = fastrand::Rng::with_seed(1);
            let mut counts = vec![0.0; weights.len()];
            for _ in 0..20_000 {
                counts[draw.one(avoid, rng.u64(..)).expect("one") as usize] += 1.0 / 20_000.0;
            }
            for (count, share) in counts.iter().zip(shares) {
                assert!(
                    (count - share).abs() < 0.02,
                    "{weights:?} {avoid:?}: {counts:?}"
                );
            }
        };
        check(&[1, 1], &[], &[0.5, 0.5]);
        check(&[1, 1, 1, 1], &[2], &[0.333, 0.333, 0.0, 0.333]);
        check(&[1, 3], &[], &[0.25, 0.75]);
        check(&[1, 3, 10_000], &[2], &[0.25, 0.75, 0.0]);
        check(&[1, 3], &[0, 1], &[0.25, 0.75]);
    }

    #[test]
    fn all_weights_matter_however_large_their_sum() {
        let draw = Draw::new(&candidates(&vec![1_000_000; 9_999]));
        assert_eq!(draw.one(&[], u64::MAX), Some(9_998));
        let mut weights = vec![1_000_000; 9_999];
        weights[9_998] -= 1;
        let draw = Draw::new(&candidates(&weights));
        assert_eq!(draw.one(&[], u64::MAX), Some(9_998));
        assert_eq!(draw.one(&[], 0), Some(0));
    }

    proptest! {
        #[test]
        fn two_are_different_and_not_to_avoid_where_that_can_be(
            weights in proptest::collection::vec(1..5_u32, 0..8),
            avoid in proptest::collection::vec(0..8_u32, 0..8),
            random: u64,
        ) {
            let draw = Draw::new(&candidates(&weights));
            let count = u32::try_from(weights.len()).expect("few");
            let good = (0..count).filter(|number| !avoid.contains(number)).count();
            let two = draw.two(&avoid, random);
            prop_assert_eq!(two.is_some(), count > 0);
            if let Some((one, two)) = two {
                prop_assert!(one < count && two < count);
                prop_assert_eq!(one == two, good == 1 || count == 1);
                prop_assert_eq!(avoid.contains(&one), good == 0);
                prop_assert_eq!(avoid.contains(&two), good == 0);
            }
        }
    }
}
