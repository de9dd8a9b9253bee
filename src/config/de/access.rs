//! How serde walks through lists, maps, kinds and positions.

use std::slice;

use serde::de::value::MapDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::error::unknown_key;
use super::{Cause, De, Error, Within, seed};
use crate::config::tree::Node;

/// The items of a list.
pub(super) struct Items<'de> {
    pub(super) de: De<'de>,
    pub(super) items: slice::Iter<'de, Node>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        item: S,
    ) -> Result<Option<S::Value>, Error> {
        let next = self.items.next();
        next.map(|node| seed(item, De { node, ..self.de }))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map.
pub(super) struct Entries<'de> {
    de: De<'de>,
    entries: slice::Iter<'de, (Node, Node)>,
    value: Option<De<'de>>,
    /// The keys of a map of settings; none where any key may stand.
    known: Option<&'static [&'static str]>,
    /// An unknown key was reported.
    pub(super) met_unknown: bool,
}

impl<'de> Entries<'de> {
    pub(super) fn new(
        de: De<'de>,
        entries: &'de [(Node, Node)],
        known: Option<&'static [&'static str]>,
    ) -> Self {
        Self {
            de,
            entries: entries.iter(),
            value: None,
            known,
            met_unknown: false,
        }
    }

    /// Nobody reads half a map: a kind has one key.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        match self.next() {
            None => Ok(()),
            Some((key, _)) => Err(Error::more_than_one(key, self.de.within)),
        }
    }

    /// Reports the unknown keys among those that nobody read.
    pub(super) fn report_unknown(&mut self) {
        while self.next().is_some() {}
    }

    /// The next entry whose key is known.
    fn next(&mut self) -> Option<&'de (Node, Node)> {
        loop {
            let entry = self.entries.next()?;
            let (key, _) = entry;
            match self.known {
                Some(known) if !known.contains(&key.key()) => {
                    self.met_unknown = true;
                    let problem = unknown_key(key.key(), known, key.span, self.de.within);
                    self.de.reading.report(problem);
                }
                _ => return Some(entry),
            }
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        name: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((key, value)) = self.next() else {
            return Ok(None);
        };
        self.value = Some(De {
            node: value,
            within: Within::Key(key.key()),
            ..self.de
        });
        seed(
            name,
            De {
                node: key,
                ..self.de
            },
        )
        .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, value: S) -> Result<S::Value, Error> {
        let de = self
            .value
            .take()
            .ok_or_else(|| Error::said("a value without its key"))?;
        seed(value, de)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A kind: the node of its name, and its settings where there are some.
pub(super) struct Variant<'de> {
    pub(super) de: De<'de>,
    pub(super) value: Option<&'de Node>,
}

impl<'de> Variant<'de> {
    fn kind(&self) -> &'de str {
        self.de.node.key()
    }

    fn settings(&self) -> Option<De<'de>> {
        self.value.map(|node| De {
            node,
            within: Within::Key(self.kind()),
            ..self.de
        })
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, name: S) -> Result<(S::Value, Self), Error> {
        Ok((seed(name, self.de)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            None => Ok(()),
            Some(_) => {
                let message = format!("`{}` takes no settings: write it alone", self.kind());
                Err(Error::said(message).placed(self.de.node.span, self.de.within))
            }
        }
    }

    /// A bare kind is one whose settings all have defaults.
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, settings: S) -> Result<S::Value, Error> {
        if let Some(de) = self.settings() {
            return seed(settings, de);
        }
        let nothing = std::iter::empty::<(&str, &str)>();
        let result = settings.deserialize(MapDeserializer::<_, Error>::new(nothing));
        let result = result.map_err(|error| {
            let key = match error {
                Error::Loose(Cause::Missing(key)) => Some(key),
                _ => None,
            };
            Error::Loose(Cause::Bare(self.kind().to_owned(), key))
        });
        self.de.placed(result)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        match self.settings() {
            Some(de) => serde::Deserializer::deserialize_tuple(de, length, visitor),
            None => self
                .de
                .placed(Err(Error::Loose(Cause::Bare(self.kind().to_owned(), None)))),
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.settings() {
            Some(de) => serde::Deserializer::deserialize_struct(de, "", known, visitor),
            None => self
                .de
                .placed(Err(Error::Loose(Cause::Bare(self.kind().to_owned(), None)))),
        }
    }
}

/// File, start, end, value and fingerprint, as `Spanned` and `Held` ask for them.
pub(super) struct Parts<'de> {
    de: De<'de>,
    given: u8,
    secrets: u64,
}

impl<'de> Parts<'de> {
    pub(super) fn new(de: De<'de>) -> Self {
        Self {
            de,
            given: 0,
            secrets: 0,
        }
    }

    /// The value, and apart from others the secrets that it reads.
    fn value<S: DeserializeSeed<'de>>(&mut self, part: S) -> Result<S::Value, Error> {
        let before = self.de.reading.secrets.take();
        let value = seed(part, self.de);
        self.secrets = self.de.reading.secrets.get();
        self.de
            .reading
            .secrets
            .set(before.rotate_left(1) ^ self.secrets);
        value
    }
}

impl<'de> SeqAccess<'de> for Parts<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        part: S,
    ) -> Result<Option<S::Value>, Error> {
        let span = self.de.node.span;
        self.given += 1;
        match self.given {
            1 => part.deserialize(span.file.into_deserializer()).map(Some),
            2 => part.deserialize(span.start.into_deserializer()).map(Some),
            3 => part.deserialize(span.end.into_deserializer()).map(Some),
            4 => self.value(part).map(Some),
            _ => {
                let fingerprint = self.de.node.fingerprint() ^ self.secrets;
                part.deserialize(fingerprint.into_deserializer()).map(Some)
            }
        }
    }
}

/// One value whose failure is reported at once.
pub(super) struct Attempt<'de>(pub(super) Option<De<'de>>);

impl<'de> SeqAccess<'de> for Attempt<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        value: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some(de) = self.0.take() else {
            return Ok(None);
        };
        match seed(value, de) {
            Ok(value) => return Ok(Some(value)),
            Err(Error::Placed(problem)) => de.reading.report(*problem),
            Err(_) => de.reading.fail_silently(),
        }
        Ok(None)
    }
}
