//! What is known of each endpoint, by its number, and how it outlives a change of the list.

use crate::upstream::balance::Candidate;

/// Something known of each endpoint.
#[derive(Debug)]
pub(super) struct Slots<T> {
    /// By number; with the hash of the address that it is known of.
    slots: Vec<(u64, T)>,
}

impl<T: Copy> Slots<T> {
    /// What `before` knows of these endpoints; `fresh` of those that it does not know.
    ///
    /// An endpoint that has left is remembered as long as `busy` is true of it: its requests are to
    /// be settled, and if it comes back in the meantime, they count.
    pub(super) fn new(
        candidates: &[Candidate],
        fresh: T,
        before: Option<&Self>,
        busy: impl Fn(&T) -> bool,
    ) -> Self {
        let before = before.map_or(&[][..], |before| &before.slots);
        let after_last = candidates.iter().map(|each| each.number as usize + 1).max();
        let after_busy = before.iter().rposition(|(_, known)| busy(known));
        let size = after_last
            .unwrap_or_default()
            .max(after_busy.map_or(0, |last| last + 1));
        let kept = before
            .iter()
            .map(|slot| if busy(&slot.1) { *slot } else { (0, fresh) });
        let mut slots: Vec<(u64, T)> = kept.take(size).collect();
        slots.resize(size, (0, fresh));
        for candidate in candidates {
            let number = candidate.number as usize;
            let known = before.get(number).filter(|slot| slot.0 == candidate.hash);
            if let Some(slot) = slots.get_mut(number) {
                *slot = (candidate.hash, known.map_or(fresh, |known| known.1));
            }
        }
        Self { slots }
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize).map(|(_, known)| known)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize).map(|(_, known)| known)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().map(|(_, known)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u32, hash: u64) -> Candidate {
        Candidate {
            number,
            weight: 1,
            hash,
        }
    }

    #[test]
    fn what_is_known_follows_number_and_hash_together() {
        let busy = |known: &i32| *known > 5;
        let mut one = Slots::new(
            &[candidate(0, 10), candidate(4, 14), candidate(7, 17)],
            0,
            None,
            busy,
        );
        for (known, value) in one.iter_mut().zip([1, 0, 0, 0, 2, 0, 0, 9]) {
            *known = value;
        }
        let check = |candidates: &[Candidate], before: &Slots<i32>, known: &[Option<i32>]| {
            let slots = Slots::new(candidates, 0, Some(before), busy);
            let found: Vec<_> = (0..)
                .take(known.len())
                .map(|n| slots.get(n).copied())
                .collect();
            assert_eq!(found, known, "{candidates:?}");
            slots
        };
        check(&[candidate(0, 10)], &one, &[Some(1), Some(0)]);
        check(&[candidate(0, 11)], &one, &[Some(0)]);
        let left = check(&[candidate(1, 10)], &one, &[Some(0), Some(0)]);
        assert_eq!(left.get(7), Some(&9), "it is busy");
        assert_eq!(left.get(4), Some(&0), "it was not");
        let back = Slots::new(&[candidate(7, 17)], 0, Some(&left), busy);
        assert_eq!(back.get(7), Some(&9));
        let another = Slots::new(&[candidate(7, 18)], 0, Some(&left), busy);
        assert_eq!(another.get(7), Some(&0));
        assert_eq!(another.get(8), None);
    }
}
