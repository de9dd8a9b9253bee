//! Lanes against small servers of every kind, over real sockets on loopback.

mod bounded;
mod connecting;
mod fake;
mod frames;
mod goodbye;
mod http1;
mod http2;
mod idle;
mod misbehaving;
mod pooling;
mod streams;
mod upgrades;
