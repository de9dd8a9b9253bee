//! Questions about a configuration, answered by the code that serves.
//!
//! A [`world::World`] is a gateway in small: the real snapshot, the real way of a request
//! ([`proxy::serve`](crate::proxy::serve)), a clock that stands still while anybody works, and in the
//! place of the network a [`stage`] on which endpoints do what a script says. A [`notebook`] hears of
//! every decision. What is said about a request is read from that notebook and nowhere else, so it
//! cannot differ from what would happen.

pub mod asked;
mod curl;
pub mod explanation;
mod hints;
mod inquiry;
pub(crate) mod notebook;
mod render;
mod shown;
pub(crate) mod stage;
mod stand_ins;
mod supposed;
pub mod trial;
pub(crate) mod world;

pub use explanation::Explanation;
pub(crate) use inquiry::explain;
pub use render::render;
