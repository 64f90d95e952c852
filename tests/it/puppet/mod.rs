//! Real agents, the shipped gateway, two real Puppet Servers with their guards, PuppetDB, and
//! Mapsmith between them: what a Puppet site sees.
//!
//! The fleet takes a minute to start and is shared. Each test has a gateway, a Mapsmith and agents
//! of its own.

mod identity;
mod long;
mod runs;

use crate::support::haproxy::{Binary, entries_of};
use crate::support::mapsmith::Mapsmith;
use crate::support::puppet::{Agent, Fleet, Run, Site};
use crate::support::scene::{BOUND, ON_REQUEST, in_sync, instance_settings, reload};

/// A gateway of the fleet, and the Mapsmith that keeps its map.
struct Scene {
    fleet: &'static Fleet,
    site: Site,
    mapsmith: Mapsmith,
}

impl Scene {
    /// For the nodes whose names begin so, on the shared fleet.
    fn start(binary: &Binary, prefix: &str) -> Self {
        Self::on(Fleet::shared(), binary, prefix)
    }

    fn on(fleet: &'static Fleet, binary: &Binary, prefix: &str) -> Self {
        Self::with(fleet, binary, prefix, |_| String::new())
    }

    /// With these settings beside the usual ones.
    fn with(
        fleet: &'static Fleet,
        binary: &Binary,
        prefix: &str,
        more: impl Fn(&Site) -> String,
    ) -> Self {
        let site = fleet.site(binary);
        let puppetdb = fleet.puppetdb();
        // No site begins without a node.
        puppetdb.replace_facts(&format!("{prefix}first"), "puppet00", true);
        let query = format!(
            "factsets[certname, producer, producer_timestamp] {{ certname ~ \"^{prefix}\" }}"
        );
        let settings = format!(
            "{ON_REQUEST}[store]\npath = \"mapsmith.db\"\n\
             [map]\npath = {:?}\n{}[[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\n\
             url = {:?}\nquery = {query:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
            site.gateway().map(),
            instance_settings("edge1", site.gateway().runtime()),
            puppetdb.tls_url(),
            puppetdb.ca(),
            puppetdb.certificate("gateway"),
            puppetdb.key("gateway"),
        );
        let mapsmith = Mapsmith::config(&format!("{settings}{}", more(&site))).start();
        in_sync(&mapsmith);
        Self { fleet, site, mapsmith }
    }

    /// An operator's order, which must be carried out.
    fn order(&self, arguments: &[&str]) {
        let output = self.mapsmith.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.mapsmith.log());
    }

    /// A run through the gateway that must be good.
    fn run(&self, agent: &Agent) -> Run {
        let run = agent.run(self.site.address());
        assert!(run.is_good(), "{}: {run:?}\n{}", agent.name(), self.logs());
        run
    }

    /// Asks the registries, and waits until HAProxy has what they say.
    fn follow(&self) {
        reload(&self.mapsmith);
    }

    /// Waits until PuppetDB names this master for the node.
    fn wait_for_producer(&self, node: &str, master: &str) {
        self.mapsmith.wait_for(&format!("{master} is the producer of {node}"), BOUND, |_| {
            (self.fleet.producer(node).as_deref() == Some(master)).then_some(())
        });
    }

    /// The master that the gateway's map has for a node.
    fn mapped(&self, node: &str) -> Option<String> {
        let gateway = self.site.gateway();
        let map = gateway.command(&format!("show map {}", gateway.map()));
        entries_of(&map).into_iter().find(|(key, _)| key == node).map(|(_, master)| master)
    }

    /// Which servers answered the node's requests, as the gateway's log has them.
    fn answered(&self, node: &str) -> Vec<String> {
        let log = self.site.gateway().log();
        let of_node = format!("node=\"{node}\"");
        let server = |line: &str| {
            let (_, rest) = line.split_once("] gateway~ ")?;
            rest.split(' ').next().map(str::to_owned)
        };
        log.lines().filter(|line| line.contains(&of_node)).filter_map(server).collect()
    }

    /// For the message of a test that fails.
    fn logs(&self) -> String {
        format!("{}\n{}\n{}", self.mapsmith.log(), self.site.logs(), self.fleet.logs())
    }
}

/// The other of the two masters.
fn other(master: &str) -> &'static str {
    if master == "puppet00" { "puppet01" } else { "puppet00" }
}
