//! Parts that may fail on their own: what is wrong with one is reported, and the rest is still read.
//!
//! The default that stands in for such a part is never used, because an item with any problem is
//! dropped as a whole.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// The name under which the deserializer is asked for a list of one value, or of none if it failed.
pub(super) const TRIED: &str = "$tried";

/// Reads a field; its default stands for what cannot be read.
pub(crate) fn field<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Tried::deserialize(deserializer).map(|tried| tried.0.unwrap_or_default())
}

/// Reads the items of a list, without those that cannot be read.
pub(crate) fn each<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let items: Vec<Tried<T>> = field(deserializer)?;
    Ok(items.into_iter().filter_map(|item| item.0).collect())
}

struct Tried<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tried<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Maybe<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Maybe<T> {
            type Value = Tried<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut one: A) -> Result<Tried<T>, A::Error> {
                one.next_element().map(Tried)
            }
        }
        deserializer.deserialize_newtype_struct(TRIED, Maybe(PhantomData))
    }
}
