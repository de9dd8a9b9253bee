//! Checks of real endpoints, good and bad.

mod grpc;
mod http1;
mod http2;
mod peer;
mod watching;
