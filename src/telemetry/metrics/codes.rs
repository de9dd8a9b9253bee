//! Counts by method, status and flag, where the combinations are not known beforehand.
//!
//! Most routes ever see a handful of them, so a shard begins with a table of eight and makes a
//! larger one when that is full. What fits into neither is counted as `other`: a client that sends
//! every status and method there is cannot make the memory of a route grow.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::shard::{Count, Shards};
use crate::telemetry::decision::Flag;

const NEAR: usize = 8;
const FAR: usize = 64;

macro_rules! methods {
    ($($name:ident $constant:ident,)*) => {
        /// A request's method as a label: one of those that have a name of their own, or `OTHER`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the names are HTTP's own")]
        pub enum Method {
            $($name,)*
            /// Any other; what a stranger writes never becomes a label.
            #[default]
            Other,
        }

        impl Method {
            const ALL: &[Self] = &[$(Self::$name,)* Self::Other];

            /// The label's value.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($constant),)*
                    Self::Other => "OTHER",
                }
            }
        }

        impl From<&http::Method> for Method {
            #[inline]
            fn from(method: &http::Method) -> Self {
                $(if *method == http::Method::$constant {
                    return Self::$name;
                })*
                Self::Other
            }
        }
    };
}

methods! {
    Get GET,
    Post POST,
    Put PUT,
    Delete DELETE,
    Head HEAD,
    Patch PATCH,
    Options OPTIONS,
    Connect CONNECT,
    Trace TRACE,
}

/// Method, status and flag in one number; never zero, which marks a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u32);

impl Key {
    /// What found no slot.
    pub(super) const OTHER: Self = Self(u32::MAX);
    const USED: u32 = 1 << 31;

    #[inline]
    pub(super) fn new(method: Method, status: Option<u16>, flag: Option<Flag>) -> Self {
        let status = u32::from(status.unwrap_or(0)) & 0x3ff;
        let flag = flag.map_or(0, |flag| flag as u32 + 1);
        Self(Self::USED | (method as u32) << 20 | status << 8 | flag)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn method(self) -> &'static str {
        let number = (self.0 >> 20 & 0xf) as usize;
        let method = Method::ALL.get(number).copied().unwrap_or_default();
        method.name()
    }

    /// The status, `none` where there was no answer.
    pub(super) fn code(self) -> String {
        match self.0 >> 8 & 0x3ff {
            _ if self == Self::OTHER => "other".into(),
            0 => "none".into(),
            status => status.to_string(),
        }
    }

    pub(super) fn flag(self) -> &'static str {
        if self == Self::OTHER {
            return "other";
        }
        let number = (self.0 & 0xff) as usize;
        let flag = number.checked_sub(1).and_then(|n| Flag::ALL.get(n));
        flag.map_or("", |flag| flag.code())
    }
}

/// One worker's counts.
#[derive(Debug, Default)]
pub(super) struct Codes {
    near: Table<NEAR>,
    far: OnceLock<Box<Table<FAR>>>,
    other: Count,
}

impl Codes {
    #[inline]
    pub(super) fn add(&self, key: Key) {
        if !self.near.add(key) {
            self.add_far(key);
        }
    }

    #[cold]
    fn add_far(&self, key: Key) {
        if !self.far.get_or_init(Box::default).add(key) {
            self.other.add(1);
        }
    }

    fn each(&self, mut visit: impl FnMut(Key, u64)) {
        self.near.each(&mut visit);
        if let Some(far) = self.far.get() {
            far.each(&mut visit);
        }
        if self.other.get() > 0 {
            visit(Key::OTHER, self.other.get());
        }
    }

    /// Counts added up over all shards, by key.
    pub(super) fn merge<T: Default>(
        shards: &Shards<T>,
        part: impl Fn(&T) -> &Self,
    ) -> Vec<(Key, u64)> {
        let mut merged: Vec<(Key, u64)> = Vec::new();
        for codes in shards.used().map(part) {
            codes.each(|key, count| match merged.iter_mut().find(|m| m.0 == key) {
                Some((_, sum)) => *sum += count,
                None => merged.push((key, count)),
            });
        }
        merged
    }
}

/// An open-addressed table with one writer.
#[derive(Debug)]
struct Table<const N: usize>([Slot; N]);

#[derive(Debug)]
struct Slot {
    key: AtomicU32,
    count: Count,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Slot {
            key: AtomicU32::new(0),
            count: Count::new(0),
        }))
    }
}

impl<const N: usize> Table<N> {
    /// Counts one; false if the key is not there and no slot is free.
    #[inline]
    fn add(&self, key: Key) -> bool {
        // Fibonacci hashing: the upper half of the product depends on every bit of the key.
        let hash = (u64::from(key.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        for step in 0..N {
            let Some(slot) = self.0.get(hash.wrapping_add(step) % N) else {
                return false;
            };
            match slot.key.load(Ordering::Relaxed) {
                found if found == key.0 => {
                    slot.count.add(1);
                    return true;
                }
                0 => {
                    slot.count.add(1);
                    // The count first: a reader that sees the key sees at least this one.
                    slot.key.store(key.0, Ordering::Release);
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    fn each(&self, visit: &mut impl FnMut(Key, u64)) {
        for slot in &self.0 {
            let key = slot.key.load(Ordering::Acquire);
            if key != 0 {
                visit(Key(key), slot.count.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_what_it_was_made_of() {
        let check = |method: Method, status, flag: Option<Flag>, labels: (&str, &str, &str)| {
            let key = Key::new(method, status, flag);
            assert_eq!((key.method(), &*key.code(), key.flag()), labels);
        };
        check(Method::Get, Some(200), None, ("GET", "200", ""));
        check(Method::Other, Some(999), None, ("OTHER", "999", ""));
        for flag in Flag::ALL {
            check(
                Method::Trace,
                None,
                Some(*flag),
                ("TRACE", "none", flag.code()),
            );
        }
        assert_eq!(Key::OTHER.method(), "OTHER");
        assert_eq!(Key::OTHER.code(), "other");
        assert_eq!(Key::OTHER.flag(), "other");
    }

    #[test]
    fn methods_of_strangers_are_one_label() {
        let of = |name: &str| Method::from(&name.parse::<http::Method>().expect(name)).name();
        assert_eq!(of("GET"), "GET");
        assert_eq!(of("PATCH"), "PATCH");
        assert_eq!(of("get"), "OTHER");
        assert_eq!(of("PROPFIND"), "OTHER");
    }

    #[test]
    fn no_count_is_lost_when_the_tables_are_full() {
        let shards = Shards::<Codes>::new(1);
        for status in 100..400 {
            for _ in 0..2 {
                let key = Key::new(Method::Get, Some(status), None);
                shards.of(0).add(key);
            }
        }
        let merged = Codes::merge(&shards, |codes| codes);
        assert_eq!(merged.len(), NEAR + FAR + 1);
        assert_eq!(merged.iter().map(|m| m.1).sum::<u64>(), 600);
        let other = merged.iter().find(|m| m.0 == Key::OTHER).expect("full");
        assert_eq!(other.1, 2 * (300 - NEAR as u64 - FAR as u64));
    }

    #[test]
    fn the_same_key_of_two_workers_is_one_count() {
        let shards = Shards::<Codes>::new(2);
        let key = Key::new(Method::Post, Some(503), Some(Flag::Overflow));
        shards.of(0).add(key);
        shards.of(1).add(key);
        assert_eq!(Codes::merge(&shards, |codes| codes), [(key, 2)]);
    }
}
