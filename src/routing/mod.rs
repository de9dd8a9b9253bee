//! Which route a request takes: the `match` language, and its look-up in constant time.
//!
//! Everything here is a pure function of the table and the request's head, so that explaining a
//! decision, testing one and making one are the same code.
//!
//! **Which route wins** (the Gateway API's rules, extended), whatever the order in the file:
//! 1. the more exact host: exact, then the longest wildcard, then none;
//! 2. the path: literal, then template (more literal segments first), then the longest prefix, then
//!    regex; a match without a path counts as the prefix `/`;
//! 3. a match that names the method (`grpc` does);
//! 4. more conditions on headers (cookies and the content type of `grpc` are such);
//! 5. more conditions on the query;
//! 6. the earlier in the file.
//!
//! The winner is the first in this order *of all that hold*: when nothing of the exact host holds
//! whole, its wildcards are asked, and then the matches without a host.

pub mod condition;
pub mod example;
pub mod host;
pub mod listing;
pub mod matcher;
pub mod method;
pub mod path;
pub mod pattern;
pub mod shadow;
pub mod table;
pub mod template;

mod hosts;
mod paths;
mod patterns;
mod segments;
mod templates;
mod text;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use listing::{Candidate, Kind, Row};
pub use matcher::Match;
pub use path::{EncodedSlashes, PathError, normalise};
pub use shadow::Shadow;
pub use table::{BuildError, Found, Table};
