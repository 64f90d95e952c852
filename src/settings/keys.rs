//! A section's keys and what is said of them, in one place: the doc comments of its fields.
//!
//! [`section!`] makes the struct, its deserializer and its [`Keys`] of one declaration, so that a
//! key's name, its default and its help can't differ between the program, its error messages and
//! docs/configuration.md. [`kind_keys!`] does the same for keys that a source has beside those of
//! every source, because of its kind.

use serde::de::{DeserializeOwned, MapAccess};

/// A key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What holds where it is not given.
    pub unset: Unset,
    /// What it means, with units and bounds, in Markdown. The lines of a doc comment, each with the
    /// space that it begins with.
    pub help: &'static str,
}

/// What holds where a key is not given.
#[derive(Debug, Clone, Copy)]
pub enum Unset {
    /// It must be given.
    Required,
    /// This value, as it could stand in the file.
    Value(&'static str),
    /// What these words say, in Markdown.
    Says(&'static str),
    /// Nothing: what the key is for is not done.
    Nothing,
}

/// What is said of a section.
pub trait Keys {
    /// What the section is for, as in [`Key::help`].
    const ABOUT: &'static str;
    /// Its keys, in the order of its declaration.
    const KEYS: &'static [Key];
}

/// Keys that a source has because of its kind.
pub trait KindKeys: Keys + Default {
    /// Takes the key's value if it is one of these keys; tells whether it was.
    ///
    /// # Errors
    /// A value that the key can't have.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Keys that a backend's `from` has because of its source's kind.
pub trait SelectorKeys: DeserializeOwned {
    /// Reports what is wrong with them, each with its key.
    fn problems(&self, _problem: impl FnMut(String)) {}
}

/// [`Unset`] of `#[unset("value")]`, `#[unset(required)]`, `#[unset(says "words")]` or no such
/// attribute.
macro_rules! unset {
    () => {
        $crate::settings::keys::Unset::Nothing
    };
    (required) => {
        $crate::settings::keys::Unset::Required
    };
    (says $words:literal) => {
        $crate::settings::keys::Unset::Says($words)
    };
    ($value:literal) => {
        $crate::settings::keys::Unset::Value($value)
    };
}

/// The name of a field's key: serde's, where it gives another one than the field's.
macro_rules! key_name {
    ($field:ident; rename = $name:literal) => {
        $name
    };
    ($field:ident; $($other:tt)*) => {
        stringify!($field)
    };
}

macro_rules! keys_of {
    (
        $type:ident [$($about:literal)*]
        $([$($doc:literal)*] [$($unset:tt)*] [$($serde:tt)*] $field:ident;)*
    ) => {
        impl $crate::settings::keys::Keys for $type {
            const ABOUT: &'static str = concat!($($about),*);
            const KEYS: &'static [$crate::settings::keys::Key] = &[$(
                $crate::settings::keys::Key {
                    name: $crate::settings::keys::key_name!($field; $($serde)*),
                    unset: $crate::settings::keys::unset!($($unset)*),
                    help: concat!($($doc),*),
                },
            )*];
        }
    };
}

/// A section: a struct that serde reads, whose fields' doc comments are the help of its keys. The
/// fields after `beside` are no keys.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])?
        $(#[serde($($how:tt)*)])?
        $vis:vis struct $type:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[unset($($unset:tt)*)])?
                $(#[serde($($serde:tt)*)])?
                $field_vis:vis $field:ident: $value:ty
            ),* $(,)?
        }
        $(beside {
            $(
                $(#[doc = $other_doc:literal])*
                $other_vis:vis $other:ident: $other_value:ty
            ),* $(,)?
        })?
    ) => {
        $(#[doc = $about])*
        $(#[derive($($derive)*)])?
        $(#[serde($($how)*)])?
        $vis struct $type {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $field_vis $field: $value,
            )*
            $($(
                $(#[doc = $other_doc])*
                #[serde(skip)]
                $other_vis $other: $other_value,
            )*)?
        }

        $crate::settings::keys::keys_of! {
            $type [$($about)*]
            $([$($doc)*] [$($($unset)*)?] [$($($serde)*)?] $field;)*
        }
    };
}

/// Keys of a kind of sources: like [`section!`], but read key by key, beside other keys of the same
/// table.
macro_rules! kind_keys {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])?
        $vis:vis struct $type:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[unset($($unset:tt)*)])?
                $(#[serde($($serde:tt)*)])?
                $field_vis:vis $field:ident: $value:ty
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        $(#[derive($($derive)*)])?
        $vis struct $type {
            $(
                $(#[doc = $doc])*
                $field_vis $field: $value,
            )*
        }

        $crate::settings::keys::keys_of! {
            $type [$($about)*]
            $([$($doc)*] [$($($unset)*)?] [$($($serde)*)?] $field;)*
        }

        impl $crate::settings::keys::KindKeys for $type {
            fn take<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                match key {
                    $(stringify!($field) => {
                        #[derive(serde::Deserialize)]
                        struct Value($(#[serde($($serde)*)])? $value);
                        let Value(value) = map.next_value()?;
                        self.$field = value;
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

pub(crate) use {key_name, keys_of, kind_keys, section, unset};
