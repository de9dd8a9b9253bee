//! A stand-in until the limits of all workers are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[derive(Debug)]
pub(in crate::upstream) struct Slots(AtomicU32);

#[derive(Debug)]
pub(in crate::upstream) struct Slot(Arc<Slots>);

impl Slots {
    pub(in crate::upstream) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(most)))
    }

    pub(in crate::upstream) fn take(self: &Arc<Self>, _mine: u32) -> Option<Slot> {
        let less = |free: u32| free.checked_sub(1);
        self.0.fetch_update(Relaxed, Relaxed, less).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}
