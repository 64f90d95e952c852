//! One row of a list, or one entry of an object, read without copying what is not escaped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::collector::{Field, Row};

/// The field that says when a row's fact was sent: PuppetDB's name for it.
const PRODUCER_TIMESTAMP: &str = "producer_timestamp";
/// The most field names that are remembered for an error.
const REMEMBERED_FIELDS: usize = 20;

/// Which fields of a row name the node and its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields {
    /// `node_field`.
    pub node: String,
    /// `master_field`.
    pub master: String,
}

/// Reads one element of a list: a row, or none where it is no object.
pub(crate) struct RowSeed<'f> {
    pub fields: &'f Fields,
    /// Where the names of the fields go while it is in doubt whether the settings name the right
    /// ones.
    pub seen: Option<&'f mut Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Option<Row<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Everything a JSON value can be besides an object, where only objects are of use.
macro_rules! take_others {
    ($value:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Option<Row<'de>>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut row = Row::default();
        while let Some(key) =
            map.next_key_seed(KeySeed { fields: self.fields, seen: self.seen.as_deref_mut() })?
        {
            match key {
                Key::Node => row.node = map.next_value_seed(FieldSeed)?,
                Key::Master => row.master = map.next_value_seed(FieldSeed)?,
                Key::ProducerTimestamp => {
                    row.producer_timestamp = map.next_value_seed(FieldSeed)?
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(row))
    }

    take_others!(None);

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

enum Key {
    Node,
    Master,
    ProducerTimestamp,
    Other,
}

struct KeySeed<'f> {
    fields: &'f Fields,
    seen: Option<&'f mut Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        if let Some(seen) = self.seen
            && seen.len() < REMEMBERED_FIELDS
        {
            let name: String = name.escape_default().take(100).collect();
            // A row that came in pieces is read more than once.
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        Ok(if name == self.fields.node {
            Key::Node
        } else if name == self.fields.master {
            Key::Master
        } else if name == PRODUCER_TIMESTAMP {
            Key::ProducerTimestamp
        } else {
            Key::Other
        })
    }
}

/// Reads one value: the master of an object's entry, or a field of a row.
pub(crate) struct FieldSeed;

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed {
    type Value = Field<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Null)
    }

    take_others!(Field::Other);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
