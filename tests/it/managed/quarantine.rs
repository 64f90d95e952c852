//! Servers of a registry that HAProxy refuses: their backend keeps its last good ones and is shown,
//! and everything else goes on changing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::{metric, printed};
use crate::support::{free_port, http};

const QUARANTINED: &str = "mapsmith_haproxy_config_quarantined";

/// Two backends whose servers come from lists.
struct Site {
    managed: Managed,
    /// Where the backends are asked for.
    fronts: [SocketAddr; 2],
    masters: [Master; 4],
}

impl Site {
    /// Each backend has its first master.
    fn start(binary: &'static Binary) -> Self {
        let ground = Ground::new(binary);
        let fronts = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let masters = ["a1", "a2", "b1", "b2"].map(Master::start);
        write(&ground.file("a.json"), &[row(&masters[0], &[])]);
        write(&ground.file("b.json"), &[row(&masters[2], &[])]);
        let settings = ground.settings("one", &backends(&ground, fronts));
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        managed.wait_for_word("one");
        managed.wait_for_state("in_force");
        Self { managed, fronts, masters }
    }

    fn list(&self, backend: &str, rows: &[Value]) {
        write(&self.managed.ground.file(&format!("{backend}.json")), rows);
    }

    /// The file of the list b with a server beside the first that HAProxy refuses.
    fn list_a_bad_one(&self) {
        let bad = row(&self.masters[3], &["check", "rise 0"]);
        self.list("b", &[row(&self.masters[2], &[]), bad]);
    }

    fn wait_for_quarantine(&self) -> Value {
        self.managed.mapsmith.wait_for("the backend is quarantined", PATIENCE, |_| {
            let status = self.managed.status();
            status["quarantined"][0].is_object().then_some(status)
        })
    }

    /// Waits until both masters of a backend answer.
    fn wait_for_both(&self, front: usize) {
        let names = [self.masters[2 * front].name(), self.masters[2 * front + 1].name()];
        self.managed.mapsmith.wait_for("both servers serve", PATIENCE, |_| {
            let answers: Vec<_> = (0..4).filter_map(|_| self.answer(front)).collect();
            names.iter().all(|name| answers.iter().any(|answer| answer == name)).then_some(())
        });
    }

    fn answer(&self, front: usize) -> Option<String> {
        Some(http::request(self.fronts[front], "GET", "/", &[], "").ok()?.body)
    }

    fn in_file(&self, server: &str) -> bool {
        let text = fs::read_to_string(self.managed.ground.file("haproxy.cfg")).expect("the file");
        text.contains(&format!("server {server} "))
    }
}

fn backends(ground: &Ground, fronts: [SocketAddr; 2]) -> String {
    let backend = |name: &str, front: SocketAddr| {
        let file = ground.file(&format!("{name}.json"));
        format!(
            "[[frontend]]\nname = \"to-{name}\"\nbind = [\"{front}\"]\n\
            default_backend = \"{name}\"\n[[backend]]\nname = \"{name}\"\nfrom = \"{name}\"\n\
            [[source]]\nname = \"{name}\"\ntype = \"file\"\npath = {file:?}\n"
        )
    };
    backend("a", fronts[0])
        + &backend("b", fronts[1])
        + "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n"
}

fn row(master: &Master, options: &[&str]) -> Value {
    json!({
        "name": master.name(),
        "address": master.address().to_string(),
        "options": options,
    })
}

fn write(file: &Path, rows: &[Value]) {
    fs::write(file, json!(rows).to_string()).expect("the list can be written");
}

#[test]
fn a_backend_whose_servers_haproxy_refuses_keeps_its_last_good_ones_and_the_rest_goes_on() {
    for binary in installed() {
        let site = Site::start(binary);
        let managed = &site.managed;
        site.list_a_bad_one();
        let status = site.wait_for_quarantine();
        assert_eq!(status["quarantined"][0]["object"], "backend b", "{status:#}");
        let said = status["quarantined"][0]["remarks"][0].to_string();
        assert!(said.contains("rise") && said.contains("b2"), "{status:#}");
        assert_eq!(metric(&managed.mapsmith, QUARANTINED), Some(1.0));
        let shown = managed.mapsmith.cli(&["status"]);
        let text = printed(&shown).1;
        assert!(text.contains("backend b") && text.contains("rise"), "{text}");
        managed.wait_for_log("HAProxy refuses servers of backend b");
        assert_eq!(site.answer(1).as_deref(), Some("b1"));

        // The other backend's list is followed.
        site.list("a", &[row(&site.masters[0], &[]), row(&site.masters[1], &[])]);
        site.wait_for_both(0);
        managed.mapsmith.wait_for("the file has it", PATIENCE, |_| {
            (site.in_file("a2") && site.in_file("b1") && !site.in_file("b2")).then_some(())
        });

        // It ends with the next good list.
        site.list("b", &[row(&site.masters[2], &[]), row(&site.masters[3], &[])]);
        site.wait_for_both(1);
        managed.mapsmith.wait_for("the backend is free again", PATIENCE, |_| {
            let status = managed.status();
            let is_free = status["quarantined"].is_null() && site.in_file("b2");
            (is_free && status["state"]["state"] == "in_force").then_some(())
        });
        assert_eq!(metric(&managed.mapsmith, QUARANTINED), Some(0.0));
        assert_eq!((managed.reloads(), managed.ground.reloads()), (0, 0), "{}", managed.status());
    }
}

#[test]
fn other_settings_and_a_restart_apply_while_a_backend_is_quarantined() {
    for binary in installed() {
        let mut site = Site::start(binary);
        site.list_a_bad_one();
        site.wait_for_quarantine();
        let settings = backends(&site.managed.ground, site.fronts);
        site.managed.change("two", &settings);
        site.managed.wait_for_word("two");
        let status = site.wait_for_quarantine();
        assert_eq!(status["quarantined"][0]["object"], "backend b", "{status:#}");
        site.managed.mapsmith.restart();
        site.wait_for_quarantine();
        site.managed.change("three", &settings);
        site.managed.wait_for_word("three");
        site.wait_for_quarantine();
        assert_eq!(site.answer(1).as_deref(), Some("b1"));
        assert!(site.in_file("b1") && !site.in_file("b2"));
    }
}
