//! Who a node is: its certificate says so, and nothing else does.

use super::Scene;
use crate::support::curl::Client;
use crate::support::mapsmith::Mapsmith;
use crate::support::puppet::Agent;
use crate::support::scene::{BOUND, oldest_and_newest, printed};

#[test]
fn a_new_agent_asks_for_its_certificate_through_the_gateway_and_runs_once_it_is_signed() {
    let scene = Scene::start(oldest_and_newest()[1], "new-");
    let agent = Agent::new("new-1.manual");
    let waiting = agent.run(scene.site.address());
    assert!(!waiting.is_good(), "{waiting:?}");
    assert!(waiting.output.contains("has not been signed"), "{waiting:?}\n{}", scene.logs());
    let signed = scene.fleet.ca(&["sign", "--certname", agent.name()]);
    assert!(signed.contains("Successfully signed"), "{signed}");
    let run = scene.run(&agent);
    let home = run.compiled_by().unwrap_or_else(|| panic!("{run:?}"));
    scene.wait_for_producer(agent.name(), home);
    // The gateway's own answer to who has no certificate is not for the CA's paths.
    let stranger = Client::stranger(scene.fleet.puppetdb().ca());
    let catalog = format!("/puppet/v3/catalog/{}?environment=production", agent.name());
    let refused = stranger.get(scene.site.address(), &catalog, &[]);
    assert_eq!(refused.status, 403, "{refused:?}");
    let ca = stranger.get(scene.site.address(), "/puppet-ca/v1/certificate/ca", &[]);
    assert_eq!(ca.status, 200, "{ca:?}");
}

#[test]
fn headers_that_claim_to_be_another_node_are_refused_at_the_gateway_and_at_a_master() {
    let scene = Scene::start(oldest_and_newest()[0], "claim-");
    let [victim, attacker] = ["claim-victim.auto", "claim-attacker.auto"].map(Agent::new);
    for agent in [&victim, &attacker] {
        scene.run(agent);
    }
    let claims = [
        ("X-Client-Verify", "SUCCESS"),
        ("x-cLIENT-dn", "CN=claim-victim.auto"),
        ("X-Client-Cert", "claimed"),
        ("X-Node-Name", "claim-victim.auto"),
    ];
    let path = "/puppet/v3/node/claim-victim.auto?environment=production";
    let stranger = Client::stranger(scene.fleet.puppetdb().ca());
    let master = &scene.fleet.guards()[0];
    for address in [scene.site.address(), master.address()] {
        // The node itself may.
        let own = victim.client().get(address, path, &[]);
        assert_eq!(own.status, 200, "{own:?}\n{}", scene.logs());
        for client in [attacker.client(), stranger.clone()] {
            let answer = client.get(address, path, &claims);
            assert_eq!(answer.status, 403, "{answer:?}\n{}", scene.logs());
        }
        // Nor is anybody the CA's administrator by a header.
        let statuses = "/puppet-ca/v1/certificate_statuses/all";
        let administrator = [("X-Client-Verify", "SUCCESS"), ("X-Client-DN", "CN=puppet00")];
        for client in [attacker.client(), stranger.clone()] {
            let answer = client.get(address, statuses, &administrator);
            assert_eq!(answer.status, 403, "{answer:?}");
        }
    }
}

#[test]
fn a_request_to_the_ca_stays_there_and_moves_nobody() {
    let scene = Scene::start(oldest_and_newest()[1], "ca-");
    let agent = Agent::new("ca-1.auto");
    scene.run(&agent);
    // At home at the master without the CA, whatever the hash said.
    scene.order(&["pin", agent.name(), "puppet01"]);
    assert_eq!(scene.run(&agent).compiled_by(), Some("puppet01"));
    scene.wait_for_producer(agent.name(), "puppet01");
    let before = scene.answered(agent.name()).len();

    let list = "/puppet-ca/v1/certificate_revocation_list/ca";
    let answer = agent.client().get(scene.site.address(), list, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("X509 CRL"), "{answer:?}");
    // Its own master would not know.
    let guard = &scene.site.guards()[1];
    assert_eq!(agent.client().get(guard.address(), list, &[]).status, 404);

    scene.mapsmith.wait_for("the CA's master is the only one asked", BOUND, |_| {
        (scene.answered(agent.name())[before..] == ["puppet_ca/ca"]).then_some(())
    });
    scene.follow();
    assert_eq!(scene.fleet.producer(agent.name()).as_deref(), Some("puppet01"));
    assert_eq!(scene.mapped(agent.name()).as_deref(), Some("puppet01"));
    assert_eq!(scene.run(&agent).compiled_by(), Some("puppet01"));
    let answered = scene.answered(agent.name()).split_off(before);
    assert!(!answered.contains(&"puppet/puppet00".to_owned()), "{answered:?}");
}

#[test]
fn check_finds_a_puppet_server_whose_port_is_open_and_no_fault_with_its_guard() {
    let scene = Scene::start(oldest_and_newest()[1], "probe-");
    let config = scene.mapsmith.configuration();
    let (_, guarded) = printed(&config.cli(&["check", "--probe-masters"]));
    let guard = scene.site.guards()[0].address();
    let told = format!("ok    master puppet00, probe: {guard}: ");
    assert!(guarded.contains(&told), "{guarded}\n{}", scene.logs());
    assert!(guarded.contains(", 403 over TLS without a certificate\n"), "{guarded}");

    let open = scene.fleet.masters()[0].plain();
    let settings = std::fs::read_to_string(config.path()).expect("the settings");
    let settings = format!(
        "{settings}[[backend]]\nname = \"puppet\"\nservers = [\n\
         {{ name = \"puppet00\", address = \"{open}\" }},\n]\n"
    );
    let (code, found) = printed(&Mapsmith::config(&settings).cli(&["check", "--probe-masters"]));
    let told = format!("FAIL  master puppet00, probe: {open} believes whoever claims in a header");
    assert!(code == 1 && found.contains(&told), "{found}\n{}", scene.logs());
}
