//! `[compat]`: listeners with the APIs of other programs, for clients that were written for those.

use std::net::{IpAddr, SocketAddr};

use mapsmith_core::access::Role;
use mapsmith_core::config::values::Network;
use serde::Deserialize;

use super::Settings;
use super::keys::section;
use super::units::listen;

/// The listeners that there are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compat {
    pub aqueduct: Option<Aqueduct>,
    pub thalassa: Option<Thalassa>,
}

section! {
    /// A listener with the API of Thalassa Aqueduct, for clients that know no other
    /// ([compat.md](compat.md)). What they declare is declared as by `PUT /v1/frontends/NAME` and
    /// `PUT /v1/backends/NAME`. They know no tokens and no TLS: whoever connects may do what `role`
    /// says. Needs `[store]` and `haproxy.managed`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Aqueduct {
        /// The address and port to listen on; Aqueduct's was 10000. An address that is not loopback
        /// requires `allow`.
        #[unset(required)]
        #[serde(deserialize_with = "listen")]
        pub listen: SocketAddr,
        /// The addresses and networks whose clients are answered, like `["10.0.0.0/8"]`, beside
        /// those of this machine.
        #[unset(says "none")]
        #[serde(default)]
        pub allow: Vec<Network>,
        /// The names by which clients ask for this machine, as in their URL, beside `localhost` and
        /// every address. Requests by another name are refused: a web page could send them.
        #[unset(says "none")]
        #[serde(default)]
        pub hosts: Vec<String>,
        /// What whoever connects may do: `viewer` (read), `operator` (also switch versions) or
        /// `admin` (also change frontends and backends).
        #[unset("admin")]
        #[serde(default = "admin")]
        pub role: Role,
    }
}

section! {
    /// A listener with the HTTP API of Thalassa, for clients that know no other
    /// ([compat.md](compat.md)). What they register are [members](servers.md#members), as by
    /// `PUT /v1/registrations/NAME/VERSION/HOST/PORT`. They know no tokens and no TLS: whoever
    /// connects may do what `role` says. Needs `[store]`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Thalassa {
        /// The address and port to listen on; Thalassa's was 9000. An address that is not loopback
        /// requires `allow`.
        #[unset(required)]
        #[serde(deserialize_with = "listen")]
        pub listen: SocketAddr,
        /// The addresses and networks whose clients are answered, as in `[compat.aqueduct]`.
        #[unset(says "none")]
        #[serde(default)]
        pub allow: Vec<Network>,
        /// The names by which clients ask for this machine, as in `[compat.aqueduct]`.
        #[unset(says "none")]
        #[serde(default)]
        pub hosts: Vec<String>,
        /// What whoever connects may do: `viewer` (read) or `operator` (also register).
        #[unset("operator")]
        #[serde(default = "operator")]
        pub role: Role,
    }
}

fn operator() -> Role {
    Role::Operator
}

fn admin() -> Role {
    Role::Admin
}

/// A listener for old clients, and whom it answers.
#[derive(Debug, Clone)]
pub struct OldClients {
    /// Like `aqueduct`.
    pub name: &'static str,
    pub listen: SocketAddr,
    allow: Vec<Network>,
    hosts: Vec<String>,
    pub role: Role,
}

impl OldClients {
    /// Whether a client of this address is answered.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.allow.iter().any(|network| network.contains(address))
    }

    /// Whether this machine is asked for by this name.
    pub fn is_named(&self, host: &str) -> bool {
        self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    fn problems(&self, settings: &Settings, problems: &mut Vec<String>) {
        let section = format!("compat.{}", self.name);
        let listen = self.listen;
        let mut problem = |text: String| problems.push(format!("{section}{text}"));
        if !listen.ip().is_loopback() && self.allow.is_empty() {
            problem(format!(
                ".listen: {listen} can be reached from other machines; name those that may ask in \
                    {section}.allow, or listen on 127.0.0.1"
            ));
        }
        let is_taken = listen.port() != 0 && listen == settings.api.listen;
        if is_taken {
            problem(format!(".listen: api.listen is {listen} too; take another port"));
        }
        for host in &self.hosts {
            let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
            if host.is_empty() || !host.chars().all(is_plain) {
                problem(format!(".hosts: {host:?} is not a host name without a port"));
            }
        }
        if self.role == Role::None {
            problem(".role: with none nobody may do anything".to_owned());
        }
        if settings.store.is_none() {
            problem(": needs [store], where what is declared is kept".to_owned());
        }
    }
}

impl Compat {
    pub fn aqueduct(&self) -> Option<OldClients> {
        let Aqueduct { listen, allow, hosts, role } = self.aqueduct.clone()?;
        Some(OldClients { name: "aqueduct", listen, allow, hosts, role })
    }

    pub fn thalassa(&self) -> Option<OldClients> {
        let Thalassa { listen, allow, hosts, role } = self.thalassa.clone()?;
        Some(OldClients { name: "thalassa", listen, allow, hosts, role })
    }

    /// Each listener.
    pub fn listeners(&self) -> impl Iterator<Item = OldClients> {
        self.aqueduct().into_iter().chain(self.thalassa())
    }

    pub(super) fn problems(&self, settings: &Settings, problems: &mut Vec<String>) {
        self.listeners().for_each(|clients| clients.problems(settings, problems));
        let listens = |clients: OldClients| Some(clients.listen).filter(|it| it.port() != 0);
        if let (Some(Some(one)), Some(Some(other))) =
            (self.aqueduct().map(listens), self.thalassa().map(listens))
            && one == other
        {
            problems.push(format!(
                "compat.thalassa.listen: compat.aqueduct.listen is {one} too; take another port"
            ));
        }
        let is_managed = settings.haproxy.as_ref().is_some_and(|it| it.is_supervised());
        if self.aqueduct.is_some() && !is_managed {
            problems.push(
                "compat.aqueduct: needs `managed = true` (or \"attached\") in [haproxy]: without \
                    it there is nothing to declare a frontend or backend in"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    const FILE: &str = "[haproxy]\nmanaged = true\n[store]\npath = \"s.db\"\n";
    const LISTEN: &str = "[compat.aqueduct]\nlisten = \"127.0.0.1:10000\"\n";

    #[test]
    fn old_clients_are_answered_on_loopback_or_where_the_settings_say_who_they_are() {
        let clients = |text: &str| {
            let settings = load(&format!("{FILE}{text}"), &[]).unwrap();
            settings.compat.aqueduct().unwrap()
        };
        let local = clients(LISTEN);
        assert!(local.allows("127.0.0.1".parse().unwrap()));
        assert!(!local.allows("10.0.0.1".parse().unwrap()));
        let others = clients(
            "[compat.aqueduct]\nlisten = \"0.0.0.0:10000\"\nallow = [\"10.0.0.0/8\"]\n\
            hosts = [\"gateway1.example\"]\nrole = \"viewer\"\n",
        );
        assert!(others.allows("::ffff:10.1.2.3".parse().unwrap()));
        assert!(others.allows("::1".parse().unwrap()));
        assert!(!others.allows("192.0.2.1".parse().unwrap()));
        assert!(others.is_named("Gateway1.example") && !others.is_named("evil.example"));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, part) in [
            (format!("{FILE}{}", LISTEN.replace("127.0.0.1", "0.0.0.0")), "compat.aqueduct.allow"),
            (format!("{FILE}{LISTEN}allow = [\"x\"]\n"), "compat.aqueduct.allow[0]"),
            (format!("{FILE}{LISTEN}hosts = [\"a:1\"]\n"), "compat.aqueduct.hosts"),
            (format!("{FILE}{LISTEN}role = \"none\"\n"), "compat.aqueduct.role"),
            (format!("{FILE}[compat.aqueduct]\n"), "compat.aqueduct.listen: is missing"),
            (format!("{FILE}[compat.other]\n"), "compat.other"),
            (LISTEN.to_owned(), "compat.aqueduct: needs"),
            (
                format!("{FILE}{LISTEN}{}", LISTEN.replace("aqueduct", "thalassa")),
                "compat.aqueduct.listen is 127.0.0.1:10000 too",
            ),
            (
                format!("{FILE}[api]\nlisten = \"127.0.0.1:10000\"\n{LISTEN}"),
                "api.listen is 127.0.0.1:10000 too",
            ),
        ] {
            let text = match text.contains("[haproxy]") {
                true => text,
                false => format!("[map]\npath = \"/m.map\"\n{text}"),
            };
            let message = load(&text, &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}
