//! What a running gateway cannot change.

use crate::base::address::Address;
use crate::config::{Config, Workers};

/// Settings that take effect only when the process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    workers: Workers,
    admin: Address,
    telemetry: Address,
}

impl Fixed {
    /// Their keys.
    pub const KEYS: [&'static str; 3] = ["runtime.workers", "admin.address", "telemetry.address"];

    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            workers: config.runtime.workers,
            admin: config.admin.address.clone(),
            telemetry: config.telemetry.address.clone(),
        }
    }

    /// The keys of those that another configuration has otherwise.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            self.workers != other.workers,
            self.admin != other.admin,
            self.telemetry != other.telemetry,
        ];
        let keys = Self::KEYS.into_iter().zip(differs);
        keys.filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}
