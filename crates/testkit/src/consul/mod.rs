//! A real Consul of a test's own: one server that leads itself, with ACLs on and everything denied
//! to who has no token.
//!
//! Services are registered in the catalog, each on a node of its own that no agent owns: so they
//! are there when the call returns, and no agent's synchronization takes them away.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http::{self, Response};
use crate::{free_port, unpacked};

/// The token that may do everything.
const MANAGEMENT_TOKEN: &str = "6b7d3d3c-9d7a-4a53-9c0f-5f6f1d2f7a10";

/// The most operations of a transaction.
const MOST_OPERATIONS: usize = 64;

/// Its one datacentre.
pub const DATACENTER: &str = "dc1";

/// How a service's check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Passing,
    Warning,
    Critical,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An instance of a service, as a test registers it.
#[derive(Clone, Debug)]
pub struct Service {
    id: String,
    name: String,
    address: String,
    port: u16,
    tags: Vec<String>,
    meta: Value,
    health: Health,
    weight: Option<u16>,
}

impl Service {
    /// One that is healthy. `id` is unique in the whole Consul.
    pub fn new(id: &str, name: &str, address: &str, port: u16) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            port,
            tags: Vec::new(),
            meta: json!({}),
            health: Health::Passing,
            weight: None,
        }
    }

    pub fn tags(self, tags: &[&str]) -> Self {
        Self { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..self }
    }

    pub fn meta(self, meta: Value) -> Self {
        Self { meta, ..self }
    }

    pub fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    /// Its weight while it passes.
    pub fn weight(self, weight: u16) -> Self {
        Self { weight: Some(weight), ..self }
    }

    fn node(&self) -> String {
        node_of(&self.id)
    }

    fn registration(&self) -> Value {
        let mut service = json!({
            "ID": self.id,
            "Service": self.name,
            "Address": self.address,
            "Port": self.port,
            "Tags": self.tags,
            "Meta": self.meta,
        });
        if let Some(weight) = self.weight {
            service["Weights"] = json!({"Passing": weight, "Warning": 1});
        }
        json!({
            "Node": self.node(),
            "Address": "127.0.0.1",
            "Service": service,
            "Check": {
                "CheckID": format!("service:{}", self.id),
                "Name": "test",
                "Status": self.health.word(),
                "ServiceID": self.id,
            },
        })
    }
}

fn node_of(id: &str) -> String {
    format!("node-{id}")
}

/// A running Consul and its folder, both gone on drop.
pub struct Consul {
    http: SocketAddr,
    daemon: Daemon,
}

impl Consul {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more configuration in HCL. `http` must still answer in plain HTTP.
    pub fn start_with(more: &str) -> Self {
        let (http, serf, server) = (free_port(), free_port(), free_port());
        let daemon = Daemon::new("Consul", |folder| {
            let configuration = folder.join("consul.hcl");
            fs::write(&configuration, configure(folder, [http, serf, server], more))
                .expect("a configuration file");
            let file = configuration.to_str().expect("a path in UTF-8").to_owned();
            let program = program().to_str().expect("a path in UTF-8").to_owned();
            vec![program, "agent".to_owned(), "-config-file".to_owned(), file]
        });
        let consul = Self { http: SocketAddr::from(([127, 0, 0, 1], http)), daemon };
        consul.launch();
        consul
    }

    /// Where it answers, in plain HTTP.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The same as an address.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// A token that may do everything.
    pub fn management_token(&self) -> &'static str {
        MANAGEMENT_TOKEN
    }

    /// Makes a token that may do what the rules say, in ACL's language, as in
    /// `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`.
    pub fn token(&self, name: &str, rules: &str) -> String {
        self.put("/v1/acl/policy", &json!({"Name": name, "Rules": rules}));
        let token = self.put("/v1/acl/token", &json!({"Policies": [{"Name": name}]}));
        token["SecretID"].as_str().expect("a token has a secret").to_owned()
    }

    /// Has a token be known no more.
    pub fn revoke(&self, token: &str) {
        let headers = [("X-Consul-Token", token)];
        let own = http::request(self.http, "GET", "/v1/acl/token/self", &headers, "")
            .expect("Consul answers");
        let own: Value = serde_json::from_str(&own.body).expect("the token is known");
        let id = own["AccessorID"].as_str().expect("a token has an accessor");
        self.done("DELETE", &format!("/v1/acl/token/{id}"), "");
    }

    /// Registers an instance of a service, or changes the one of that id.
    pub fn register(&self, service: &Service) {
        self.put("/v1/catalog/register", &service.registration());
    }

    /// Registers many instances of a service on one node, by their ids and ports.
    pub fn register_all(
        &self,
        node: &str,
        name: &str,
        meta: &Value,
        instances: impl IntoIterator<Item = (String, usize)>,
    ) {
        self.put("/v1/catalog/register", &json!({"Node": node, "Address": "127.0.0.1"}));
        let set = |(id, port): &(String, usize)| {
            let service = json!({
                "ID": id, "Service": name, "Address": "10.0.0.1", "Port": port, "Meta": meta,
            });
            json!({"Service": {"Verb": "set", "Node": node, "Service": service}})
        };
        let instances: Vec<_> = instances.into_iter().collect();
        for some in instances.chunks(MOST_OPERATIONS) {
            self.put("/v1/txn", &some.iter().map(set).collect());
        }
    }

    /// Takes an instance of a service away, and its node.
    pub fn deregister(&self, id: &str) {
        self.put("/v1/catalog/deregister", &json!({"Node": node_of(id)}));
    }

    /// Writes a key.
    pub fn set(&self, key: &str, value: &str) {
        self.done("PUT", &format!("/v1/kv/{key}"), value);
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        self.done("DELETE", &format!("/v1/kv/{key}"), "");
    }

    /// Deletes every key of a prefix.
    pub fn delete_all(&self, prefix: &str) {
        self.done("DELETE", &format!("/v1/kv/{prefix}?recurse"), "");
    }

    /// What it answers to one who may do everything.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Response {
        let headers = [("X-Consul-Token", MANAGEMENT_TOKEN)];
        http::request(self.http, method, path, &headers, body).expect("Consul answers")
    }

    /// A request that must succeed, and what came of it.
    pub fn put(&self, path: &str, body: &Value) -> Value {
        let body = self.done("PUT", path, &body.to_string());
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: not JSON: {body}"))
    }

    fn done(&self, method: &str, path: &str, body: &str) -> String {
        let response = self.request(method, path, body);
        assert_eq!(response.status, 200, "{method} {path}: {}", response.body);
        response.body
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Ends it as an administrator does.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Starts it again at the same address with the same data; kills it first if it runs.
    pub fn restart(&self) {
        self.launch();
    }

    /// Kills it and starts it again with nothing of what it knew: its indexes begin anew, and
    /// tokens but the management token are gone.
    pub fn restart_empty(&self) {
        self.kill();
        fs::remove_dir_all(self.daemon.folder().join("data")).expect("the data can be removed");
        self.launch();
    }

    /// `STOP` has it take connections and answer none, `CONT` ends that.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// It leads, and knows the token: before that it answers some requests and refuses others.
    fn launch(&self) {
        let headers = [("X-Consul-Token", MANAGEMENT_TOKEN)];
        self.daemon.launch(|| {
            let answer = |path: &str| http::request(self.http, "GET", path, &headers, "").ok();
            let led = answer("/v1/status/leader").is_some_and(|answer| answer.body.len() > 2);
            // The server's own service is in the catalog once leadership is established.
            led && answer("/v1/catalog/service/consul")
                .is_some_and(|answer| answer.status == 200 && answer.body.len() > 2)
        });
    }
}

fn program() -> PathBuf {
    let program = unpacked().join("consul/usr/bin/consul");
    if program.is_file() { program } else { crate::program("consul") }
}

fn configure(folder: &Path, [http, serf, server]: [u16; 3], more: &str) -> String {
    format!(
        r#"
server = true
bootstrap_expect = 1
node_name = "server"
datacenter = "{DATACENTER}"
data_dir = "{}/data"
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
ports {{ http = {http} serf_lan = {serf} serf_wan = -1 server = {server} dns = -1 grpc = -1 }}
acl {{ enabled = true default_policy = "deny" tokens {{ master = "{MANAGEMENT_TOKEN}" }} }}
performance {{ raft_multiplier = 1 rpc_hold_timeout = "1s" }}
log_level = "warn"
disable_host_node_id = true
disable_update_check = true
leave_on_terminate = false
skip_leave_on_interrupt = true
{more}
"#,
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_keys_and_tokens_are_there_at_once_and_survive_a_restart() {
        let consul = Consul::start();
        let web = Service::new("web-1", "web", "10.0.0.1", 80).tags(&["a"]);
        consul.register(&web);
        consul.register(&Service::new("web-2", "web", "10.0.0.2", 80).health(Health::Critical));
        consul.set("nodes/n1", "m1");
        let rules = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" \
            { policy = \"read\" }";
        let token = consul.token("reader", rules);
        let ask = |token: &str, path: &str| {
            let headers = [("X-Consul-Token", token)];
            let answer = http::request(consul.address(), "GET", path, &headers, "").unwrap();
            (answer.status, ["web-1", "web-2"].map(|id| answer.body.contains(&format!("\"{id}\""))))
        };
        let (all, passing) = ("/v1/health/service/web", "/v1/health/service/web?passing=1");
        assert_eq!(ask(&token, all), (200, [true, true]));
        assert_eq!(ask(&token, passing), (200, [true, false]));
        // Without a token everything is filtered: an answer, and an empty one.
        assert_eq!(ask("", all), (200, [false, false]));
        consul.restart();
        assert_eq!(consul.request("GET", "/v1/kv/nodes/n1?raw", "").body, "m1");
        consul.deregister("web-1");
        assert_eq!(ask(&token, all), (200, [false, true]));
        consul.revoke(&token);
        assert_eq!(ask(&token, all).0, 403);
        consul.restart_empty();
        assert_eq!(consul.request("GET", "/v1/kv/nodes/n1?raw", "").status, 404);
    }
}
