//! Nodes go home after a drain, a pin or an outage, though PuppetDB names whoever served them last.

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::puppetdb::PuppetDb;
use crate::support::scene::{
    BOUND, complaints, entries, gateway_settings, in_sync, memory, metric, newest,
    oldest_and_newest, printed, reload,
};

const SCHEDULE: &str =
    "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers = \"100ms\"\n";

/// Two masters behind a gateway, and a Mapsmith that remembers owners.
struct Scene {
    gateway: Gateway,
    mapsmith: Mapsmith,
    prefix: &'static str,
    _masters: [Master; 2],
}

impl Scene {
    /// `web1` is the first master's, `web2` the second's.
    fn start(
        binary: &crate::support::haproxy::Binary,
        prefix: &'static str,
        ownership: &str,
    ) -> Self {
        let masters = [Master::start("master1"), Master::start("master2")];
        let plan = masters.iter().fold(Gateway::plan(binary), |plan, master| {
            plan.master(master.name(), master.address())
        });
        let gateway = plan.start();
        let query = format!(
            "factsets[certname, producer, producer_timestamp] {{ certname ~ \"^{prefix}\" }}"
        );
        let source = format!(
            "[[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = {:?}\nquery = {query:?}\n",
            PuppetDb::shared().url()
        );
        let store = "[store]\npath = \"mapsmith.db\"\n";
        let settings = gateway_settings(&gateway);
        for node in ["web1", "web2"] {
            let master = node.replace("web", "master");
            PuppetDb::shared().replace_facts(&format!("{prefix}{node}"), &master, true);
        }
        let mapsmith =
            Mapsmith::config(&format!("{SCHEDULE}{store}{ownership}{settings}{source}")).start();
        in_sync(&mapsmith);
        let scene = Self { gateway, mapsmith, prefix, _masters: masters };
        scene.assert_map("master1", "master2");
        scene
    }

    fn node(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// An agent runs through a master, and PuppetDB is polled.
    fn run(&self, node: &str, master: &str) -> Value {
        PuppetDb::shared().replace_facts(&self.node(node), master, true);
        reload(&self.mapsmith)
    }

    fn assert_map(&self, web1: &str, web2: &str) {
        let (first, second) = (self.node("web1"), self.node("web2"));
        let wanted = entries(&[(&first, web1), (&second, web2)]);
        assert_eq!(memory(&self.gateway), wanted, "{}", self.mapsmith.log());
    }

    /// An order, whose result must be in force.
    fn order(&self, arguments: &[&str]) -> String {
        let output = self.mapsmith.cli(arguments);
        let (code, text) = printed(&output);
        assert_eq!(code, 0, "{arguments:?}: {text}{}", complaints(&output));
        text
    }

    fn owners(&self) -> Value {
        self.mapsmith.get("/v1/status").1["ownership"]["owners"].clone()
    }

    fn explained(&self, node: &str) -> String {
        self.order(&["explain", &self.node(node)])
    }
}

const REMEMBER: &str = "[ownership]\nremember = true\ngrace = \"2s\"\nreturn_after = \"100ms\"\n";

fn load(away: u32, returning: u32) -> Value {
    json!([{ "owner": "master1", "away": away, "returning": returning, "leaving": 0 }])
}

#[test]
fn a_node_that_ran_elsewhere_during_a_drain_is_home_after_it_also_over_a_restart() {
    for (binary, prefix) in oldest_and_newest().into_iter().zip(["owned-a-", "owned-b-"]) {
        let mut scene = Scene::start(binary, prefix, REMEMBER);
        scene.order(&["drain", "master1"]);
        scene.assert_map("master2", "master2");
        scene.run("web1", "master2");
        scene.assert_map("master2", "master2");
        assert_eq!(scene.owners(), load(1, 0));
        let explained = scene.explained("web1");
        assert!(
            explained.contains("belongs to master1, the registry names another since")
                && explained.contains("goes back when master1 serves again"),
            "{explained}"
        );
        scene.mapsmith.kill();
        scene.mapsmith.restart();
        in_sync(&scene.mapsmith);
        assert_eq!(scene.owners(), load(1, 0));

        scene.order(&["undrain", "master1"]);
        scene.assert_map("master1", "master2");
        assert_eq!(scene.owners(), load(0, 1));
        let (code, status) = printed(&scene.mapsmith.cli(&["status"]));
        assert!(code == 0 && status.contains("owners     master1 1 returning"), "{status}");
        let explained = scene.explained("web1");
        assert!(
            explained.contains("stays there until the registry names it, or after")
                && explained.contains("puppetdb: master2 (its owner counts)"),
            "{explained}"
        );
        let returning = metric(&scene.mapsmith, "mapsmith_owned_nodes{phase=\"returning\"}");
        assert_eq!(returning, Some(1.0));
        reload(&scene.mapsmith);
        scene.assert_map("master1", "master2");
        scene.mapsmith.kill();
        let (code, plan) = printed(&scene.mapsmith.configuration().cli(&["plan"]));
        assert!(code == 0, "a plan knows it too: {plan}");
        scene.mapsmith.restart();
        in_sync(&scene.mapsmith);
        scene.assert_map("master1", "master2");

        scene.run("web1", "master1");
        scene.assert_map("master1", "master2");
        assert_eq!(scene.owners(), json!([]));
    }
}

#[test]
fn a_node_is_home_after_its_pin() {
    let scene = Scene::start(newest(), "owned-c-", REMEMBER);
    let node = scene.node("web1");
    scene.order(&["pin", &node, "master2"]);
    scene.run("web1", "master2");
    scene.order(&["unpin", &node]);
    scene.assert_map("master1", "master2");
    scene.run("web1", "master1");
    assert_eq!(scene.owners(), json!([]));
}

#[test]
fn a_node_is_home_after_its_masters_outage() {
    let scene = Scene::start(newest(), "owned-f-", REMEMBER);
    scene.gateway.command("set server master1/master1 state maint");
    let down = |mapsmith: &Mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        (status["references"]["not_ready"] == json!({ "master1": 1 })).then_some(())
    };
    scene.mapsmith.wait_for("the outage is seen", BOUND, down);
    scene.run("web1", "master2");
    scene.assert_map("master2", "master2");
    assert_eq!(scene.owners(), load(1, 0));
    scene.gateway.command("set server master1/master1 state ready");
    let first = scene.node("web1");
    scene.mapsmith.wait_for("the node goes home", BOUND, |_| {
        let home = memory(&scene.gateway).contains(&(first.clone(), "master1".to_owned()));
        home.then_some(())
    });
    assert_eq!(scene.owners(), load(0, 1));
}

#[test]
fn an_operator_gives_a_node_away_and_leaves_nodes_where_they_went() {
    let scene = Scene::start(newest(), "owned-d-", REMEMBER);
    let node = scene.node("web1");
    let text = scene.order(&["own", &node, "master2"]);
    assert!(text.contains(&format!("node {node} belongs to master2")), "{text}");
    scene.assert_map("master2", "master2");
    assert!(scene.explained("web1").contains("belongs to master2 by an operator's word"));
    let output = scene.mapsmith.cli(&["own", &node, "mastre2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("\"mastre2\" is not a known master"));
    let output = scene.mapsmith.cli(&["own", "web1.unheard-of", "master2"]);
    assert_eq!(output.status.code(), Some(1));
    let told = complaints(&output);
    assert!(told.contains("\"web1.unheard-of\" is not a known node") && told.contains("--force"));
    scene.run("web1", "master2");
    assert_eq!(scene.owners(), json!([]));

    scene.order(&["drain", "master2", "--to", "master1"]);
    scene.assert_map("master1", "master1");
    let text = scene.order(&["own", &node, "master2"]);
    assert!(
        text.contains("belongs to master2; the order is remembered, and the node goes to master1 until master2 is"),
        "{text}"
    );
    scene.run("web2", "master1");
    let text = scene.order(&["undrain", "master2", "--stay"]);
    assert!(text.contains("nodes stay where they went meanwhile"), "{text}");
    scene.assert_map("master2", "master1");
}

#[test]
fn without_the_setting_a_node_goes_to_whoever_served_it_last_and_own_says_so() {
    let scene = Scene::start(newest(), "owned-e-", "");
    scene.order(&["drain", "master1"]);
    scene.run("web1", "master2");
    scene.order(&["undrain", "master1"]);
    scene.assert_map("master2", "master2");
    assert_eq!(scene.mapsmith.get("/v1/status").1["ownership"], Value::Null);
    let output = scene.mapsmith.cli(&["own", &scene.node("web1"), "master1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = complaints(&output);
    assert!(told.contains("set ownership.remember, or use `pin`"), "{told}");
}
