//! What a gateway is to be, told step by step.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::Binary;
use super::gateway::Gateway;
use crate::free_port;

/// What a [`Gateway`] is to be.
#[derive(Clone)]
pub struct Plan {
    pub(super) binary: Binary,
    pub(super) threads: u32,
    pub(super) entries: Vec<(String, String)>,
    pub(super) masters: BTreeMap<String, SocketAddr>,
    pub(super) map: Option<String>,
    pub(super) map_is_used: bool,
    pub(super) level: &'static str,
    pub(super) user_socket: bool,
    pub(super) tcp_socket: bool,
    pub(super) master_worker: bool,
    pub(super) more: String,
    pub(super) redispatch: Option<Redispatch>,
}

/// What a [`Plan::redispatch`] is to be.
#[derive(Clone)]
pub(super) struct Redispatch {
    pub(super) retry_on: &'static str,
    /// The local peer's name, then every peer's name and port, this one's included.
    pub(super) peers: Option<(String, Vec<(String, u16)>)>,
}

impl Plan {
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// An entry that the map file has at the start.
    pub fn entry(mut self, node: &str, master: &str) -> Self {
        self.entries.push((node.to_owned(), master.to_owned()));
        self
    }

    /// A backend with this one server.
    pub fn master(mut self, name: &str, address: SocketAddr) -> Self {
        self.masters.insert(name.to_owned(), address);
        self
    }

    /// The map file is another gateway's, as on two gateways that name it alike. Entries are that
    /// gateway's too.
    pub fn map_of(mut self, other: &Gateway) -> Self {
        self.map = Some(other.map.clone());
        self
    }

    /// The map file is at this place, where it must be already.
    pub fn map_at(mut self, path: &Path) -> Self {
        self.map = Some(path.to_str().expect("a path in UTF-8").to_owned());
        self
    }

    /// The admin socket is of this level instead.
    pub fn level(mut self, level: &'static str) -> Self {
        self.level = level;
        self
    }

    /// The configuration does not mention the map, so that HAProxy does not know it.
    pub fn map_unused(mut self) -> Self {
        self.map_is_used = false;
        self
    }

    /// The configuration mentions the map again.
    pub fn map_used(mut self) -> Self {
        self.map_is_used = true;
        self
    }

    /// A second socket, of user level.
    pub fn user_socket(mut self) -> Self {
        self.user_socket = true;
        self
    }

    /// A second admin socket, on TCP.
    pub fn tcp_socket(mut self) -> Self {
        self.tcp_socket = true;
        self
    }

    /// A master process that replaces its worker on SIGUSR2, as Debian's service runs it.
    pub fn master_worker(mut self) -> Self {
        self.master_worker = true;
        self
    }

    /// One backend `puppet` that has every master as a server: a master that answers 404 is
    /// followed by another one in the same request, and who answered 200 is learned in the stick
    /// table `puppet`.
    pub fn redispatch(mut self) -> Self {
        self.redispatch = Some(Redispatch { retry_on: "conn-failure 404", peers: None });
        self
    }

    /// A master that does not own the node answers 421 instead, which HAProxy knows from 3.2 on.
    pub fn misdirected_is_421(mut self) -> Self {
        self.redispatch.as_mut().expect("planned with redispatch").retry_on = "conn-failure 421";
        self
    }

    /// The stick table is shared with these gateways, each a name and a port; `local` is this one's
    /// name.
    pub fn peers(mut self, local: &str, peers: &[(&str, u16)]) -> Self {
        let peers = peers.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        self.redispatch.as_mut().expect("planned with redispatch").peers =
            Some((local.to_owned(), peers));
        self
    }

    /// Sections at the end of the configuration, as they stand. A backend of theirs serves the
    /// nodes that the map gives it.
    pub fn more(mut self, sections: &str) -> Self {
        self.more.push_str(sections);
        self
    }

    /// Starts it; returns when its runtime API answers.
    pub fn start(self) -> Gateway {
        let directory = tempfile::Builder::new()
            .prefix("mapsmith-gateway-")
            .tempdir()
            .expect("a temporary folder");
        let file = |name: &str| {
            directory
                .path()
                .join(name)
                .into_os_string()
                .into_string()
                .expect("a folder named in UTF-8")
        };
        let mut gateway = Gateway {
            process: None,
            http_port: 0,
            runtime_port: 0,
            admin_socket: file("admin.sock"),
            user_socket: file("user.sock"),
            master_socket: format!("unix@{}", file("master.sock")),
            map: self.map.clone().unwrap_or_else(|| file("node-master.map")),
            configuration: file("haproxy.cfg"),
            log: directory.path().join("haproxy.log"),
            plan: self,
            directory,
        };
        if gateway.plan.map.is_none() {
            let entries: String = gateway
                .plan
                .entries
                .iter()
                .map(|(node, master)| format!("{node} {master}\n"))
                .collect();
            fs::write(&gateway.map, entries).expect("the map file can be written");
        }
        for _ in 0..10 {
            gateway.http_port = free_port();
            gateway.runtime_port = free_port();
            fs::write(&gateway.configuration, gateway.render())
                .expect("the configuration can be written");
            if gateway.launch() {
                return gateway;
            }
        }
        panic!("HAProxy does not start:\n{}", gateway.log());
    }
}
