//! What every floor above may use, and no word of gateways: messages, bodies, problems, time.

pub mod address;
pub mod body;
pub mod caller;
pub mod channel;
pub mod clock;
pub mod continuation;
pub mod facts;
pub(crate) mod gather;
pub mod key;
pub mod lifecycle;
pub mod message;
pub mod params;
pub mod per_worker;
pub mod problem;
pub mod range;
pub mod report;
pub(crate) mod seats;
pub mod socket;
pub mod source;
pub(crate) mod suggest;
pub mod template;
pub mod upgrade;
pub mod values;
