//! `backend.from`: the source that lists a backend's servers, and what of it the backend wants.
//!
//! Which keys there are depends on the source's kind, which is known once all settings are read. So
//! a selector keeps them as they were written; the kind reads them, beside its own code in
//! `crate::source`.

use std::collections::BTreeMap;
use std::fmt;

use config::{Value, ValueKind};
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::settings::keys::{Key, Keys, Unset};
use crate::settings::tree::{self, Problem};

/// The longest value of a key, in bytes: it stands in logs and metrics.
const LONGEST_VALUE: usize = 255;
/// The most values of a key.
const MOST_VALUES: usize = 100;

/// What a backend wants of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The source's name.
    pub source: String,
    /// The keys of its kind; a single value is a list of one.
    keys: BTreeMap<String, Vec<String>>,
}

impl Keys for Selector {
    const ABOUT: &'static str = "What a backend wants of a source that has more than one list of \
        servers: a table with the source's name and the keys of its kind. In `status`, logs and \
        metrics it is called by all of them: `consul service=web tag=a`. Backends with equal \
        tables share one poll.";
    const KEYS: &'static [Key] =
        &[Key { name: "source", unset: Unset::Required, help: "The source's name." }];
}

impl Selector {
    /// All that the source lists.
    pub fn all_of(source: &str) -> Self {
        Self { source: source.to_owned(), keys: BTreeMap::new() }
    }

    /// What these keys say.
    pub(in crate::settings) fn of(
        source: &str,
        keys: impl IntoIterator<Item = (String, Vec<String>)>,
    ) -> Self {
        Self { source: source.to_owned(), keys: keys.into_iter().collect() }
    }

    /// These keys, as a kind reads them.
    ///
    /// # Errors
    /// What is wrong with them, each with its key.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<String>> {
        let text = |text: &String| Value::new(None, text.as_str());
        let value = |values: &Vec<String>| match &values[..] {
            [one] => text(one),
            values => Value::new(None, values.iter().map(text).collect::<Vec<_>>()),
        };
        let keys = self.keys.iter().map(|(key, values)| (key.clone(), value(values)));
        let table = Value::new(None, ValueKind::Table(keys.collect()));
        let reading = tree::read::<T>(&table);
        let problems: Vec<_> =
            reading.problems.into_iter().map(|Problem { text, .. }| text).collect();
        match reading.value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems),
        }
    }

    /// Reports values that can stand nowhere.
    pub(in crate::settings) fn problems(&self, mut problem: impl FnMut(String)) {
        let is_wrong =
            |value: &String| value.len() > LONGEST_VALUE || value.contains(char::is_control);
        for (key, values) in &self.keys {
            if values.len() > MOST_VALUES || values.iter().any(is_wrong) {
                problem(format!(
                    "from.{key}: at most {MOST_VALUES} values of at most {LONGEST_VALUE} bytes, \
                        without control characters"
                ));
            }
        }
    }
}

/// Its name for people, and in metrics: no other selector has it.
impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source)?;
        for (key, values) in &self.keys {
            write!(out, " {key}=")?;
            for (index, value) in values.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let bare = !value.is_empty()
                    && value
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@{}".contains(&byte));
                match bare {
                    true => write!(out, "{comma}{value}")?,
                    false => write!(out, "{comma}{value:?}")?,
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SelectorVisitor)
    }
}

struct SelectorVisitor;

impl<'de> Visitor<'de> for SelectorVisitor {
    type Value = Selector;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a source's name, or a table with `source` and keys of its kind")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Selector, E> {
        Ok(Selector::all_of(name))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Selector, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Selector, A::Error> {
        let (mut source, mut keys) = (None, BTreeMap::new());
        while let Some(key) = map.next_key::<String>()? {
            if key == "source" {
                source = Some(map.next_value()?);
            } else {
                keys.insert(key, map.next_value()?);
            }
        }
        let source = source.ok_or_else(|| de::Error::missing_field("source"))?;
        Ok(Selector { source, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_selector_is_called_by_its_source_and_keys_and_no_other_is_called_so() {
        for (text, name) in [
            (r#""consul""#, "consul"),
            (r#"{"source": "consul"}"#, "consul"),
            (r#"{"tag": ["a"], "service": ["web"], "source": "c"}"#, "c service=web tag=a"),
            (r#"{"source": "c", "tag": ["a", "b"]}"#, "c tag=a,b"),
            (r#"{"source": "c", "tag": ["a,b"]}"#, r#"c tag="a,b""#),
            (r#"{"source": "c", "tag": ["a b=\"c"]}"#, r#"c tag="a b=\"c""#),
            (r#"{"source": "c", "tag": [""]}"#, r#"c tag="""#),
        ] {
            assert_eq!(selector(text).to_string(), name);
        }
    }

    #[test]
    fn keys_are_read_as_the_kind_of_source_knows_them() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Known {
            service: String,
            #[serde(default)]
            ports: Vec<u16>,
        }
        let read = |text: &str| selector(text).read::<Known>();
        let known = |ports: &[u16]| Known { service: "web".to_owned(), ports: ports.to_vec() };
        let service = r#""source": "c", "service": ["web"]"#;
        assert_eq!(read(&format!("{{{service}}}")), Ok(known(&[])));
        assert_eq!(read(&format!("{{{service}, \"ports\": [\"80\"]}}")), Ok(known(&[80])));
        assert_eq!(
            read(&format!("{{{service}, \"ports\": [\"80\", \"81\"]}}")),
            Ok(known(&[80, 81]))
        );
        for (text, part) in [
            (r#"{"source": "c"}"#, "service: is missing"),
            (r#"{"source": "c", "servise": ["web"]}"#, "did you mean service?"),
            (r#"{"source": "c", "service": ["web"], "ports": ["x"]}"#, "ports[0]: \"x\" is not"),
            (r#"{"source": "c", "service": ["web", "b"]}"#, "service: one value must stand here"),
        ] {
            let problems = read(text).unwrap_err().join("; ");
            assert!(problems.contains(part), "{text}: {problems}");
        }
    }
}
