//! docs/configuration.md: what the sections say of themselves.

use std::fmt::Write;

use super::acme::Eab;
use super::backend::{Check, DeclaredServer, Tls};
use super::commands::Param;
use super::compat::{Aqueduct, Thalassa};
use super::frontend::{Bind, Route, Rule};
use super::guard::Guard;
use super::haproxy::{Metrics, Stats, Timeouts};
use super::keys::{Key, Keys, Unset};
use super::references::References;
use super::{
    Acme, Api, ApiClient, ApiTls, Backend, Certificate, Command, Commands, Damping, Frontend,
    Haproxy, History, Instance, Learned, Map, Notify, Ownership, Portmap, Schedule, Selector,
    Services, Site, Source, Store, TlsFile,
};
use crate::source::KeysOfKinds;

const INTRO: &str = "\
# Configuration

<!-- Generated from the settings' own documentation in src/settings; docs/testing.md says how. -->

Mapsmith reads one settings file in TOML, YAML or JSON; the ending of its name (`.toml`, `.yaml`,
`.yml`, `.json`) says which. Relative paths are relative to the file.

Environment variables override the file: `MAPSMITH__SECTION__KEY`, for example
`MAPSMITH__SCHEDULE__POLL=30s`. Sections in double brackets may be given several times; in a
variable each has its number from 0: `MAPSMITH__SOURCE__0__URL=https://puppetdb.example.com:8081`.
The number after the last one adds an element. Names that variables set in `source.masters` are in
lower case.

All problems are reported together, each with its line or variable; only what may come of another
one, such as a key that is missing because it is misspelt, is reported once that is corrected. So is
what contradicts other parts of the file while an element of a list can't be read. `mapsmith check`
reports them without changing anything.

Durations have a unit and are at most a year: `500ms`, `60s`, `10m`, `1h`. Sizes are in bytes, or
have a unit: `15360`, `64MiB`, `20MB`.
";

/// A table of keys.
struct Part {
    /// In Markdown.
    heading: String,
    about: &'static str,
    keys: &'static [Key],
}

impl Part {
    fn new<T: Keys>(heading: &str) -> Self {
        Self { heading: heading.to_owned(), about: T::ABOUT, keys: T::KEYS }
    }
}

/// In the order in which a reader needs them.
fn parts() -> Vec<Part> {
    let of_kinds = KeysOfKinds::ALL.map(|(kinds, about, keys)| Part {
        heading: format!("### {kinds}"),
        about,
        keys,
    });
    let of_selectors = KeysOfKinds::OF_SELECTORS.map(|(kinds, about, keys)| Part {
        heading: format!("### `backend.from`: {kinds}"),
        about,
        keys,
    });
    let mut parts = vec![Part::new::<Map>("## `[map]`"), Part::new::<Source>("## `[[source]]`")];
    parts.extend(of_kinds);
    parts.extend([
        Part::new::<Instance>("## `[[instance]]`"),
        Part::new::<TlsFile>("## `[[tls_file]]`"),
        Part::new::<Schedule>("## `[schedule]`"),
        Part::new::<Guard>("## `[guard]`"),
        Part::new::<Backend>("## `[[backend]]`"),
        Part::new::<DeclaredServer>("### `backend.servers`"),
        Part::new::<Selector>("### `backend.from`"),
    ]);
    parts.extend(of_selectors);
    parts.extend([
        Part::new::<Check>("### `backend.check`"),
        Part::new::<Tls>("### `backend.tls`"),
        Part::new::<Haproxy>("## `[haproxy]`"),
        Part::new::<Timeouts>("### `haproxy.timeouts`"),
        Part::new::<Stats>("### `haproxy.stats`"),
        Part::new::<Metrics>("### `haproxy.metrics`"),
        Part::new::<Frontend>("## `[[frontend]]`"),
        Part::new::<Bind>("### `frontend.bind`"),
        Part::new::<Rule>("### `frontend.rules`"),
        Part::new::<Route>("### `frontend.route`"),
        Part::new::<Certificate>("## `[[certificate]]`"),
        Part::new::<Acme>("## `[acme]`"),
        Part::new::<Eab>("### `acme.eab`"),
        Part::new::<Commands>("## `[commands]`"),
        Part::new::<Command>("## `[[command]]`"),
        Part::new::<Param>("### `command.params`"),
        Part::new::<Services>("## `[services]`"),
        Part::new::<Portmap>("## `[portmap]`"),
        Part::new::<Damping>("## `[damping]`"),
        Part::new::<References>("## `[references]`"),
        Part::new::<Store>("## `[store]`"),
        Part::new::<History>("## `[history]`"),
        Part::new::<Ownership>("## `[ownership]`"),
        Part::new::<Learned>("## `[learned]`"),
        Part::new::<Api>("## `[api]`"),
        Part::new::<ApiTls>("### `[api.tls]`"),
        Part::new::<ApiClient>("### `[[api.client]]`"),
        Part::new::<Aqueduct>("## `[compat.aqueduct]`"),
        Part::new::<Thalassa>("## `[compat.thalassa]`"),
        Part::new::<Site>("## `[site]`"),
        Part::new::<Notify>("## `[notify]`"),
    ]);
    parts
}

/// Every section with its keys, their defaults and what they mean, in Markdown.
pub fn document() -> String {
    let mut text = INTRO.to_owned();
    for Part { heading, about, keys } in parts() {
        let _ = write!(text, "\n{heading}\n\n{}\n", wrapped(about));
        text.push_str("\n| key | default | meaning |\n|---|---|---|\n");
        for Key { name, unset, help } in keys {
            let default = match unset {
                Unset::Required => "required".to_owned(),
                Unset::Value(value) => format!("`{value}`"),
                Unset::Says(words) => (*words).to_owned(),
                Unset::Nothing => String::new(),
            };
            let _ = writeln!(text, "| `{name}` | {default} | {} |", help.trim());
        }
    }
    text
}

/// A paragraph in lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width == 0 {
            width = length;
        } else if width + 1 + length <= 100 {
            lines.push(' ');
            width += 1 + length;
        } else {
            lines.push('\n');
            width = length;
        }
        lines.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests;
