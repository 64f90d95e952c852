//! How a value of the tree becomes a type: the deserializer.

use config::{Value, ValueKind};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Step, Wrong, is_quoted, is_rejected};

/// A value that becomes a type.
#[derive(Clone, Copy)]
pub(super) struct Given<'de>(pub(super) &'de Value);

impl<'de> Given<'de> {
    /// The text of a scalar.
    fn scalar(self) -> Result<&'de str, Wrong> {
        match &self.0.kind {
            ValueKind::String(text) => Ok(text),
            ValueKind::Array(_) => Err(Wrong::text("one value must stand here, not a list")),
            ValueKind::Table(_) => {
                Err(Wrong::text("one value must stand here, not a table of keys"))
            }
            _ => Err(Wrong::text("has no value")),
        }
    }

    fn entries(self, fields: bool) -> Result<Entries<'de>, Wrong> {
        let ValueKind::Table(values) = &self.0.kind else {
            return Err(Wrong::text("a table of keys must stand here"));
        };
        let rejected =
            |value: &Value| is_rejected(value) || (fields && value.kind == ValueKind::Nil);
        // `config` keeps them in no order, and each run shall tell the same.
        let mut entries: Vec<_> = values.iter().filter(|(_, value)| !rejected(value)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        Ok(Entries { entries: entries.into_iter(), value: None })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let text = self.scalar()?;
            let number: $number = text.trim().parse().map_err(|_| Wrong::text(format!("{text:?} \
                is not a {}", $what)))?;
            visitor.$visit(number)
        })*
    };
}

impl<'de> Deserializer<'de> for Given<'de> {
    type Error = Wrong;

    /// Where the key takes values of several kinds, what is not quoted is of the kind that it looks
    /// like.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.0.kind {
            ValueKind::String(text) if is_quoted(self.0) => visitor.visit_str(text),
            ValueKind::String(text) => {
                if let Ok(number) = text.parse() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse() {
                    visitor.visit_f64(number)
                } else if let Ok(truth) = text.parse() {
                    visitor.visit_bool(truth)
                } else {
                    visitor.visit_str(text)
                }
            }
            ValueKind::Array(_) => self.deserialize_seq(visitor),
            ValueKind::Table(_) => self.deserialize_map(visitor),
            _ => visitor.visit_unit(),
        }
    }

    numbers! {
        deserialize_u8 visit_u64 u64, "whole number from 0 on";
        deserialize_u16 visit_u64 u64, "whole number from 0 on";
        deserialize_u32 visit_u64 u64, "whole number from 0 on";
        deserialize_u64 visit_u64 u64, "whole number from 0 on";
        deserialize_i8 visit_i64 i64, "whole number";
        deserialize_i16 visit_i64 i64, "whole number";
        deserialize_i32 visit_i64 i64, "whole number";
        deserialize_i64 visit_i64 i64, "whole number";
        deserialize_f32 visit_f64 f64, "number";
        deserialize_f64 visit_f64 f64, "number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.scalar()?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
            "false" | "no" | "off" | "0" => visitor.visit_bool(false),
            _ => Err(Wrong::text(format!("{text:?} is neither true nor false"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.scalar()?;
        visitor.visit_str(text).map_err(|wrong: Wrong| wrong.naming(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    /// One value stands for a list of it: who writes `[source]` for the only source means
    /// `[[source]]`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let values = match &self.0.kind {
            ValueKind::Array(values) => values,
            _ => std::slice::from_ref(self.0),
        };
        visitor.visit_seq(Elements(values.iter().enumerate()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(self.entries(false)?)
    }

    /// A key without a value is one that is not there.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_map(self.entries(true)?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.0.kind {
            // A variant with a value: `{ header = "X-Node-Name" }`.
            ValueKind::Table(_) => {
                visitor.visit_enum(MapAccessDeserializer::new(self.entries(true)?))
            }
            _ => {
                let name = self.scalar()?;
                let chosen = visitor.visit_enum(name.into_deserializer());
                chosen.map_err(|wrong: Wrong| wrong.naming(name))
            }
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list's values, but for those that were reported as wrong.
struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, Value>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((index, value)) = self.0.find(|(_, value)| !is_rejected(value)) else {
            return Ok(None);
        };
        seed.deserialize(Given(value)).map(Some).map_err(|wrong| wrong.within(Step::Index(index)))
    }
}

/// A table's entries, but for those that were reported as wrong and, of a type's fields, those
/// without a value.
struct Entries<'de> {
    entries: std::vec::IntoIter<(&'de String, &'de Value)>,
    value: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((key, value)) = self.value.take() else {
            return Err(Wrong::text("a value without its key"));
        };
        seed.deserialize(Given(value)).map_err(|wrong| wrong.within(Step::Key(key.to_owned())))
    }
}
