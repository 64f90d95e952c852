//! Which section of HAProxy's configuration a line of a `listen` section belongs to, now that a
//! frontend and a backend stand in its place (section 4.1 of HAProxy's manual, 2.6 to 3.4).

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Frontend,
    Backend,
    /// Either section may have it: it goes where requests come first.
    Either,
    /// A service may not have it, and what to do instead.
    Refused(&'static str),
}

use Place::{Backend, Either, Frontend, Refused};

/// The first words of lines.
const KEYWORDS: &[(Place, &str)] = &[
    (
        Frontend,
        "backlog capture clitcpka-cnt clitcpka-idle clitcpka-intvl declare error-log-format \
            log-format log-format-sd max-session-srv-conns maxconn monitor monitor-uri rate-limit \
            unique-id-format unique-id-header",
    ),
    (
        Backend,
        "balance cookie dynamic-cookie-key force-persist fullconn hash-balance-factor hash-type \
            http-check http-reuse http-send-name-header ignore-persist max-keep-alive-queue \
            persist retries retry-on source srvtcpka-cnt srvtcpka-idle srvtcpka-intvl stick \
            tcp-check tcp-response use-server",
    ),
    (
        Either,
        "acl compression description errorfile errorloc errorloc302 errorloc303 \
            http-after-response http-error http-request http-response log-tag mode option \
            redirect stick-table tcp-request timeout",
    ),
    (Refused("its port and services.address say where it listens"), "bind"),
    (Refused("its servers come from what `type` names"), "server server-template dispatch"),
    (Refused("write it into server_options"), "default-server"),
    (
        Refused("a service has its own backend; write the frontend into Mapsmith's settings"),
        "default_backend use_backend",
    ),
    (Refused("take the service out of the registry instead"), "disabled"),
    (Refused("that is the default"), "enabled"),
    (Refused("set haproxy.stats in Mapsmith's settings"), "stats"),
    (Refused("set haproxy.log in Mapsmith's settings"), "log"),
    (
        Refused("a registry may run or load nothing; write it into Mapsmith's settings"),
        "email-alert errorfiles external-check filter id guid load-server-state-from-file \
            server-state-file-name transparent use-fcgi-app",
    ),
];

/// What stands after `option`.
const OPTIONS: &[(Place, &str)] = &[
    (
        Frontend,
        "accept-invalid-http-request accept-unsafe-violations-in-http-request clitcpka contstats \
            disable-h2-upgrade dontlog-normal dontlognull h1-case-adjust-bogus-client \
            http-drop-response-trailers http-ignore-probes http-use-proxy-header httplog httpslog \
            idle-close-on-response log-separate-errors logasap socket-stats tcp-smart-accept \
            tcplog",
    ),
    (
        Backend,
        "abortonclose accept-invalid-http-response accept-unsafe-violations-in-http-response \
            allbackups checkcache forwarded h1-case-adjust-bogus-server \
            http-drop-request-trailers http-pretend-keepalive httpchk ldap-check \
            log-health-checks mysql-check persist pgsql-check prefer-last-server redis-check \
            redispatch smtpchk spop-check srvtcpka ssl-hello-chk tcp-check tcp-smart-connect",
    ),
    (
        Either,
        "forceclose forwardfor http-buffer-request http-keep-alive http-no-delay \
            http-restrict-req-hdr-names http-server-close httpclose independent-streams nolinger \
            originalto splice-auto splice-request splice-response tcpka",
    ),
    (Refused("a registry may run nothing; use another check"), "external-check"),
    (Refused("write the servers into the registry"), "transparent http_proxy"),
];

/// What stands after `timeout`.
const TIMEOUTS: &[(Place, &str)] = &[
    (Frontend, "client client-fin client-hs clitimeout"),
    (Backend, "check connect queue server server-fin tunnel"),
    (Either, "http-keep-alive http-request tarpit"),
];

/// What stands after `tcp-request`.
const TCP_REQUESTS: &[(Place, &str)] =
    &[(Frontend, "connection session"), (Either, "content inspect-delay")];

/// Where a line with these words goes; none where HAProxy's `listen` knows no such line.
pub(super) fn place(words: &[&str]) -> Option<Place> {
    let find = |table: &[(Place, &str)], word: &str| {
        let mut rows = table.iter();
        rows.find(|(_, words)| words.split(' ').any(|known| known == word)).map(|row| row.0)
    };
    match words {
        ["no", "log", ..] => Some(Frontend),
        ["no", rest @ ..] if rest.first() == Some(&"option") => place(rest),
        ["option", option, ..] => find(OPTIONS, option),
        ["timeout", timeout, ..] => find(TIMEOUTS, timeout),
        ["tcp-request", what, ..] => find(TCP_REQUESTS, what),
        // As in the defaults.
        ["log", "global"] => Some(Frontend),
        ["option" | "timeout" | "tcp-request"] | [] => None,
        [word, ..] => find(KEYWORDS, word),
    }
}

/// Words after which a file is named, in lines and in options of servers.
const FILES: [&str; 10] = [
    "-f",
    "file",
    "lf-file",
    "errorfile",
    "errorfiles",
    "crt",
    "ca-file",
    "crl-file",
    "ca-verify-file",
    "default-errorfiles",
];

/// Expressions that a registry may not have: they run programs of others, read the environment or
/// keys, change maps that others, the node map among them, are read from, or reach what is the
/// whole process's.
const EXPRESSIONS: [&str; 10] = [
    "lua.",
    "use-service",
    "set-map(",
    "del-map(",
    "add-acl(",
    "del-acl(",
    "env(",
    "jwt_",
    "in_table(",
    "var(proc.",
];

/// Words that lead to tables of others.
const OTHERS_TABLES: [&str; 3] = ["table", "write-to", "peers"];

/// The files that a line with these words names; or what of it a service may not have.
pub(super) fn files<'a>(words: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let mut files = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if let Some(expression) = EXPRESSIONS.iter().find(|expression| word.contains(**expression))
        {
            return Err(format!(
                "a registry may not have {expression:?}; write the frontend into Mapsmith's \
                    settings"
            ));
        }
        if OTHERS_TABLES.contains(word) || names_table(word) {
            return Err(format!("{word:?}: a service has no table but its own"));
        }
        if FILES.contains(word) {
            files.extend(words.get(at + 1));
        }
        if *word == "errorfile" && at == 0 {
            files = words.get(2).copied().into_iter().collect();
            return Ok(files);
        }
        files.extend(mapped_file(word));
    }
    Ok(files)
}

/// Whether an expression has a table's name among its arguments: `table_conn_cur(TABLE)`,
/// `src_inc_gpc0(TABLE)`, `sc_get_gpc0(0,TABLE)`. Its own table needs no name.
fn names_table(word: &str) -> bool {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    word.match_indices('(').any(|(at, _)| {
        let before = &word[..at];
        let name = &before[before.trim_end_matches(is_of_name).len()..];
        let arguments = word[at + 1..].split(')').next().unwrap_or_default();
        let has_name = arguments.contains(|letter: char| !matches!(letter, '0'..='9' | ','));
        let counters = name.starts_with("src_") || name.starts_with("sc");
        name.starts_with("table_") || (counters && name.contains('_') && has_name)
    })
}

/// The file of a converter: `map(FILE)`, `map_beg_ip(FILE,DEFAULT)`.
fn mapped_file(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices("map").filter_map(|(at, _)| {
        let rest = &word[at + 3..];
        let (kind, arguments) = rest.split_once('(')?;
        let is_kind = kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_kind.then(|| arguments.split([',', ')']).next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(line: &str) -> Option<Place> {
        place(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn each_line_has_its_section() {
        for (line, expected) in [
            ("capture request header Host len 32", Some(Frontend)),
            ("option httpchk GET /", Some(Backend)),
            ("no option httplog", Some(Frontend)),
            ("option forwardfor", Some(Either)),
            ("timeout server 1m", Some(Backend)),
            ("timeout client 1m", Some(Frontend)),
            ("tcp-request connection reject", Some(Frontend)),
            ("tcp-request inspect-delay 1s", Some(Either)),
            ("log global", Some(Frontend)),
            ("no log", Some(Frontend)),
            ("option made-up", None),
            ("made-up", None),
            ("option", None),
        ] {
            assert_eq!(place_of(line), expected, "{line}");
        }
        for line in ["log 10.0.0.1 local0", "bind :80", "stats admin if TRUE", "no bind :80"] {
            assert!(matches!(place_of(line), Some(Refused(_)) | None), "{line}");
        }
    }

    #[test]
    fn no_word_stands_in_two_rows() {
        for table in [KEYWORDS, OPTIONS, TIMEOUTS, TCP_REQUESTS] {
            let mut words: Vec<_> = table.iter().flat_map(|row| row.1.split(' ')).collect();
            let all = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), all);
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }

    #[test]
    fn every_file_that_a_line_names_is_found() {
        for (line, expected) in [
            ("acl a path -i -f /etc/a -f /etc/b", vec!["/etc/a", "/etc/b"]),
            ("http-request return status 200 lf-file /etc/shadow", vec!["/etc/shadow"]),
            ("errorfile 503 /etc/shadow", vec!["/etc/shadow"]),
            ("http-request set-path %[path,map_beg(/etc/m,web)]", vec!["/etc/m"]),
            ("http-request set-header X %[src,map(/a)]-%[src,map_ip(/b)]", vec!["/a", "/b"]),
            ("check ssl crt /etc/key.pem", vec!["/etc/key.pem"]),
            ("balance roundrobin", vec![]),
        ] {
            assert_eq!(files(&line.split(' ').collect::<Vec<_>>()), Ok(expected), "{line}");
        }
        for line in [
            "http-request set-map(/m) a b",
            "http-request lua.x",
            "http-request use-service x",
            "acl a req.hdr(x),jwt_verify(RS256,/etc/key.pem) -m int 1",
            "http-request set-var(proc.x) int(1)",
            "acl a src,in_table(others)",
            "acl a src,table_conn_cur(others) gt 1",
            "http-request set-header X %[src_inc_gpc0(others)]",
            "http-request set-header X %[sc_get_gpc0(0,others)]",
            "http-request set-header X %[sc0_inc_gpc0(others)]",
            "http-request track-sc0 src table others",
            "stick-table type ip size 1k write-to others",
            "stick-table type ip size 1k peers p",
        ] {
            assert!(files(&line.split(' ').collect::<Vec<_>>()).is_err(), "{line}");
        }
        for line in ["acl a sc_get_gpc0(0) gt 1", "acl a src_conn_cur gt 1", "acl a sc1_tracked"] {
            assert_eq!(files(&line.split(' ').collect::<Vec<_>>()), Ok(vec![]), "{line}");
        }
    }
}
