//! What every floor above may use, and no word of gateways: messages, bodies, problems, time.

pub mod body;
pub mod caller;
pub mod clock;
pub mod message;
pub mod per_worker;
pub mod problem;
pub mod upgrade;
pub mod values;
