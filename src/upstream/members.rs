//! The endpoints of an upstream, and which of them may take a request now.
//!
//! Members are immutable: a change of health or discovery makes a new list and swaps it in, so a
//! request never sees half a change. An empty list of candidates is normal and means "fail fast".

use std::fmt::Write as _;
use std::sync::Arc;

use crate::upstream::balance::Candidate;
use crate::upstream::eligible::Condition;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health::outlier;

/// One list of endpoints.
#[derive(Debug, Default)]
pub struct Members {
    /// By number; none where a number is not given out.
    slots: Box<[Option<Member>]>,
    candidates: Box<[Candidate]>,
    panic: bool,
}

/// An endpoint, and what is known of it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its place in the upstream for as long as it is known.
    pub number: u32,
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// Whether it may take requests.
    pub condition: Condition,
    /// Why not, in words; empty where it may.
    pub why: Box<str>,
    /// Counts its failures, where outliers are ejected.
    pub(super) watch: Option<Arc<outlier::Watch>>,
    /// Held by whoever has a connection or a request there.
    pub(super) in_use: Arc<()>,
    /// How often it has come back to the list: what was begun in an earlier visit means nothing now.
    pub(super) visit: u32,
}

impl Member {
    /// True once the list of endpoints does not have it any more.
    pub fn has_left(&self) -> bool {
        self.condition == Condition::Draining
    }
}

impl Members {
    pub(super) fn new(slots: Vec<Option<Member>>, eligible: &[(u32, u32)], panic: bool) -> Self {
        let candidate = |(number, weight): &(u32, u32)| {
            let member = slots.get(*number as usize)?.as_ref()?;
            Some(Candidate {
                number: *number,
                weight: *weight,
                hash: member.endpoint.hash,
            })
        };
        Self {
            candidates: eligible.iter().filter_map(candidate).collect(),
            slots: slots.into(),
            panic,
        }
    }

    /// The same members, each as `slot` makes it.
    pub(super) fn with_slots(&self, slot: impl Fn(&Option<Member>) -> Option<Member>) -> Self {
        Self {
            slots: self.slots.iter().map(slot).collect(),
            candidates: self.candidates.clone(),
            panic: self.panic,
        }
    }

    /// Every endpoint that is known, by ascending number.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().flatten()
    }

    /// Those that the list has now: all but those that have left and drain.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.all().filter(|member| !member.has_left())
    }

    /// The endpoint of a number; none if it is not known any more.
    pub fn get(&self, number: u32) -> Option<&Member> {
        self.slots.get(number as usize)?.as_ref()
    }

    /// Those that may take a request.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// True while so few endpoints are ready that all of them take requests.
    pub fn is_panicking(&self) -> bool {
        self.panic
    }

    /// How many endpoints are in a condition.
    pub fn count(&self, condition: Condition) -> usize {
        self.all()
            .filter(|member| member.condition == condition)
            .count()
    }

    /// True if a request could not tell the two lists apart, nor an operator.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let like = |(one, two): (&Option<Member>, &Option<Member>)| match (one, two) {
            (Some(one), Some(two)) => {
                Arc::ptr_eq(&one.endpoint, &two.endpoint)
                    && one.condition == two.condition
                    && one.why == two.why
            }
            (None, None) => true,
            _ => false,
        };
        self.candidates == other.candidates
            && self.panic == other.panic
            && self.slots.len() == other.slots.len()
            && self.slots.iter().zip(&other.slots).all(like)
    }

    /// One more than the greatest number.
    pub(super) fn size(&self) -> usize {
        self.slots.len()
    }

    /// Why nobody may take a request: one sentence that names some of the endpoints.
    pub(super) fn nobody(&self, upstream: &str) -> String {
        const NAMED: usize = 3;
        let count = self.all().count();
        if count == 0 {
            return format!("upstream `{upstream}` has no endpoints");
        }
        let mut text = format!("no endpoint of upstream `{upstream}` may take a request");
        let named = self.all().filter(|member| !member.why.is_empty());
        for (place, member) in named.take(NAMED).enumerate() {
            let before = if place == 0 { ": " } else { "; " };
            // Writing to a string cannot fail.
            let _written = write!(text, "{before}{} {}", member.endpoint.label, member.why);
        }
        if count > NAMED {
            let _written = write!(text, "; {} more", count - NAMED);
        }
        text
    }
}
