//! Server lists -> the servers a backend should have. Pure: the caller says what host
//! names resolve to.

use core::net::IpAddr;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::Server;
use crate::revision::ChangeCounts;
use crate::server::list::{
    Host, RawServer, RejectedServer, Repeats, ServerList, ServerListBuilder,
};
use crate::server::{ServerAddress, ServerOptions};

/// HAProxy's name of a master -> the registry's, by the reverse of each `[source.masters]`, in
/// order of priority: the first that knows the master counts, and within one source the
/// alphabetically first registry name.
pub fn producers<'a>(
    masters: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let mut producers = BTreeMap::new();
    for (registry, haproxy) in masters.flatten() {
        producers.entry(haproxy.clone()).or_insert_with(|| registry.clone());
    }
    producers
}

/// Whether a text names the master that it is for.
pub fn names_its_master(text: &str) -> bool {
    text.contains("{producer}") || text.contains("{master}")
}

/// The masters of the node map as a list, each at the address that `template` gives: `{producer}`
/// is the registry's name of the master, `{master}` HAProxy's. The same in `options`; servers have
/// options of their own only where one names its master. A master that no server can be made of is
/// rejected.
pub fn masters_list<'a>(
    template: &str,
    options: &[String],
    masters: impl Iterator<Item = &'a str>,
    producers: &BTreeMap<String, String>,
) -> ServerList {
    let mut builder = ServerListBuilder::default();
    for master in masters {
        let producer = producers.get(master).map_or(master, String::as_str);
        // Part by part, so that a name with a placeholder in it is taken as it is.
        let fill = |template: &str| {
            let own = |part: &str| part.replace("{master}", master).replace(SERVER, master);
            template.split("{producer}").map(own).collect::<Vec<_>>().join(producer)
        };
        let own = options.iter().any(|option| names_its_master(option));
        let raw = RawServer {
            name: Some(master.to_owned()),
            address: fill(template),
            options: own.then(|| options.iter().map(|option| fill(option)).collect()),
            ..RawServer::default()
        };
        builder.push(&format!("master {master:?}"), raw);
    }
    builder.finish(Repeats::LowestAddress).0
}

/// In a server's options, its name.
pub const SERVER: &str = "{server}";

/// Options that servers have because of their backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendOptions {
    /// Of servers that bring none.
    common: ServerOptions,
    /// Of each server, as far as its own do not say otherwise.
    usual: Vec<String>,
    /// Whether the options name the server.
    name_it: bool,
}

impl BackendOptions {
    /// `common` has what is in `usual`.
    pub fn new(common: ServerOptions, usual: Vec<String>) -> Self {
        let name_it = common.words().iter().chain(&usual).any(|option| option.contains(SERVER));
        Self { common, usual, name_it }
    }

    /// The options of a server, given its own.
    fn of(&self, server: &str, own: Option<&ServerOptions>) -> ServerOptions {
        let mut options = own.unwrap_or(&self.common).clone();
        if own.is_some() && !self.usual.is_empty() {
            // The settings were checked: they are taken.
            options = options.with_usual(&self.usual).unwrap_or(options);
        }
        if self.name_it {
            let words: Vec<_> =
                options.words().iter().map(|option| option.replace(SERVER, server)).collect();
            options = ServerOptions::parse(&words).unwrap_or(options);
        }
        options
    }
}

/// What a list comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// The servers whose address is known, by name.
    pub servers: BTreeMap<String, Server>,
    /// Those whose host name never resolved.
    pub rejected: Vec<RejectedServer>,
}

/// The servers of a list. `address` says what a host name resolves to, or why it is not known.
pub fn resolve<'a>(
    list: &'a ServerList,
    options: &BackendOptions,
    address: impl Fn(&'a str) -> Result<IpAddr, &'a str>,
) -> Resolved {
    let mut resolved = Resolved::default();
    for listed in &list.servers {
        let ip = match &listed.host {
            Host::Address(ip) => *ip,
            Host::Name(host) => match address(host) {
                Ok(ip) => ip,
                Err(error) => {
                    let reason = format!("{host} never resolved: {error}");
                    resolved.rejected.push(RejectedServer {
                        place: format!("server {:?}", listed.name),
                        name: Some(listed.name.clone()),
                        reason,
                    });
                    continue;
                }
            },
        };
        let server = Server {
            name: listed.name.clone(),
            address: ServerAddress { ip, port: listed.port },
            weight: listed.weight,
            backup: listed.backup,
            options: options.of(&listed.name, listed.options.as_ref()),
        };
        resolved.servers.insert(listed.name.clone(), server);
    }
    resolved
}

/// Takes out the servers beyond a number of them; how many. Those in force stay before others do,
/// so that a name server which answers in another order each time changes nothing; then by backup
/// and address.
pub fn take_beyond(
    servers: &mut BTreeMap<String, Server>,
    in_force: Option<&BTreeMap<String, Server>>,
    most: usize,
) -> usize {
    let beyond = servers.len().saturating_sub(most);
    if beyond == 0 {
        return 0;
    }
    let is_new = |name: &str| in_force.is_none_or(|in_force| !in_force.contains_key(name));
    let mut order: Vec<_> = servers
        .values()
        .map(|server| {
            let Server { name, backup, address, .. } = server;
            (is_new(name), *backup, address.ip, address.port, name.clone())
        })
        .collect();
    order.sort_unstable();
    for (.., name) in order.drain(most..) {
        servers.remove(&name);
    }
    beyond
}

/// Names exactly this list of this backend, on every machine: XXH3 over both as JSON.
pub fn id_of(backend: &str, servers: &BTreeMap<String, Server>) -> String {
    // Text, numbers and lists of them always have a JSON.
    let text = serde_json::to_vec(&(backend, servers)).unwrap_or_default();
    format!("{:016x}", xxh3_64(&text))
}

/// What differs between two lists. A server with another address is moved; other differences of a
/// server are not counted.
pub fn counts(before: &BTreeMap<String, Server>, after: &BTreeMap<String, Server>) -> ChangeCounts {
    let moved = |(name, server): &(&String, &Server)| {
        before.get(*name).is_some_and(|old| old.address != server.address)
    };
    ChangeCounts {
        added: after.keys().filter(|name| !before.contains_key(*name)).count(),
        moved: after.iter().filter(moved).count(),
        removed: before.keys().filter(|name| !after.contains_key(*name)).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &ServerList) -> Vec<(&str, Host, u16)> {
        list.servers
            .iter()
            .map(|server| (server.name.as_str(), server.host.clone(), server.port))
            .collect()
    }

    #[test]
    fn masters_stand_at_the_registrys_name_of_them() {
        let first = BTreeMap::from([
            ("puppet00.example".to_owned(), "m1".to_owned()),
            ("old.example".to_owned(), "m1".to_owned()),
        ]);
        let second = BTreeMap::from([
            ("other.example".to_owned(), "m1".to_owned()),
            ("p2.example".to_owned(), "m2".to_owned()),
        ]);
        let producers = producers([&first, &second].into_iter());
        let list = masters_list(
            "{producer}:8140",
            &[],
            ["m1", "m2", "m3.example"].into_iter(),
            &producers,
        );
        let name = |name: &str| Host::Name(name.to_owned());
        let expected = [
            ("m1", name("old.example"), 8140),
            ("m2", name("p2.example"), 8140),
            ("m3.example", name("m3.example"), 8140),
        ];
        assert_eq!(hosts(&list), expected);
        let list = masters_list("{master}.{producer}:1", &[], ["m2"].into_iter(), &producers);
        assert_eq!(hosts(&list), [("m2", name("m2.p2.example"), 1)]);
    }

    #[test]
    fn an_option_that_names_the_master_is_filled_in_for_each() {
        let producers = BTreeMap::from([("m1".to_owned(), "puppet1.example".to_owned())]);
        let options = ["check", "verifyhost {producer}", "sni str({master})"].map(str::to_owned);
        let list = masters_list("{producer}:1", &options, ["m1", "m2;x"].into_iter(), &producers);
        let words = list.servers[0].options.as_ref().map(ServerOptions::words);
        let expected = ["check", "verifyhost puppet1.example", "sni str(m1)"];
        assert_eq!(words, Some(expected.map(str::to_owned).to_vec()));
        assert_eq!(list.rejected.len(), 1, "no name gets into a command unchecked");
        let list = masters_list("{producer}:1", &options[..1], ["m1"].into_iter(), &producers);
        assert_eq!(list.servers[0].options, None, "the backend's count");
    }

    #[test]
    fn a_master_that_can_be_no_server_is_rejected() {
        let list = masters_list(
            "{producer}:8140",
            &[],
            ["m1", "é", "{master}", "a/b"].into_iter(),
            &BTreeMap::new(),
        );
        assert_eq!(list.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["m1"]);
        let places: Vec<_> = list.rejected.iter().map(|rejected| &*rejected.place).collect();
        assert_eq!(places, [r#"master "é""#, r#"master "{master}""#, r#"master "a/b""#]);
    }

    #[test]
    fn a_name_that_never_resolved_leaves_its_server_out_and_the_rest_goes_on() {
        let list = masters_list(
            "{master}:1",
            &[],
            ["a.example", "b.example", "10.0.0.1"].into_iter(),
            &BTreeMap::new(),
        );
        let options = ServerOptions { check: true, ..ServerOptions::default() };
        let options = BackendOptions::new(options, Vec::new());
        let resolved = resolve(&list, &options, |host| match host {
            "a.example" => Ok(IpAddr::from([10, 0, 0, 7])),
            _ => Err("no such name"),
        });
        let addresses: Vec<_> =
            resolved.servers.values().map(|server| server.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:1", "10.0.0.7:1"]);
        assert!(resolved.servers.values().all(|server| server.options.check));
        assert_eq!(resolved.rejected[0].reason, "b.example never resolved: no such name");
    }

    #[test]
    fn a_backends_options_yield_to_a_servers_own() {
        let parse = |options: &[&str]| {
            ServerOptions::parse(&options.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
                .unwrap()
        };
        let usual = ["check", "inter 2s", "send-proxy-v2", "verifyhost {server}"];
        let options = BackendOptions::new(parse(&usual), usual.map(str::to_owned).to_vec());
        let words = |own: Option<&ServerOptions>| options.of("m1", own).words();
        assert_eq!(words(None), ["check", "inter 2s", "send-proxy-v2", "verifyhost m1"]);
        assert_eq!(
            words(Some(&parse(&["inter 5s", "no-send-proxy"]))),
            ["check", "inter 5s", "no-send-proxy", "verifyhost m1"]
        );
    }

    #[test]
    fn another_address_is_a_move() {
        let list = |text: &[(&str, u8)]| -> BTreeMap<String, Server> {
            let server = |name: &str, last| Server {
                name: name.to_owned(),
                address: ServerAddress { ip: IpAddr::from([10, 0, 0, last]), port: 1 },
                weight: None,
                backup: false,
                options: ServerOptions::default(),
            };
            text.iter().map(|(name, last)| ((*name).to_owned(), server(name, *last))).collect()
        };
        let counted = counts(
            &list(&[("a", 1), ("b", 1), ("c", 1)]),
            &list(&[("b", 1), ("c", 2), ("d", 1), ("e", 1)]),
        );
        assert_eq!(counted, ChangeCounts { added: 2, moved: 1, removed: 1 });
    }

    #[test]
    fn of_too_many_servers_those_in_force_stay_and_the_lowest_addresses_come() {
        let servers = |addresses: &[&str]| -> BTreeMap<String, Server> {
            let server = |address: &&str| Server {
                name: format!("s{address}"),
                address: ServerAddress { ip: address.parse().unwrap(), port: 80 },
                weight: None,
                backup: *address == "10.0.0.0",
                options: ServerOptions::default(),
            };
            addresses.iter().map(server).map(|server| (server.name.clone(), server)).collect()
        };
        let listed = ["10.0.0.0", "10.0.0.10", "10.0.0.9", "10.0.0.200", "10.0.0.30"];
        for (in_force, most, expected, beyond) in [
            (
                None,
                5,
                &["s10.0.0.0", "s10.0.0.10", "s10.0.0.200", "s10.0.0.30", "s10.0.0.9"][..],
                0,
            ),
            (None, 2, &["s10.0.0.10", "s10.0.0.9"], 3),
            // Its place in the answer does not matter, and a backup server comes last.
            (Some(&["10.0.0.200"][..]), 2, &["s10.0.0.200", "s10.0.0.9"], 3),
            (Some(&["10.0.0.200", "10.0.0.30", "10.0.0.77"]), 2, &["s10.0.0.200", "s10.0.0.30"], 3),
        ] {
            let (mut left, in_force) = (servers(&listed), in_force.map(servers));
            assert_eq!(take_beyond(&mut left, in_force.as_ref(), most), beyond);
            assert_eq!(left.keys().collect::<Vec<_>>(), expected, "{in_force:?}");
        }
    }
}
