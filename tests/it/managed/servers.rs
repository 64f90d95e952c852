//! Servers come and go by the Runtime API; the file follows without a reload.

use std::fs;

use super::{Managed, PATIENCE};
use crate::support::haproxy::{ask, installed};
use crate::support::master::Master;
use crate::support::scene::{newest, reload};

fn backend(list: &std::path::Path) -> String {
    format!(
        "default_backend = \"app\"\n\
        [[source]]\nname = \"app\"\ntype = \"file\"\npath = \"{}\"\n\
        [[backend]]\nname = \"app\"\nfrom = \"app\"\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n",
        list.display()
    )
}

#[test]
fn servers_that_come_and_go_reload_nothing_and_stand_in_the_file() {
    for binary in installed() {
        let masters = [Master::start("one"), Master::start("two")];
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("app.json");
        let write = |masters: &[Master]| {
            let rows: Vec<_> = masters
                .iter()
                .map(|master| {
                    serde_json::json!({"name": master.name(), "address": master.address().to_string()})
                })
                .collect();
            fs::write(&list, serde_json::to_string(&rows).unwrap()).unwrap();
        };
        write(&masters[..1]);
        let managed = Managed::start(binary, "word", &backend(&list));
        let config = managed.ground.file("haproxy.cfg");
        let listed =
            |name: &str| fs::read_to_string(&config).unwrap().contains(&format!("server {name} "));
        for (count, there) in [(1, false), (2, true), (1, false), (2, true)] {
            write(&masters[..count]);
            managed.mapsmith.wait_for("the file has the servers", PATIENCE, |_| {
                (listed("one") && listed("two") == there).then_some(())
            });
        }
        managed.mapsmith.wait_for("both servers serve", PATIENCE, |_| {
            let answers: Vec<_> =
                (0..6).filter_map(|_| managed.ground.get("/").map(|answer| answer.body)).collect();
            let serves = |name: &str| answers.iter().any(|body| body.contains(name));
            (serves("one") && serves("two")).then_some(())
        });
        assert_eq!(managed.reloads(), 0, "{}", managed.status());
    }
}

#[test]
fn a_reload_request_waits_for_the_reload_that_a_server_needs() {
    let [one, two] = ["one", "two"].map(Master::start);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("app.json");
    let write = |more: &str| {
        let row = |master: &Master, more: &str| {
            let (name, address) = (master.name(), master.address());
            format!("{{\"name\": \"{name}\", \"address\": \"{address}\"{more}}}")
        };
        fs::write(&list, format!("[{}, {}]", row(&one, ""), row(&two, more))).unwrap();
    };
    write("");
    let managed = Managed::start(newest(), "word", &backend(&list));
    // The Runtime API can't make it one.
    write(", \"backup\": true");
    reload(&managed.mapsmith);
    assert_eq!(managed.ground.reloads(), 1);
    let answers: Vec<_> =
        (0..4).map(|_| managed.ground.get("/").expect("an answer").body).collect();
    assert!(answers.iter().all(|body| body.contains("one")), "{answers:?}");
    // Nor does it change an option, which it does not even show.
    write(", \"backup\": true, \"options\": [\"send-proxy\"]");
    reload(&managed.mapsmith);
    assert_eq!(managed.ground.reloads(), 2);
    let text = fs::read_to_string(managed.ground.file("haproxy.cfg")).unwrap();
    assert!(text.contains("backup send-proxy"), "{text}");
}

#[test]
fn a_server_that_left_while_mapsmith_was_down_goes_with_its_start() {
    let [one, two] = ["one", "two"].map(Master::start);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("app.json");
    let write = |masters: &[&Master]| {
        let row = |master: &&Master| {
            format!("{{\"name\": \"{}\", \"address\": \"{}\"}}", master.name(), master.address())
        };
        let rows: Vec<_> = masters.iter().map(row).collect();
        fs::write(&list, format!("[{}]", rows.join(", "))).unwrap();
    };
    write(&[&one, &two]);
    let mut managed = Managed::start(newest(), "word", &backend(&list));
    managed.mapsmith.kill();
    write(&[&one]);
    managed.mapsmith.restart();
    let socket = format!("unix@{}", managed.ground.file("admin.sock").display());
    managed.mapsmith.wait_for("HAProxy has the list", PATIENCE, |_| {
        let table = ask(&socket, "show servers state app").ok()?;
        (table.contains(" one ") && !table.contains(" two ")).then_some(())
    });
    assert_eq!(managed.ground.reloads(), 0);
}
