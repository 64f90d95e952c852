//! The same gateways, rendered from the settings in `examples/`: they are held to what the shipped
//! files are held to.

use std::path::Path;

use mapsmith::settings::Settings;
use mapsmith_core::desired::servers::{BackendOptions, resolve};
use mapsmith_core::render::render;
use mapsmith_core::{DesiredBackend, DesiredServers};

use crate::support::haproxy::Binary;
use crate::support::shipped::Plan;

/// `haproxy.cfg`, rendered.
pub(super) const REDISPATCH: &str = "gateway-redispatch.toml";
/// `backend-per-master.cfg`, rendered.
pub(super) const BACKEND_PER_MASTER: &str = "gateway-backend-per-master.toml";
/// `puppet.cfg`, rendered.
pub(super) const PUPPET: &str = "gateway-puppet.toml";

/// What an example's values are called in the shipped files.
const VARIABLES: [(&str, &str); 7] = [
    ("NODE_MASTER_MAP", "/etc/haproxy/maps/node-master.map"),
    ("ADMIN_SOCKET", "/run/haproxy/admin.sock"),
    ("STATS_BIND", "127.0.0.1:8081"),
    ("GATEWAY_BIND", "127.0.0.1:8080"),
    ("MASTER1_ADDRESS", "127.0.0.1:8141"),
    ("MASTER2_ADDRESS", "127.0.0.1:8142"),
    ("MASTER3_ADDRESS", "127.0.0.1:8143"),
];
/// What an example renders, with the servers that it lists.
fn text_of(example: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let settings = Settings::load(&path, []).unwrap_or_else(|error| panic!("{error}"));
    let mut servers = DesiredServers::default();
    for backend in &settings.backends {
        let options = BackendOptions::new(backend.default_options(), backend.usual_options());
        let list = backend.declared();
        let servers_of = resolve(&list, &options, |_| Err("examples have addresses")).servers;
        let desired = DesiredBackend { servers: servers_of, ..DesiredBackend::default() };
        servers.backends.insert(backend.name.clone(), desired);
    }
    let config = settings.haproxy_config(&servers).expect("it has [haproxy]");
    render(&config).text().to_owned()
}

/// A rendered text whose values become variables of its environment.
struct Text {
    variables: String,
    text: String,
}

impl Text {
    fn of(example: &str) -> Self {
        let mut text = Self { variables: "global\n".to_owned(), text: text_of(example) };
        for (name, value) in VARIABLES {
            text.variable(name, value, value, &format!("\"${{{name}}}\""));
        }
        text
    }

    /// `to` has the variable in place of `from`, which has the value.
    fn variable(&mut self, name: &str, value: &str, from: &str, to: &str) {
        if self.text.contains(from) {
            self.text = self.text.replace(from, to);
            self.variables.push_str(&format!("    presetenv {name} {value}\n"));
        }
    }

    fn number(&mut self, name: &str, keyword: &str, value: &str) {
        let (from, to) = (format!("{keyword} {value}"), format!("{keyword} \"${{{name}}}\""));
        self.variable(name, value, &from, &to);
    }

    fn plan(self, binary: &Binary) -> Plan {
        Plan::of_text(binary, format!("{}\n{}", self.variables, self.text))
    }
}

/// A plan of the gateway that an example renders, with the variables of the shipped files.
pub(super) fn plan(binary: &Binary, example: &str) -> Plan {
    let mut text = Text::of(example);
    text.number("MASTER_MAXCONN", "maxconn", "1000");
    text.number("MASTER_MAXQUEUE", "queue ge", "300");
    text.number("QUEUE_TIMEOUT", "timeout queue", "30s");
    text.plan(binary)
}

/// The same of Puppet's gateway. The CA is where the first master is.
pub(super) fn puppet_plan(binary: &Binary) -> Plan {
    let mut text = Text::of(PUPPET);
    for (name, value) in [
        ("GATEWAY_BIND", ":8140"),
        ("GATEWAY_CERTIFICATE", "/etc/haproxy/puppet/gateway.pem"),
        ("PUPPET_CA", "/etc/haproxy/puppet/ca.pem"),
        ("PUPPET_CRL", "/etc/haproxy/puppet/crl.pem"),
    ] {
        text.variable(name, value, value, &format!("\"${{{name}}}\""));
    }
    for (name, value) in
        [("MASTER1_NAME", "puppet1.example.com"), ("MASTER2_NAME", "puppet2.example.com")]
    {
        let (from, to) = (format!("'str({value})'"), format!("\"str(${{{name}}})\""));
        text.text = text.text.replace(&from, &to);
        text.variable(name, value, value, &format!("\"${{{name}}}\""));
    }
    text.variables.push_str("    presetenv CA_NAME x\n    presetenv CA_ADDRESS x\n");
    text.plan(binary)
}
