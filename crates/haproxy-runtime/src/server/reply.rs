//! What HAProxy shows of its backends and servers. Pure: a cut answer is always an error, and so is
//! a row that can't be read, for a list that lacks a server would have it added a second time.

use core::net::IpAddr;
use core::str::FromStr;
use std::collections::BTreeMap;

use super::{AdminState, ObservedServer, ObservedServers};
use crate::error::ReplyError;
use crate::wire;
use crate::wire::statistics;

/// `srv_check_state`: a check is configured (HAProxy's `CHK_ST_CONFIGURED`).
const CHECK_CONFIGURED: u32 = 0x02;
/// `srv_check_state`: it is enabled (HAProxy's `CHK_ST_ENABLED`).
const CHECK_ENABLED: u32 = 0x04;
/// `srv_check_result`: the last check failed (HAProxy's `CHK_RES_FAILED`).
const CHECK_FAILED: u32 = 2;
/// The format of `show servers state` that all supported versions have, named by its first line.
const STATE_FORMAT: &str = "1";

/// What is read of `show servers state`, by its columns' names.
const STATE_COLUMNS: [&str; 13] = [
    "be_name",
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_fqdn",
    "srv_uweight",
    "srv_iweight",
    "srv_op_state",
    "srv_admin_state",
    "srv_check_state",
    "srv_check_result",
    "srv_agent_state",
    "srv_use_ssl",
];
/// What is read of `show stat`, by its columns' names.
const STATISTICS_COLUMNS: [&str; 12] = [
    "pxname",
    "svname",
    "type",
    "status",
    "bck",
    "scur",
    "slim",
    "stot",
    "qcur",
    "qlimit",
    "algo",
    "check_desc",
];

/// Reads the answer to [`super::command::OBSERVE`]: every backend that is not disabled, those
/// without servers included.
///
/// # Errors
/// A cut answer, a row that can't be read, a server in one list that the other lacks (observe
/// again).
pub fn observed(answer: &[u8]) -> Result<ObservedServers, ReplyError> {
    let replies = wire::replies(answer, 2)?;
    let mut states = states(text(replies[0])?)?;
    let mut backends = ObservedServers::new();
    statistics::rows(text(replies[1])?, STATISTICS_COLUMNS, |fields, row| {
        let [
            proxy,
            server,
            kind,
            status,
            backup,
            sessions,
            limit,
            total,
            queued,
            queue_limit,
            algorithm,
            last_check,
        ] = fields;
        let unreadable = |why: &str| ReplyError::unreadable(row, why);
        let backend = backends.entry(proxy.to_owned()).or_default();
        // HAProxy's management guide, "CSV format": 1 is a backend, 2 a server.
        match kind {
            "1" => backend.algorithm = Some(algorithm.to_owned()).filter(|name| !name.is_empty()),
            "2" => {
                let (_, mut seen) =
                    states.remove(&(proxy.to_owned(), server.to_owned())).ok_or_else(|| {
                        unreadable("the server is listed twice, or not in `show servers state`")
                    })?;
                status.clone_into(&mut seen.status);
                last_check.clone_into(&mut seen.last_check);
                seen.backup = number::<u8>(backup).ok_or_else(|| unreadable("bck"))? == 1;
                seen.sessions = number(sessions).ok_or_else(|| unreadable("scur"))?;
                seen.sessions_total = number(total).ok_or_else(|| unreadable("stot"))?;
                seen.queued = number(queued).ok_or_else(|| unreadable("qcur"))?;
                seen.maxconn = limited(limit).ok_or_else(|| unreadable("slim"))?;
                seen.maxqueue = limited(queue_limit).ok_or_else(|| unreadable("qlimit"))?;
                backend.servers.insert(server.to_owned(), seen);
            }
            _ => return Err(unreadable("neither a backend nor a server")),
        }
        Ok(())
    })?;
    // Disabled backends are not in the statistics. Those that are must have all their servers
    // there.
    match states.into_iter().find(|((backend, _), _)| backends.contains_key(backend)) {
        Some((_, (row, _))) => Err(ReplyError::unreadable(row, "the server is not in `show stat`")),
        None => Ok(backends),
    }
}

/// The servers by backend and name, each with its row; what `show stat` knows is still to be filled
/// in.
type States<'a> = BTreeMap<(String, String), (&'a str, ObservedServer)>;

fn states(listing: &str) -> Result<States<'_>, ReplyError> {
    let mut lines = listing.lines();
    let head = match (lines.next(), lines.next().and_then(|line| line.strip_prefix("# "))) {
        (Some(STATE_FORMAT), Some(head)) => head,
        _ => return Err(ReplyError::from_text(listing.as_bytes())),
    };
    let names: Vec<&str> = head.split(' ').collect();
    let columns = statistics::positions(&names, STATE_COLUMNS)?;
    lines
        .map(|row| {
            let (backend, server, seen) =
                state(row, names.len(), columns).map_err(|why| ReplyError::unreadable(row, why))?;
            Ok(((backend.to_owned(), server.to_owned()), (row, seen)))
        })
        .collect()
}

fn state(
    row: &str,
    width: usize,
    columns: [usize; STATE_COLUMNS.len()],
) -> Result<(&str, &str, ObservedServer), &'static str> {
    let fields: Vec<&str> = row.split(' ').collect();
    if fields.len() != width {
        return Err("its columns are not those of its head");
    }
    let [
        backend,
        server,
        address,
        port,
        fqdn,
        weight,
        initial_weight,
        operational,
        admin,
        check,
        result,
        agent,
        tls,
    ] = columns.map(|column| fields[column]);
    if backend.is_empty() || server.is_empty() {
        return Err("no name");
    }
    let address = match address {
        // A unix socket, or a name without an address.
        "-" => None,
        address => Some(address.parse::<IpAddr>().map_err(|_| "srv_addr")?),
    };
    let check: u32 = number(check).ok_or("srv_check_state")?;
    let result: u32 = number(result).ok_or("srv_check_result")?;
    let agent: u32 = number(agent).ok_or("srv_agent_state")?;
    let seen = ObservedServer {
        address,
        port: number(port).ok_or("srv_port")?,
        fqdn: Some(fqdn.to_owned()).filter(|name| name != "-"),
        weight: number(weight).ok_or("srv_uweight")?,
        initial_weight: number(initial_weight).ok_or("srv_iweight")?,
        admin: AdminState(number(admin).ok_or("srv_admin_state")?),
        running: match operational {
            // Stopped, and stopping after a `drain` by the check (HAProxy's `enum srv_state`).
            "0" | "3" => false,
            "1" | "2" => true,
            _ => return Err("srv_op_state"),
        },
        // -1 is `no-ssl`.
        tls: tls == "1",
        status: String::new(),
        last_check: String::new(),
        check_configured: check & CHECK_CONFIGURED != 0,
        check_enabled: check & CHECK_ENABLED != 0,
        check_failed: result == CHECK_FAILED,
        agent_enabled: agent & CHECK_ENABLED != 0,
        backup: false,
        maxconn: None,
        maxqueue: None,
        sessions: 0,
        queued: 0,
        sessions_total: 0,
    };
    Ok((backend, server, seen))
}

fn text(reply: &[u8]) -> Result<&str, ReplyError> {
    str::from_utf8(reply).map_err(|_| ReplyError::unexpected(reply))
}

/// A number in digits only: no sign, no space.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A limit: none where the field is empty. None of all where it is no number.
fn limited(text: &str) -> Option<Option<u32>> {
    if text.is_empty() { Some(None) } else { number(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As 3.0 answers, with the columns that nobody reads left out of `show stat`.
    const ANSWER: &str = "1\n\
        # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health \
        srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port \
        srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n\
        3 b 1 s1 127.0.0.1 0 0 7 5 0 8 2 0 6 0 0 0 - 1111 - 1 0 - - 0\n\
        3 b 2 s:2 2001:db8::1 2 0 1 1 0 1 0 2 0 0 0 0 - 2222 - -1 0 - - 0\n\
        3 b 3 fq1 - 0 32 1 1 0 1 0 0 14 0 0 0 nosuch.example.test 80 - 0 0 - - 0\n\
        3 b 4 new 127.0.0.1 0 1 1 1 0 1 0 0 2 0 0 0 - 1 - 0 0 - - 0\n\
        8 off 0 a 127.0.0.1 2 0 1 1 0 1 0 2 0 0 0 0 - 1 - 0 0 - - 0\n\n\
        # pxname,svname,qcur,scur,slim,stot,status,bck,qlimit,type,last_chk,algo,check_desc,\n\
        b,s1,1,2,10,99,UP 1/3,0,5,2,\"a, \"\"b\"\"\nc\",,Layer7 timeout,\n\
        b,s:2,0,0,,0,no check,1,,2,,,,\n\
        b,fq1,0,0,,0,MAINT (resolution),0,,2,,,,\n\
        b,new,0,0,,0,MAINT,0,,2,,,,\n\
        b,BACKEND,0,0,999,0,UP,0,,1,,roundrobin,,\n\
        empty,BACKEND,0,0,1,0,UP,0,,1,,,,\n\n";

    fn look(answer: &str) -> Result<ObservedServers, ReplyError> {
        observed(answer.as_bytes())
    }

    #[test]
    fn one_look_tells_every_backend_and_server() {
        let seen = look(ANSWER).unwrap();
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["b", "empty"], "a disabled backend is none");
        assert!(seen["empty"].servers.is_empty());
        assert_eq!(
            (seen["b"].algorithm.as_deref(), &seen["empty"].algorithm),
            (Some("roundrobin"), &None)
        );
        let servers = &seen["b"].servers;
        let first = &servers["s1"];
        assert_eq!((first.address, first.port), (Some("127.0.0.1".parse().unwrap()), 1111));
        assert_eq!((first.weight, first.maxconn, first.maxqueue), (7, Some(10), Some(5)));
        assert_eq!(first.initial_weight, 5);
        assert_eq!((first.sessions, first.queued, first.sessions_total), (2, 1, 99));
        assert_eq!((first.status.as_str(), first.running, first.backup), ("UP 1/3", false, false));
        assert_eq!((first.tls, first.last_check.as_str()), (true, "Layer7 timeout"));
        assert!(
            first.check_configured
                && first.check_enabled
                && first.check_failed
                && first.admin.ready()
        );
        assert!(
            !first.agent_enabled
                && look(&ANSWER.replace(
                    "0 8 2 0 6 0 0",
                    "0 8 2 0 6 22 \
                    0"
                ))
                .unwrap()["b"]
                    .servers["s1"]
                    .agent_enabled
        );
        let second = &servers["s:2"];
        assert_eq!(
            (second.address, second.maxconn, second.maxqueue),
            (Some("2001:db8::1".parse().unwrap()), None, None)
        );
        assert!(!second.tls && second.last_check.is_empty());
        assert!(
            second.backup && second.running && !second.check_configured && !second.check_failed
        );
        let named = &servers["fq1"];
        assert_eq!((named.address, named.fqdn.as_deref()), (None, Some("nosuch.example.test")));
        assert_eq!(
            (named.status.as_str(), named.admin),
            ("MAINT (resolution)", AdminState(AdminState::UNRESOLVED))
        );
        assert!(
            servers["new"].check_configured
                && !servers["new"].check_enabled
                && servers["new"].admin.in_maintenance()
        );
    }

    #[test]
    fn statuses_are_told_as_haproxy_decorates_them() {
        for status in [
            "MAINT (via b/s2)",
            "MAINT(via)",
            "DOWN 1/2",
            "DOWN (agent)",
            "DRAIN",
            "NOLB 1/3",
            "DRAIN (agent)",
            "UP",
        ] {
            let seen = look(&ANSWER.replace("UP 1/3", status)).unwrap();
            assert_eq!(seen["b"].servers["s1"].status, status);
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_and_fails_the_look() {
        for (good, bad, named) in [
            ("3 b 1 s1 127.0.0.1 0", "3 b 1 s1 127.0.0 0", "3 b 1 s1 127.0.0 0"),
            ("srv_fqdn srv_port", "srv_fqdn port", "srv_port"),
            (" - 1111 - 1 0 - - 0", " - 1111 - 1 0 -", "3 b 1 s1"),
            (" - 1111 -", " - 70000 -", "srv_port"),
            ("b,s1,1,2,10,99,", "b,s1,1,2,10,", "b,s1,1"),
            ("b,s1,1,2,10,99,", "b,s1,1,2,-1,99,", "slim"),
            ("b,s1,1,2,10,99,", "b,s1,1,2,10,,", "stot"),
            ("b,s:2,", "b,s3,", "b,s3,"),
            ("b,new,0,0,,0,MAINT,0,,2,,,,\n", "", "3 b 4 new"),
            ("b,new,", "b,fq1,", "listed twice"),
            ("0,,1,,roundrobin", "0,,3,,roundrobin", "b,BACKEND"),
            (",algo,", ",rabbit,", "algo"),
        ] {
            assert!(ANSWER.contains(good), "{good}");
            let error = look(&ANSWER.replacen(good, bad, 1)).expect_err(bad).to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
        assert_eq!(look("Permission denied\n\nPermission denied\n\n"), Err(ReplyError::Denied));
        assert!(look(&ANSWER.replacen("1\n#", "2\n#", 1)).is_err(), "a format to come");
        assert!(look("").is_err());
    }

    proptest! {
        #[test]
        fn a_look_cut_at_any_byte_is_an_error(cut in 0..ANSWER.len()) {
            prop_assert!(observed(&ANSWER.as_bytes()[..cut]).is_err());
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(
            position in 0..ANSWER.len(),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let _ = observed(&bytes);
            let mut answer = ANSWER.as_bytes().to_vec();
            answer.splice(position..position, bytes);
            let _ = observed(&answer);
        }
    }
}
