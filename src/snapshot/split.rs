//! Which of several backends a client stays with.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by the logarithmic method of
//! Schindelhauer and Schomaker, 2005): every backend draws a number for the key, and the lowest
//! wins. When weights change, a client moves only if its own backend lost weight or another gained
//! some; of two backends, exactly as many clients move as the shares have to. Any gateway comes to the
//! same result.

use crate::base::key::{self, KeySource};
use crate::base::message::RequestHead;

/// Backends among which requests are shared by a key.
#[derive(Debug)]
pub struct Split {
    by: KeySource,
    /// In the order of the backends: its own number, and its weight.
    parts: Box<[(u64, u32)]>,
}

/// Keeps the choice apart from that of an upstream which hashes the same key: else all clients of a
/// backend would be those of a few of its endpoints.
const APART: u64 = 0x51f7_3a9d_0c86_e2b5;

impl Split {
    /// A split by that key; backends by name and weight, in their order.
    ///
    /// A name that stands twice counts as two backends.
    pub fn new(by: KeySource, backends: impl Iterator<Item = (impl AsRef<str>, u32)>) -> Self {
        let mut parts: Vec<(u64, u32)> = Vec::new();
        for (name, weight) in backends {
            let mut number = key::mix(key::hash(name.as_ref().as_bytes()) ^ APART);
            while parts.iter().any(|(known, _)| *known == number) {
                number = key::mix(number.wrapping_add(1));
            }
            parts.push((number, weight));
        }
        Self {
            by,
            parts: parts.into(),
        }
    }

    /// The place of the backend that a request stays with.
    ///
    /// None if it does not have the key, or every weight is 0.
    pub fn place(&self, head: &RequestHead) -> Option<usize> {
        self.place_of(self.by.hash(head)?)
    }

    fn place_of(&self, key: u64) -> Option<usize> {
        let parts = self.parts.iter().enumerate();
        let drawn = parts
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(place, (number, weight))| (place, draw(key, *number) / f64::from(*weight)));
        let lowest = drawn.min_by(|(_, one), (_, other)| one.total_cmp(other));
        lowest.map(|(place, _)| place)
    }
}

/// A number from an exponential distribution: the lowest of several, each divided by its weight,
/// falls to each as often as its weight says.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits are what a float holds exactly"
)]
fn draw(key: u64, number: u64) -> f64 {
    let uniform = ((key::mix(key ^ number) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri, header};

    use super::*;

    const CLIENTS: u32 = 20_000;

    fn split(weights: &[u32]) -> Split {
        let names = ["cart", "cart-next", "cart-old", "cart-test"];
        let named = names.into_iter().zip(weights.iter().copied());
        Split::new(KeySource::ClientIp, named)
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..CLIENTS).map(|client| key::hash(&client.to_be_bytes()))
    }

    /// How many clients go from one backend to another, by both.
    fn moves(before: &[u32], after: &[u32]) -> Vec<(usize, usize, f64)> {
        let (old, new) = (split(before), split(after));
        let mut moved = std::collections::BTreeMap::new();
        for key in keys() {
            let from = old.place_of(key).expect("weights");
            let to = new.place_of(key).expect("weights");
            if from != to {
                *moved.entry((from, to)).or_insert(0_u32) += 1;
            }
        }
        let share = |count: u32| f64::from(count) / f64::from(CLIENTS);
        moved
            .into_iter()
            .map(|((from, to), count)| (from, to, share(count)))
            .collect()
    }

    #[test]
    fn each_backend_gets_its_share_and_none_with_weight_0() {
        let split = split(&[70, 25, 0, 5]);
        let mut counts = [0_u32; 4];
        for key in keys() {
            counts[split.place_of(key).expect("weights")] += 1;
        }
        let shares = counts.map(|count| f64::from(count) / f64::from(CLIENTS));
        for (share, expected) in shares.into_iter().zip([0.7, 0.25, 0.0, 0.05]) {
            assert!((share - expected).abs() < 0.01, "{shares:?}");
        }
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn shifting_weights_moves_only_those_who_must_and_only_one_way() {
        let [(0, 1, share)] = moves(&[95, 5], &[90, 10])[..] else {
            panic!("only from the one that shrinks to the one that grows");
        };
        assert!((share - 0.05).abs() < 0.005, "{share}");
        assert_eq!(moves(&[95, 5], &[190, 10]), [], "the same shares");
        let [(0, 1, share)] = moves(&[100, 0], &[99, 1])[..] else {
            panic!("the first step of a canary");
        };
        assert!((share - 0.01).abs() < 0.003, "{share}");
    }

    #[test]
    fn of_three_none_leaves_the_one_that_grows_and_none_comes_to_the_one_that_shrinks() {
        let moved = moves(&[60, 10, 30], &[50, 20, 30]);
        assert!(moved.iter().all(|(from, ..)| *from != 1), "{moved:?}");
        assert!(moved.iter().all(|(_, to, _)| *to != 0), "{moved:?}");
        // The last backend's clients change only as far as chance has them win or lose.
        let sum: f64 = moved.iter().map(|(.., share)| share).sum();
        assert!(sum < 0.17, "{moved:?}");
        let gone = moves(&[60, 10, 30], &[60, 0, 30]);
        assert!(gone.iter().all(|(from, ..)| *from == 1), "{gone:?}");
    }

    #[test]
    fn names_decide_and_not_the_order() {
        let backends = [("a", 3), ("b", 1), ("c", 2)];
        let one = Split::new(KeySource::ClientIp, backends.into_iter());
        let other = Split::new(KeySource::ClientIp, backends.into_iter().rev());
        for key in keys().take(1000) {
            let place = one.place_of(key).expect("weights");
            assert_eq!(other.place_of(key), Some(2 - place));
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_two_backends() {
        let split = Split::new(KeySource::ClientIp, [("a", 1), ("a", 1)].into_iter());
        let first = keys().filter(|key| split.place_of(*key) == Some(0)).count();
        assert!((9_500..10_500).contains(&first), "{first}");
    }

    #[test]
    fn the_backend_says_nothing_of_the_endpoint() {
        // What an upstream's own hash of the key would choose, among clients of one backend.
        let split = split(&[90, 10]);
        let next = keys().filter(|key| split.place_of(*key) == Some(1));
        let mut buckets = [0_u32; 4];
        for key in next {
            buckets[(key >> 62) as usize] += 1;
        }
        for count in buckets {
            assert!((400..600).contains(&count), "{buckets:?}");
        }
    }

    #[test]
    fn without_the_key_or_any_weight_there_is_no_choice() {
        let by = KeySource::Cookie("session".to_owned());
        let split = Split::new(by.clone(), [("a", 1), ("b", 1)].into_iter());
        let mut head = RequestHead::new(Method::GET, Uri::from_static("/"));
        assert_eq!(split.place(&head), None);
        let cookie = header::HeaderValue::from_static("session=s1");
        head.set_header(header::COOKIE, cookie);
        let place = split.place(&head);
        assert!(place.is_some());
        assert_eq!(split.place(&head), place);
        let none = Split::new(by, [("a", 0)].into_iter());
        assert_eq!(none.place(&head), None);
    }
}
