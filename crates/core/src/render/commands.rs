//! Commands that are run on nodes: a frontend of their own, a backend that repeats nothing, and
//! what the other frontends deny.
//!
//! docs/gateway.md explains what these lines do, and why nothing runs twice or elsewhere.

use super::text::Writer;
use super::words::Line;
use crate::config::values::time;
use crate::config::{CommandGateway, Commands};

/// What the gateway answers itself, with whose answer it is.
fn own(kind: &str, status: u16, answer: &str, text: &str) -> Line {
    let header = CommandGateway::ANSWER;
    let words = format!("{kind} status {status} content-type text/plain hdr {header} {answer}");
    Line::new(&words).words("lf-string").value_line(text)
}

pub(super) fn write_frontend(writer: &mut Writer, gateway: &CommandGateway) {
    let CommandGateway { bind, backend, map, secret_sha256, timeout } = gateway;
    let not_sent = |status: u16, text: &str| {
        own("http-request return", status, CommandGateway::NOT_SENT, text)
    };
    writer.origin("commands");
    writer.section(&Line::new("frontend").value(CommandGateway::FRONTEND));
    writer.line(&Line::new("bind").value(bind.as_str()));
    writer.words("option httplog");
    writer.words(&format!("timeout client {}", time(*timeout)));
    // Each command has connections of its own, so none meets one that its master is just closing.
    writer.words("option httpclose");
    let secret = CommandGateway::SECRET;
    writer.words(&format!(
        "acl from_mapsmith req.fhdr({secret}),sha2(256),hex -m str -i {secret_sha256}"
    ));
    let text = "Only Mapsmith sends commands here.";
    writer.line(&not_sent(403, text).words("if !from_mapsmith"));
    writer.words(&format!("http-request del-header {secret}"));
    writer.words("http-request set-var(txn.node) req.fhdr(X-Node-Name)");
    writer.words(&format!("http-request set-var(txn.master) var(txn.node),map_str({map})"));
    let master = CommandGateway::MASTER;
    writer.words(&format!("http-request set-var(txn.meant) req.fhdr({master})"));
    writer.words(&format!("http-request del-header {master}"));
    writer.words("acl node_in_map var(txn.master) -m found");
    writer.words("acl as_meant var(txn.master),strcmp(txn.meant) eq 0");
    let text = "The node %[var(txn.node)] is not in this gateway's map.";
    writer.line(&not_sent(404, text).words("if !node_in_map"));
    let text = "This gateway's map has the node %[var(txn.node)] at %[var(txn.master)].";
    writer.line(&not_sent(409, text).words("if !as_meant"));
    writer.words("http-request set-var(txn.command) bool(true)");
    writer.line(&Line::new("default_backend").value(backend.as_str()));
}

/// The lines of the backend, instead of those of a balanced one.
pub(super) fn write_backend(writer: &mut Writer, gateway: &CommandGateway) {
    writer.words("balance roundrobin");
    // One server, one connection, one try: whatever `defaults` say.
    writer.words("no option redispatch");
    writer.words("retry-on none");
    writer.words("retries 0");
    writer.words("http-reuse never");
    // A server that a check has marked down is tried all the same, and no other one in its place.
    writer.words("option persist");
    writer.words(&format!("timeout server {}", time(gateway.timeout)));
    let not_sent = |text: &str| own("http-request return", 503, CommandGateway::NOT_SENT, text);
    writer.words("acl command var(txn.command) -m bool");
    let text = "Only commands come here.";
    writer.line(&not_sent(text).words("if !command"));
    let text = "No server of this gateway is the master %[var(txn.master)].";
    writer.words("acl has_server var(txn.master),srv_queue -m found");
    writer.line(&not_sent(text).words("if !has_server"));
    writer.words("use-server %[var(txn.master)] if has_server");
    let header = CommandGateway::ANSWER;
    writer.words(&format!("http-response set-header {header} {}", CommandGateway::ANSWERED));
    let (not_sent, unknown) = (CommandGateway::NOT_SENT, CommandGateway::UNKNOWN);
    for (status, answer, text) in [
        (503, not_sent, "The master %[var(txn.master)] can't be reached."),
        (502, unknown, "The answer of the master %[var(txn.master)] broke off or was no HTTP."),
        (504, unknown, "The master %[var(txn.master)] took too long."),
    ] {
        writer.line(&own("http-error", status, answer, text));
    }
}

/// A path that servers may read in different ways: with a control character, which HAProxy may end
/// the decoded path at, or an escape that is none. Such a path has no decoded form.
const UNCLEAR: &str = "[[:cntrl:]]|%([01]|7f|[^0-9a-f]|.[^0-9a-f]|.?$)";
/// The most that is asked of a path. What is beyond it denies more.
const MOST_MARKS: usize = 16;

/// What a frontend that others reach denies: all but reading.
pub(super) fn write_denial(writer: &mut Writer, commands: &Commands) {
    writer.words("acl mapsmith-reads method GET HEAD OPTIONS");
    writer.words("acl mapsmith-decoded path,url_dec -m found");
    writer.line(&Line::new("acl mapsmith-unclear path -m reg -i --").value(UNCLEAR));
    for (command, marks) in commands.denied.iter().enumerate() {
        for (at, mark) in marks.iter().take(MOST_MARKS).enumerate() {
            let acl = format!("acl {} path,url_dec -m sub -i --", mark_name(command, at));
            writer.line(&Line::new(&acl).value(mark.as_str()));
        }
    }
    write_answers(writer, commands);
}

/// The answers alone, of the path as it is here.
pub(super) fn write_answers(writer: &mut Writer, commands: &Commands) {
    let answer = |status: u16, text: &str| {
        let line = Line::new(&format!("http-request return status {status}"));
        line.words("content-type text/plain string").value_line(text).words("if !mapsmith-reads")
    };
    let line = answer(400, "The path has a control character, or an escape that is none.");
    writer.line(&line.words("!mapsmith-decoded or !mapsmith-reads mapsmith-unclear"));
    for (command, marks) in commands.denied.iter().enumerate() {
        let names = (0..marks.len().min(MOST_MARKS)).map(|at| mark_name(command, at));
        let line = answer(403, "Commands are run through Mapsmith alone.");
        writer.line(&names.fold(line, |line, name| line.words(&name)));
    }
}

fn mark_name(command: usize, mark: usize) -> String {
    format!("mapsmith-command{command}-{mark}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::render;
    use super::super::tests::{backend, frontend, value};
    use crate::config::rules::{Action, Condition, Rule};
    use crate::config::values::FilePath;
    use crate::config::{CommandGateway, Commands, Config, Mode, Problem, RetryOn, Route, RouteBy};

    fn config() -> Config {
        let map = || value::<FilePath>("/h/node-master.map");
        let gateway = CommandGateway {
            bind: value("127.0.0.1:8142"),
            backend: value("commands"),
            map: map(),
            secret_sha256: "ab".repeat(32),
            timeout: Duration::from_secs(70),
        };
        let denied = vec![vec![value("/nodes"), value("/commands")]];
        let commands = Some(Commands { denied, gateway: Some(gateway) });
        let mut public = frontend("gateway", ":80", Vec::new());
        public.default_backend = None;
        public.route = Some(Route {
            by: RouteBy::Header(value("X-Node-Name")),
            map: map(),
            backend: Some(value("masters")),
            misdirected: None,
            shared: Vec::new(),
            open: Vec::new(),
        });
        let other = frontend("web", ":81", Vec::new());
        let backends = ["masters", "app", "commands"].map(backend).to_vec();
        Config { commands, frontends: vec![public, other], backends, ..Config::default() }
    }

    fn section<'a>(text: &'a str, header: &str) -> &'a str {
        let begin = text.find(&format!("\n{header}\n")).unwrap_or_else(|| panic!("{header}"));
        text[begin + 1..].split("\n\n").next().unwrap()
    }

    #[test]
    fn a_command_has_one_try_and_the_frontends_that_others_reach_deny_it() {
        let text = render(&config()).text().to_owned();
        let frontend = section(&text, "frontend mapsmith-commands");
        for line in [
            "bind 127.0.0.1:8142",
            "acl from_mapsmith req.fhdr(X-Mapsmith-Secret),sha2(256),hex -m str -i abab",
            "http-request del-header X-Mapsmith-Secret",
            "default_backend commands",
        ] {
            assert!(frontend.contains(line), "{line} is not in\n{frontend}");
        }
        let backend = section(&text, "backend commands");
        for line in ["no option redispatch", "retry-on none", "retries 0", "timeout server 70s"] {
            assert!(backend.contains(line), "{line} is not in\n{backend}");
        }
        assert!(!backend.contains("stick"), "{backend}");
        let denials = [
            "acl mapsmith-decoded path,url_dec -m found",
            "if !mapsmith-reads !mapsmith-decoded or !mapsmith-reads mapsmith-unclear",
            "acl mapsmith-command0-1 path,url_dec -m sub -i -- /commands",
            "if !mapsmith-reads mapsmith-command0-0 mapsmith-command0-1",
        ];
        for denial in denials {
            for name in ["gateway", "web"] {
                assert!(section(&text, &format!("frontend {name}")).contains(denial), "{text}");
            }
            assert_eq!(text.matches(denial).count(), 2, "not where commands go: {text}");
        }
    }

    #[test]
    fn a_path_that_rules_change_is_looked_at_again() {
        let mut config = config();
        let action = Action::SetPath(value("/nodes/n1/commands"));
        config.frontends[1].rules = vec![Rule { condition: Condition::default(), action }];
        let text = render(&config).text().to_owned();
        let web = section(&text, "frontend web");
        let (before, after) = web.split_once("set-path").unwrap();
        for part in [before, after] {
            assert!(part.contains("if !mapsmith-reads mapsmith-command0-0"), "{web}");
        }
    }

    #[test]
    fn a_frontend_of_bytes_knows_no_paths() {
        let mut config = config();
        config.frontends[1].mode = Mode::Tcp;
        let text = render(&config).text().to_owned();
        assert!(!section(&text, "frontend web").contains("mapsmith-reads"), "{text}");
    }

    #[test]
    fn the_backend_of_commands_is_theirs_alone_and_repeats_nothing() {
        assert_eq!(config().problems(), []);
        let problem = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            let texts: Vec<_> = config.problems().iter().map(Problem::to_string).collect();
            texts.join("\n")
        };
        let found = problem(|it| it.backends.truncate(2));
        assert!(found.contains("commands.backend: there is no backend commands"), "{found}");
        let found = problem(|it| it.frontends[1].default_backend = Some(value("commands")));
        assert!(
            found.contains("frontend[1].default_backend: the backend commands is for"),
            "{found}"
        );
        let found = problem(|it| it.backends[2].retries = Some(1));
        assert!(found.contains("backend[2]: retries: nothing is repeated"), "{found}");
        let found = problem(|it| it.backends[2].retry_on = vec![RetryOn::ConnFailure]);
        assert!(found.contains("backend[2]: retry_on: nothing is repeated"), "{found}");
        let found = problem(|it| {
            it.frontends[1].binds[0].address = value("127.0.0.1:8142");
        });
        assert!(found.contains("listens at 127.0.0.1:8142 too"), "{found}");
    }
}
