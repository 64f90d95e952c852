//! Servers from DNS, from a real name server to the requests that HAProxy serves.

use serde_json::Value;

use super::{answering, empty_backend, stat};
use crate::support::dns::{Bind, Dnsmasq};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{BACKEND, Pool, servers, settles};
use crate::support::scene::{BOUND, newest, printed, reload};

/// A Mapsmith whose backend takes its servers from this name server; `more` of the source's keys.
fn mapsmith(gateway: &Gateway, pool: &Pool, server: &str, from: &str, more: &str) -> Mapsmith {
    let source = format!(
        "[[source]]\nname = \"dns\"\ntype = \"dns\"\nservers = [{server:?}]\nmin_ttl = \"1s\"\n\
         query_timeout = \"500ms\"\nattempts = 1\n{more}[store]\npath = \"mapsmith.db\"\n"
    );
    pool.config_from(gateway, &gateway.runtime_address(), &format!("from = {from}\n"), &source)
        .start()
}

/// The source as `status` has it, once its error says this, or none is there.
fn source_says(mapsmith: &Mapsmith, error: Option<&str>) -> Value {
    mapsmith.wait_for(&format!("the source's error is {error:?}"), BOUND, |mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        let source = status["sources"]
            .as_array()?
            .iter()
            .find(|source| source["name"].as_str().is_some_and(|name| name.starts_with("dns ")))?;
        let says = match error {
            Some(part) => source["error"].as_str().is_some_and(|error| error.contains(part)),
            None => source["error"].is_null(),
        };
        says.then(|| source.clone())
    })
}

#[test]
fn a_hosts_addresses_are_served_a_change_follows_and_a_name_server_that_fails_changes_nothing() {
    let masters = Master::at_one_port(3);
    let record = |master: &Master| format!("web.example.test. 1 A {}", master.address().ip());
    let bind = Bind::start(&[&record(&masters[0]), &record(&masters[1])]);
    let (gateway, pool) = (empty_backend(newest()), Pool::start(&[]));
    let from = format!(
        "{{ source = \"dns\", name = \"Web.example.test\", port = {} }}",
        masters[0].address().port()
    );
    let mut mapsmith = mapsmith(&gateway, &pool, &bind.address(), &from, "");
    let names: Vec<_> = masters.iter().map(|master| master.address().to_string()).collect();
    let listed = |which: &[usize]| -> Vec<_> {
        which.iter().map(|at| (names[*at].as_str(), masters[*at].address())).collect()
    };
    settles(&gateway, &mapsmith, &listed(&[0, 1]));
    assert_eq!(answering(&gateway, 6), [masters[0].name(), masters[1].name()]);

    // Nobody asks for a poll: the TTL does.
    bind.update(&[
        &format!("delete {}", record(&masters[0]).replace(" 1 A", " A")),
        &format!("add {}", record(&masters[2])),
    ]);
    settles(&gateway, &mapsmith, &listed(&[1, 2]));
    assert_eq!(answering(&gateway, 6), [masters[1].name(), masters[2].name()]);

    bind.update(&["delete web.example.test."]);
    source_says(&mapsmith, Some("does not exist (NXDOMAIN)"));
    let (code, text) = printed(&mapsmith.configuration().cli(&["check"]));
    assert!(code == 1 && text.contains("web.example.test (A, AAAA): 127.0.0.1:"), "{code}: {text}");
    bind.kill();
    source_says(&mapsmith, Some("gave no answer within 500ms"));
    assert_eq!(answering(&gateway, 6), [masters[1].name(), masters[2].name()]);
    // A Mapsmith that begins anew meanwhile goes on from the list in force.
    mapsmith.restart();
    source_says(&mapsmith, Some("gave no answer within 500ms"));
    settles(&gateway, &mapsmith, &listed(&[1, 2]));
    let status = mapsmith.get("/v1/status").1;
    assert_eq!(status["backends"][0]["servers"].as_array().map(Vec::len), Some(2), "{status:#}");
    bind.restart();
    bind.update(&[&format!("add {}", record(&masters[0]))]);
    source_says(&mapsmith, None);
    settles(&gateway, &mapsmith, &listed(&[0]));
}

#[test]
fn a_services_weights_and_backups_are_haproxys_and_a_target_that_moves_keeps_its_server() {
    let masters = Master::at_one_port(4);
    let port = masters[0].address().port();
    let ip = |at: usize| masters[at].address().ip().to_string();
    let records = |first: usize| {
        [
            format!("srv-host=_web._tcp.example.test,a.example.test,{port},10,60"),
            format!("srv-host=_web._tcp.example.test,b.example.test,{port},10,0"),
            format!("srv-host=_web._tcp.example.test,c.example.test,{port},20,5"),
            format!("host-record=a.example.test,{}", ip(first)),
            format!("host-record=b.example.test,{}", ip(1)),
            format!("host-record=c.example.test,{}", ip(2)),
        ]
    };
    let dnsmasq = Dnsmasq::start(&records(0).each_ref().map(String::as_str));
    let (gateway, pool) = (empty_backend(newest()), Pool::start(&[]));
    let from = "{ source = \"dns\", srv = \"_web._tcp.example.test\" }";
    let mapsmith = mapsmith(&gateway, &pool, &dnsmasq.address(), from, "");
    let names = ["a", "b", "c"].map(|name| format!("{name}.example.test:{port}"));
    let listed = |first: usize| {
        [first, 1, 2]
            .map(|at| masters[at].address())
            .into_iter()
            .zip(&names)
            .map(|(address, name)| (name.as_str(), address))
            .collect::<Vec<_>>()
    };
    settles(&gateway, &mapsmith, &listed(0));
    for (name, weight, backup) in
        [(&names[0], "256", "0"), (&names[1], "1", "0"), (&names[2], "5", "1")]
    {
        assert_eq!(stat(&gateway, name, "weight"), weight, "{name}");
        assert_eq!(stat(&gateway, name, "bck"), backup, "{name}");
    }
    let id = |gateway: &Gateway| stat(gateway, &names[0], "sid");
    let before = id(&gateway);
    dnsmasq.has(&records(3).each_ref().map(String::as_str));
    settles(&gateway, &mapsmith, &listed(3));
    assert_eq!(id(&gateway), before, "the same server with a new address");
    // A target that is gone from DNS keeps what it has; the rest goes on.
    let without: Vec<_> =
        records(3).into_iter().filter(|line| !line.contains("host-record=b")).collect();
    dnsmasq.has(&without.iter().map(String::as_str).collect::<Vec<_>>());
    reload(&mapsmith);
    assert_eq!(servers(&gateway).len(), 3, "{:?}", servers(&gateway));
    let backend = mapsmith.get("/v1/status").1["backends"][0].clone();
    assert!(backend.to_string().contains("NXDOMAIN"), "{backend:#} of {BACKEND}");
}

#[test]
fn a_name_that_is_gone_where_that_means_no_server_is_held_and_a_refusal_changes_nothing() {
    let master = Master::start("only");
    let address = master.address();
    let record = format!("host-record=web.example.test,{}", address.ip());
    let dnsmasq = Dnsmasq::start(&[&record]);
    let (gateway, pool) = (empty_backend(newest()), Pool::start(&[]));
    let from =
        format!("{{ source = \"dns\", name = \"web.example.test\", port = {} }}", address.port());
    let empty = "nxdomain = \"empty\"\nnodata = \"empty\"\n";
    let mapsmith = mapsmith(&gateway, &pool, &dnsmasq.address(), &from, empty);
    let name = address.to_string();
    settles(&gateway, &mapsmith, &[(&name, address)]);
    dnsmasq.has(&[]);
    let held = mapsmith.wait_for("the empty list is held", BOUND, |mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        status["backends"][0]["held"]["reason"].as_str().map(str::to_owned)
    });
    assert!(held.contains("0 servers"), "{held}");
    settles(&gateway, &mapsmith, &[(&name, address)]);
    dnsmasq.refuses();
    source_says(&mapsmith, Some("refused (REFUSED)"));
    settles(&gateway, &mapsmith, &[(&name, address)]);
    assert_eq!(answering(&gateway, 1), [master.name()]);
}
