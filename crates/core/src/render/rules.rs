//! Rules of a frontend, as lines.
//!
//! Each matcher is an ACL with a name of its own, so that any number of values fits in lines of 64
//! words. HAProxy runs all `http-request` lines before any `use_backend`: where rules rewrite what
//! later ones match, the backend is chosen in a variable, in the order of the rules.

use super::text::Writer;
use super::words::{Line, MAX_WORDS};
use crate::config::rules::{Action, Condition, HeaderHow, How, MapKey, Matcher, Redirect, Rule};

/// The most values in one ACL line; further ones follow in lines of the same name.
const VALUES: usize = 32;

/// Writes the rules of the frontend that is rendered; `place` is its setting.
pub(super) fn write(writer: &mut Writer, place: &str, rules: &[Rule], is_http: bool) {
    let rewrites = rules.iter().any(|rule| rule.action.rewrites());
    let mut backends = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        writer.of(&format!("{place}.rules[{index}]"));
        let condition = write_condition(writer, index, &rule.condition, is_http);
        match &rule.action {
            Action::Backend(name) if rewrites => {
                let line = Line::new("http-request set-var(txn.backend)");
                let line = line.value(&format!("str({name})"));
                writer.line(&with(line, &prefixed(&condition, "!{ var(txn.backend) -m found }")));
            }
            Action::Backend(name) => {
                backends
                    .push((index, with(Line::new("use_backend").value(name.as_str()), &condition)));
            }
            action => writer.line(&with(action_line(action, is_http), &condition)),
        }
    }
    for (index, line) in backends {
        writer.of(&format!("{place}.rules[{index}]"));
        writer.line(&line);
    }
    let chooses = |rule: &Rule| matches!(rule.action, Action::Backend(_));
    if rewrites && rules.iter().any(chooses) {
        writer.of(&format!("{place}.rules"));
        writer.words("use_backend %[var(txn.backend)] if { var(txn.backend) -m found }");
    }
}

/// How many words the longest line of a rule's condition has; HAProxy takes [`MAX_WORDS`].
pub fn fits(rule: &Rule) -> bool {
    let condition = names(&rule.condition, 0);
    let words: usize = condition.iter().map(|group| group.len() + 1).sum();
    words + 20 < MAX_WORDS
}

/// The alternatives of a condition, each the ACLs that must all be true; empty where it is always
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
    is_http: bool,
) -> Alternatives {
    let mut acls = |matchers: &[Matcher], part: &str| {
        for (at, matcher) in matchers.iter().enumerate() {
            write_acl(writer, &acl_name(rule, &format!("{part}{at}")), matcher, is_http);
        }
    };
    acls(&condition.all, "all");
    acls(&condition.none, "none");
    for (group, matchers) in condition.any.iter().enumerate() {
        acls(matchers, &format!("any{group}_"));
    }
    names(condition, rule)
}

fn write_acl(writer: &mut Writer, name: &str, matcher: &Matcher, is_http: bool) {
    let (fetch, values): (String, Vec<&str>) = match matcher {
        Matcher::Path(how, values) => (named("path", *how), texts(values)),
        Matcher::Url(how, values) => (named("url", *how), texts(values)),
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
        Matcher::Sni(values) => {
            let fetch = if is_http { "ssl_fc_sni" } else { "req.ssl_sni" };
            (format!("{fetch} -i -m str"), texts(values))
        }
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

fn named(fetch: &str, how: How) -> String {
    let ending = match how {
        How::Exact => "",
        How::Begins => "_beg",
        How::Ends => "_end",
        How::Regex => "_reg",
    };
    format!("{fetch}{ending}")
}

fn texts(values: &[crate::config::values::Text]) -> Vec<&str> {
    values.iter().map(|value| value.as_str()).collect()
}

fn action_line(action: &Action, is_http: bool) -> Line {
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
        Action::Deny(_) if !is_http => Line::new("tcp-request content reject"),
        Action::Deny(status) => request(&format!("deny deny_status {}", u16::from(*status))),
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
