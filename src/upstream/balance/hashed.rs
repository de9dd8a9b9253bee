//! What the hashing policies share: whom to take where the key's own endpoint will not do.
//!
//! Each makes an order of endpoints out of a key; here the first of them is found that is not to be
//! avoided and, where the load is bounded, not full. Nothing here is random or depends on an
//! endpoint's number, so that all gateways send a key to the same place.

use crate::upstream::balance::in_flight::InFlight;
use crate::upstream::balance::settings::{Bound, Hashing};
use crate::upstream::balance::{Candidate, Start};

/// How many candidates a hashing policy can tell apart: a place has 16 bits, of which the last value
/// stands for none, and ranges of places end one later.
const MOST: usize = u16::MAX as usize - 1;

/// How far an order is followed. With the tightest bound, one of 100 endpoints may have room.
const STEPS: usize = 4_096;

/// The endpoints of a hashing policy.
#[derive(Debug)]
pub(super) struct Hashed {
    /// Sorted by hash; the place of an endpoint here is what the policies store.
    candidates: Box<[Candidate]>,
    bounded: Option<(Bound, InFlight)>,
}

impl Hashed {
    pub(super) fn new(start: &Start<'_>, settings: &Hashing, before: Option<&Self>) -> Self {
        let mut candidates = start.candidates.to_vec();
        candidates.sort_unstable_by_key(|candidate| candidate.hash);
        candidates.truncate(MOST);
        let before = before.and_then(|before| before.bounded.as_ref());
        let flights = |bound| {
            (
                bound,
                InFlight::new(start, before.map(|(_, flights)| flights)),
            )
        };
        Self {
            candidates: candidates.into(),
            bounded: settings.bounded_load.map(flights),
        }
    }

    /// All of them, by their place.
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The first of these places that will do, by its number.
    pub(super) fn take(
        &mut self,
        mut order: impl Iterator<Item = u16>,
        avoid: &[u32],
    ) -> Option<u32> {
        if self.bounded.is_none() && avoid.is_empty() {
            return self.number(order.next()?);
        }
        let number = self.first(order, if self.are_all(avoid) { &[] } else { avoid })?;
        self.begin(number);
        Some(number)
    }

    /// A request starts there.
    pub(super) fn begin(&mut self, number: u32) {
        if let Some((_, flights)) = &mut self.bounded {
            flights.start(number);
        }
    }

    /// A request has ended.
    pub(super) fn settle(&mut self, number: u32) {
        if let Some((_, flights)) = &mut self.bounded {
            flights.end(number);
        }
    }

    fn first(&self, order: impl Iterator<Item = u16>, avoid: &[u32]) -> Option<u32> {
        let mut full = None;
        for place in order.take(STEPS) {
            let number = self.number(place)?;
            if avoid.contains(&number) {
                continue;
            }
            if !self.is_full(number) {
                return Some(number);
            }
            full = full.or(Some(number));
        }
        // Only a weight that is next to nothing hides an endpoint from so long a search.
        let mut rest = self.candidates.iter().map(|candidate| candidate.number);
        full.or_else(|| rest.find(|number| !avoid.contains(number)))
    }

    fn is_full(&self, number: u32) -> bool {
        let bounded = self.bounded.as_ref();
        bounded.is_some_and(|(bound, flights)| flights.is_full(number, *bound))
    }

    /// True if nobody is left but those to avoid.
    fn are_all(&self, avoid: &[u32]) -> bool {
        let is_in = |candidate: &Candidate| avoid.contains(&candidate.number);
        avoid.len() >= self.candidates.len() && self.candidates.iter().all(is_in)
    }

    fn number(&self, place: u16) -> Option<u32> {
        let candidate = self.candidates.get(usize::from(place));
        candidate.map(|candidate| candidate.number)
    }
}
