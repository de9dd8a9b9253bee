//! Requests in flight at each endpoint, in proportion to its weight.
//!
//! In flight is a request from its pick to the head of its answer, or its failure. Each worker
//! counts its own.

use crate::upstream::balance::settings::Bound;
use crate::upstream::balance::slots::Slots;
use crate::upstream::balance::{Candidate, Start};

/// Requests in flight, by the endpoint's number.
#[derive(Debug)]
pub(super) struct InFlight {
    flights: Slots<Flight>,
    /// At all candidates.
    pending: u64,
    /// Of all candidates.
    weights: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    pending: u32,
    /// 0 for one that is no candidate.
    weight: u32,
}

impl InFlight {
    pub(super) fn new(start: &Start<'_>, before: Option<&Self>) -> Self {
        let before = before.map(|before| &before.flights);
        let busy = |flight: &Flight| flight.pending > 0;
        let mut flights = Slots::new(start.candidates, Flight::default(), before, busy);
        for flight in flights.iter_mut() {
            flight.weight = 0;
        }
        let mut in_flight = Self {
            flights,
            pending: 0,
            weights: 0,
        };
        for candidate in start.candidates {
            in_flight.admit(candidate);
        }
        in_flight
    }

    fn admit(&mut self, candidate: &Candidate) {
        if let Some(flight) = self.flights.get_mut(candidate.number) {
            flight.weight = candidate.weight;
            self.weights += u64::from(candidate.weight);
            self.pending += u64::from(flight.pending);
        }
    }

    pub(super) fn start(&mut self, number: u32) {
        if let Some(flight) = self.flights.get_mut(number) {
            flight.pending += 1;
            self.pending += u64::from(flight.weight > 0);
        }
    }

    pub(super) fn end(&mut self, number: u32) {
        if let Some(flight) = self.flights.get_mut(number)
            && flight.pending > 0
        {
            flight.pending -= 1;
            let counted = u64::from(flight.weight > 0);
            self.pending = self.pending.saturating_sub(counted);
        }
    }

    /// True if `one` has more to do for its weight than `two`.
    pub(super) fn is_busier(&self, one: u32, two: u32) -> bool {
        let (one, two) = (self.flight(one), self.flight(two));
        let scaled = |pending: u32, weight: u32| u64::from(pending) * u64::from(weight);
        scaled(one.pending, two.weight) > scaled(two.pending, one.weight)
    }

    /// True if one request more would take the endpoint above this share of the average, the new
    /// request counted and the result rounded up (Mirrokni, Thorup and Zadimoghaddam, 2018).
    pub(super) fn is_full(&self, number: u32, bound: Bound) -> bool {
        let flight = self.flight(number);
        let product = |a: u64, b: u64, c: u64| u128::from(a) * u128::from(b) * u128::from(c);
        let percent = u64::from(bound.percent());
        product(flight.pending.into(), 100, self.weights)
            >= product(flight.weight.into(), percent, self.pending + 1)
    }

    fn flight(&self, number: u32) -> Flight {
        self.flights.get(number).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::upstream::balance::testing::candidates;

    fn over(candidates: &[Candidate], before: Option<&InFlight>) -> InFlight {
        let start = Start {
            candidates,
            random: 0,
            now: Instant::now(),
        };
        InFlight::new(&start, before)
    }

    #[test]
    fn what_is_pending_counts_in_proportion_to_the_weight() {
        let mut flights = over(&candidates(&[1, 3]), None);
        assert!(!flights.is_busier(0, 1) && !flights.is_busier(1, 0));
        flights.start(0);
        for _ in 0..3 {
            assert!(flights.is_busier(0, 1));
            flights.start(1);
        }
        assert!(!flights.is_busier(0, 1) && !flights.is_busier(1, 0));
        flights.end(0);
        assert!(flights.is_busier(1, 0));
    }

    #[test]
    fn a_bound_of_the_load_is_a_share_of_the_average_rounded_up() {
        let check = |weights: &[u32], pending: &[u32], full: &[bool]| {
            let mut flights = over(&candidates(weights), None);
            for (number, pending) in (0..).zip(pending) {
                (0..*pending).for_each(|_| flights.start(number));
            }
            let bound = "125%".parse().expect("a bound");
            let found: Vec<bool> = (0..)
                .take(weights.len())
                .map(|number| flights.is_full(number, bound))
                .collect();
            assert_eq!(found, full, "{weights:?} {pending:?}");
        };
        check(&[1, 1], &[0, 0], &[false, false]);
        check(&[1, 1], &[1, 0], &[false, false]); // 2 × 1.25 / 2 rounded up is 2
        check(&[1, 1, 1], &[1, 0, 0], &[true, false, false]);
        check(&[1, 1], &[5, 2], &[true, false]); // 8 × 1.25 / 2 is 5
        check(&[1, 1], &[4, 3], &[false, false]);
        check(&[3, 1], &[5, 1], &[false, false]); // 7 and 3
        check(&[3, 1], &[5, 3], &[false, true]); // 9 × 1.25 / 4 is 2.8, rounded up 3
        check(&[3, 1], &[7, 2], &[false, false]);
    }

    #[test]
    fn requests_of_an_endpoint_that_left_are_settled_and_count_again_when_it_comes_back() {
        let both = candidates(&[1, 1]);
        let mut flights = over(&both, None);
        flights.start(0);
        flights.start(0);
        let mut without = over(&both[1..], Some(&flights));
        assert_eq!(without.pending, 0);
        without.end(0);
        without.end(1);
        let mut back = over(&both, Some(&without));
        assert_eq!((back.pending, back.flight(0).pending), (1, 1));
        for _ in 0..3 {
            back.end(0);
            back.end(99);
        }
        assert_eq!((back.pending, back.flight(0).pending), (0, 0));
    }
}
