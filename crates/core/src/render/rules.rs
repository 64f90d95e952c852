//! Rules of a frontend, as lines.
//!
//! Each matcher is a named ACL, so that any number of values fits in lines of 64 words. HAProxy runs
//! all `http-request` lines before any `use_backend`: where rules rewrite what later ones match, the
//! backend is kept in a variable, so that the rules count in their order.

use super::text::Writer;
use super::words::{Line, MAX_WORDS};
use crate::config::rules::{Action, Condition, HeaderHow, How, MapKey, Matcher, Redirect, Rule};
use crate::config::{Frontend, Mode};

/// The most values in one ACL line; further ones follow in lines of the same name.
const VALUES: usize = 32;

/// The `use_backend` lines, which come after all others of the frontend.
#[must_use]
pub(super) struct Switching(Vec<(String, Line)>);

impl Switching {
    pub(super) fn write(self, writer: &mut Writer) {
        for (origin, line) in self.0 {
            writer.origin(&origin);
            writer.line(&line);
        }
    }
}

/// Writes the rules of a frontend, up to the lines that choose a backend.
pub(super) fn write(writer: &mut Writer, place: &str, frontend: &Frontend) -> Switching {
    let rules = &frontend.rules;
    let sni = sni_of(frontend);
    if sni == SNI_OF_CONTENT && rules.iter().any(looks_at_sni) {
        writer.origin(&format!("{place}.rules"));
        writer.words("tcp-request inspect-delay 5s");
    }
    let rewrites = rules.iter().any(|rule| rule.action.rewrites());
    let mut switching = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let origin = format!("{place}.rules[{index}]");
        writer.origin(&origin);
        let condition = write_condition(writer, index, &rule.condition, sni);
        match &rule.action {
            Action::Backend(name) if rewrites => {
                let line = Line::new("http-request set-var(txn.backend)");
                let line = line.value(&format!("str({name})"));
                writer.line(&with(line, &prefixed(&condition, "!{ var(txn.backend) -m found }")));
            }
            Action::Backend(name) => {
                let line = with(Line::new("use_backend").value(name.as_str()), &condition);
                switching.push((origin, line));
            }
            // Who comes by TLS is there already.
            action @ Action::Redirect { to: Redirect::Https, .. } => {
                let condition = prefixed(&condition, "!{ ssl_fc }");
                writer.line(&with(action_line(action, frontend.mode), &condition));
            }
            action => writer.line(&with(action_line(action, frontend.mode), &condition)),
        }
    }
    let chooses = |rule: &Rule| matches!(rule.action, Action::Backend(_));
    if rewrites && rules.iter().any(chooses) {
        let line = "use_backend %[var(txn.backend)] if { var(txn.backend) -m found }";
        switching.push((format!("{place}.rules"), Line::new(line)));
    }
    if sni == SNI_OF_CONTENT && rules.iter().any(looks_at_sni) {
        writer.origin(&format!("{place}.rules"));
        // The backend is chosen once the name has come.
        writer.words("tcp-request content accept if { req.ssl_hello_type 1 }");
    }
    Switching(switching)
}

/// The name in a handshake that HAProxy passes on, in mode tcp.
const SNI_OF_CONTENT: &str = "req.ssl_sni";

/// How the host name of the TLS handshake is fetched.
fn sni_of(frontend: &Frontend) -> &'static str {
    let ends_tls = frontend.binds.iter().any(|bind| bind.tls.is_some());
    match frontend.mode == Mode::Http || ends_tls {
        true => "ssl_fc_sni",
        false => SNI_OF_CONTENT,
    }
}

fn looks_at_sni(rule: &Rule) -> bool {
    let Condition { all, none, any } = &rule.condition;
    let mut matchers = all.iter().chain(none).chain(any.iter().flatten());
    matchers.any(|matcher| matches!(matcher, Matcher::Sni(_)))
}

/// Whether a rule's condition fits in a line: HAProxy takes [`MAX_WORDS`].
pub fn fits(rule: &Rule) -> bool {
    // What may stand before the condition, and in each alternative that the backend is kept by.
    const OTHERS: usize = 20;
    const IN_EACH: usize = 6;
    let alternatives = names(&rule.condition, 0);
    let words: usize = alternatives.iter().map(|acls| acls.len() + IN_EACH).sum();
    words + OTHERS < MAX_WORDS
}

/// The alternatives of a condition, each a list of ACLs that must all be true. Empty is always
/// true.
type Alternatives = Vec<Vec<String>>;

fn with(line: Line, alternatives: &Alternatives) -> Line {
    let alternatives: Vec<_> =
        alternatives.iter().filter(|acls| !acls.is_empty()).map(|acls| acls.join(" ")).collect();
    match alternatives.is_empty() {
        true => line,
        false => line.words("if").words(&alternatives.join(" or ")),
    }
}

/// The same with one more ACL in each alternative.
fn prefixed(alternatives: &Alternatives, acl: &str) -> Alternatives {
    let with = |acls: &Vec<String>| [vec![acl.to_owned()], acls.clone()].concat();
    match alternatives.is_empty() {
        true => vec![vec![acl.to_owned()]],
        false => alternatives.iter().map(with).collect(),
    }
}

fn acl_name(rule: usize, part: &str) -> String {
    format!("rule{rule}_{part}")
}

/// The alternatives of a condition by the names of its ACLs.
fn names(condition: &Condition, rule: usize) -> Alternatives {
    let name = |part: String| acl_name(rule, &part);
    let all = (0..condition.all.len()).map(|at| name(format!("all{at}")));
    let none = (0..condition.none.len()).map(|at| format!("!{}", name(format!("none{at}"))));
    let always: Vec<String> = all.chain(none).collect();
    if condition.any.is_empty() {
        return if always.is_empty() { Vec::new() } else { vec![always] };
    }
    let groups = condition.any.iter().enumerate().map(|(group, matchers)| {
        let of_group = (0..matchers.len()).map(|at| name(format!("any{group}_{at}")));
        always.iter().cloned().chain(of_group).collect()
    });
    groups.collect()
}

fn write_condition(
    writer: &mut Writer,
    rule: usize,
    condition: &Condition,
    sni: &str,
) -> Alternatives {
    let mut acls = |matchers: &[Matcher], part: &str| {
        for (at, matcher) in matchers.iter().enumerate() {
            write_acl(writer, &acl_name(rule, &format!("{part}{at}")), matcher, sni);
        }
    };
    acls(&condition.all, "all");
    acls(&condition.none, "none");
    for (group, matchers) in condition.any.iter().enumerate() {
        acls(matchers, &format!("any{group}_"));
    }
    names(condition, rule)
}

fn write_acl(writer: &mut Writer, name: &str, matcher: &Matcher, sni: &str) {
    let (fetch, values): (String, Vec<&str>) = match matcher {
        Matcher::Path(how, values) => (compared("path", *how), texts(values)),
        // Not `url`: in HTTP/2 that begins with the scheme and the host.
        Matcher::Url(how, values) => (compared("pathq", *how), texts(values)),
        Matcher::Header(header, how, values) => {
            let how = match how {
                HeaderHow::Exact => "str",
                HeaderHow::Begins => "beg",
                HeaderHow::Domain => "dom",
                HeaderHow::Regex => "reg",
            };
            (format!("req.hdr({header}) -i -m {how}"), texts(values))
        }
        Matcher::Host(values) => ("req.hdr(host),host_only -i -m str".to_owned(), texts(values)),
        Matcher::Method(values) => {
            ("method".to_owned(), values.iter().map(|value| value.as_str()).collect())
        }
        Matcher::Source(values) => {
            ("src".to_owned(), values.iter().map(|value| value.as_str()).collect())
        }
        Matcher::Sni(values) => (format!("{sni} -i -m str"), texts(values)),
        Matcher::Map(key, file) => {
            let (fetch, converter) = match key {
                MapKey::Path => ("path".to_owned(), "map_beg"),
                MapKey::Host => ("req.hdr(host),host_only,lower".to_owned(), "map_str"),
                MapKey::Source => ("src".to_owned(), "map_ip"),
                MapKey::Header(header) => (format!("req.hdr({header})"), "map_str"),
            };
            let line = Line::new("acl").value(name);
            return writer
                .line(&line.value(&format!("{fetch},{converter}({file})")).words("-m found"));
        }
    };
    for values in values.chunks(VALUES) {
        let line = Line::new("acl").value(name).words(&fetch).words("--");
        writer.line(&values.iter().fold(line, |line, value| line.value(value)));
    }
}

fn compared(fetch: &str, how: How) -> String {
    let how = match how {
        How::Exact => "str",
        How::Begins => "beg",
        How::Ends => "end",
        How::Regex => "reg",
    };
    format!("{fetch} -m {how}")
}

fn texts(values: &[crate::config::values::Text]) -> Vec<&str> {
    values.iter().map(|value| value.as_str()).collect()
}

fn action_line(action: &Action, mode: Mode) -> Line {
    let request = |words: &str| Line::new("http-request").words(words);
    match action {
        Action::Backend(name) => Line::new("use_backend").value(name.as_str()),
        Action::Redirect { to, status } => {
            let line = match to {
                Redirect::Location(location) => {
                    request("redirect location").text(location.as_str())
                }
                Redirect::Prefix(prefix) => request("redirect prefix").text(prefix.as_str()),
                Redirect::Https => request("redirect scheme https"),
            };
            line.words(&format!("code {}", status.code()))
        }
        Action::Deny(_) if mode == Mode::Tcp => Line::new("tcp-request content reject"),
        Action::Deny(status) => request(&format!("deny deny_status {status}")),
        Action::Return { status, content_type, body } => {
            let line = request(&format!("return status {}", u16::from(*status)));
            match body {
                None => line,
                Some(body) => line
                    .words("content-type")
                    .value(content_type.as_ref().map_or("text/plain", |text| text.as_str()))
                    .words("string")
                    .value(body.as_str()),
            }
        }
        Action::SetHeader(header, value) => {
            request("set-header").value(header.as_str()).text(value.as_str())
        }
        Action::DelHeader(header) => request("del-header").value(header.as_str()),
        Action::SetPath(path) => request("set-path").text(path.as_str()),
        Action::ReplacePath(expression, path) => {
            request("replace-path").value(expression.as_str()).text(path.as_str())
        }
    }
}
