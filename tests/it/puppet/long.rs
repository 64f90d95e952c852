//! What takes minutes, for `scripts/proof puppet`: masters, PuppetDB and certificates that go while
//! agents run. On the oldest and the newest HAProxy.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use super::{Scene, other};
use crate::support::mapsmith::Mapsmith;
use crate::support::puppet::{Agent, Fleet, Run, Site};
use crate::support::scene::{BOUND, oldest_and_newest};
use crate::support::shipped::Shipped;

/// One at a time: each takes something of the fleet away. None where long tests are not asked for.
fn fleet() -> Option<(&'static Fleet, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    std::env::var_os("MAPSMITH_TEST_LONG")?;
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Fleet::expendable(), one))
}

/// On both HAProxys, the nodes of each beginning with other names.
fn on_both(prefix: &str, test: impl Fn(&'static Fleet, &Scene, &str)) {
    on_both_with(prefix, |_, _| String::new(), test);
}

/// With these settings beside the usual ones.
fn on_both_with(
    prefix: &str,
    settings: impl Fn(&Fleet, &Site) -> String,
    test: impl Fn(&'static Fleet, &Scene, &str),
) {
    let Some((fleet, _one)) = fleet() else { return };
    for (number, binary) in oldest_and_newest().into_iter().enumerate() {
        let prefix = format!("{prefix}{number}-");
        let scene = Scene::with(fleet, binary, &prefix, |site| settings(fleet, site));
        test(fleet, &scene, &prefix);
    }
}

/// Agents with certificates, each at home where its first run went.
fn agents(scene: &Scene, prefix: &str, count: usize) -> Vec<Agent> {
    let agents: Vec<_> =
        (0..count).map(|number| Agent::new(&format!("{prefix}{number}.auto"))).collect();
    for agent in &agents {
        let run = scene.run(agent);
        let home = run.compiled_by().unwrap_or_else(|| panic!("{run:?}"));
        scene.wait_for_producer(agent.name(), home);
    }
    scene.follow();
    agents
}

fn assert_good(scene: &Scene, agent: &Agent, run: &Run) {
    assert!(run.is_good(), "{}: {run:?}\n{}", agent.name(), scene.logs());
}

#[test]
fn a_missing_file_costs_one_404_and_the_next_source_is_taken() {
    on_both("missing", |_, scene, prefix| {
        let agents = agents(scene, prefix, 1);
        let target = agents[0].file("target");
        let run = agents[0].run_with(scene.site.address(), &[("target", &target)]);
        assert_good(scene, &agents[0], &run);
        assert_eq!(std::fs::read_to_string(&target).expect("the file is there"), "a file\n");
        let log = scene.site.gateway().log();
        let missing: Vec<_> = log.lines().filter(|line| line.contains("/site/missing")).collect();
        assert_eq!(missing.len(), 1, "{missing:#?}");
        assert!(missing[0].contains(" 404 ") && !missing[0].contains("/+"), "{missing:#?}");
    });
}

#[test]
fn a_master_that_is_killed_in_mid_run_fails_no_run() {
    on_both("killed", |fleet, scene, prefix| {
        let agents = agents(scene, prefix, 2);
        for agent in &agents {
            scene.order(&["pin", agent.name(), "puppet01"]);
        }
        let runs: Vec<_> = thread::scope(|scope| {
            let runs: Vec<_> = agents
                .iter()
                .map(|agent| {
                    scope.spawn(|| {
                        let folder = agent.file("folder");
                        agent.run_with(scene.site.address(), &[("folder", &folder)])
                    })
                })
                .collect();
            scene.mapsmith.wait_for("both runs fetch files", BOUND * 5, |_| {
                let log = scene.site.gateway().log();
                let fetched = |agent: &Agent| {
                    let node = format!("node=\"{}\"", agent.name());
                    log.lines()
                        .filter(|line| line.contains("file_content") && line.contains(&node))
                        .count()
                };
                agents.iter().all(|agent| fetched(agent) > 10).then_some(())
            });
            fleet.masters()[1].kill();
            runs.into_iter().map(|run| run.join().expect("it does not panic")).collect()
        });
        for (agent, run) in agents.iter().zip(&runs) {
            assert_good(scene, agent, run);
            let files = std::fs::read_dir(agent.file("folder")).expect("the folder").count();
            assert!(files > 100, "{files} files");
            // And the next one, with the master down from its first request on.
            assert_eq!(scene.run(agent).compiled_by(), Some("puppet00"));
        }
        fleet.masters()[1].restart();
    });
}

#[test]
fn nodes_that_ran_elsewhere_while_their_master_was_drained_are_home_after_it() {
    let remember = |_: &Fleet, _: &Site| "[ownership]\nremember = true\n".to_owned();
    on_both_with("drained", remember, |_, scene, prefix| {
        let agents = agents(scene, prefix, 2);
        let homes: Vec<_> = agents.iter().map(|agent| scene.mapped(agent.name())).collect();
        let home = homes[0].clone().expect("it is in the map");
        let away = other(&home);
        // The map must have a master to give the nodes to.
        scene.order(&["drain", &home, "--to", away]);
        for agent in &agents {
            assert_eq!(scene.mapped(agent.name()).as_deref(), Some(away));
            assert_eq!(scene.run(agent).compiled_by(), Some(away));
            scene.wait_for_producer(agent.name(), away);
        }
        scene.follow();
        scene.order(&["undrain", &home]);
        for (agent, home) in agents.iter().zip(&homes) {
            let home = home.as_deref();
            assert_eq!(scene.mapped(agent.name()).as_deref(), home, "{}", scene.mapsmith.log());
            assert_eq!(scene.run(agent).compiled_by(), home);
            scene.wait_for_producer(agent.name(), home.expect("it is in the map"));
        }
        scene.follow();
        let status = scene.mapsmith.get("/v1/status").1;
        assert_eq!(status["ownership"]["owners"], serde_json::json!([]), "all is confirmed");
    });
}

#[test]
fn a_revoked_node_is_refused_once_haproxy_has_the_new_list() {
    let follows = |fleet: &Fleet, site: &Site| {
        let (path, from) = (site.crl(), fleet.crl());
        format!("[[tls_file]]\nkind = \"crl\"\npath = {path:?}\nfrom = {from:?}\n")
    };
    on_both_with("revoked", follows, |fleet, scene, prefix| {
        let agents = agents(scene, prefix, 2);
        let revoked = agents[0].name();
        fleet.ca(&["revoke", "--certname", revoked]);
        // Mapsmith sees that the CA's list has changed, and gives it to the gateway, which is one
        // process without a master and can't reload.
        let refused = |_: &Mapsmith| (!agents[0].run(scene.site.address()).is_good()).then_some(());
        scene.mapsmith.wait_for("the gateway refuses it", BOUND, refused);
        let list = std::fs::read_to_string(scene.site.crl()).expect("the list");
        assert_eq!(list, std::fs::read_to_string(fleet.crl()).expect("the CA's"));
        // The guards have no Mapsmith here.
        for guard in scene.site.guards() {
            take_list(guard, &scene.site.crl(), &list);
        }
        for address in [scene.site.address(), scene.site.guards()[0].address()] {
            let run = agents[0].run(address);
            assert!(!run.is_good(), "{run:?}\n{}", scene.logs());
            assert!(run.output.contains("revoked"), "{run:?}");
        }
        scene.run(&agents[1]);
    });
}

/// How soon, is printed: from the CA's own endpoint, through its guard.
#[test]
fn a_revoked_node_is_refused_once_the_cas_own_answer_has_it() {
    let follows = |fleet: &Fleet, site: &Site| {
        format!(
            "[[tls_file]]\nkind = \"crl\"\npath = {:?}\nfrom = \
                \"https://{}/puppet-ca/v1/certificate_revocation_list/ca\"\nca = {:?}\n",
            site.crl(),
            site.guards()[0].address(),
            fleet.puppetdb().ca(),
        )
    };
    on_both_with("endpoint", follows, |fleet, scene, prefix| {
        let agents = agents(scene, prefix, 4);
        let ask = |agent: &Agent| {
            let path = format!("/puppet/v3/node/{}?environment=production", agent.name());
            agent.client().get(scene.site.address(), &path, &[])
        };
        for agent in &agents[1..] {
            assert_eq!(ask(agent).status, 200);
            let began = Instant::now();
            fleet.ca(&["revoke", "--certname", agent.name()]);
            let took = began.elapsed();
            scene.mapsmith.wait_for("the gateway refuses it", BOUND, |_| {
                (ask(agent).status == 0).then_some(())
            });
            let refused = SystemTime::now();
            let changed = std::fs::metadata(fleet.crl()).and_then(|crl| crl.modified());
            let since = refused.duration_since(changed.expect("a time")).expect("it was before");
            println!(
                "refused {} ms after the CA's list changed at most; `ca revoke` took {} ms",
                since.as_millis(),
                took.as_millis()
            );
            let complaint = ask(agent).complaint;
            assert!(complaint.contains("revoked"), "{complaint}\n{}", scene.logs());
        }
        assert_eq!(ask(&agents[0]).status, 200);
    });
}

fn take_list(haproxy: &Shipped, path: &Path, list: &str) {
    let path = path.display();
    let set = haproxy.command(&format!("set ssl crl-file {path} <<\n{}\n\n", list.trim()));
    assert!(set.contains("transaction created"), "{set}");
    let commit = haproxy.command(&format!("commit ssl crl-file {path}"));
    assert!(commit.contains("Success!"), "{commit}");
}

#[test]
fn while_puppetdb_is_down_and_after_it_was_emptied_no_run_fails() {
    on_both("outage", |fleet, scene, prefix| {
        let agents = agents(scene, prefix, 2);
        let homes: Vec<_> = agents.iter().map(|agent| scene.mapped(agent.name())).collect();
        let at_home = |when: &str| {
            for (agent, home) in agents.iter().zip(&homes) {
                assert_eq!(scene.run(agent).compiled_by(), home.as_deref(), "{when}");
            }
        };
        let puppetdb = fleet.puppetdb();
        puppetdb.stop();
        at_home("while PuppetDB is down");
        puppetdb.empty();
        puppetdb.resume();
        // The guard holds the loss of every node.
        let (_, report) = scene.mapsmith.post("/v1/reload?wait=30s");
        for (agent, home) in agents.iter().zip(&homes) {
            assert_eq!(scene.mapped(agent.name()), *home, "{report:#}");
        }
        at_home("while PuppetDB is empty");
        for (agent, home) in agents.iter().zip(&homes) {
            scene.wait_for_producer(agent.name(), home.as_deref().expect("it was in the map"));
        }
        scene.follow();
        at_home("once PuppetDB knows the nodes again");
    });
}
