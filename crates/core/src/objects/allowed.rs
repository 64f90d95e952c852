//! What an object of the API may say to HAProxy in HAProxy's own words.
//!
//! Whoever writes the settings file is trusted with all that HAProxy can do. Who declares through
//! the API is not: HAProxy starts as root, reads files and the environment, and runs programs. So
//! native lines are of a list, and files are those that the settings file names, too.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ObjectKind, Spec};
use crate::config::Native;
use crate::render::secrets::masked;
use crate::render::words::words;

/// Where a line may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Frontend,
    Backend,
    Either,
}

use Section::{Backend, Either, Frontend};

/// The first words of lines for frontends and backends of any mode.
const ANY_MODE: &[(Section, &str)] = &[
    (
        Frontend,
        "backlog clitcpka-cnt clitcpka-idle clitcpka-intvl default_backend error-log-format \
            log-format log-format-sd maxconn rate-limit use_backend",
    ),
    (
        Backend,
        "balance force-persist fullconn hash-balance-factor hash-type ignore-persist \
            max-keep-alive-queue persist retries retry-on srvtcpka-cnt srvtcpka-idle \
            srvtcpka-intvl stick tcp-check tcp-response use-server",
    ),
    (Either, "acl description log-tag option stick-table tcp-request timeout"),
];

/// Those of mode http alone.
const HTTP: &[(Section, &str)] = &[
    (
        Frontend,
        "capture declare max-session-srv-conns monitor monitor-uri unique-id-format \
            unique-id-header",
    ),
    (Backend, "cookie dynamic-cookie-key http-check http-reuse http-send-name-header"),
    (
        Either,
        "compression errorloc errorloc302 errorloc303 http-after-response http-error http-request \
            http-response redirect",
    ),
];

/// What stands after `option`. HAProxy itself says which of them are for which section.
const OPTIONS: &str = "abortonclose accept-invalid-http-request accept-invalid-http-response \
    allbackups checkcache clitcpka contstats disable-h2-upgrade dontlog-normal dontlognull \
    forceclose forwarded forwardfor h1-case-adjust-bogus-client h1-case-adjust-bogus-server \
    http-buffer-request http-drop-request-trailers http-drop-response-trailers http-ignore-probes \
    http-keep-alive http-no-delay http-pretend-keepalive http-restrict-req-hdr-names \
    http-server-close http-use-proxy-header httpchk httpclose httplog httpslog \
    idle-close-on-response independent-streams ldap-check log-health-checks log-separate-errors \
    logasap mysql-check nolinger originalto persist pgsql-check prefer-last-server redis-check \
    redispatch smtpchk socket-stats splice-auto splice-request splice-response srvtcpka \
    ssl-hello-chk tcp-check tcp-smart-accept tcp-smart-connect tcpka tcplog";

/// What is done by `http-request`, `http-response`, `http-after-response`, `tcp-request` and
/// `tcp-response`, without what stands in brackets behind it.
const ACTIONS: &str = "accept add-header allow auth capture close connection content del-header \
    deny disable-l7-retry early-hint expect-netscaler-cip expect-proxy inspect-delay pause \
    redirect reject replace-header replace-path replace-pathq replace-uri replace-value return \
    sc-add-gpc sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 session set-header \
    set-log-level set-method set-nice set-path set-pathq set-priority-class set-priority-offset \
    set-query set-src set-src-port set-status set-timeout set-tos set-uri set-var set-var-fmt \
    silent-drop strict-mode switch-mode tarpit track-sc0 track-sc1 track-sc2 unset-var \
    wait-for-body wait-for-handshake";

/// What may stand before a bracket in an expression: `hdr(host)`. One that ends with `*` is for all
/// that begin so.
const FUNCTIONS: &str = "add add_item and b64dec base32 base64 be_* bin bool bytes bytes_in_rate \
    bytes_out_rate capture.* concat conn_rate connslots cook cook_* cpl crc32 crc32c cut_crlf \
    date digest div djb2 even fe_* field gpc gpc0_rate gpc1_rate gpc_rate gpt hash hdr hdr_* hex \
    hex2i hmac host_only htonl http_auth http_auth_group http_date http_err_rate http_fail_rate \
    http_req_rate iif in_table int ipmask ipv4 ipv6 json json_query jwt_header_query \
    jwt_payload_query language length lower ltime ltrim meth method mod mul nbsrv neg not odd or \
    param path_* payload payload_lv port_only queue rand rdp-cookie rdp_cookie regsub req.* \
    res.* rfc7239_* rtrim sc-add-gpc sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 \
    sc0_* sc1_* sc2_* sc_* scook scook_* sdbm secure_memcmp sess_rate set-timeout set-var \
    set-var-fmt sha1 sha2 shdr shdr_* src_* srv_* ssl_* str strcmp sub table_* ub64dec ub64enc \
    unset-var upper url32 url_* urlp urlp_* utime var word wt6 xor xxh3 xxh32 xxh64";

/// Words that make a line read a file, wherever they stand.
const FILES: [&str; 10] = [
    "file",
    "lf-file",
    "errorfile",
    "errorfiles",
    "default-errorfiles",
    "ca-file",
    "ca-verify-file",
    "crl-file",
    "crt",
    "crt-list",
];

/// Lines whose words from this one on are compared or written as they are: a regular expression and
/// what takes its place. `%[...]` in them is an expression all the same.
const REPLACED: [(&str, usize); 5] = [
    ("replace-header", 3),
    ("replace-value", 3),
    ("replace-path", 2),
    ("replace-pathq", 2),
    ("replace-uri", 2),
];

/// How what is not allowed comes in all the same.
const INSTEAD: &str = "the API takes native lines of a list alone: declare it in the settings \
    file, or set api.natives = \"any\" there";

/// What an object says that the API may not, with its key and what to do; `files` are those that
/// the settings file names.
pub fn refused(kind: ObjectKind, spec: &Spec, files: &BTreeSet<String>) -> Vec<String> {
    let is_http = spec.get("mode").is_none_or(|mode| mode == "http");
    let natives = list(spec.get("natives")).iter().enumerate().filter_map(|(at, native)| {
        let line = native.as_str()?;
        let why = check(kind, is_http, line).err()?;
        let shown = masked(line).unwrap_or_else(|| line.to_owned());
        Some(format!("natives[{at}]: the line {shown:?} {why}; {INSTEAD}"))
    });
    let binds = list(spec.get("bind")).iter().enumerate().filter_map(|(at, bind)| {
        let address = bind.get("address").unwrap_or(bind).as_str().unwrap_or_default();
        let text = format!(
            "bind[{at}]: {address} is a descriptor that HAProxy was started with, which the API \
                does not give away: take an address, or set api.natives = \"any\""
        );
        address.starts_with("fd@").then_some(text)
    });
    let named = named(spec).into_iter().filter(|(_, file)| !files.contains(*file));
    let named = named.map(|(place, file)| {
        format!(
            "{place}: the API takes files alone that the settings file names, too: name {file} \
                there, or set api.natives = \"any\""
        )
    });
    let options = options(spec).filter_map(|(place, option)| {
        let why = option.split_whitespace().find_map(|word| expression(word).err())?;
        let shown = masked(option).unwrap_or_else(|| option.to_owned());
        Some(format!("{place}: the option {shown:?} {why}; {INSTEAD}"))
    });
    natives.chain(binds).chain(named).chain(options).collect()
}

/// The files whose content an object could show, or whose key it could use.
fn named(spec: &Spec) -> Vec<(String, &str)> {
    let rules = list(spec.get("rules")).iter().enumerate();
    let of_rules = rules.flat_map(|(at, rule)| {
        maps(rule).into_iter().map(move |file| (format!("rules[{at}].map.file"), file))
    });
    let certificate = spec.get("tls").and_then(|tls| tls.get("cert")).and_then(Value::as_str);
    let of_tls = certificate.map(|file| ("tls.cert".to_owned(), file));
    let of_options = options(spec).filter_map(|(place, option)| {
        let mut words = option.split_whitespace();
        let file = words.next().filter(|word| *word == "crt").and(words.next())?;
        Some((place, file))
    });
    of_rules.chain(of_tls).chain(of_options).collect()
}

/// The options of servers, with their keys.
fn options(spec: &Spec) -> impl Iterator<Item = (String, &str)> {
    let servers = list(spec.get("servers")).iter().enumerate();
    let of_servers = servers.map(|(at, it)| (format!("servers[{at}].options"), it.get("options")));
    let all = of_servers.chain([("options".to_owned(), spec.get("options"))]);
    all.flat_map(|(place, options)| {
        let texts = list(options).iter().filter_map(Value::as_str);
        texts.map(move |option| (place.clone(), option))
    })
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map files of a rule and of the tables in it.
fn maps(rule: &Value) -> Vec<&str> {
    let own = rule.get("map").and_then(|map| map.get("file")).and_then(Value::as_str);
    let within = rule.get("not").into_iter().chain(list(rule.get("any")));
    own.into_iter().chain(within.flat_map(maps)).collect()
}

/// Whether a native line may be declared through the API.
///
/// # Errors
/// What of it may not, and why.
fn check(kind: ObjectKind, is_http: bool, line: &str) -> Result<(), String> {
    // What is no native line at all is told with all that is wrong with the object.
    if Native::try_from(line.to_owned()).is_err() {
        return Ok(());
    }
    let Ok(words) = words(line) else { return Ok(()) };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let rest = match words[..] {
        [] => return Ok(()),
        ["no", "option", ..] => &words[1..],
        _ => &words[..],
    };
    let section = match kind {
        ObjectKind::Frontend => Frontend,
        ObjectKind::Backend => Backend,
    };
    let tables = ANY_MODE.iter().chain(HTTP.iter().filter(|_| is_http));
    let mut of_section = tables.filter(|(of, _)| *of == Either || *of == section);
    if !of_section.any(|(_, listed)| has(listed, rest[0])) {
        let mode = if is_http { "http" } else { "tcp" };
        let section = kind.section();
        return Err(format!(
            "begins with {:?}, which is not listed for a {section} of mode {mode}",
            rest[0]
        ));
    }
    let what = rest.get(1).copied().unwrap_or_default();
    let (listed, name) = match rest[0] {
        "option" => (OPTIONS, what),
        first if is_ruled(first) => (ACTIONS, before_bracket(what)),
        _ => ("", ""),
    };
    if !listed.is_empty() && !has(listed, name) {
        return Err(format!("has {what:?}, which is not listed"));
    }
    if matches!(what, "connection" | "content" | "session") && rest[0].starts_with("tcp-") {
        let action = rest.get(2).copied().unwrap_or_default();
        if !has(ACTIONS, before_bracket(action)) {
            return Err(format!("has {action:?}, which is not listed"));
        }
    }
    check_words(rest)
}

/// Whether what follows is an action.
fn is_ruled(first: &str) -> bool {
    matches!(
        first,
        "http-request" | "http-response" | "http-after-response" | "tcp-request" | "tcp-response"
    )
}

/// No word reads a file, and no expression has what is not listed.
fn check_words(words: &[&str]) -> Result<(), String> {
    let replaced = REPLACED.iter().find(|(action, _)| words.get(1) == Some(action));
    // What an ACL compares with may be anything.
    let mut compares = false;
    for (at, word) in words.iter().enumerate().skip(1) {
        if FILES.contains(word) || word.starts_with("-f") || word.starts_with("-M") {
            return Err(format!("has {word:?}, which reads a file"));
        }
        let is_acl = words[0] == "acl" && at == 2;
        let begins = at > 0 && matches!(words[at - 1], "{" | "!{");
        if *word == "}" {
            compares = false;
        }
        let is_text = compares || replaced.is_some_and(|(_, from)| (*from..from + 2).contains(&at));
        match is_text {
            true => formatted(word)?,
            false => expression(word)?,
        }
        compares |= is_acl || begins;
    }
    Ok(())
}

/// The expressions in a text: `%[...]`, `%{+Q}[...]`.
fn formatted(text: &str) -> Result<(), String> {
    match text.find('%').map(|at| &text[at..]) {
        Some(text) if text.contains('[') => expression(text),
        _ => Ok(()),
    }
}

/// No function of an expression is another than those that are listed.
fn expression(text: &str) -> Result<(), String> {
    if text.contains("lua.") || text.contains("proc.") {
        return Err(format!("has {text:?}, which reaches the whole process"));
    }
    for (at, _) in text.match_indices('(') {
        let before = &text[..at];
        let name = &before[before.trim_end_matches(is_of_name).len()..];
        if !name.is_empty() && !has(FUNCTIONS, name) {
            return Err(format!("has {:?}, which is not listed", format!("{name}(")));
        }
    }
    Ok(())
}

/// What HAProxy takes for a name in an expression.
fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

fn before_bracket(action: &str) -> &str {
    action.split('(').next().unwrap_or_default()
}

fn has(listed: &str, name: &str) -> bool {
    listed.split(' ').any(|known| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => known == name,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(kind: ObjectKind, spec: Value) -> Option<String> {
        let files = BTreeSet::from(["/etc/maps/a.map".to_owned()]);
        refused(kind, spec.as_object().unwrap(), &files).into_iter().next()
    }

    fn line(kind: ObjectKind, line: &str) -> Option<String> {
        of(kind, json!({"natives": [line]}))
    }

    #[test]
    fn lines_that_only_say_what_is_done_with_requests_are_taken() {
        for taken in [
            "maxconn 5",
            "option forceclose",
            "no option httplog",
            "timeout client 30s",
            "acl path_1 path_reg ^/(a|foo(bar))$",
            "acl h hdr_dom(host) -i a.example",
            "use_backend %[req.hdr(host),lower,field(1,.)] if { path_beg -i /x } !{ src ::1 }",
            "http-request set-header X-A \"%{+Q}[src] %[ssl_c_s_dn(cn)]\"",
            "http-request replace-path /foo(.*) /bar\\1 if { path -m reg ^/foo(bar)? }",
            "http-request set-var(txn.a) req.hdr(x),lower",
            "http-request return status 200 content-type text/plain lf-string \"%[src]\"",
            "stick-table type ip size 100k expire 1m store http_req_rate(10s)",
            "tcp-request content track-sc0 src",
            "capture request header Host len 32",
            "log-format \"%ci %[var(txn.a)]\"",
            "",
        ] {
            assert_eq!(line(ObjectKind::Frontend, taken), None, "{taken}");
        }
        for taken in ["balance url_param id", "option httpchk GET /", "stick on src", "retries 1"] {
            assert_eq!(line(ObjectKind::Backend, taken), None, "{taken}");
        }
    }

    #[test]
    fn nothing_reads_a_file_or_the_environment_or_runs_something() {
        for (refused, word) in [
            ("bind :80", "\"bind\""),
            ("bi\\x6ed unix@/run/a.sock", "\"bind\""),
            ("server a 127.0.0.1:1", "\"server\""),
            ("stats enable", "\"stats\""),
            ("log 10.0.0.1:514 local0", "\"log\""),
            ("no log", "\"no\""),
            ("errorfile 503 /etc/shadow", "\"errorfile\""),
            ("filter spoe config /x", "\"filter\""),
            ("option external-check", "\"external-check\""),
            ("external-check command /bin/sh", "\"external-check\""),
            ("http-request use-service lua.x", "\"use-service\""),
            ("http-request lua.x", "\"lua.x\""),
            ("http-request set-map(/m) a b", "\"set-map(/m)\""),
            ("http-request return status 200 content-type a file /etc/shadow", "\"file\""),
            ("http-request return status 200 content-type a lf-file /x", "\"lf-file\""),
            ("http-request return lf-string %[env(HOME)]", "\"env(\""),
            ("http-request return lf-string '%{+Q}[env(HOME)]'", "\"env(\""),
            ("http-request return hdr { foo lf-string %[env(HOME)]", "\"env(\""),
            ("http-request deny deny_status 503 errorfile /x", "\"errorfile\""),
            ("http-request set-var(txn.a) env(HOME)", "\"env(\""),
            ("http-request set-var(txn.a) \\x65nv(HOME)", "\"env(\""),
            ("http-request set-var(proc.a) int(1)", "proc."),
            ("http-request deny if { path -f /etc/shadow }", "\"-f\""),
            ("http-request deny if { path -M -f /etc/shadow }", "\"-M\""),
            ("http-request deny if { env(HOME) -m found }", "\"env(\""),
            ("http-request deny if !{ src,map_ip(/etc/shadow) -m found }", "\"map_ip(\""),
            ("http-request replace-path (.*) %[env(HOME)]", "\"env(\""),
            ("acl a path -i -f /etc/shadow", "\"-f\""),
            ("acl a env(HOME) -m found", "\"env(\""),
            ("acl a lua.x -m found", "lua.x"),
            ("acl a req.hdr(x),jwt_verify(RS256,/k.pem) -m int 1", "\"jwt_verify(\""),
            ("use_backend %[env(HOME)]", "\"env(\""),
            ("tcp-request content lua.x", "\"lua.x\""),
            ("tcp-request connection set-var-fmt(sess.a) %[env(HOME)]", "\"env(\""),
            ("log-format %[env(HOME)]", "\"env(\""),
            ("made-up", "\"made-up\""),
            ("balance roundrobin", "\"balance\""),
        ] {
            let told = line(ObjectKind::Frontend, refused).unwrap_or_else(|| panic!("{refused}"));
            assert!(told.contains(word) && told.contains("natives[0]"), "{refused}: {told}");
            assert!(told.contains("api.natives = \"any\""), "{told}");
        }
        let tcp = json!({"mode": "tcp", "natives": ["http-request deny"]});
        assert!(of(ObjectKind::Frontend, tcp).unwrap().contains("mode tcp"));
        let told = line(ObjectKind::Frontend, "stats auth admin:secret").unwrap();
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn files_are_those_that_the_settings_file_names() {
        let rule = |file: &str| json!({"map": {"file": file, "by": "src"}, "deny": 403});
        let with = |rule: Value| of(ObjectKind::Frontend, json!({"rules": [rule]}));
        assert_eq!(with(rule("/etc/maps/a.map")), None);
        assert!(with(rule("/etc/shadow")).unwrap().starts_with("rules[0].map.file: "));
        let nested = json!({"any": [{"path": ["/"]}, rule("/etc/shadow")], "deny": 403});
        assert!(with(nested).unwrap().contains("/etc/shadow"));
        assert!(with(json!({"not": rule("/etc/shadow"), "deny": 403})).is_some());
        for (spec, place) in [
            (json!({"tls": {"cert": "/etc/key.pem"}}), "tls.cert: "),
            (json!({"options": ["check", "crt /etc/key.pem"]}), "options: "),
            (json!({"servers": [{"options": ["crt /k"]}]}), "servers[0].options: "),
            (json!({"options": ["sni env(HOME)"]}), "options: the option \"sni env(HOME)\""),
        ] {
            let told = of(ObjectKind::Backend, spec).unwrap();
            assert!(told.starts_with(place), "{place}: {told}");
        }
        assert_eq!(of(ObjectKind::Backend, json!({"options": ["sni req.hdr(host)"]})), None);
        for bind in [json!(["127.0.0.1:80", "fd@7"]), json!([":80", {"address": "fd@7"}])] {
            let told = of(ObjectKind::Frontend, json!({"bind": bind})).unwrap();
            assert!(told.starts_with("bind[1]: fd@7 is a descriptor"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_around_it_the_environment_is_not_read(
            before in proptest::collection::vec(
                "(if|unless|\\{|\\}|!\\{|hdr|acl|path|--|-i|-m|x)", 0..6
            ),
            flags in "(\\{\\+[QEX]\\})?",
        ) {
            let text = format!("http-request set-header {} %{flags}[env(HOME)]", before.join(" "));
            prop_assert!(line(ObjectKind::Frontend, &text).is_some(), "{}", text);
        }
    }
}
