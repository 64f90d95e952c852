//! The node map's gateway: the node of a request, its master, that master's server.
//!
//! docs/gateway.md explains what these lines do, and why nothing runs twice.

use super::text::Writer;
use super::words::Line;
use crate::config::values::{ErrorStatus, HeaderName, Text};
use crate::config::{Backend, Frontend, Route, RouteBy};

/// Where requests go whose master is no backend.
const NO_BACKEND: &str = "mapsmith-no-backend";

/// Whether the node's name, or who the client is, is in a header that another spelling of its name
/// could pass for.
pub(super) fn trusts_a_plain_header(route: &Route) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match &route.by {
        RouteBy::Header(name) => name.as_str().bytes().all(plain),
        RouteBy::ClientCertificate => true,
    }
}

/// What is repeated where the settings do not say.
pub(super) fn retry_on(route: &Route) -> String {
    match (route.misdirected, &route.by) {
        // Neither of them means that a master has run anything.
        (Some(status), _) => format!("conn-failure {status}"),
        // A catalog that is compiled twice harms nobody.
        (None, RouteBy::ClientCertificate) => "conn-failure empty-response 502 503".to_owned(),
        (None, RouteBy::Header(_)) => "conn-failure".to_owned(),
    }
}

/// How often, where the settings do not say: a search misses the owner among three masters once in
/// a million times.
pub(super) fn retries(route: &Route) -> u16 {
    if route.misdirected.is_some() { 28 } else { 3 }
}

/// The `http-request` lines of the frontend.
pub(super) fn write_requests(writer: &mut Writer, route: &Route) {
    match &route.by {
        RouteBy::Header(name) => write_header(writer, route, name),
        RouteBy::ClientCertificate => write_client_certificate(writer, route),
    }
    if route.backend.is_none() {
        writer.words("acl node_in_map var(txn.master) -m found");
        let condition = match route.by {
            RouteBy::Header(_) => "if !node_in_map",
            RouteBy::ClientCertificate => "if certified !node_in_map",
        };
        let text = "The node %[var(txn.node)] is not in the map: no master is known for it.";
        writer.line(&formatted(404, None, text).words(condition));
    }
    if !route.shared.is_empty() {
        writer.line(&paths("shared_path", &route.shared));
        writer.words("http-request set-var(txn.shared) bool(true) if shared_path");
    }
}

fn write_header(writer: &mut Writer, route: &Route, name: &HeaderName) {
    writer.words(&format!("http-request set-var(txn.node) req.hdr({name}),lower"));
    let map = &route.map;
    writer.words(&format!("http-request set-var(txn.master) var(txn.node),map_str({map})"));
    // A longer name would be cut in the table of learned routes, and two nodes taken for one.
    writer.words(&format!("acl one_node_named req.hdr_cnt({name}) eq 1"));
    writer.words("acl node_is_a_name var(txn.node) -m len 1:255");
    let text = format!("Name one node, and only one, in the header {name} (at most 255 bytes).");
    writer.line(&plain(400, &text).words("if !one_node_named or !node_is_a_name"));
}

fn write_client_certificate(writer: &mut Writer, route: &Route) {
    // An invalid certificate does not come so far, unless a native line makes HAProxy ignore it.
    writer.words("http-request deny if { ssl_c_used } !{ ssl_c_verify 0 }");
    writer.words("acl certified ssl_c_used");
    writer.words("http-request set-var(txn.node) ssl_c_s_dn(cn),lower if certified");
    let map = &route.map;
    writer.words(&format!(
        "http-request set-var(txn.master) var(txn.node),map_str({map}) if certified"
    ));
    // A comma or an equals sign would make another subject of it in the header below.
    writer.words("acl node_is_a_certname var(txn.node) -m reg '^[a-z0-9._-]{1,255}$'");
    let open: Vec<&str> = route.open.iter().map(Text::as_str).collect();
    let (text, condition) = match open.is_empty() {
        true => ("Nothing".to_owned(), "if !certified"),
        false => {
            writer.line(&paths("open_path", &route.open));
            (format!("Only {}", open.join(", ")), "if !certified !open_path")
        }
    };
    let text = format!("{text} answers without a certificate that the Puppet CA has signed.");
    writer.line(&plain(403, &text).words(condition));
    let text = "The certificate's common name is not a Puppet certname.";
    writer.line(&plain(403, text).words("if certified !node_is_a_certname"));
    // What a client says of itself is dropped.
    for line in [
        "del-header X-Client- -m beg",
        "set-header X-Client-Verify SUCCESS if certified",
        r#"set-header X-Client-DN "CN=%[var(txn.node)]" if certified"#,
        r#"set-header X-Client-Cert "-----BEGIN%%20CERTIFICATE-----%%0A%[ssl_c_der,base64,url_enc]%%0A-----END%%20CERTIFICATE-----%%0A" if certified"#,
    ] {
        writer.words(&format!("http-request {line}"));
    }
}

/// Where the frontend sends what no rule sends elsewhere.
pub(super) fn write_switching(writer: &mut Writer, route: &Route, has_default: bool) {
    match &route.backend {
        Some(backend) => writer.line(&Line::new("default_backend").value(backend.as_str())),
        None => {
            writer.words("use_backend %[var(txn.master)]");
            if !has_default {
                writer.words(&format!("default_backend {NO_BACKEND}"));
            }
        }
    }
}

/// The backend of requests whose master is no backend, where a frontend has no other for them.
pub(super) fn write_missing_backend(writer: &mut Writer, frontends: &[Frontend]) {
    let needs = |frontend: &Frontend| {
        frontend.default_backend.is_none()
            && frontend.route.as_ref().is_some_and(|route| route.backend.is_none())
    };
    let Some(index) = frontends.iter().position(needs) else { return };
    writer.origin(&format!("frontend[{index}].route"));
    writer.section(&Line::new("backend").value(NO_BACKEND));
    let text = "The map sends the node %[var(txn.node)] to %[var(txn.master)], but HAProxy has no \
        such backend.";
    writer.line(&formatted(503, None, text));
}

/// The lines of the backend with all masters.
pub(super) fn write_backend(writer: &mut Writer, backend: &Backend, route: &Route) {
    writer.words("acl mapped var(txn.master) -m found");
    match route.misdirected {
        Some(status) => write_learning(writer, backend, route, status),
        None => {
            write_queue_limit(writer, backend, "mapped", "");
            // Passed over where that master is down, or no server has its name.
            writer.words("use-server %[var(txn.master)] if mapped");
        }
    }
    write_errors(writer, backend, route);
}

/// A `maxqueue` on the servers would send the overflow to other masters.
fn write_queue_limit(writer: &mut Writer, backend: &Backend, condition: &str, owner: &str) {
    if let Some(most) = backend.maxqueue {
        let text = format!("The queue of the master %[var(txn.master)]{owner} is full.");
        let is_full = format!("if {condition} {{ var(txn.master),srv_queue ge {most} }}");
        writer.line(&formatted(503, Some(5), &text).words(&is_full));
    }
}

fn write_learning(writer: &mut Writer, backend: &Backend, route: &Route, status: ErrorStatus) {
    let not_shared = match route.shared.is_empty() {
        true => "",
        false => {
            writer.words("acl shared var(txn.shared) -m bool");
            writer.words("http-request disable-l7-retry if shared");
            " !shared"
        }
    };
    writer.words("stick-table type string len 255 size 100k expire 10m");
    writer.words(&format!("acl learned var(txn.node),in_table({})", backend.name));
    writer.words("acl as_mapped srv_name,strcmp(txn.master) eq 0");
    writer.words("acl answered status 200:299");
    let owner = ", which owns the node %[var(txn.node)],";
    write_queue_limit(writer, backend, "mapped !learned", owner);
    writer.words("stick match var(txn.node)");
    writer.words("use-server %[var(txn.master)] if mapped !learned");
    // Reached only where the line before could not take its server: that master is down.
    writer.words(
        "use-server %[var(txn.master)] if mapped !learned { var(txn.master),set-var(txn.down) -m \
            found }",
    );
    writer.words(&format!("stick store-response var(txn.node) if answered !as_mapped{not_shared}"));
    // So that a learned route corrects itself.
    writer.words(&format!("stick store-response var(txn.node) if answered learned{not_shared}"));
    let text = "The master %[var(txn.master)], which owns the node %[var(txn.node)], is not \
        available.";
    let refused = format!("if {{ status {status} }}");
    writer.line(&answer(
        503,
        Some(5),
        text,
        &format!("{refused} {{ var(txn.down) -m found }}{not_shared}"),
    ));
    let text = format!(
        "No master owns the node %[var(txn.node)]: it is not in the map, and each that could be \
            asked answered {status}."
    );
    writer.line(&answer(404, None, &text, &format!("{refused} !mapped{not_shared}")));
}

/// An answer in place of the master's.
fn answer(status: u16, retry_after: Option<u32>, text: &str, condition: &str) -> Line {
    let line = Line::new("http-response return");
    described(line, status, retry_after, text).words(condition)
}

/// The gateway's own answers where no master gives one, unless the settings have others.
fn write_errors(writer: &mut Writer, backend: &Backend, route: &Route) {
    const NODE: &str = "the node %[var(txn.node)]";
    let up = format!("now (%[nbsrv({})] up): try again later.", backend.name);
    let texts = match route.by {
        RouteBy::Header(_) => [
            format!("No master takes the request for {NODE} {up}"),
            format!(
                "A master's answer for {NODE} broke off or was no HTTP. The request was not \
                    repeated, as it may have been run."
            ),
            format!(
                "A master took too long over the request for {NODE}. It was not repeated, as it \
                    may have been run."
            ),
        ],
        RouteBy::ClientCertificate => [
            format!("No master takes the request of {NODE} {up}"),
            format!("The masters' answers for {NODE} broke off or were no HTTP."),
            format!("A master took too long over the request of {NODE}."),
        ],
    };
    let statuses = [
        (ErrorStatus::UNAVAILABLE, Some(5)),
        (ErrorStatus::BAD_GATEWAY, None),
        (ErrorStatus::GATEWAY_TIMEOUT, None),
    ];
    for ((status, retry_after), text) in statuses.into_iter().zip(texts) {
        if backend.errors.iter().all(|error| error.status != status) {
            let line = Line::new("http-error");
            writer.line(&described(line, status.into(), retry_after, &text));
        }
    }
}

/// `acl NAME path_beg -- ...`
fn paths(name: &str, paths: &[Text]) -> Line {
    let line = Line::new("acl").value(name).words("path_beg --");
    paths.iter().fold(line, |line, path| line.value(path.as_str()))
}

/// `http-request return` with a text as it is, and a line break.
fn plain(status: u16, text: &str) -> Line {
    let line = Line::new(&format!("http-request return status {status}"));
    line.words("content-type text/plain string").value_line(text)
}

/// `http-request return` with a text in which HAProxy fills in `%[...]`, and a line break.
fn formatted(status: u16, retry_after: Option<u32>, text: &str) -> Line {
    described(Line::new("http-request return"), status, retry_after, text)
}

fn described(line: Line, status: u16, retry_after: Option<u32>, text: &str) -> Line {
    let mut line = line.words(&format!("status {status} content-type text/plain"));
    if let Some(seconds) = retry_after {
        line.push_words(&format!("hdr Retry-After {seconds}"));
    }
    line.words("lf-string").value_line(text)
}
