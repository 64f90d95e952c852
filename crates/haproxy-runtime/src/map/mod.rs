//! The commands as text, each beside the one parser that may parse its reply. Pure.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
mod screen;

use crate::error::ReplyError;
use crate::wire::escape;

/// A map as HAProxy's configuration names it, escaped for command lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapName {
    plain: String,
    escaped: String,
}

impl MapName {
    /// From the path in the settings, which holds no whitespace.
    pub fn new(path: &str) -> Self {
        Self { plain: path.to_owned(), escaped: escape(path).into_owned() }
    }

    /// As the configuration names it.
    pub fn as_str(&self) -> &str {
        &self.plain
    }

    /// Opens a new version.
    pub fn prepare(&self) -> String {
        format!("prepare map {}\n", self.escaped)
    }

    /// The head of a payload command that adds entries to a version, without the line's end.
    pub fn stage_header(&self, version: u64) -> String {
        format!("add map @{version} {} <<", self.escaped)
    }

    /// Adds one entry to a version, without the line's end.
    pub fn stage(&self, version: u64, key: &str, value: &str) -> String {
        format!("add map @{version} {} {} {}", self.escaped, escape(key), escape(value))
    }

    /// Removes one entry, of whatever version, by the reference that a listing shows before it;
    /// without the line's end.
    pub fn remove_reference(&self, reference: &str) -> String {
        format!("del map {} #{reference}", self.escaped)
    }

    /// Lists a version, or the live map.
    pub fn show(&self, version: Option<u64>) -> String {
        match version {
            Some(version) => format!("show map @{version} {}\n", self.escaped),
            None => format!("show map {}\n", self.escaped),
        }
    }

    /// Makes a version the live map.
    pub fn commit(&self, version: u64) -> String {
        format!("commit map @{version} {}\n", self.escaped)
    }

    /// Drops a version. 3.4 answers success and does nothing unless no lower version holds entries.
    pub fn clear(&self, version: u64) -> String {
        format!("clear map @{version} {}\n", self.escaped)
    }

    /// Adds an entry to the live map, without the line's end. The key must not be there: HAProxy
    /// would hold it twice.
    pub fn add(&self, key: &str, value: &str) -> String {
        format!("add map {} {} {}", self.escaped, escape(key), escape(value))
    }

    /// Gives a key of the live map another value, without the line's end.
    pub fn set(&self, key: &str, value: &str) -> String {
        format!("set map {} {} {}", self.escaped, escape(key), escape(value))
    }

    /// Removes a key from the live map, without the line's end.
    pub fn remove(&self, key: &str) -> String {
        format!("del map {} {}", self.escaped, escape(key))
    }

    /// Looks a key up as traffic does, without the line's end.
    pub fn get(&self, key: &str) -> String {
        format!("get map {} {}", self.escaped, escape(key))
    }
}

/// A map's counters in a `show map` listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapCounters {
    /// The live version; 0 since the process started, until the first commit.
    pub live_version: u64,
    /// The version that was prepared last.
    pub last_prepared: u64,
    /// Entries of all versions together, less one for each row that the map ever refused: see
    /// [`MapCounters::count`].
    pub entries: u64,
}

impl MapCounters {
    /// The entries of all versions together, where the counter can be true: HAProxy (2.6 to 3.4)
    /// counts a refused row down though it never counted it up, below zero even. `live` entries are
    /// known to be in the live map.
    pub fn count(self, live: usize) -> Option<u64> {
        let below_zero = self.entries > i64::MAX as u64;
        (!below_zero && self.entries >= live as u64).then_some(self.entries)
    }
}

/// The counters of one map in a `show map` listing: a line is
/// `ID (FILE) description. curr_ver=A next_ver=B entry_cnt=C`.
pub(crate) fn counters(listing: &[u8], map: &str) -> Option<MapCounters> {
    let listing = String::from_utf8_lossy(listing);
    let line = listing
        .lines()
        .find_map(|line| line.split_once(" (")?.1.strip_prefix(map)?.strip_prefix(") "))?;
    let number = |name: &str| {
        let text = &line[line.rfind(name)? + name.len()..];
        text.split(' ').next()?.parse().ok()
    };
    Some(MapCounters {
        live_version: number(" curr_ver=")?,
        last_prepared: number(" next_ver=")?,
        entries: number(" entry_cnt=")?,
    })
}

/// The version that `prepare map` opened.
///
/// # Errors
/// The refusal, or a text that is no version.
pub fn prepared(reply: &[u8]) -> Result<u64, ReplyError> {
    str::from_utf8(reply)
        .ok()
        .and_then(|text| text.trim_end().strip_prefix("New version created: ")?.parse().ok())
        .ok_or_else(|| ReplyError::from_text(reply))
}

/// Judges the commands that say nothing when all went well: `add`, `set`, `del`, `commit`, `clear`.
///
/// # Errors
/// The refusal.
pub fn silent(reply: &[u8]) -> Result<(), ReplyError> {
    if reply.is_empty() { Ok(()) } else { Err(ReplyError::from_text(reply)) }
}

/// The value in a `get map` reply; none where the key is not in the live map.
///
/// # Errors
/// The refusal, or a text that is no lookup's answer.
pub fn looked_up(reply: &[u8]) -> Result<Option<&str>, ReplyError> {
    let answer = || {
        // A file that is used with several match types answers a line for each; Mapsmith's map is a
        // `map_str`.
        let mut lines = str::from_utf8(reply).ok()?.lines();
        let first = lines.next()?;
        let text = if first.starts_with("type=str") {
            first
        } else {
            lines.find(|line| line.starts_with("type=str")).unwrap_or(first)
        };
        if !text.starts_with("type=") {
            return None;
        }
        if text.contains(", found=no") {
            return Some(None);
        }
        // Values stand raw between quotes and may hold quotes themselves, so the end is sought from
        // the right.
        let value = text.rsplit_once("\", type=\"")?.0;
        Some(Some(&value[value.find("\", value=\"")? + "\", value=\"".len()..]))
    };
    answer().ok_or_else(|| ReplyError::from_text(reply))
}

/// What a map takes as keys and values, as its converter has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapKind {
    /// Any: `map_str`, and what matches parts of a text.
    Any,
    /// Only some, as `map_ip`, `map_reg` or `map_str_int` do: HAProxy does not start from a file
    /// with another row.
    Restricted {
        /// What HAProxy says it is: `type=ip`, or its words for a value.
        by: String,
    },
}

/// Match types that take any key.
const ANY_KEY: [&str; 6] = ["str", "beg", "sub", "dir", "dom", "end"];

/// Reads a map's kind from a `get map` reply. None where the key is not there: then its values are
/// not known.
///
/// # Errors
/// The refusal, or a text that is no lookup's answer.
pub fn map_kind(reply: &[u8]) -> Result<Option<MapKind>, ReplyError> {
    let text = str::from_utf8(reply).map_err(|_| ReplyError::from_text(reply))?;
    let mut values = Vec::new();
    // A file that is used by several converters answers a line for each.
    for line in text.lines() {
        let matched = line.strip_prefix("type=").and_then(|rest| rest.split(',').next());
        let matched = matched.ok_or_else(|| ReplyError::from_text(reply))?;
        if !ANY_KEY.contains(&matched) {
            return Ok(Some(MapKind::Restricted { by: format!("type={matched}") }));
        }
        let value = line.rsplit_once("\", type=\"").and_then(|(_, kind)| kind.strip_suffix('"'));
        values.push(value.filter(|_| line.contains(", found=yes")));
    }
    if let Some(kind) = values.iter().flatten().find(|kind| **kind != "str") {
        return Ok(Some(MapKind::Restricted { by: format!("values of type={kind}") }));
    }
    if values.is_empty() {
        return Err(ReplyError::from_text(reply));
    }
    Ok(values.iter().all(Option::is_some).then_some(MapKind::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 2.6, 3.0, 3.2 and 3.4 answer.
    #[test]
    fn a_lookup_tells_which_keys_and_values_a_map_takes() {
        let found = |key: &str, value: &str| {
            format!(
                "type={key}, case=sensitive, found=yes, idx=tree, key=\"a\", value=\"5\", \
                    type=\"{value}\"\n"
            )
        };
        let lacking = |key: &str| format!("type={key}, case=sensitive, found=no\n");
        let by = |by: &str| Some(MapKind::Restricted { by: by.to_owned() });
        for (reply, kind) in [
            (found("str", "str"), Some(MapKind::Any)),
            (found("beg", "str") + &found("str", "str"), Some(MapKind::Any)),
            (lacking("str"), None),
            (found("str", "str") + &lacking("dom"), None),
            (found("str", "sint"), by("values of type=sint")),
            (found("str", "str") + &lacking("ip"), by("type=ip")),
            (lacking("ip"), by("type=ip")),
            (lacking("reg"), by("type=reg")),
            (lacking("regm"), by("type=regm")),
            (lacking("int"), by("type=int")),
        ] {
            assert_eq!(map_kind(reply.as_bytes()).unwrap(), kind, "{reply}");
        }
        for wrong in ["", "Unknown map identifier. Please use #<id> or <file>.\n"] {
            assert!(map_kind(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_escaped_on_command_lines() {
        let map = MapName::new("/m/a;b.map");
        assert_eq!(map.set(r"n;1\", "m1"), r"set map /m/a\;b.map n\;1\\ m1");
        assert_eq!(map.stage_header(3), r"add map @3 /m/a\;b.map <<");
        assert_eq!(map.show(None), "show map /m/a\\;b.map\n");
        assert_eq!(map.as_str(), "/m/a;b.map");
    }

    #[test]
    fn a_prepared_version_is_read_and_anything_else_is_an_error() {
        assert_eq!(prepared(b"New version created: 17\n"), Ok(17));
        assert_eq!(prepared(b"Permission denied\n"), Err(ReplyError::Denied));
        for wrong in [b"".as_slice(), b"New version created: \n", b"New version"] {
            assert!(prepared(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_lookup_is_read_whatever_the_value_holds() {
        let reply = |value: &str| {
            format!(
                "type=str, case=sensitive, found=yes, idx=tree, key=\"n\", value=\"{value}\", \
                    type=\"str\"\n"
            )
        };
        for value in ["m1", "a\"b", "m\", type=\"x", "é"] {
            assert_eq!(looked_up(reply(value).as_bytes()), Ok(Some(value)));
        }
        assert_eq!(looked_up(b"type=str, case=sensitive, found=no\n"), Ok(None));
        let both = format!("type=beg, case=sensitive, found=no\n{}", reply("m1"));
        assert_eq!(looked_up(both.as_bytes()), Ok(Some("m1")), "a file used with two match types");
        assert!(looked_up(b"").is_err());
        assert_eq!(
            looked_up(b"Unknown map identifier. Please use #<id> or <file>.\n"),
            Err(ReplyError::UnknownMap)
        );
    }

    #[test]
    fn only_silence_is_a_success_where_silence_is_expected() {
        assert_eq!(silent(b""), Ok(()));
        assert_eq!(silent(b"Version number out of range.\n"), Err(ReplyError::VersionOvertaken));
        assert_eq!(
            silent(b"entry not found.\n"),
            Err(ReplyError::Refused("entry not found.".to_owned()))
        );
    }
}
