//! Where a run goes, and what it changes.

use super::{Scene, other};
use crate::support::puppet::Agent;
use crate::support::scene::oldest_and_newest;

#[test]
fn a_node_runs_where_the_map_sends_it_and_the_map_follows_the_master_that_puppetdb_names() {
    let scene = Scene::start(oldest_and_newest()[0], "follow-");
    let agent = Agent::new("follow-1.auto");
    // Nobody knows the node: some master takes its whole run, and is the producer of its facts.
    let first = scene.run(&agent);
    let home = first.compiled_by().unwrap_or_else(|| panic!("{first:?}")).to_owned();
    scene.wait_for_producer(agent.name(), &home);
    scene.follow();
    assert_eq!(scene.mapped(agent.name()).as_deref(), Some(home.as_str()));

    // A pin moves it: its next run compiles there, and PuppetDB says so.
    let away = other(&home);
    scene.order(&["pin", agent.name(), away]);
    assert_eq!(scene.mapped(agent.name()).as_deref(), Some(away));
    assert_eq!(scene.run(&agent).compiled_by(), Some(away));
    scene.wait_for_producer(agent.name(), away);

    // The pin is gone; the registry has learned the move.
    scene.follow();
    scene.order(&["unpin", agent.name()]);
    assert_eq!(scene.mapped(agent.name()).as_deref(), Some(away));
    assert_eq!(scene.run(&agent).compiled_by(), Some(away));
}

#[test]
fn a_run_past_the_gateway_moves_the_node_and_the_map_follows() {
    let scene = Scene::start(oldest_and_newest()[1], "direct-");
    let agent = Agent::new("direct-1.auto");
    let first = scene.run(&agent);
    let home = first.compiled_by().unwrap_or_else(|| panic!("{first:?}")).to_owned();
    let away = other(&home);
    // The guard of the second master has no CA behind it: the agent has its certificate already.
    let guard = scene.fleet.masters().iter().position(|master| master.name() == away);
    let guard = &scene.fleet.guards()[guard.expect("one of the two")];
    let direct = agent.run(guard.address());
    assert!(direct.is_good(), "{direct:?}\n{}\n{}", guard.log(), scene.logs());
    assert_eq!(direct.compiled_by(), Some(away));
    scene.wait_for_producer(agent.name(), away);
    scene.follow();
    assert_eq!(scene.mapped(agent.name()).as_deref(), Some(away));
    assert_eq!(scene.run(&agent).compiled_by(), Some(away));
}
