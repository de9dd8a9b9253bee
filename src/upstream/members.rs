//! The endpoints of an upstream, and which of them may take a request now.
//!
//! Members are immutable: a change of health or discovery makes a new list and swaps it in, so a
//! request never sees half a change. An empty ready list is normal and means "fail fast".

use crate::upstream::endpoint::Endpoint;

/// One list of endpoints.
#[derive(Debug, Default)]
pub struct Members {
    endpoints: Box<[Endpoint]>,
    ready: Box<[u32]>,
}

impl Members {
    /// All of these; those of weight 0 are known but take no requests.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        let ready = (0..)
            .zip(&endpoints)
            .filter(|(_, endpoint)| endpoint.weight > 0)
            .map(|(number, _)| number)
            .collect();
        Self {
            endpoints: endpoints.into(),
            ready,
        }
    }

    /// Every endpoint; its place is its number.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The numbers of those that may take a request, in ascending order.
    pub fn ready(&self) -> &[u32] {
        &self.ready
    }

    /// Numbers and weights of those that may take a request.
    pub(super) fn shares(&self) -> impl Iterator<Item = (u32, u32)> {
        let weight = |number: u32| self.endpoints.get(number as usize).map_or(1, |e| e.weight);
        self.ready
            .iter()
            .map(move |&number| (number, weight(number)))
    }
}
