//! What HAProxy measures of backends and servers: `show stat` as figures over time. Pure.
//!
//! `show stat` can't choose columns, so whoever reads it often chooses rows: those of all backends,
//! with their servers or without, or of some backends by their number in this process.

use std::fmt::Write as _;

use crate::error::ReplyError;
use crate::process::{self, ProcessInfo};
use crate::wire;
use crate::wire::statistics;

#[cfg(feature = "client")]
pub mod client;

/// What stands at this moment, by `show stat`'s names: sessions, what waits in the queue, sessions
/// in the last second, requests in the last second (of a backend), and the mean response time in
/// milliseconds of the last 1024 requests.
pub const GAUGES: [&str; 5] = ["scur", "qcur", "rate", "req_rate", "rtime"];

/// What only grows while the process lives: sessions, answers by class, errors, retries and
/// redispatches.
pub const COUNTERS: [&str; 8] =
    ["stot", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "econ", "eresp", "wretr", "wredis"];

/// The columns that are read.
const COLUMNS: [&str; 18] = [
    "pxname", "svname", "iid", "type", "status", "scur", "qcur", "rate", "req_rate", "rtime",
    "stot", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "econ", "eresp", "wretr", "wredis",
];

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every backend and server.
    All,
    /// Every backend, without its servers.
    Backends,
    /// Some backends with their servers, by their number.
    Some(Vec<u32>),
}

/// A row of `show stat`. What is empty there, as what does not apply is, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The backend.
    pub backend: &'a str,
    /// Its number in this process.
    pub number: u32,
    /// The server; none for the backend itself.
    pub server: Option<&'a str>,
    /// `UP`, `DOWN 1/2`, `MAINT (resolution)`, `no check`.
    pub status: &'a str,
    /// In the order of [`GAUGES`].
    pub gauges: [Option<u64>; GAUGES.len()],
    /// In the order of [`COUNTERS`].
    pub counters: [Option<u64>; COUNTERS.len()],
}

/// The line that asks which process it is, and for its figures; how many replies it has.
pub fn command(scope: &Scope) -> (String, usize) {
    let mut line = "show info".to_owned();
    let mut replies = 1;
    let mut ask = |proxy: &str, kinds: u8| {
        let _ = write!(line, ";show stat {proxy} {kinds} -1");
        replies += 1;
    };
    // HAProxy's management guide: 2 are backends, 4 servers, -1 every proxy and server.
    match scope {
        Scope::All => ask("-1", 6),
        Scope::Backends => ask("-1", 2),
        Scope::Some(numbers) => numbers.iter().for_each(|number| ask(&number.to_string(), 6)),
    }
    line.push('\n');
    (line, replies)
}

/// Reads the answer to [`command`].
///
/// # Errors
/// A cut answer, or one that is not what was asked for.
pub fn read(
    answer: &[u8],
    replies: usize,
    mut each: impl FnMut(Row<'_>),
) -> Result<ProcessInfo, ReplyError> {
    let replies = wire::replies(answer, replies)?;
    let process = process::info(replies[0])?;
    for reply in &replies[1..] {
        let text = str::from_utf8(reply).map_err(|_| ReplyError::unexpected(reply))?;
        statistics::rows(text, COLUMNS, |fields, row| {
            each(figures(&fields).map_err(|column| ReplyError::unreadable(row, column))?);
            Ok(())
        })?;
    }
    Ok(process)
}

fn figures<'a>(fields: &[&'a str; COLUMNS.len()]) -> Result<Row<'a>, &'static str> {
    let [backend, server, number, kind, status, rest @ ..] = fields;
    let server = match *kind {
        "1" => None,
        "2" => Some(*server),
        _ => return Err("neither a backend nor a server"),
    };
    let mut row = Row {
        backend,
        number: number.parse().map_err(|_| "iid")?,
        server,
        status,
        gauges: [None; GAUGES.len()],
        counters: [None; COUNTERS.len()],
    };
    let values = row.gauges.iter_mut().chain(&mut row.counters);
    for ((value, text), name) in values.zip(rest).zip(GAUGES.into_iter().chain(COUNTERS)) {
        *value = match *text {
            "" => None,
            text => Some(text.parse().map_err(|_| name)?),
        };
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "Name: HAProxy\nVersion: 3.0.1\nPid: 12\nUptime_sec: 62\n\n\
        # pxname,svname,qcur,scur,stot,econ,eresp,wretr,wredis,status,iid,type,rate,hrsp_2xx,\
        hrsp_4xx,hrsp_5xx,req_rate,rtime,\n\
        web,w1,1,2,30,0,1,2,3,UP,4,2,5,20,4,6,,17,\n\
        web,BACKEND,1,2,31,0,1,2,3,UP,4,1,5,20,4,6,9,17,\n\n\
        # pxname,svname,qcur,scur,stot,econ,eresp,wretr,wredis,status,iid,type,rate,hrsp_2xx,\
        hrsp_4xx,hrsp_5xx,req_rate,rtime,\n\
        tcp,BACKEND,0,0,1,0,0,0,0,DOWN,5,1,0,,,,,0,\n\n";

    type Seen = (String, u32, Option<String>, Vec<Option<u64>>, Vec<Option<u64>>);

    fn seen(answer: &str) -> Result<Vec<Seen>, ReplyError> {
        let mut seen = Vec::new();
        read(answer.as_bytes(), 3, |row| {
            seen.push((
                row.backend.to_owned(),
                row.number,
                row.server.map(str::to_owned),
                row.gauges.to_vec(),
                row.counters.to_vec(),
            ));
        })?;
        Ok(seen)
    }

    #[test]
    fn figures_are_read_by_name_and_what_does_not_apply_is_none() {
        let seen = seen(ANSWER).unwrap();
        let some = |values: &[u64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(seen[0].2.as_deref(), Some("w1"));
        assert_eq!(seen[0].3, [Some(2), Some(1), Some(5), None, Some(17)]);
        assert_eq!(seen[0].4, some(&[30, 20, 4, 6, 0, 1, 2, 3]));
        assert_eq!((seen[1].1, &seen[1].2, &seen[1].3), (4, &None, &some(&[2, 1, 5, 9, 17])));
        assert_eq!((seen[2].0.as_str(), seen[2].4[1]), ("tcp", None));
    }

    #[test]
    fn what_is_asked_for_is_as_little_as_will_do() {
        assert_eq!(command(&Scope::All), ("show info;show stat -1 6 -1\n".to_owned(), 2));
        assert_eq!(command(&Scope::Backends), ("show info;show stat -1 2 -1\n".to_owned(), 2));
        let some = command(&Scope::Some(vec![4, 9]));
        assert_eq!(some, ("show info;show stat 4 6 -1;show stat 9 6 -1\n".to_owned(), 3));
    }

    #[test]
    fn a_figure_that_is_none_fails_the_reading_and_is_named() {
        for (good, bad, named) in [
            ("web,w1,1,2,30,", "web,w1,1,x,30,", "scur"),
            ("web,w1,1,2,30,", "web,w1,1,2,-3,", "stot"),
            (",UP,4,2,", ",UP,4,0,", "neither"),
            (",hrsp_2xx,", ",other,", "hrsp_2xx"),
            ("Pid: 12", "Pid: x", "Name: HAProxy"),
        ] {
            let error = seen(&ANSWER.replacen(good, bad, 1)).expect_err(bad).to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
        assert!(seen("Permission denied\n\nPermission denied\n\n").is_err());
    }

    proptest! {
        #[test]
        fn an_answer_cut_at_any_byte_is_an_error(cut in 0..ANSWER.len()) {
            let reading = read(&ANSWER.as_bytes()[..cut], 3, |_| ());
            prop_assert!(reading.is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(
            position in 0..ANSWER.len(),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut answer = ANSWER.as_bytes().to_vec();
            answer.splice(position..position, bytes);
            let _ = read(&answer, 3, |_| {});
        }
    }
}
