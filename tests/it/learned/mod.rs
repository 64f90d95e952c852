//! Learned routes: a request whose map entry is stale reaches the right master all the same, and
//! what HAProxy learned by it is shown, looked up early, and forgotten once the registries have
//! spoken.

mod answers;
mod finding;
mod limits;
mod moving;

use serde_json::Value;

use crate::support::haproxy::{Binary, Gateway, Plan};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::owners::Owners;
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, ON_REQUEST, gateway_settings, in_sync, source_settings};

const LEARNED: &str = "[learned]\ntable = \"puppet\"\n";

fn masters(owners: &Owners) -> [Master; 3] {
    ["master1", "master2", "master3"].map(|name| Master::owning(name, owners))
}

fn plan(binary: &Binary, masters: &[Master]) -> Plan {
    masters.iter().fold(Gateway::plan(binary).redispatch(), |plan, master| {
        plan.master(master.name(), master.address())
    })
}

/// Settings for a gateway and a registry, with `[learned]` and the guard out of the way: it has
/// tests of its own.
fn settings(gateway: &Gateway, sources: &str) -> String {
    let guard = "[guard]\nmax_moved = \"100%\"\nmax_removed = \"100%\"\n[damping]\nhold = \"0s\"\n";
    format!("{ON_REQUEST}{LEARNED}{guard}{}{sources}", gateway_settings(gateway))
}

/// A Mapsmith in sync with the registry.
fn start(gateway: &Gateway, registry: &Registry) -> Mapsmith {
    let mapsmith =
        Mapsmith::config(&settings(gateway, &source_settings("registry", &registry.url()))).start();
    in_sync(&mapsmith);
    mapsmith
}

/// What `GET /v1/learned` says of the first instance.
fn report(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/learned").1[0].clone()
}

/// Waits until Mapsmith shows exactly these learned routes of its first instance.
fn shows(mapsmith: &Mapsmith, routes: &[(&str, &str)]) -> Value {
    mapsmith.wait_for(&format!("the learned routes are {routes:?}"), BOUND, |mapsmith| {
        let report = report(mapsmith);
        let shown: Vec<_> = report["nodes"]
            .as_array()?
            .iter()
            .map(|route| (route["node"].as_str(), route["master"].as_str()))
            .collect();
        let expected: Vec<_> =
            routes.iter().map(|(node, master)| (Some(*node), Some(*master))).collect();
        (shown == expected).then_some(report)
    })
}

/// Waits until Mapsmith has seen so many routes gone, by reason.
fn has_forgotten(mapsmith: &Mapsmith, counts: &Value) {
    mapsmith.wait_for(&format!("{counts} are forgotten"), BOUND, |mapsmith| {
        (report(mapsmith)["forgotten"] == *counts).then_some(())
    });
}

/// Waits until the stick table is empty.
fn forgets(mapsmith: &Mapsmith, gateway: &Gateway) {
    mapsmith.wait_for("no learned route is left in HAProxy", BOUND, |_| {
        gateway.learned().is_empty().then_some(())
    });
}

/// A request must be answered by this master, after so many masters have refused it.
#[track_caller]
fn asks(
    gateway: &Gateway,
    owners: &Owners,
    node: &str,
    master: &str,
    hops: std::ops::RangeInclusive<usize>,
) {
    let before = owners.refused();
    assert_eq!(
        gateway.request(node),
        (200, master.to_owned()),
        "{node}\n{}",
        gateway.command("show table puppet")
    );
    let refused = owners.refused() - before;
    assert!(hops.contains(&refused), "{node} was refused by {refused} masters, not by {hops:?}");
}
