//! Lanes against small servers of every kind, over real sockets on loopback.

mod connecting;
mod fake;
mod http1;
mod http2;
mod misbehaving;
mod pooling;
mod upgrades;
