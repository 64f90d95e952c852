//! What HAProxy's answers mean. Pure: bytes in, values or errors out; a cut answer is always an
//! error.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{ReplyError, excerpt};
use crate::map::{self, MapCounters};
use crate::wire;
use crate::wire::statistics;

/// Probes the process, this socket's level and the counters of every map, in one line. See
/// [`probe`].
pub const PROBE: &str = "show info;show cli level;show map\n";

/// Every backend (2) and server (4) of every proxy (-1), as CSV. See [`backends_and_servers`].
pub const BACKENDS_AND_SERVERS: &str = "show stat -1 6 -1\n";

/// The HAProxy process behind a socket, from `show info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessInfo {
    /// Its version as it names it: `2.6.12-1+deb12u1`.
    pub version: String,
    /// The worker's process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
}

/// The most bytes of an answer that is not HAProxy's that an error carries.
const MAX_FOREIGN: usize = 60;

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

/// One probe of an instance: which process it is, what the socket may do, how the map's counters
/// stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The process.
    pub process: ProcessInfo,
    /// The socket's level. Up to 3.2 a lower one may change maps all the same; from 3.3 on it may
    /// not.
    pub level: Level,
    /// The map's counters; none where HAProxy does not know the map or does not show it to this
    /// level.
    pub map: Option<MapCounters>,
}

/// Reads the answer to [`PROBE`].
///
/// # Errors
/// A cut answer, or one that lacks the version, the pid or the uptime.
pub fn probe(answer: &[u8], map: &str) -> Result<Probe, ReplyError> {
    let replies = wire::replies(answer, 3).map_err(|error| match error {
        ReplyError::Cut { .. } | ReplyError::Unexpected { .. } if !begins_like_info(answer) => {
            ReplyError::NotHaproxy(excerpt(&answer[..answer.len().min(MAX_FOREIGN)]))
        }
        error => error,
    })?;
    let level = match replies[1].trim_ascii_end() {
        b"admin" => Level::Admin,
        b"operator" => Level::Operator,
        _ => Level::User,
    };
    let process = info(replies[0])?;
    Ok(Probe { process, level, map: map::counters(replies[2], map) })
}

/// Which process it is, in the reply to `show info`.
pub(crate) fn info(reply: &[u8]) -> Result<ProcessInfo, ReplyError> {
    let info = String::from_utf8_lossy(reply);
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let process = || {
        Some(ProcessInfo {
            version: field("Version")?.to_owned(),
            pid: field("Pid")?.parse().ok()?,
            uptime_seconds: field("Uptime_sec")?.parse().ok()?,
        })
    };
    process().ok_or_else(|| ReplyError::from_text(reply))
}

/// Whether an answer begins as `show info` does on every version, as far as it goes, or is a line
/// of HAProxy's own to say no.
fn begins_like_info(answer: &[u8]) -> bool {
    let begins =
        |beginning: &[u8]| beginning.starts_with(&answer[..answer.len().min(beginning.len())]);
    begins(b"Name: ") || begins(b"Version: ") || begins(b"Unknown command")
}

/// The names of all backends and servers in the answer to [`BACKENDS_AND_SERVERS`].
///
/// # Errors
/// When the answer is not the CSV that its head announces.
pub fn backends_and_servers(reply: &[u8]) -> Result<BTreeSet<String>, ReplyError> {
    let mut names = BTreeSet::new();
    let text = String::from_utf8_lossy(reply);
    statistics::rows(&text, ["pxname", "svname"], |[proxy, server], _| {
        names.insert(if server == "BACKEND" { proxy } else { server }.to_owned());
        Ok(())
    })?;
    Ok(names)
}

/// What comes to a backend or server right now, from `show stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// Sessions right now.
    pub sessions: u64,
    /// Requests that wait right now.
    pub queue: u64,
    /// Sessions in the last second.
    pub rate: u64,
    /// Seconds since the last session began; none where there was none.
    pub last_session_s: Option<u64>,
}

impl Traffic {
    /// That of both: of several servers of one name.
    fn and(self, other: Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            queue: self.queue + other.queue,
            rate: self.rate + other.rate,
            last_session_s: [self, other].iter().filter_map(|one| one.last_session_s).min(),
        }
    }
}

/// What comes to what a map's value may name, in the answer to [`BACKENDS_AND_SERVERS`]. A backend
/// counts before a server of the same name, and servers of one name count together.
///
/// # Errors
/// When the answer is not the CSV that its head announces.
pub fn traffic(reply: &[u8]) -> Result<BTreeMap<String, Traffic>, ReplyError> {
    let (mut servers, mut backends) = (BTreeMap::new(), BTreeMap::new());
    let text = String::from_utf8_lossy(reply);
    let columns = ["pxname", "svname", "scur", "qcur", "rate", "lastsess"];
    statistics::rows(&text, columns, |[proxy, server, sessions, queue, rate, last], row| {
        let number = |text: &str, column: &str| {
            text.parse().map_err(|_| ReplyError::unreadable(row, column))
        };
        let traffic = Traffic {
            sessions: number(sessions, "scur")?,
            queue: number(queue, "qcur")?,
            rate: number(rate, "rate")?,
            // -1 where there was none.
            last_session_s: last.parse().ok(),
        };
        if server == "BACKEND" {
            backends.insert(proxy.to_owned(), traffic);
        } else {
            let known = servers.entry(server.to_owned()).or_insert_with(Traffic::default);
            *known = known.and(traffic);
        }
        Ok(())
    })?;
    servers.extend(backends);
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nNbthread: 2\nProcess_num: \
        1\nPid: 4711\nUptime: 0d 0h01m02s\nUptime_sec: 62\n\n\
        admin\n\n\
        # id (file) description\n-1 (/m/a.map) pattern loaded from file '/m/a.map' used by map at \
        file '/c' line 3. curr_ver=0 next_ver=0 entry_cnt=9\n\
        2 (/m/n.map) pattern loaded from file '/m/n.map' used by map at file '/c' line 13. \
        curr_ver=3 next_ver=5 entry_cnt=2\n\n";

    #[test]
    fn one_look_tells_the_process_the_level_and_the_counters() {
        let seen = probe(ANSWER.as_bytes(), "/m/n.map").unwrap();
        assert_eq!(
            seen.process,
            ProcessInfo { version: "2.6.12-1+deb12u4".to_owned(), pid: 4711, uptime_seconds: 62 }
        );
        assert_eq!(seen.level, Level::Admin);
        assert_eq!(seen.map, Some(MapCounters { live_version: 3, last_prepared: 5, entries: 2 }));
    }

    #[test]
    fn a_map_that_is_not_listed_or_not_shown_has_no_counters() {
        assert_eq!(probe(ANSWER.as_bytes(), "/m/other.map").unwrap().map, None);
        assert_eq!(probe(ANSWER.as_bytes(), "/m/n").unwrap().map, None);
        let denied = "Version: 3.4.7\nPid: 1\nUptime_sec: 1\n\nuser\n\nPermission denied\n\n";
        let seen = probe(denied.as_bytes(), "/m/n.map").unwrap();
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
        let reply = b"# \
            pxname,svname,qcur,\nmasters,m1,0,\nmasters,m2,0,\nmasters,BACKEND,0,\nm3,BACKEND,0,\n";
        assert_eq!(
            backends_and_servers(reply).unwrap().into_iter().collect::<Vec<_>>(),
            ["m1", "m2", "m3", "masters"]
        );
        assert!(
            backends_and_servers(b"# pxname,svname,qcur,\nmasters\n").is_err(),
            "a row we can't read is no empty list"
        );
        assert!(backends_and_servers(b"").is_err());
    }

    #[test]
    fn what_comes_to_a_master_is_summed_over_servers_of_its_name() {
        let reply = b"# pxname,svname,qcur,scur,rate,lastsess,\n\
            a,m1,1,2,3,9,\na,m2,0,0,0,-1,\na,BACKEND,5,5,5,5,\nb,m1,1,1,1,4,\n\
            b,BACKEND,0,0,0,,\nm2,BACKEND,0,7,0,0,\n";
        let traffic = traffic(reply).unwrap();
        let of = |sessions, queue, rate, last_session_s| Traffic {
            sessions,
            queue,
            rate,
            last_session_s,
        };
        assert_eq!(traffic["m1"], of(3, 2, 4, Some(4)));
        assert_eq!(traffic["m2"], of(7, 0, 0, Some(0)), "a backend counts before a server");
        assert_eq!(traffic["b"], of(0, 0, 0, None));
        assert!(
            super::traffic(b"# pxname,svname,qcur,scur,rate,lastsess,\na,m1,,0,0,0,\n").is_err()
        );
    }

    #[test]
    fn a_server_that_is_not_haproxy_is_told_from_an_answer_that_was_cut() {
        let other = probe(b"HTTP/1.0 400 Bad request\r\n\r\n<html>", "/m").unwrap_err();
        assert!(matches!(other, ReplyError::NotHaproxy { .. }), "{other}");
        for cut in ["N", "Name: HAPr", "Name: HAProxy\nVersion: 3.0\n\n"] {
            assert!(
                matches!(
                    probe(cut.as_bytes(), "/m"),
                    Err(ReplyError::Cut { .. } | ReplyError::Refused { .. })
                ),
                "{cut}"
            );
        }
        assert_eq!(probe(b"", "/m"), Err(ReplyError::Nothing));
    }

    #[test]
    fn a_refusal_of_the_whole_line_is_read_though_it_ends_early() {
        let text = b"The command line is too big for the buffer size. Please change tune.bufsize \
            in the configuration.\n";
        assert_eq!(wire::replies(text, 1), Err(ReplyError::TooBig));
    }

    proptest! {
        #[test]
        fn a_look_cut_at_any_byte_is_an_error(cut in 0..ANSWER.len()) {
            prop_assert!(probe(&ANSWER.as_bytes()[..cut], "/m/n.map").is_err());
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(
            answer in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = probe(&answer, "/m/n.map");
            let _ = crate::map::looked_up(&answer);
            let _ = crate::map::prepared(&answer);
        }
    }
}
