//! ProxyMgr: a `listen` section for each service, with its options and the servers of a registry.

use super::{Declared, refused, server};
use crate::render::echo::Echo;
use crate::support::free_port;
use crate::support::master::Master;
use crate::support::scene::oldest_and_newest;

#[test]
fn a_service_is_a_frontend_and_a_backend_and_a_server_that_is_gone_fails_no_request() {
    let one = Master::start("one");
    let gone = ([127, 0, 0, 1], free_port()).into();
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "global = [\"maxconn 4096\"]
                defaults = [\"maxconn 2000\", \"retries 3\", \"option redispatch\"]
                [[frontend]]
                name = \"web\"
                bind = [\"{address}\"]
                default_backend = \"web-servers\"
                [[backend]]
                name = \"web-servers\"
                balance = \"roundrobin\"
                retries = 3
                redispatch = true
                options = [\"check\", \"inter 2000\"]
                natives = [\"option httpclose\"]
                servers = [{}, {}]\n",
                server(&one.address().to_string(), one.address()),
                server("gone", gone)
            )
        });
        for _ in 0..8 {
            assert_eq!(haproxy.get("/").body, "one");
        }
    }
}

#[test]
fn a_service_of_mode_tcp_passes_bytes_on() {
    let echo = Echo::start();
    for binary in oldest_and_newest() {
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                mode = \"tcp\"
                bind = [\"{address}\"]
                default_backend = \"web-servers\"
                [[backend]]
                name = \"web-servers\"
                mode = \"tcp\"
                servers = [{}]\n",
                server("one", echo.address())
            )
        });
        let sent = haproxy.get("/a").body;
        assert!(
            sent.starts_with("GET /a HTTP/1.1\r\nConnection: close\r\nHost: a.test\r\n\r\n"),
            "{sent}"
        );
    }
}

#[test]
fn a_service_that_is_none_is_refused_with_its_key() {
    let frontend = |keys: &str| {
        refused(&format!(
            "[[frontend]]\nname = \"web\"\n{keys}\n[[backend]]\nname = \"app\"\nservers = []\n"
        ))
    };
    let to = "default_backend = \"app\"";
    for (keys, told) in [
        (format!("bind = [\":false\"]\n{to}"), "frontend[0].bind[0]"),
        (format!("bind = [\":0\"]\n{to}"), "frontend[0].bind[0]"),
        (format!("bind = [\":80.5\"]\n{to}"), "frontend[0].bind[0]"),
        (format!("bind = []\n{to}"), "frontend[0]: bind: give at least one"),
        (to.to_owned(), "bind"),
        (format!("bind = [\":80\"]\n{to}\nnatives = [\"listen web fd@7\"]"), "another section"),
    ] {
        let complaint = frontend(&keys);
        assert!(complaint.contains(told), "{keys}: {complaint}");
    }
}
