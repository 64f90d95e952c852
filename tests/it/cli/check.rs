//! `check` of the servers: those that will be there, and those that can never be up.

use super::{Scene, text};
use crate::support::authority::Authority;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, oldest_and_newest};
use crate::support::{eventually, free_port};

#[test]
fn a_master_that_mapsmith_will_add_itself_is_not_missing() {
    for binary in oldest_and_newest() {
        let plan = Gateway::plan(binary)
            .master("m1", ([127, 0, 0, 1], 9).into())
            .more("backend puppet\n    balance roundrobin\nbackend fixed\n    balance static-rr\n");
        let scene = Scene { gateway: plan.start(), ..Scene::new() };
        scene.registry.knows(&[("alpha", "m1"), ("beta", "m2"), ("gamma", "m3")]);
        let check = |backend: &str, code| {
            let settings = format!(
                "{}[[backend]]\nname = {backend:?}\nservers = [\n\
                 {{ name = \"m2\", address = \"127.0.0.1:9\" }},\n\
                 {{ name = \"m3\", address = \"127.0.0.1:9\" }},\n]\n",
                scene.settings()
            );
            text(&Mapsmith::config(&settings).cli(&["check"]), code)
        };
        let printed = check("puppet", 0);
        let told = "ok    instance edge1, masters: 3 masters in the map, 1 of them here and ready; \
                    will be added by `mapsmith run`: puppet/m2, puppet/m3\n";
        assert!(printed.contains(told), "{printed}");
        // Where it can't be added, that is the problem.
        let printed = check("fixed", 1);
        let told = "FAIL  instance edge1, masters: m2 can't be added without a reload of HAProxy: \
                    fixed: `balance static-rr` is static here";
        assert!(printed.contains(told), "{printed}");
    }
}

/// What speaks TLS here is HAProxy itself.
#[test]
fn a_plain_check_of_a_tls_port_is_found_in_the_settings_and_in_haproxy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::create(folder.path());
    authority.issue("m1");
    for binary in oldest_and_newest() {
        let port = free_port();
        let sections = format!(
            "frontend tls\n    bind 127.0.0.1:{port} ssl crt {}\n    http-request return status \
             200\nbackend puppet\n    balance roundrobin\n    option httpchk\n",
            authority.both("m1").display()
        );
        let gateway = Gateway::plan(binary).more(&sections).start();
        let options = format!("127.0.0.1:{port} ssl verify none check inter 100ms");
        for (name, more) in [("m1", ""), ("m2", " check-ssl")] {
            gateway.command(&format!("add server puppet/{name} {options}{more}"));
            gateway.command(&format!("enable health puppet/{name}; enable server puppet/{name}"));
        }
        eventually("the checks were made", BOUND, || {
            let stat = gateway.command("show stat");
            (stat.contains("Layer7 invalid response") && stat.contains("Layer7 check passed"))
                .then_some(())
        });
        let scene = Scene { gateway, ..Scene::new() };
        scene.registry.knows(&[("alpha", "m1"), ("beta", "m2")]);
        let address = format!("address = \"127.0.0.1:{port}\"");
        let settings = format!(
            "{}[[backend]]\nname = \"puppet\"\n\
             options = [\"ssl\", \"verify none\", \"check\"]\nservers = [\n\
             {{ name = \"m1\", {address} }},\n{{ name = \"m2\", {address}, options = \
             [\"ssl\", \"verify none\", \"check\", \"check-ssl\"] }},\n]\n",
            scene.settings()
        );
        let printed = text(&Mapsmith::config(&settings).cli(&["check"]), 1);
        for told in [
            "FAIL  backend[0] \"puppet\", options: `ssl` and `check` without `check-ssl`: ",
            "add \"check-ssl\" to backend.options\n",
            "FAIL  instance edge1, masters: 1 of 2 masters can't take requests",
            "FAIL  instance edge1, servers: 1 server is down: puppet/m1 (Layer7 invalid response); \
             what speaks TLS",
        ] {
            assert!(printed.contains(told), "{told}\n{printed}");
        }
        assert!(printed.contains("see to puppet/m1\n"), "{printed}");
    }
}
