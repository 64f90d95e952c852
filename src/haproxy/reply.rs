//! What HAProxy's answers mean. Pure: bytes in, values or errors out; a cut answer is always an error.

use std::collections::BTreeSet;

use super::codec;
use mapsmith_core::status::ProcessInfo;

/// Why an answer is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Nothing came: the process died, or it is 2.6 and the payload is larger than its buffer.
    #[error(
        "no answer at all: HAProxy stopped, or the command is too big for its tune.bufsize (lower the instance's max_payload)"
    )]
    Nothing,
    /// The answer ended before it was whole.
    #[error("the answer was cut after {got:?}")]
    Cut {
        /// Its last characters.
        got: String,
    },
    /// Something else than HAProxy's runtime API answers.
    #[error("what answers is not HAProxy's runtime API ({got:?}): name the address of a `stats socket`")]
    NotHaproxy {
        /// How its answer begins.
        got: String,
    },
    /// The socket's level does not allow the command.
    #[error("permission denied: the socket needs `level admin` in HAProxy's configuration")]
    Denied,
    /// The map is not used in HAProxy's configuration.
    #[error("HAProxy does not know the map: its configuration must use exactly this path in a map converter")]
    UnknownMap,
    /// There is no stick table of the name.
    #[error(
        "HAProxy has no stick table of this name: the `stick-table` line stands in the backend (or peers section) that names it"
    )]
    UnknownTable,
    /// The version was committed, dropped or overtaken: another writer was later.
    #[error("another writer committed a later version of the map")]
    VersionOvertaken,
    /// A listing has more rows than there can be.
    #[error("the answer has no end: more than {rows} rows came; is this HAProxy's own `stats socket`?")]
    TooLong {
        /// How many rows were read.
        rows: usize,
    },
    /// The command is larger than HAProxy's buffer.
    #[error("HAProxy says that the command is too big: lower the instance's max_payload, or raise tune.bufsize")]
    TooBig,
    /// HAProxy refused, with this text.
    #[error("HAProxy answered {text:?}")]
    Refused {
        /// Its words.
        text: String,
    },
    /// A row of a listing can't be read.
    #[error("{row:?} can't be read: {why}")]
    Unreadable {
        /// The row, cut.
        row: String,
        /// The column, or what is wrong.
        why: String,
    },
    /// Something came that the command can't have answered.
    #[error("unexpected answer {text:?}")]
    Unexpected {
        /// What came.
        text: String,
    },
}

/// The most bytes shown of an answer that is not HAProxy's.
const SHOWN_OF_OTHERS: usize = 60;
/// The most characters of an answer that an error carries.
const SHOWN: usize = 200;

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).trim_end().to_owned()
}

impl ReplyError {
    /// An answer that ended too early. A refusal of a whole line ends with one line's end instead of two, on every version.
    pub fn cut(answer: &[u8]) -> Self {
        if answer.is_empty() {
            return Self::Nothing;
        }
        match Self::of_text(answer) {
            error @ (Self::TooBig | Self::Denied) => error,
            _ => Self::Cut { got: shown(&answer[answer.len().saturating_sub(SHOWN)..]) },
        }
    }

    /// More than the command can have answered.
    pub fn unexpected(answer: &[u8]) -> Self {
        Self::Unexpected { text: shown(answer) }
    }

    /// What a text in place of a success says.
    pub fn of_text(text: &[u8]) -> Self {
        let text = shown(codec::without_severity(text));
        if text.starts_with("Permission denied") {
            Self::Denied
        } else if text.starts_with("Unknown map identifier") {
            Self::UnknownMap
        } else if text.starts_with("No such table") {
            Self::UnknownTable
        } else if text.starts_with("Version number out of range") {
            Self::VersionOvertaken
        } else if text.contains("too big for the buffer size") {
            Self::TooBig
        } else {
            Self::Refused { text }
        }
    }
}

/// What the socket may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `level admin`: everything.
    Admin,
    /// `level operator`.
    Operator,
    /// `level user`, or a level that we don't know.
    User,
}

/// A map's counters in a `show map` listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapCounters {
    /// The live version; 0 since the process started, until the first commit.
    pub live_version: u64,
    /// The version that was prepared last.
    pub last_prepared: u64,
    /// Entries of all versions together, less one for each row that the map ever refused: see [`MapCounters::count`].
    pub entries: u64,
}

impl MapCounters {
    /// The entries of all versions together, where the counter can be true: HAProxy (2.6 to 3.4) counts a refused row down though it
    /// never counted it up, below zero even. `live` entries are known to be in the live map.
    pub fn count(self, live: usize) -> Option<u64> {
        let below_zero = self.entries > i64::MAX as u64;
        (!below_zero && self.entries >= live as u64).then_some(self.entries)
    }
}

/// One look at an instance: which process it is, what the socket may do, how the map's counters stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The process.
    pub process: ProcessInfo,
    /// The socket's level. Up to 3.2 a lower one may change maps all the same; from 3.3 on it may not.
    pub level: Level,
    /// The map's counters; none where HAProxy does not know the map or does not show it to this level.
    pub map: Option<MapCounters>,
}

/// Reads the answer to [`super::command::GLANCE`].
///
/// # Errors
/// A cut answer, or one that lacks the version, the pid or the uptime.
pub fn glance(answer: &[u8], map: &str) -> Result<Glance, ReplyError> {
    let replies = codec::replies(answer, 3).map_err(|error| match error {
        ReplyError::Cut { .. } | ReplyError::Unexpected { .. } if !begins_like_info(answer) => {
            ReplyError::NotHaproxy { got: shown(&answer[..answer.len().min(SHOWN_OF_OTHERS)]) }
        }
        error => error,
    })?;
    let info = String::from_utf8_lossy(replies[0]);
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let process = || {
        Some(ProcessInfo {
            version: field("Version")?.to_owned(),
            pid: field("Pid")?.parse().ok()?,
            uptime_seconds: field("Uptime_sec")?.parse().ok()?,
        })
    };
    let level = match replies[1].trim_ascii_end() {
        b"admin" => Level::Admin,
        b"operator" => Level::Operator,
        _ => Level::User,
    };
    let process = process().ok_or_else(|| ReplyError::of_text(replies[0]))?;
    Ok(Glance { process, level, map: counters(replies[2], map) })
}

/// Whether an answer begins as `show info` does on every version, as far as it goes, or is a line of HAProxy's own to say no.
fn begins_like_info(answer: &[u8]) -> bool {
    let begins = |beginning: &[u8]| beginning.starts_with(&answer[..answer.len().min(beginning.len())]);
    begins(b"Name: ") || begins(b"Version: ") || begins(b"Unknown command")
}

/// The names of all backends and servers in the answer to [`super::command::BACKENDS_AND_SERVERS`].
///
/// # Errors
/// When the answer is not the CSV that its head announces.
pub fn backends_and_servers(reply: &[u8]) -> Result<BTreeSet<String>, ReplyError> {
    let text = String::from_utf8_lossy(reply);
    let mut lines = text.lines();
    if !lines.next().is_some_and(|head| head.starts_with("# pxname,svname,")) {
        return Err(ReplyError::of_text(reply));
    }
    let mut names = BTreeSet::new();
    for line in lines {
        let mut fields = line.splitn(3, ',');
        let (Some(proxy), Some(server), Some(_)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(ReplyError::unexpected(line.as_bytes()));
        };
        names.insert(if server == "BACKEND" { proxy } else { server }.to_owned());
    }
    Ok(names)
}

/// The counters of one map in a `show map` listing: a line is `ID (FILE) description. curr_ver=A next_ver=B entry_cnt=C`.
fn counters(listing: &[u8], map: &str) -> Option<MapCounters> {
    let listing = String::from_utf8_lossy(listing);
    let line = listing.lines().find_map(|line| line.split_once(" (")?.1.strip_prefix(map)?.strip_prefix(") "))?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nNbthread: 2\nProcess_num: 1\nPid: 4711\nUptime: 0d 0h01m02s\nUptime_sec: 62\n\n\
        admin\n\n\
        # id (file) description\n-1 (/m/a.map) pattern loaded from file '/m/a.map' used by map at file '/c' line 3. curr_ver=0 next_ver=0 entry_cnt=9\n\
        2 (/m/n.map) pattern loaded from file '/m/n.map' used by map at file '/c' line 13. curr_ver=3 next_ver=5 entry_cnt=2\n\n";

    #[test]
    fn one_look_tells_the_process_the_level_and_the_counters() {
        let seen = glance(ANSWER.as_bytes(), "/m/n.map").unwrap();
        assert_eq!(seen.process, ProcessInfo { version: "2.6.12-1+deb12u4".to_owned(), pid: 4711, uptime_seconds: 62 });
        assert_eq!(seen.level, Level::Admin);
        assert_eq!(seen.map, Some(MapCounters { live_version: 3, last_prepared: 5, entries: 2 }));
    }

    #[test]
    fn a_map_that_is_not_listed_or_not_shown_has_no_counters() {
        assert_eq!(glance(ANSWER.as_bytes(), "/m/other.map").unwrap().map, None);
        assert_eq!(glance(ANSWER.as_bytes(), "/m/n").unwrap().map, None);
        let denied = "Version: 3.4.7\nPid: 1\nUptime_sec: 1\n\nuser\n\nPermission denied\n\n";
        let seen = glance(denied.as_bytes(), "/m/n.map").unwrap();
        assert_eq!((seen.level, seen.map), (Level::User, None));
    }

    #[test]
    fn a_counter_that_cannot_be_true_is_no_count() {
        let counters = |entries| MapCounters { live_version: 1, last_prepared: 1, entries };
        assert_eq!(counters(5).count(5), Some(5));
        assert_eq!(counters(7).count(5), Some(7), "two are staged");
        assert_eq!(counters(4).count(5), None);
        assert_eq!(counters(18_446_744_073_709_551_613).count(0), None, "it went below zero");
    }

    #[test]
    fn the_names_that_a_map_may_point_to_are_backends_and_servers() {
        let reply = b"# pxname,svname,qcur,\nmasters,m1,0,\nmasters,m2,0,\nmasters,BACKEND,0,\nm3,BACKEND,0,\n";
        assert_eq!(backends_and_servers(reply).unwrap().into_iter().collect::<Vec<_>>(), ["m1", "m2", "m3", "masters"]);
        assert!(backends_and_servers(b"# pxname,svname,qcur,\nmasters\n").is_err(), "a row we can't read is no empty list");
        assert!(backends_and_servers(b"").is_err());
    }

    #[test]
    fn a_server_that_is_not_haproxy_is_told_from_an_answer_that_was_cut() {
        let other = glance(b"HTTP/1.0 400 Bad request\r\n\r\n<html>", "/m").unwrap_err();
        assert!(matches!(other, ReplyError::NotHaproxy { .. }), "{other}");
        for cut in ["N", "Name: HAPr", "Name: HAProxy\nVersion: 3.0\n\n"] {
            assert!(matches!(glance(cut.as_bytes(), "/m"), Err(ReplyError::Cut { .. } | ReplyError::Refused { .. })), "{cut}");
        }
        assert_eq!(glance(b"", "/m"), Err(ReplyError::Nothing));
    }

    #[test]
    fn a_refusal_of_the_whole_line_is_read_though_it_ends_early() {
        let text = b"The command line is too big for the buffer size. Please change tune.bufsize in the configuration.\n";
        assert_eq!(codec::replies(text, 1), Err(ReplyError::TooBig));
    }

    proptest! {
        #[test]
        fn a_look_cut_at_any_byte_is_an_error(cut in 0..ANSWER.len()) {
            prop_assert!(glance(&ANSWER.as_bytes()[..cut], "/m/n.map").is_err());
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = glance(&answer, "/m/n.map");
            let _ = super::super::command::looked_up(&answer);
            let _ = super::super::command::prepared(&answer);
        }
    }
}
