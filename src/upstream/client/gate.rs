//! The bound on connections (`limits.connections`), and the line of requests that wait for one.
//!
//! All workers take from the same slots, but each waits for itself: for a connection of its own that
//! comes back, for one of its own that closes, and at its tick for what other workers gave up. Without
//! a bound there is no gate, and nothing of this costs anything.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;

use crate::base::seats::Bell;
use crate::upstream::client::Site;
use crate::upstream::client::slots::{Slot, Slots};
use crate::upstream::failure::{Cause, Failure};

/// One lane's share in the bound.
#[derive(Debug)]
pub(in crate::upstream) struct Gate {
    slots: Arc<Slots>,
    /// How many connections this lane has.
    mine: Cell<u32>,
    /// How many requests may wait, how many do, and for how long.
    line: u32,
    waiting: Cell<u32>,
    patience: Duration,
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

/// A place in the line.
struct Place<'a>(&'a Gate);

/// Every slot is in use.
#[derive(Debug)]
pub(super) struct Full;

impl Gate {
    /// A bound of `slots`, for which so many requests may wait for so long.
    pub(in crate::upstream) fn new(slots: Arc<Slots>, line: u32, patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            slots,
            mine: Cell::new(0),
            line,
            waiting: Cell::new(0),
            patience,
            bell: Bell::default(),
            sites: RefCell::default(),
        })
    }

    fn permit(self: &Rc<Self>) -> Result<Permit, Full> {
        let slot = self.slots.take(self.mine.get()).ok_or(Full)?;
        self.mine.set(self.mine.get() + 1);
        Ok(Permit {
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

    fn enter(&self) -> Option<Place<'_>> {
        let waiting = self.waiting.get();
        (waiting < self.line).then(|| {
            self.waiting.set(waiting + 1);
            Place(self)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
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
    pub(super) fn permit(self: &Rc<Self>) -> Result<Option<Permit>, Full> {
        let Some(gate) = &self.tally.gate else {
            return Ok(None);
        };
        let permit = gate.permit()?;
        if !self.known.replace(true) {
            gate.know(self);
        }
        Ok(Some(permit))
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
        let place = gate.enter();
        if place.is_none() && !making_room {
            return Err(self.overflow("and as many requests wait for one as may"));
        }
        let any = gate.bell.enter();
        let found = tokio::time::timeout(gate.patience, async {
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
        found.map_err(|_| self.overflow(&format!("and none was free within {:?}", gate.patience)))
    }

    fn overflow(&self, why: &str) -> Box<Failure> {
        let detail = format!(
            "all connections that `limits.connections` allows are in use, {why}: no request was sent to {}",
            self.label()
        );
        self.failure(Cause::Overflow, detail)
    }
}
