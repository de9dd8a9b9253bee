//! The bound on connections (`limits.connections`), and the line of requests that wait for one.
//!
//! All workers take from the same slots, but each waits for itself: for a connection of its own that
//! comes back, for one of its own that closes, and at its tick for what other workers gave up, which
//! do so at theirs with a connection that is idle. Where nothing bounds them, none of this costs
//! anything.

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
pub(in crate::upstream) struct Bound {
    slots: Arc<Slots>,
    queue: Arc<Queue>,
    /// How many connections this lane has.
    mine: Cell<u32>,
    /// Rung when a slot of this lane is free again, or a connection that another site may have it.
    bell: Bell,
    /// Those that ever made a connection, which may be idle now.
    sites: RefCell<Vec<Weak<Site>>>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    bound: Rc<Bound>,
    slot: Option<Slot>,
}

/// Every slot is in use.
#[derive(Debug)]
pub(super) struct InUse;

impl Bound {
    /// A bound of `slots`, for which requests wait in `queue`.
    pub(in crate::upstream) fn new(slots: Arc<Slots>, queue: Arc<Queue>) -> Rc<Self> {
        Rc::new(Self {
            slots,
            queue,
            mine: Cell::new(0),
            bell: Bell::default(),
            sites: RefCell::default(),
        })
    }

    fn permit(self: &Rc<Self>) -> Result<Permit, InUse> {
        let slot = self.slots.take(self.mine.get()).ok_or(InUse)?;
        self.mine.set(self.mine.get() + 1);
        Ok(Permit {
            bound: Rc::clone(self),
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
        self.close_idle(|site| !std::ptr::eq(site, but))
    }

    /// Closes an idle connection where requests of other workers wait for one; at each tick, so that
    /// nobody waits for what this worker does not use. Those of its own would have taken it.
    pub(in crate::upstream) fn share(&self) {
        if self.queue.waiting() > 0 && self.slots.is_full() {
            self.close_idle(|_| true);
        }
    }

    fn close_idle(&self, of: impl Fn(&Site) -> bool) -> bool {
        let sites = self.sites.borrow();
        let sites = sites.iter().filter_map(Weak::upgrade);
        let most = sites.filter(|site| of(site)).max_by_key(|site| site.idle());
        most.is_some_and(|site| site.close_oldest())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.slot.take();
        self.bound.mine.set(self.bound.mine.get().saturating_sub(1));
        self.bound.bell.ring();
    }
}

impl Site {
    /// The right to one more connection; none is needed where nothing bounds them.
    pub(super) fn permit(self: &Rc<Self>) -> Result<Option<Permit>, InUse> {
        let Some(bound) = &self.tally.bound else {
            return Ok(None);
        };
        let permit = bound.permit()?;
        if !self.known.replace(true) {
            bound.know(self);
        }
        Ok(Some(permit))
    }

    /// Tells those who wait that a connection came back.
    pub(super) fn came_back(&self) {
        // Those of this endpoint first: a connection has to be closed for the others.
        if let Some(bound) = &self.tally.bound
            && !self.bell.ring()
        {
            bound.bell.ring();
        }
    }

    /// Waits until `find` finds something, and asks again whenever that has become likelier.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue back.
    pub(super) async fn wait_for<T>(
        &self,
        mut find: impl FnMut() -> Option<T>,
    ) -> Result<T, Box<Failure>> {
        let own = self.bell.enter();
        let Some(bound) = &self.tally.bound else {
            // Whoever waits without a bound has a deadline of the caller's.
            loop {
                if let Some(found) = find() {
                    return Ok(found);
                }
                own.rung().await;
            }
        };
        let making_room = bound.make_room(self);
        let any = bound.bell.enter();
        let mut looking = pin!(async {
            if let Some(found) = find() {
                return found;
            }
            loop {
                future::select(pin!(own.rung()), pin!(any.rung())).await;
                if let Some(found) = find() {
                    return found;
                }
                bound.make_room(self);
            }
        });
        let waited = bound.queue.wait(bound.slots.limit(), looking.as_mut());
        match waited.await {
            Ok(found) => Ok(found),
            // What is being closed needs no place in the queue: it takes a moment.
            Err(full @ Full::Queue { .. }) if making_room => {
                let found = tokio::time::timeout(self.connect_timeout, looking).await;
                found.map_err(|_| self.overflow(full))
            }
            Err(full) => Err(self.overflow(full)),
        }
    }

    fn overflow(&self, full: Full) -> Box<Failure> {
        let detail = format!("no connection to {} is free: {full}", self.label());
        self.failure(Cause::Overflow, detail)
    }
}
