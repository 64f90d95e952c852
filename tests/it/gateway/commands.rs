//! `commands.cfg` behind `haproxy.cfg`, with the line of docs/gateway.md in the public frontend.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::masters;
use crate::support::free_port;
use crate::support::http::{self, Response};
use crate::support::scene::oldest_and_newest;
use crate::support::shipped::{Plan, REDISPATCH, path_of};

const SECRET: &str = "s3cret-s3cret-s3cret";
const SHA256: &str = "4a3057fd3371720d01f5d351fecab0d7948fd22e15a5c2c2b92b0b2696d3eeca";
const PATH: &str = "/nodes/web1/commands";

/// The shipped files together, as the document says.
fn text() -> String {
    let read = |path: &Path| fs::read_to_string(path).expect("a file that is shipped");
    let (gateway, commands) = (read(&path_of(REDISPATCH)), read(&path_of("commands.cfg")));
    let document = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateway.md"));
    let (_, denial) = document.split_once("    acl reads").expect("the document has the lines");
    let (denial, _) = denial.split_once("\n```").expect("they end");
    let bind = "    bind \"${GATEWAY_BIND}\"\n";
    assert!(gateway.contains(bind), "the frontend has no such line");
    gateway.replace(bind, &format!("{bind}    acl reads{denial}\n")) + "\n" + &commands
}

#[test]
fn the_shipped_frontend_of_commands_sends_each_to_its_master_once() {
    for binary in oldest_and_newest() {
        let masters = masters();
        let [first, second, third] = &masters;
        let commands = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let gateway = Plan::of_text(binary, text())
            .masters([first, second, third])
            .set("COMMANDS_BIND", &commands.to_string())
            .set("COMMANDS_SECRET_SHA256", SHA256)
            .entry("web1", "master1")
            .entry("web2", "nowhere")
            .start();
        let run = |secret: &str, node: &str, master: &str| -> (u16, Option<String>) {
            let headers = [
                ("X-Mapsmith-Secret", secret),
                ("X-Node-Name", node),
                ("X-Mapsmith-Master", master),
            ];
            let answer: Response =
                http::request(commands, "POST", PATH, &headers, "{}").expect("an answer");
            let whose = answer.header("x-mapsmith-gateway").map(str::to_owned);
            (answer.status, whose)
        };
        let answered = |status| (status, Some("answered".to_owned()));
        let not_sent = |status| (status, Some("not-sent".to_owned()));
        assert_eq!(run(SECRET, "web1", "master1"), answered(200), "{}", gateway.log());
        assert_eq!(first.served(), [format!("POST {PATH}")]);
        assert_eq!(run("", "web1", "master1"), not_sent(403));
        assert_eq!(run("s3cret", "web1", "master1"), not_sent(403));
        assert_eq!(run(SECRET, "web1", "master2"), not_sent(409));
        assert_eq!(run(SECRET, "web3", "master3"), not_sent(404));
        assert_eq!(run(SECRET, "web2", "nowhere"), not_sent(503));
        assert_eq!(gateway.ask("POST", PATH, "web1").status, 403);
        assert_eq!(gateway.ask("POST", "/nodes//web1/%43ommands", "web1").status, 403);
        assert_eq!(gateway.ask("POST", "/nodes/web1/x%0A/../commands", "web1").status, 400);
        assert_eq!(gateway.ask("GET", PATH, "web1").status, 200);

        // Its master disowns the node: the public frontend searches for another, and finds it.
        first.lose("web1");
        second.take("web1");
        let misdirected = [second, third].map(|master| master.misdirected());
        assert_eq!(run(SECRET, "web1", "master1"), answered(404));
        assert_eq!([second, third].map(|master| master.misdirected()), misdirected);
        assert_eq!(second.served(), [""; 0]);
        assert_eq!(gateway.ask("POST", "/facts", "web1").body, "master2");
        assert_eq!(run(SECRET, "web1", "master1"), answered(404), "whatever was learned");
        assert_eq!(second.served(), ["POST /facts"]);
    }
}
