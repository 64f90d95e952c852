//! The registries, as what a run does to them: each a real server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::schedule::Kind;
use crate::support::consul::{Consul, Service};
use crate::support::etcd::Etcd;
use crate::support::zookeeper::ZooKeeper;

/// A registry whose members are the servers of a backend.
pub trait Registry {
    fn address(&self) -> SocketAddr;
    /// The `[[source]]` without its name, with the registry at this address.
    fn source(&self, at: SocketAddr) -> String;
    /// What the backend wants of it.
    fn selector(&self) -> &'static str;
    /// What a member's server is called.
    fn server(&self, member: &str, address: SocketAddr) -> String;
    /// Lists a member, or moves it.
    fn put(&self, member: &str, address: SocketAddr, is_new: bool);
    fn remove(&self, member: &str);
    fn kill(&self);
    fn restart(&self);
    /// With nothing of what it knew but who may read.
    fn restart_empty(&self);
    fn signal(&self, name: &str);
    /// It forgets whoever listens, and is not heard meanwhile.
    fn forget(&self);
    /// Mapsmith may not read any more.
    fn refuse(&self);
    /// It may again.
    fn allow(&self);
    /// It may again after [`Self::restart_empty`].
    fn allow_anew(&self) {}
    /// What Mapsmith says of [`Self::refuse`], and of [`Self::restart_empty`].
    fn complaints(&self) -> [&'static str; 2];
}

/// Starts one; `folder` is for what Mapsmith reads of passwords and tokens.
pub fn start(kind: Kind, folder: &Path) -> Box<dyn Registry> {
    match kind {
        Kind::ZooKeeper => {
            let zookeeper = ZooKeeper::start();
            zookeeper.create(SERVICES, "");
            Box::new(zookeeper)
        }
        Kind::Etcd => {
            let password = folder.join("password");
            fs::write(&password, PASSWORD).expect("the password can be written");
            let etcd = Etcd::start();
            etcd.require_users(USER, PASSWORD, PREFIX);
            Box::new(InEtcd { etcd, password })
        }
        Kind::Consul => {
            let consul =
                InConsul { consul: Consul::start(), token: folder.join("token"), given: 0.into() };
            consul.allow();
            Box::new(consul)
        }
    }
}

const SERVICES: &str = "/services/web";
/// A child that only somebody else may read.
const SECRET: &str = "/services/web/secret";

fn row(address: SocketAddr) -> String {
    json!({"address": address.ip().to_string(), "port": address.port()}).to_string()
}

impl Registry for ZooKeeper {
    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn source(&self, at: SocketAddr) -> String {
        format!("type = \"zookeeper\"\nservers = [\"{at}\"]\nsession_timeout = \"2s\"\n")
    }

    fn selector(&self) -> &'static str {
        "format = \"proxymgr\", path = \"/services/web\""
    }

    fn server(&self, _: &str, address: SocketAddr) -> String {
        address.to_string()
    }

    fn put(&self, member: &str, address: SocketAddr, is_new: bool) {
        let (path, row) = (format!("{SERVICES}/{member}"), row(address));
        match is_new {
            true => self.create(&path, &row),
            false => self.set(&path, row.as_bytes()),
        }
    }

    fn remove(&self, member: &str) {
        self.delete(&format!("{SERVICES}/{member}"));
    }

    fn kill(&self) {
        self.kill();
    }

    fn restart(&self) {
        self.restart();
    }

    fn restart_empty(&self) {
        self.restart_empty();
    }

    fn signal(&self, name: &str) {
        self.signal(name);
    }

    fn forget(&self) {
        self.expire_sessions();
    }

    fn refuse(&self) {
        self.create_for(SECRET, "", "somebody", "else");
    }

    fn allow(&self) {
        self.delete(SECRET);
    }

    fn complaints(&self) -> [&'static str; 2] {
        ["no permission to read", "there is no node"]
    }
}

const PREFIX: &str = "/services/web/";
const USER: &str = "gateway";
const PASSWORD: &str = "a-password";

struct InEtcd {
    etcd: Etcd,
    password: PathBuf,
}

impl Registry for InEtcd {
    fn address(&self) -> SocketAddr {
        self.etcd.address()
    }

    fn source(&self, at: SocketAddr) -> String {
        format!(
            "type = \"etcd\"\nendpoints = [\"http://{at}\"]\nuser = {USER:?}\n\
             password_file = {:?}\n",
            self.password
        )
    }

    fn selector(&self) -> &'static str {
        "prefix = \"/services/web/\""
    }

    fn server(&self, member: &str, _: SocketAddr) -> String {
        member.to_owned()
    }

    fn put(&self, member: &str, address: SocketAddr, _: bool) {
        self.etcd.ctl_as_root(&["put", "--", &format!("{PREFIX}{member}"), &row(address)]);
    }

    fn remove(&self, member: &str) {
        self.etcd.ctl_as_root(&["del", "--", &format!("{PREFIX}{member}")]);
    }

    fn kill(&self) {
        self.etcd.kill();
    }

    fn restart(&self) {
        self.etcd.restart();
    }

    fn restart_empty(&self) {
        self.etcd.restart_empty();
        self.etcd.require_users(USER, PASSWORD, PREFIX);
    }

    fn signal(&self, name: &str) {
        self.etcd.signal(name);
    }

    /// Every revision that it knows is compacted.
    fn forget(&self) {
        self.etcd.restart();
        let answer = self.etcd.ctl_as_root(&["put", "-w", "json", "--", "/elsewhere", "1"]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let revision = answer["header"]["revision"].as_u64().expect("an answer has a revision");
        self.etcd.ctl_as_root(&["compact", "--physical", &revision.to_string()]);
    }

    fn refuse(&self) {
        self.etcd.revoke(PREFIX);
    }

    fn allow(&self) {
        let grant = ["role", "grant-permission", "reader", "--prefix=true", "read", PREFIX];
        self.etcd.ctl_as_root(&grant);
    }

    fn complaints(&self) -> [&'static str; 2] {
        ["no permission to read", "mapsmith reload"]
    }
}

const RULES: &str = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy \
    = \"read\" }";

struct InConsul {
    consul: Consul,
    token: PathBuf,
    /// How many tokens were.
    given: AtomicUsize,
}

impl Registry for InConsul {
    fn address(&self) -> SocketAddr {
        self.consul.address()
    }

    fn source(&self, at: SocketAddr) -> String {
        format!("type = \"consul\"\nurl = \"http://{at}\"\ntoken_file = {:?}\n", self.token)
    }

    fn selector(&self) -> &'static str {
        "service = \"web\""
    }

    fn server(&self, member: &str, _: SocketAddr) -> String {
        format!("node-{member}:{member}")
    }

    fn put(&self, member: &str, address: SocketAddr, _: bool) {
        let host = address.ip().to_string();
        self.consul.register(&Service::new(member, "web", &host, address.port()));
    }

    fn remove(&self, member: &str) {
        self.consul.deregister(member);
    }

    fn kill(&self) {
        self.consul.kill();
    }

    fn restart(&self) {
        self.consul.restart();
    }

    fn restart_empty(&self) {
        self.consul.restart_empty();
    }

    fn signal(&self, name: &str) {
        self.consul.signal(name);
    }

    /// It keeps nothing of whoever listens beyond a connection.
    fn forget(&self) {
        self.consul.restart();
    }

    fn refuse(&self) {
        self.consul.revoke(&fs::read_to_string(&self.token).expect("a token was given"));
    }

    fn allow(&self) {
        let name = format!("mapsmith-{}", self.given.fetch_add(1, Ordering::Relaxed));
        let token = self.consul.token(&name, RULES);
        let new = self.token.with_extension("new");
        fs::write(&new, token).expect("the token can be written");
        fs::rename(new, &self.token).expect("the token can be written");
    }

    fn allow_anew(&self) {
        self.allow();
    }

    fn complaints(&self) -> [&'static str; 2] {
        ["access was refused (403)"; 2]
    }
}
