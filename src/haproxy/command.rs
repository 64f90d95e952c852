//! The commands as text, each beside the one parser that may judge its reply. Pure.

use super::codec::escape;
use super::reply::ReplyError;

/// A map as HAProxy's configuration names it, escaped for command lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapName {
    plain: String,
    escaped: String,
}

impl MapName {
    /// From the path in the settings, which holds no white space.
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

    /// Adds an entry to the live map, without the line's end. The key must not be there: HAProxy would hold it twice.
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

/// Looks at the process, at this socket's level and at the counters of every map, in one line. See [`super::reply::glance`].
pub const GLANCE: &str = "show info;show cli level;show map\n";

/// Every backend (2) and server (4) of every proxy (-1), as CSV. See [`super::reply::backends_and_servers`].
pub const BACKENDS_AND_SERVERS: &str = "show stat -1 6 -1\n";

/// The version that `prepare map` opened.
///
/// # Errors
/// The refusal, or a text that is no version.
pub fn prepared(reply: &[u8]) -> Result<u64, ReplyError> {
    str::from_utf8(reply)
        .ok()
        .and_then(|text| text.trim_end().strip_prefix("New version created: ")?.parse().ok())
        .ok_or_else(|| ReplyError::of_text(reply))
}

/// Judges the commands that say nothing when all went well: `add`, `set`, `del`, `commit`, `clear`.
///
/// # Errors
/// The refusal.
pub fn silent(reply: &[u8]) -> Result<(), ReplyError> {
    if reply.is_empty() { Ok(()) } else { Err(ReplyError::of_text(reply)) }
}

/// The value in a `get map` reply; none where the key is not in the live map.
///
/// # Errors
/// The refusal, or a text that is no lookup's answer.
pub fn looked_up(reply: &[u8]) -> Result<Option<&str>, ReplyError> {
    let answer = || {
        // A file that is used with several match types answers a line for each; Mapsmith's map is a `map_str`.
        let mut lines = str::from_utf8(reply).ok()?.lines();
        let first = lines.next()?;
        let text =
            if first.starts_with("type=str") { first } else { lines.find(|line| line.starts_with("type=str")).unwrap_or(first) };
        if !text.starts_with("type=") {
            return None;
        }
        if text.contains(", found=no") {
            return Some(None);
        }
        // Values stand raw between quotes and may hold quotes themselves, so the end is sought from the right.
        let value = text.rsplit_once("\", type=\"")?.0;
        Some(Some(&value[value.find("\", value=\"")? + "\", value=\"".len()..]))
    };
    answer().ok_or_else(|| ReplyError::of_text(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let reply =
            |value: &str| format!("type=str, case=sensitive, found=yes, idx=tree, key=\"n\", value=\"{value}\", type=\"str\"\n");
        for value in ["m1", "a\"b", "m\", type=\"x", "é"] {
            assert_eq!(looked_up(reply(value).as_bytes()), Ok(Some(value)));
        }
        assert_eq!(looked_up(b"type=str, case=sensitive, found=no\n"), Ok(None));
        let both = format!("type=beg, case=sensitive, found=no\n{}", reply("m1"));
        assert_eq!(looked_up(both.as_bytes()), Ok(Some("m1")), "a file used with two match types");
        assert!(looked_up(b"").is_err());
        assert_eq!(looked_up(b"Unknown map identifier. Please use #<id> or <file>.\n"), Err(ReplyError::UnknownMap));
    }

    #[test]
    fn only_silence_is_a_success_where_silence_is_expected() {
        assert_eq!(silent(b""), Ok(()));
        assert_eq!(silent(b"Version number out of range.\n"), Err(ReplyError::VersionOvertaken));
        assert_eq!(silent(b"entry not found.\n"), Err(ReplyError::Refused { text: "entry not found.".to_owned() }));
    }
}
