//! The bound on connections (`limits.connections`), and the line of requests that wait for one.
//!
//! All workers take from the same slots, but each waits for itself: for a connection of its own that
//! comes back, for one of its own that closes, and at its tick for what other workers gave up. Without
//! a bound there is no gate, and nothing of this costs anything.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use futures_util::future;

use crate::base::seats::Bell;
use crate::upstream::client::Site;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::limits::{Full, Queue, Slot, Slots};

/// One lane's share in the bound.
#[derive(Debug)]
pub(in crate::upstream) struct Gate {
    slots: Arc<Slots>,
    /// How many connections this lane has.
    mine: Cell<u32>,
    /// Where they wait, together with those of other workers.
    queue: Arc<Queue>,
    /// Rung when a slot of this lane is free again, or a connection that another site may have it.
    bell: Bell,
    /// Those that ever made a connection, which may be idle now.
    sites: RefCell<Vec<Weak<Site>>>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Rc<Gate>,
    slot: Option<Slot>,
}

impl Gate {
    /// A bound of `slots`, for which requests wait in the queue.
    pub(in crate::upstream) fn new(slots: Arc<Slots>, queue: Arc<Queue>) -> Rc<Self> {
        Rc::new(Self {
            slots,
            mine: Cell::new(0),
            queue,
            bell: Bell::default(),
            sites: RefCell::default(),
        })
    }

    fn permit(self: &Rc<Self>) -> Option<Permit> {
        let slot = self.slots.take(self.mine.get())?;
        self.mine.set(self.mine.get() + 1);
        Some(Permit {
            gate: Rc::clone(self),
            slot: Some(slot),
        })
    }

    /// Notes a site whose connections can be closed to make room for others.
    fn know(&self, site: &Rc<Site>) {
        let mut sites = self.sites.borrow_mut();
        sites.retain(|known| known.strong_count() > 0);
        sites.push(Rc::downgrade(site));
    }

    /// Closes an idle connection of the site that has most of them, `but` one; false if none has any.
    fn make_room(&self, but: &Site) -> bool {
        let sites = self.sites.borrow();
        let others = sites.iter().filter_map(Weak::upgrade);
        let most = others
            .filter(|site| !std::ptr::eq(&raw const **site, but))
            .max_by_key(|site| site.idle());
        most.is_some_and(|site| site.close_oldest())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.slot.take();
        self.gate.mine.set(self.gate.mine.get().saturating_sub(1));
        self.gate.bell.ring();
    }
}

impl Site {
    /// The right to one more connection; none is needed where nothing bounds them.
    pub(super) fn permit(self: &Rc<Self>) -> Option<Option<Permit>> {
        let Some(gate) = &self.tally.gate else {
            return Some(None);
        };
        let permit = gate.permit()?;
        if !self.known.replace(true) {
            gate.know(self);
        }
        Some(Some(permit))
    }

    /// Tells those who wait that a connection came back.
    pub(super) fn came_back(&self) {
        // Those of this endpoint first: a connection has to be closed for the others.
        if let Some(gate) = &self.tally.gate
            && !self.bell.ring()
        {
            gate.bell.ring();
        }
    }

    /// Waits until `find` finds something, and asks again whenever that has become likelier.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the line back.
    pub(super) async fn in_line<T>(
        &self,
        mut find: impl FnMut() -> Option<T>,
    ) -> Result<T, Box<Failure>> {
        let own = self.bell.enter();
        let Some(gate) = &self.tally.gate else {
            // Whoever waits without a gate has a deadline of the caller's.
            loop {
                if let Some(found) = find() {
                    return Ok(found);
                }
                own.rung().await;
            }
        };
        // What is being closed is no wait worth counting.
        let making_room = gate.make_room(self);
        let place = gate.queue.join(gate.slots.limit());
        if let Err(full) = &place
            && !making_room
        {
            return Err(self.overflow(*full));
        }
        let any = gate.bell.enter();
        let found = tokio::time::timeout(gate.queue.timeout(), async {
            if let Some(found) = find() {
                return found;
            }
            loop {
                future::select(pin!(own.rung()), pin!(any.rung())).await;
                if let Some(found) = find() {
                    return found;
                }
                gate.make_room(self);
            }
        });
        let found = found.await;
        found.map_err(|_| {
            self.overflow(Full::Timeout {
                waited: gate.queue.timeout(),
                room: gate.slots.limit(),
            })
        })
    }

    fn overflow(&self, full: Full) -> Box<Failure> {
        let detail = format!("no connection to {} for the request: {full}", self.label());
        self.failure(Cause::Overflow, detail)
    }
}
