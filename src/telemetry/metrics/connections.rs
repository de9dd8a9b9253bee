//! Connections that change between carrying a request and waiting for one.

use super::shard::{Count, Shards};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It carries a request.
    Active,
    /// It waits for one.
    Idle,
}

impl Connection {
    pub(super) const ALL: [Self; 2] = [Self::Active, Self::Idle];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
        }
    }
}

/// One worker's connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    active: Count,
    idle: Count,
}

impl Connections {
    /// A connection leaves one state for another; none is before its opening and after its end.
    #[inline]
    pub(super) fn shift(&self, from: Option<Connection>, to: Option<Connection>) {
        if let Some(from) = from {
            self.of(from).subtract(1);
        }
        if let Some(to) = to {
            self.of(to).add(1);
        }
    }

    /// So many there are, as someone else has counted.
    pub(super) fn set(&self, active: u32, idle: u32) {
        self.active.set(u64::from(active));
        self.idle.set(u64::from(idle));
    }

    fn of(&self, state: Connection) -> &Count {
        match state {
            Connection::Active => &self.active,
            Connection::Idle => &self.idle,
        }
    }

    /// How many there are in one state, over all shards.
    pub(super) fn level<T: Default>(
        shards: &Shards<T>,
        part: impl Fn(&T) -> &Self,
        state: Connection,
    ) -> u64 {
        shards.level(|shard| part(shard).of(state))
    }
}
