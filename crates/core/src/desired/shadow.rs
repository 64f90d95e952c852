//! What a source that is never applied says, beside what counts.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::plan::Diff;
use crate::server::list::RejectedServer;
use crate::server::shown::shown_options;
use crate::status::SourceStatus;
use crate::{EntryMap, Server};

/// The most examples of each kind.
pub const EXAMPLES: usize = 10;

/// A server's weight where it has none of its own: HAProxy's default.
const USUAL_WEIGHT: u16 = 1;

/// How a shadow differs from what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// It lacks a node or server that counts.
    Missing,
    /// It has one that does not count.
    Extra,
    /// It has the node at another master, the server at another address.
    Elsewhere,
    /// It calls the server at that address otherwise.
    Renamed,
    /// It gives the server another weight or other options.
    Options,
}

impl DifferenceKind {
    const OF_NODES: [Self; 3] = [Self::Missing, Self::Extra, Self::Elsewhere];
    const OF_SERVERS: [Self; 5] =
        [Self::Missing, Self::Extra, Self::Elsewhere, Self::Renamed, Self::Options];

    /// Its name in JSON and in metrics.
    pub fn label(self) -> String {
        crate::label(self)
    }
}

/// One node or server that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// The node or server.
    pub name: String,
    /// What counts of it: its master, or its address; none where it is not there.
    pub now: Option<String>,
    /// What the shadow says instead.
    pub shadow: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |said: &Option<String>| said.clone().unwrap_or_else(|| "none".to_owned());
        write!(out, "{} {}: {}", self.kind.label(), self.name, said(&self.now))?;
        match self.kind {
            DifferenceKind::Missing => Ok(()),
            _ => write!(out, ", shadow: {}", said(&self.shadow)),
        }
    }
}

/// All that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Differences {
    /// How much, by kind; 0 of each kind where both are the same.
    pub counts: BTreeMap<DifferenceKind, usize>,
    /// The first [`EXAMPLES`] of each kind.
    pub examples: Vec<Difference>,
}

impl Differences {
    fn new(kinds: &[DifferenceKind]) -> Self {
        Self { counts: kinds.iter().map(|kind| (*kind, 0)).collect(), examples: Vec::new() }
    }

    fn push(&mut self, kind: DifferenceKind, name: &str, now: Option<&str>, shadow: Option<&str>) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            let (now, shadow) = (now.map(str::to_owned), shadow.map(str::to_owned));
            self.examples.push(Difference { kind, name: name.to_owned(), now, shadow });
        }
    }

    /// Whether the shadow says what counts.
    pub fn is_empty(&self) -> bool {
        self.counts.values().all(|count| *count == 0)
    }

    /// Of a node map.
    pub fn of_maps(now: &EntryMap, shadow: &EntryMap) -> Self {
        let mut all = Self::new(&DifferenceKind::OF_NODES);
        for (node, from, to) in Diff::between(now, shadow).routes(now, shadow) {
            let kind = match (from, to) {
                (Some(_), None) => DifferenceKind::Missing,
                (None, _) => DifferenceKind::Extra,
                (Some(_), Some(_)) => DifferenceKind::Elsewhere,
            };
            all.push(kind, node, from, to);
        }
        all
    }

    /// Of a backend's servers, by name. Registries seldom agree on names, so a server that one of
    /// them calls otherwise is found by its address.
    pub fn of_servers(now: &BTreeMap<String, Server>, shadow: &BTreeMap<String, Server>) -> Self {
        let mut all = Self::new(&DifferenceKind::OF_SERVERS);
        let mut extra: BTreeMap<String, Vec<&Server>> = BTreeMap::new();
        for server in shadow.values().filter(|server| !now.contains_key(&server.name)) {
            extra.entry(server.address.to_string()).or_default().push(server);
        }
        for server in now.values() {
            let address = server.address.to_string();
            let Some(other) = shadow.get(&server.name) else {
                match extra.get_mut(&address).and_then(Vec::pop) {
                    Some(other) => {
                        let (kind, name) = (DifferenceKind::Renamed, Some(&*other.name));
                        all.push(kind, &server.name, Some(&address), name);
                        all.compare_options(server, other);
                    }
                    None => {
                        all.push(DifferenceKind::Missing, &server.name, Some(&address), None);
                    }
                }
                continue;
            };
            if other.address != server.address {
                let (kind, elsewhere) = (DifferenceKind::Elsewhere, other.address.to_string());
                all.push(kind, &server.name, Some(&address), Some(&elsewhere));
            }
            all.compare_options(server, other);
        }
        for (address, server) in
            extra.iter().flat_map(|(at, all)| all.iter().map(move |server| (at, server)))
        {
            all.push(DifferenceKind::Extra, &server.name, None, Some(address));
        }
        all
    }

    fn compare_options(&mut self, now: &Server, shadow: &Server) {
        let weight = |server: &Server| server.weight.unwrap_or(USUAL_WEIGHT);
        let settings = |server: &Server| (weight(server), server.backup, server.options.clone());
        if settings(now) == settings(shadow) {
            return;
        }
        let words = |server: &Server| {
            let weight = server.weight.map(|weight| format!("weight {weight}"));
            let backup = server.backup.then(|| "backup".to_owned());
            let options = shown_options(&server.options.words());
            weight.into_iter().chain(backup).chain(options).collect::<Vec<_>>().join(" ")
        };
        let (kind, old, new) = (DifferenceKind::Options, words(now), words(shadow));
        self.push(kind, &now.name, Some(&old), Some(&new));
    }
}

/// `2 missing, 1 elsewhere`, or `no difference`.
impl fmt::Display for Differences {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<_> =
            counts.map(|(kind, count)| format!("{count} {}", kind.label())).collect();
        match counts.is_empty() {
            true => out.write_str("no difference"),
            false => out.write_str(&counts.join(", ")),
        }
    }
}

/// A source that is polled and compared, and never applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShadowStatus {
    #[serde(flatten)]
    pub source: SourceStatus,
    /// The backend whose servers in force it is compared with; none where it is compared with what
    /// the other sources of the node map say.
    pub backend: Option<String>,
    #[serde(flatten)]
    pub compared: Compared,
}

/// What a comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compared {
    /// What is not known yet, if something is, for lack of which nothing was compared.
    pub waiting_for: Option<String>,
    /// When what both say now was compared.
    pub compared_at: Option<Timestamp>,
    /// What that came to.
    pub differences: Option<Differences>,
    /// The rows of a list of servers that were left out, the first 1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedServer>,
    /// How many these are.
    #[serde(default)]
    pub rejected_count: u64,
}

impl Compared {
    /// Nothing is waited for.
    pub fn of(differences: Differences, at: Timestamp) -> Self {
        Self { compared_at: Some(at), differences: Some(differences), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::diff::tests::any_map;
    use crate::server::{ServerAddress, ServerOptions};

    fn servers(all: &[(&str, u8, u16)]) -> BTreeMap<String, Server> {
        let server = |&(name, last, weight): &(&str, u8, u16)| Server {
            name: name.to_owned(),
            address: ServerAddress { ip: IpAddr::from([10, 0, 0, last]), port: 80 },
            weight: Some(weight),
            backup: false,
            options: ServerOptions::default(),
        };
        all.iter().map(|row| (row.0.to_owned(), server(row))).collect()
    }

    fn lines(differences: &Differences) -> Vec<String> {
        differences.examples.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn nodes_that_are_missing_extra_or_elsewhere_are_counted_and_named() {
        let now: EntryMap = [("a", "m1"), ("b", "m1"), ("c", "m2")].into_iter().collect();
        let shadow: EntryMap = [("b", "m2"), ("c", "m2"), ("d", "m3")].into_iter().collect();
        let differences = Differences::of_maps(&now, &shadow);
        assert_eq!(differences.to_string(), "1 missing, 1 extra, 1 elsewhere");
        let expected =
            ["elsewhere b: m1, shadow: m2", "extra d: none, shadow: m3", "missing a: m1"];
        assert_eq!(lines(&differences), expected);
        let same = Differences::of_maps(&now, &now);
        assert!(same.is_empty() && same.counts.len() == 3, "{same:?}");
        assert_eq!(same.to_string(), "no difference");
    }

    #[test]
    fn a_server_that_the_shadow_calls_otherwise_is_neither_missing_nor_extra() {
        let now = servers(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("d", 4, 1), ("gone", 5, 1)]);
        let shadow = servers(&[("a", 1, 1), ("b", 9, 1), ("c", 3, 7), ("x", 4, 1), ("new", 6, 1)]);
        let differences = Differences::of_servers(&now, &shadow);
        let counted = "1 missing, 1 extra, 1 elsewhere, 1 renamed, 1 options";
        assert_eq!(differences.to_string(), counted);
        let expected = [
            "elsewhere b: 10.0.0.2:80, shadow: 10.0.0.9:80",
            "options c: weight 1, shadow: weight 7",
            "renamed d: 10.0.0.4:80, shadow: x",
            "missing gone: 10.0.0.5:80",
            "extra new: none, shadow: 10.0.0.6:80",
        ];
        assert_eq!(lines(&differences), expected);
        assert!(Differences::of_servers(&now, &now).is_empty());
        let mut secret = now.clone();
        for server in secret.values_mut().take(1) {
            server.options.other = vec!["agent-send password=geheim".to_owned()];
        }
        let expected = ["options a: weight 1, shadow: weight 1 agent-send password=***"];
        assert_eq!(lines(&Differences::of_servers(&now, &secret)), expected);
    }

    #[test]
    fn a_server_without_a_weight_is_as_heavy_as_haproxy_makes_it() {
        let heavy = |weight| {
            let all = servers(&[("a", 1, 1), ("b", 2, 1)]).into_values();
            let with = |server: Server| (server.name.clone(), Server { weight, ..server });
            all.map(with).collect::<BTreeMap<_, _>>()
        };
        // So Consul gives each instance weight 1, and ZooKeeper's children have none.
        let renamed = servers(&[("n1:a", 1, 1), ("n2:b", 2, 1)]);
        assert_eq!(Differences::of_servers(&heavy(None), &renamed).to_string(), "2 renamed");
        assert!(Differences::of_servers(&heavy(None), &heavy(Some(1))).is_empty());
        let other = Differences::of_servers(&heavy(None), &heavy(Some(2)));
        assert_eq!(other.to_string(), "2 options");
    }

    #[test]
    fn however_much_differs_a_few_of_each_kind_are_named() {
        let nodes: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
        let now: EntryMap = nodes.iter().map(|node| (node.as_str(), "m1")).collect();
        let differences = Differences::of_maps(&now, &EntryMap::default());
        assert_eq!(differences.counts[&DifferenceKind::Missing], 1000);
        assert_eq!(differences.examples.len(), EXAMPLES);
    }

    proptest! {
        #[test]
        fn what_is_counted_leads_from_the_one_map_to_the_other(
            now in any_map(),
            shadow in any_map(),
        ) {
            let differences = Differences::of_maps(&now, &shadow);
            let of = |kind| differences.counts[&kind];
            let (missing, extra) = (of(DifferenceKind::Missing), of(DifferenceKind::Extra));
            prop_assert_eq!(now.len() - missing + extra, shadow.len());
            prop_assert_eq!(differences.is_empty(), now == shadow);
        }
    }
}
