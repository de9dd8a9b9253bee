//! What a route's path template took from the path of a request.

use std::str::FromStr;
use std::sync::Arc;

use smallvec::SmallVec;

/// What a route's path template took from the path, percent-decoded.
///
/// One text holds all names and values: a single allocation, and no counter of the snapshot that all
/// workers would fight for.
#[derive(Debug, Clone, Default)]
pub struct Params {
    text: String,
    /// Where each name and its value end.
    ends: SmallVec<[(u32, u32); 2]>,
}

impl Params {
    /// Values in the order of the template's names.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "whoever makes parameters by hand has no further use for the names"
    )]
    pub fn new(names: Arc<[Box<str>]>, values: SmallVec<[Box<str>; 2]>) -> Self {
        Self::from_pairs(names.iter().zip(values))
    }

    /// Names and values, in the order of the template.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl Iterator<Item = (N, V)>) -> Self {
        let mut params = Self {
            text: String::with_capacity(64),
            ends: SmallVec::new(),
        };
        // A path is shorter than 4 GiB, whatever the limits say.
        let end = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        for (name, value) in pairs {
            params.text.push_str(name.as_ref());
            let middle = end(&params.text);
            params.text.push_str(value.as_ref());
            params.ends.push((middle, end(&params.text)));
        }
        params
    }

    /// The value of one parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, v)| v)
    }

    /// Names and values, in the order of the template.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(middle, end)| {
            let (middle, end) = (middle as usize, end as usize);
            let name = self.text.get(start..middle).unwrap_or_default();
            start = end;
            (name, self.text.get(middle..end).unwrap_or_default())
        })
    }

    /// The value of one parameter as a number, an identifier, anything that is read from text.
    ///
    /// # Errors
    /// [`ParamError::Missing`] when the route's template has no such name, [`ParamError::Wrong`]
    /// when the value is not a `T`. In a handler, `?` answers 500 to the first and 400 to the
    /// second.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<T, ParamError> {
        let missing = || ParamError::Missing(name.to_owned());
        let value = self.get(name).ok_or_else(missing)?;
        value.parse().map_err(|_| ParamError::Wrong {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A parameter that cannot be had as what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The route's template has no such name.
    #[error("the route's path has no `{{{0}}}`")]
    Missing(String),
    /// The value is not of the type that was asked for.
    #[error("`{name}` cannot be `{value}`")]
    Wrong {
        /// Which one.
        name: String,
        /// What the client wrote, percent-decoded.
        value: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_what_they_are_asked_for() {
        let pairs = [("id", "7"), ("name", "ada")];
        let params = Params::from_pairs(pairs.into_iter());
        assert_eq!(params.parse::<u8>("id"), Ok(7));
        assert_eq!(params.parse::<String>("name").as_deref(), Ok("ada"));
        let wrong = params.parse::<u8>("name").expect_err("no number");
        assert_eq!(wrong.to_string(), "`name` cannot be `ada`");
        let missing = params.parse::<u8>("x").expect_err("no such name");
        assert_eq!(missing.to_string(), "the route's path has no `{x}`");
    }
}
