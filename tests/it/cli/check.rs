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
        let told = "FAIL  instance edge1, masters: m2, m3 can't be added without a reload of \
                    HAProxy: fixed: `balance static-rr` is static here";
        assert!(printed.contains(told), "{printed}");
    }
}

#[test]
fn the_masters_in_force_are_checked_while_an_answer_without_a_node_is_held() {
    let scene = Scene::new();
    scene.registry.answers(200, "{}");
    let printed = text(&scene.config().cli(&["check"]), 1);
    assert!(printed.contains("the guard would hold"), "{printed}");
    let told = "ok    instance edge1, masters: 1 master in the map, each a backend or server here";
    assert!(printed.contains(told), "{printed}");
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
            (stat.contains(",DOWN,") && stat.contains("Layer7 check passed")).then_some(())
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
            "FAIL  instance edge1, servers: 1 server is down: puppet/m1 (",
            "); what speaks TLS and was added at runtime is checked in plain text",
        ] {
            assert!(printed.contains(told), "{told}\n{printed}");
        }
        assert!(printed.contains("see to puppet/m1\n"), "{printed}");
    }
}

/// Puppet Servers are HAProxys here that admit whoever says that he was verified. With the guard in
/// front nothing that a client says is left.
#[test]
fn a_master_that_believes_whoever_claims_to_be_a_node_is_found_only_when_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::create(folder.path());
    authority.issue("m1");
    let crt = authority.both("m1").display().to_string();
    let admit = "    http-request return status 200 if { req.hdr(X-Client-Verify) SUCCESS } \
                 { req.hdr(X-Client-DN) -m beg CN= } { path /puppet/v3/environments }\n    \
                 http-request return status 403\n";
    for binary in oldest_and_newest() {
        let [plain, tls, guarded] = [free_port(), free_port(), free_port()];
        let sections = format!(
            "frontend at_plain\n    bind 127.0.0.1:{plain}\n{admit}\
             frontend at_tls\n    bind 127.0.0.1:{tls} ssl crt {crt}\n{admit}\
             frontend at_guard\n    bind 127.0.0.1:{guarded} ssl crt {crt}\n    \
             http-request del-header X-Client- -m beg\n{admit}"
        );
        let local = |port| ([127, 0, 0, 1], port).into();
        let plan = Gateway::plan(binary).more(&sections).master("plain", local(plain));
        let plan = plan.master("tls", local(tls)).master("guarded", local(guarded));
        // Port 1 is nobody's.
        let scene = Scene { gateway: plan.master("gone", local(1)).start(), ..Scene::new() };
        scene.registry.knows(&[("a", "plain"), ("b", "tls"), ("c", "guarded"), ("d", "gone")]);
        let config = scene.config();
        let printed = text(&config.cli(&["check"]), 0);
        assert!(!printed.contains("probe"), "{printed}");

        let printed = text(&config.cli(&["check", "--probe-masters"]), 1);
        let believes = "believes whoever claims in a header (X-Client-DN) to be another node";
        for told in [
            format!("FAIL  master plain, probe: 127.0.0.1:{plain} {believes}, in plain text: "),
            format!(
                "FAIL  master tls, probe: 127.0.0.1:{tls} {believes}, over TLS without a \
                 certificate: "
            ),
            format!("ok    master guarded, probe: 127.0.0.1:{guarded}: "),
            ", 403 over TLS without a certificate\n".to_owned(),
            "ok    master gone, probe: 127.0.0.1:1: no answer in plain text, no answer over TLS \
             without a certificate\n"
                .to_owned(),
            "Put haproxy/puppet-master.cfg in front of Puppet Server".to_owned(),
            "2 problems".to_owned(),
        ] {
            assert!(printed.contains(&told), "{told}\n{printed}");
        }
    }
}
