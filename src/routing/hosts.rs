//! Which buckets of routes a host asks: its own, those of its wildcards, and the one without a host.

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::routing::host::{HostPattern, LONGEST};
use crate::routing::paths::hash_of;

/// Hosts and the numbers of their buckets.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashTable<(Box<str>, usize)>,
    wildcards: HashTable<(Box<str>, usize)>,
    /// Numbers of labels that suffixes have, as bits, so that only those are asked.
    labels: u128,
}

impl Hosts {
    /// Adds a host that is not there yet.
    pub(super) fn insert(&mut self, host: &HostPattern, bucket: usize, hash: &RandomState) {
        let (table, name) = match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => {
                self.labels |= 1 << labels(suffix).min(127);
                (&mut self.wildcards, suffix)
            }
        };
        let rehash = |(name, _): &(Box<str>, usize)| hash_of(hash, name);
        table.insert_unique(hash_of(hash, name), (name.clone(), bucket), rehash);
    }

    /// Calls `visit` with the buckets of a host, the most exact first, until it answers.
    #[inline]
    pub(super) fn walk<T>(
        &self,
        host: &str,
        hash: &RandomState,
        visit: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.len() > LONGEST {
            return None;
        }
        // All bytes at once rather than up to the first: that compiles to vector instructions.
        let has_capitals = |all: bool, byte: u8| all | byte.is_ascii_uppercase();
        if host.bytes().fold(false, has_capitals) {
            let mut buffer = [0; LONGEST];
            return self.walk_lower(lowered(host, &mut buffer)?, hash, visit);
        }
        self.walk_lower(host, hash, visit)
    }

    #[inline]
    fn walk_lower<T>(
        &self,
        host: &str,
        hash: &RandomState,
        mut visit: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let ask = |table: &HashTable<(Box<str>, usize)>, name: &str| {
            let found = table.find(hash_of(hash, name), |(known, _)| **known == *name);
            found.map(|(_, bucket)| *bucket)
        };
        if let Some(bucket) = ask(&self.exact, host)
            && let Some(answer) = visit(bucket)
        {
            return Some(answer);
        }
        if self.labels == 0 {
            return None;
        }
        let mut left = labels(host);
        for dot in memchr::memchr_iter(b'.', host.as_bytes()) {
            left -= 1;
            // A suffix with an empty label before it is no name below it.
            if dot > 0
                && self.labels & 1 << left.min(127) != 0
                && let Some(suffix) = host.get(dot + 1..)
                && let Some(bucket) = ask(&self.wildcards, suffix)
                && let Some(answer) = visit(bucket)
            {
                return Some(answer);
            }
        }
        None
    }

    /// True if no match names a host.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }
}

fn labels(host: &str) -> usize {
    memchr::memchr_iter(b'.', host.as_bytes()).count() + 1
}

/// The host in lower case.
#[cold]
fn lowered<'a>(host: &str, buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_asks_the_most_exact_first() {
        let hash = RandomState::default();
        let mut hosts = Hosts::default();
        let known = [
            "a.example.com",
            "*.example.com",
            "*.a.example.com",
            "*.com",
            "[::1]",
        ];
        for (i, host) in known.iter().enumerate() {
            hosts.insert(&host.parse().expect("a host"), i, &hash);
        }
        let check = |host: &str, expected: &[usize]| {
            let mut asked = Vec::new();
            let end: Option<()> = hosts.walk(host, &hash, |bucket| {
                asked.push(bucket);
                None
            });
            assert_eq!((asked.as_slice(), end), (expected, None), "{host}");
        };
        check("a.example.com", &[0, 1, 3]);
        check("A.Example.COM.", &[0, 1, 3]);
        check("b.a.example.com", &[2, 1, 3]);
        check("c.b.a.example.com", &[2, 1, 3]);
        check("example.com", &[3]);
        check("com", &[]);
        check(".com", &[]);
        check(".example.com", &[3]);
        check("badexample.com", &[3]);
        check("example.org", &[]);
        check("[::1]", &[4]);
        check("", &[]);
        check(&format!("{}.com", "a".repeat(300)), &[]);
        check(&format!("{}.COM", "a".repeat(300)), &[]);
        check(&format!("{}com", "a.".repeat(125)), &[3]);
    }
}
