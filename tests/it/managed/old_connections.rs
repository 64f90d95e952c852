//! A connection that is kept over a reload brings its next request to the worker of before: it is
//! answered by the map in force all the same, and Mapsmith says what it can't change there.

use serde_json::json;

use super::PATIENCE;
use super::gateway::Gateway;
use crate::support::haproxy::installed;
use crate::support::http::Connection;
use crate::support::master::Master;
use crate::support::scene::reload;

impl Gateway {
    /// A connection that has brought one request for a node, and who answered that.
    fn keep(&self, node: &str) -> (Connection, String) {
        let mut connection = Connection::open(self.address).expect("it listens");
        let answer = next(&mut connection, node);
        (connection, answer.0)
    }

    /// Has HAProxy reloaded; returns the worker of before.
    fn reload(&mut self) -> u64 {
        self.change("two");
        self.managed.mapsmith.wait_for("the old worker is driven", PATIENCE, |_| {
            let status = self.managed.wait_for_state("in_force");
            let workers = status["process"]["workers"].as_array()?.clone();
            let old = workers.iter().find(|worker| worker["old"] == true)?;
            (old["in_sync"] == true).then(|| old["pid"].as_u64())?
        })
    }

    fn wait_for_the_end_of(&self, worker: u64) {
        self.managed.mapsmith.wait_for("the old worker ends", PATIENCE, |_| {
            let listed = self.managed.ground.ask_master("show proc");
            (!listed.contains(&worker.to_string())).then_some(())
        });
    }
}

/// Who answers the next request on a connection, and whether it can bring another one.
fn next(connection: &mut Connection, node: &str) -> (String, bool) {
    let answer = connection.request("GET", "/", &[("X-Node-Name", node)], "").expect("an answer");
    assert_eq!(answer.status, 200, "{node}: {answer:?}");
    (answer.body, answer.reusable)
}

#[test]
fn a_connection_from_before_a_reload_follows_the_map() {
    for binary in installed() {
        let [one, two] = ["one", "two"].map(Master::start);
        let mut gateway = Gateway::start(binary, &[("m1", &one), ("m2", &two)]);
        let kept = ["a", "b"].map(|node| gateway.keep(node));
        assert!(kept.iter().all(|(_, answered)| answered == "one"));
        let [(mut first, _), (mut second, _)] = kept;
        let old = gateway.reload();

        // Who asks for that is told when a change is everywhere.
        gateway.route(&[("a", "m2"), ("b", "m1")]);
        reload(&gateway.managed.mapsmith);
        assert_eq!(
            next(&mut first, "a"),
            ("two".to_owned(), false),
            "HAProxy {:?}",
            binary.version
        );
        gateway.route(&[("a", "m1"), ("b", "m2")]);
        reload(&gateway.managed.mapsmith);
        assert_eq!(next(&mut second, "b"), ("two".to_owned(), false), "{:?}", binary.version);

        // With its last connection the worker ends.
        drop((first, second));
        gateway.wait_for_the_end_of(old);
        assert_eq!(gateway.managed.reloads(), 1);
    }
}

/// HAProxy makes no change of servers in a worker that only finishes what it has.
#[test]
fn nothing_is_called_in_sync_while_a_connection_may_still_bring_a_request_to_the_servers_of_before()
{
    for binary in installed() {
        let [one, two] = ["one", "two"].map(Master::start);
        let mut gateway = Gateway::start(binary, &[("m1", &one)]);
        let (kept, _) = gateway.keep("a");
        let old = gateway.reload();
        gateway.list_servers(&[("m1", &one), ("m2", &two)]);
        let (status, report) = gateway.managed.mapsmith.post("/v1/reload?wait=2s");
        let message = report["message"].to_string();
        assert!(status == 202 && message.contains("workers that a reload"), "{report:#}");
        let status = gateway.managed.wait_for_state("in_force");
        let workers = status["process"]["workers"].as_array().expect("workers");
        let of_before = workers.iter().find(|worker| worker["pid"] == old);
        let of_before = of_before.expect("it is listed");
        assert_eq!((&of_before["in_sync"], &of_before["connections"]), (&json!(false), &json!(1)));
        drop(kept);
        gateway.wait_for_the_end_of(old);
        reload(&gateway.managed.mapsmith);
    }
}
