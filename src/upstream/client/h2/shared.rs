//! The HTTP/2 connections of one worker to one endpoint.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::connection::{Connection, Failed};
use crate::upstream::client::bound::Permit;
use crate::upstream::client::{Connections, Site};
use crate::upstream::failure::Failure;

/// Connections that take further streams, and the one that is being made.
#[derive(Debug, Default)]
pub(in crate::upstream::client) struct Shared {
    open: RefCell<Vec<Rc<Connection>>>,
    connecting: RefCell<Option<Rc<Flight>>>,
}

/// One attempt to connect, and all who wait for it.
#[derive(Debug, Default)]
struct Flight {
    landed: Notify,
    made: RefCell<Option<Result<(), Failed>>>,
}

/// What one who has no connection with a stream to spare goes on with.
enum Way {
    Connection(Rc<Connection>),
    Flight(Rc<Flight>),
}

impl Shared {
    /// A connection with a stream to spare: the first made, so that further ones can become idle.
    pub(super) fn take(&self, site: &Site) -> Option<Rc<Connection>> {
        let (now, limit) = (site.tally.now.get(), site.idle_at_most.get());
        let mut open = self.open.borrow_mut();
        if open.iter().any(|one| !one.is_usable(now, limit)) {
            open.retain(|one| one.is_usable(now, limit));
        }
        open.iter().find(|one| one.has_room()).cloned()
    }

    /// The same, made or waited for if there is none.
    pub(super) async fn find(&self, site: &Rc<Site>) -> Result<Rc<Connection>, Box<Failure>> {
        loop {
            let way = match self.way(site) {
                Some(way) => way,
                None => site.wait_for(|| self.way(site)).await?,
            };
            let flight = match way {
                Way::Connection(connection) => return Ok(connection),
                Way::Flight(flight) => flight,
            };
            flight.landed.notified().await;
            if let Some(Err((cause, detail))) = &*flight.made.borrow() {
                return Err(site.failure(cause.clone(), detail.clone()));
            }
        }
    }

    fn way(&self, site: &Rc<Site>) -> Option<Way> {
        if let Some(connection) = self.take(site) {
            return Some(Way::Connection(connection));
        }
        self.flight(site).map(Way::Flight)
    }

    /// The attempt that is under way, or a new one if there may be. It goes on if everyone who waits
    /// leaves.
    fn flight(&self, site: &Rc<Site>) -> Option<Rc<Flight>> {
        let mut connecting = self.connecting.borrow_mut();
        if let Some(flight) = &*connecting {
            return Some(Rc::clone(flight));
        }
        // Unused and yet without room: the endpoint allows no stream at all at the moment, and would
        // not on another connection.
        if self.open.borrow().iter().any(|one| one.in_use() == 0) {
            return None;
        }
        let permit = site.permit().ok()?;
        let flight = Rc::new(Flight::default());
        *connecting = Some(Rc::clone(&flight));
        // Bounded by the connect timeout.
        spawn_local(land(Rc::clone(site), Rc::clone(&flight), permit));
        Some(flight)
    }

    /// Closes what was idle for too long or is too old; streams in use go on to their end.
    pub(in crate::upstream::client) fn sweep(&self, now: Instant, idle_limit: Duration) {
        let mut open = self.open.borrow_mut();
        open.retain(|one| one.is_worth_keeping(now, idle_limit));
    }

    /// How many have no stream in use.
    pub(in crate::upstream::client) fn idle(&self) -> usize {
        let open = self.open.borrow();
        open.iter().filter(|one| one.in_use() == 0).count()
    }

    /// Closes one that has no stream in use; false if there is none.
    pub(in crate::upstream::client) fn close_oldest(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let unused = open.iter().position(|one| one.in_use() == 0);
        unused.map(|place| open.remove(place)).is_some()
    }
}

/// Makes a connection and tells everyone who waits for it.
async fn land(site: Rc<Site>, flight: Rc<Flight>, permit: Option<Permit>) {
    let made = Connection::make(&site, permit).await;
    if let Connections::Http2(shared) = &site.connections {
        shared.connecting.take();
        if let Ok(connection) = &made {
            shared.open.borrow_mut().push(Rc::clone(connection));
        }
    }
    flight.made.replace(Some(made.map(drop)));
    flight.landed.notify_waiters();
    // Those who wait may have a stream of it, or see that there is nobody to wait for.
    site.bell.ring_for_all();
}
