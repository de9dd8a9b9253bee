//! Which sockets stay open when a configuration follows another, and what becomes of connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Fate, fates};
use crate::base::address::Address;
use crate::config::{Config, Listener};

/// What becomes of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerChange {
    /// Its name; that of the new configuration, if it is in both.
    pub name: Arc<str>,
    /// Whether its own section changed.
    pub fate: Fate,
    /// Where it listens, or did where it goes.
    pub address: Address,
    /// What becomes of its socket.
    pub socket: Socket,
    /// What it allows its clients is another: connections that are open keep what they came under.
    pub limits_change: bool,
}

/// What becomes of a listener's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// It stays, with all connections; their next requests meet the new rules.
    Kept,
    /// It stays under another name. Connections that are open stay, too, and keep the last rules of
    /// the old name until they end.
    Renamed {
        /// The old name.
        from: Arc<str>,
    },
    /// It stays under the name of another listener, which is [`Self::Renamed`].
    Yielded {
        /// That listener.
        to: Arc<str>,
    },
    /// A new one is opened at another address, and the old one is closed: see [`Self::Closed`].
    Moved {
        /// The old address.
        from: Address,
    },
    /// A new one is opened.
    Opened,
    /// It is closed: idle connections end at once, busy ones when what is in flight has ended.
    Closed,
}

/// A listener that cannot be opened, because something that stays open until then has its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The listener.
    pub listener: Arc<str>,
    /// Its address.
    pub address: Address,
    /// Who has it: a listener's name, or none for the gateway's own ports.
    pub holder: Holder,
    /// The address that the holder has.
    pub held: Address,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A listener.
    Listener(Arc<str>),
    /// The port for operators.
    Admin,
    /// The port for metrics and health.
    Telemetry,
}

/// A listener's name and the address that it asks for.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// The name.
    pub name: &'a str,
    /// The address as it is written: port 0 is port 0.
    pub address: &'a Address,
}

impl Door<'_> {
    /// True if this one goes on with the socket of that one, which is open.
    fn takes_over(self, open: Self) -> bool {
        // Port 0 is another port each time, so there the name decides.
        let any_port = open.address.tcp().is_some_and(|tcp| tcp.port() == 0);
        self.address == open.address && (!any_port || self.name == open.name)
    }
}

/// For each listener that is wanted the place of the open one whose socket it goes on with.
pub fn taken_over(open: &[Door<'_>], wanted: &[Door<'_>]) -> Vec<Option<usize>> {
    let mut free = vec![true; open.len()];
    let take = |wanted: &Door<'_>| {
        let mut places = open.iter().zip(&mut free).enumerate();
        let (place, (_, free)) =
            places.find(|(_, (open, free))| **free && wanted.takes_over(**open))?;
        *free = false;
        Some(place)
    };
    wanted.iter().map(take).collect()
}

fn doors(config: &Config) -> Vec<Door<'_>> {
    let listeners = config.listeners.iter();
    listeners
        .map(|listener| Door {
            name: &listener.name,
            address: &listener.address,
        })
        .collect()
}

pub(super) fn changes(old: &Config, new: &Config) -> Vec<ListenerChange> {
    let named = |config: &Config| -> Vec<_> {
        let listeners = config.listeners.iter();
        listeners
            .map(|listener| (Arc::clone(&listener.name), listener.fingerprint))
            .collect()
    };
    let fates = fates(&named(old), &named(new));
    let kept = taken_over(&doors(old), &doors(new));
    let heir = |place: usize| {
        let mut heirs = new.listeners.iter().zip(&kept);
        heirs.find(|(_, kept)| **kept == Some(place))
    };
    let before = |name: &str| {
        let mut listeners = old.listeners.iter().enumerate();
        listeners.find(|(_, listener)| *listener.name == *name)
    };
    let change = |(at, (name, fate)): (usize, (Arc<str>, Fate))| {
        let listener = new.listeners.get(at);
        let taken = kept.get(at).copied().flatten();
        let taken = taken.and_then(|place| old.listeners.get(place));
        let (address, socket, limits_change) = match (listener, taken) {
            (None, _) => {
                let (place, was) = before(&name)?;
                let socket = heir(place).map_or(Socket::Closed, |(heir, _)| Socket::Yielded {
                    to: Arc::clone(&heir.name),
                });
                (was.address.clone(), socket, false)
            }
            (Some(now), Some(was)) if was.name == now.name => (
                now.address.clone(),
                Socket::Kept,
                allows_otherwise(was, now),
            ),
            (Some(now), Some(was)) => {
                let from = Arc::clone(&was.name);
                (now.address.clone(), Socket::Renamed { from }, false)
            }
            (Some(now), None) => {
                let moved = before(&name).filter(|(place, _)| heir(*place).is_none());
                let socket = moved.map_or(Socket::Opened, |(_, was)| Socket::Moved {
                    from: was.address.clone(),
                });
                (now.address.clone(), socket, false)
            }
        };
        Some(ListenerChange {
            name,
            fate,
            address,
            socket,
            limits_change,
        })
    };
    fates.into_iter().enumerate().filter_map(change).collect()
}

fn allows_otherwise(was: &Listener, now: &Listener) -> bool {
    (was.limits, was.protocols) != (now.limits, now.protocols)
}

/// Listeners that cannot be opened: a reload opens what is new before it closes what is gone.
pub(super) fn clashes(old: &Config, new: &Config) -> Vec<Clash> {
    let mut held: Vec<(Holder, &Address)> = vec![
        (Holder::Admin, &old.admin.address),
        (Holder::Telemetry, &old.telemetry.address),
    ];
    let name = |listener: &Listener| Holder::Listener(Arc::clone(&listener.name));
    held.extend(old.listeners.iter().map(|of| (name(of), &of.address)));
    let kept = taken_over(&doors(old), &doors(new));
    let opened = new.listeners.iter().zip(kept);
    let mut clashes = Vec::new();
    for (listener, _) in opened.filter(|(_, kept)| kept.is_none()) {
        let holder = held.iter().find(|(_, held)| clash(held, &listener.address));
        if let Some((holder, held)) = holder {
            clashes.push(Clash {
                listener: Arc::clone(&listener.name),
                address: listener.address.clone(),
                holder: holder.clone(),
                held: (*held).clone(),
            });
        }
        held.push((name(listener), &listener.address));
    }
    clashes
}

/// True if the system does not let both be listened on at once.
fn clash(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            one.port() != 0
                && one.port() == other.port()
                && (covers(*one, *other) || covers(*other, *one))
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        _ => false,
    }
}

/// True if whoever connects to `other` reaches `one`.
fn covers(one: SocketAddr, other: SocketAddr) -> bool {
    match (one.ip(), other.ip()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.is_unspecified() || one == other,
        // `[::]` takes IPv4 clients, too.
        (IpAddr::V6(one), _) if one.is_unspecified() => true,
        (IpAddr::V6(one), IpAddr::V6(other)) => one == other,
        (IpAddr::V6(one), IpAddr::V4(other)) => one.to_ipv4_mapped() == Some(other),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}
