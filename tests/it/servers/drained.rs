//! A drained master stays a server of a backend that is made of the map's masters, and gets no
//! request by the balance algorithm.

use serde_json::{Value, json};

use crate::support::haproxy::{Binary, Gateway};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, complaints, gateway_settings, in_sync, memory, oldest_and_newest, printed, reload,
    source_settings,
};

/// A server would go at once, and a node come home long after its owner's outage.
const SETTINGS: &str = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers \
    = \"100ms\"\n\
    [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\nmax_removed = \"100%\"\n\
    [ownership]\nremember = true\nreturn_after = \"1h\"\n\
    [store]\npath = \"mapsmith.db\"\n";

const FIRST: &str = "127.0.0.1";
const SECOND: &str = "127.0.0.2";

/// Two masters, named by their addresses, that HAProxy's own file has as servers.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
    _masters: Vec<Master>,
}

impl Scene {
    fn start(binary: &Binary) -> Self {
        let masters = Master::at_one_port(2);
        let port = masters[0].address().port();
        let plan = masters.iter().fold(Gateway::plan(binary).redispatch(), |plan, master| {
            plan.master(master.name(), master.address())
        });
        let gateway = plan.start();
        let registry = Registry::start(&[("web1", FIRST), ("web2", SECOND)]);
        let source = source_settings("registry", &registry.url());
        let settings = gateway_settings(&gateway);
        let backend = format!("[[backend]]\nname = \"puppet\"\nmasters = \"{{master}}:{port}\"\n");
        let mapsmith = Mapsmith::config(&format!("{SETTINGS}{settings}{source}{backend}")).start();
        in_sync(&mapsmith);
        let scene = Self { gateway, registry, mapsmith, _masters: masters };
        scene.weigh([1, 1]);
        scene
    }

    fn order(&self, arguments: &[&str]) -> String {
        let output = self.mapsmith.cli(arguments);
        let (code, text) = printed(&output);
        assert_eq!(code, 0, "{arguments:?}: {text}{}", complaints(&output));
        text
    }

    /// The weights of both servers, which are there.
    fn weights(&self) -> [Option<u64>; 2] {
        let table = self.gateway.command("show servers state puppet");
        [FIRST, SECOND].map(|name| {
            let row = table.lines().find(|line| line.split(' ').nth(3) == Some(name))?;
            row.split(' ').nth(7)?.parse().ok()
        })
    }

    fn weigh(&self, weights: [u64; 2]) {
        let wanted = weights.map(Some);
        self.mapsmith.wait_for(&format!("the weights are {weights:?}"), BOUND, |mapsmith| {
            let in_sync = mapsmith.get("/v1/status").1["instances"][0]["servers"]["state"].clone();
            (self.weights() == wanted && in_sync == "in_sync").then_some(())
        });
    }

    /// Who answers nodes that nobody has in the map.
    fn answering(&self, nodes: &str) -> Vec<String> {
        let request = |number| self.gateway.request(&format!("{nodes}{number}"));
        let mut names: Vec<_> = (0..20)
            .map(|number| {
                let (status, name) = request(number);
                assert_eq!(status, 200, "{name}");
                name
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn master_of(&self, node: &str) -> Option<String> {
        memory(&self.gateway).into_iter().find(|(known, _)| known == node).map(|(_, master)| master)
    }
}

#[test]
fn a_drained_master_gets_no_new_node_and_has_its_own_back_at_once_though_nothing_names_it() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary);
        assert_eq!(scene.answering("new-a-"), [FIRST, SECOND]);

        scene.order(&["drain", FIRST]);
        assert_eq!(scene.weights(), [Some(0), Some(1)], "the order's answer waits for it");
        assert_eq!(scene.answering("new-b-"), [SECOND]);
        assert_eq!(scene.gateway.request("web1"), (200, SECOND.to_owned()));

        // Its node runs elsewhere, so that the registry names it no more.
        scene.registry.answers(200, &json!({ "web1": SECOND, "web2": SECOND }).to_string());
        reload(&scene.mapsmith);
        let status: Value = scene.mapsmith.get("/v1/status").1;
        assert_eq!(status["backends"][0]["servers"].as_array().map(Vec::len), Some(2));
        assert_eq!(status["backends"][0]["leaving"], json!([]));
        // A HAProxy that starts anew has the weights of its file.
        scene.gateway.restart();
        scene.weigh([0, 1]);

        scene.mapsmith.kill();
        scene.mapsmith.restart();
        in_sync(&scene.mapsmith);
        scene.order(&["undrain", FIRST]);
        assert_eq!(scene.master_of("web1").as_deref(), Some(FIRST), "{}", scene.mapsmith.log());
        scene.weigh([1, 1]);
        assert_eq!(scene.answering("new-c-"), [FIRST, SECOND]);
    }
}

#[test]
fn a_drained_master_serves_while_no_other_does() {
    let scene = Scene::start(oldest_and_newest()[0]);
    scene.order(&["drain", FIRST]);
    scene.weigh([0, 1]);
    scene.gateway.command(&format!("set server puppet/{SECOND} state maint"));
    scene.weigh([1, 1]);
    assert_eq!(scene.answering("new-"), [FIRST]);
    scene.gateway.command(&format!("set server puppet/{SECOND} state ready"));
    scene.weigh([0, 1]);
}

#[test]
fn an_order_of_an_owner_that_is_nowhere_yet_says_what_becomes_of_it() {
    let scene = Scene::start(oldest_and_newest()[1]);
    let told = scene.order(&["own", "web1", "nowhere", "--force"]);
    let expected = format!(
        "node web1 belongs to nowhere (by force: no HAProxy has a backend or server of the name); \
        the order is remembered, and the node goes to {} until nowhere is ready in a HAProxy",
        FIRST
    );
    assert!(told.starts_with(&expected), "{told}");
}
