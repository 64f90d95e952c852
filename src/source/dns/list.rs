//! Servers of a name's records. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData};
use mapsmith_core::server::MAX_WEIGHT;
use mapsmith_core::server::list::{RawServer, Repeats, ServerList, ServerListBuilder};
use mapsmith_core::{Invalid, Rejections};

use crate::source::format::Rows;

/// The most servers of a name: far more than HAProxy is built for.
const MOST_SERVERS: usize = 10_000;

/// A name server's records as a list of servers.
#[derive(Debug, Default)]
pub(super) struct Listed {
    builder: ServerListBuilder,
    servers: usize,
    /// Those of hosts: two may have one in common.
    of_hosts: BTreeSet<(IpAddr, u16)>,
}

impl Rows for Listed {
    type Content = ServerList;

    fn settle(self) -> (ServerList, Rejections) {
        self.builder.finish(Repeats::LowestAddress)
    }
}

/// More servers than can be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {MOST_SERVERS} addresses")]
pub(super) struct TooMany;

impl Listed {
    /// The servers of a host, called by address and port.
    pub(super) fn add_host(&mut self, addresses: &[IpAddr], port: u16) -> Result<(), TooMany> {
        for address in addresses {
            if !self.of_hosts.insert((*address, port)) {
                continue;
            }
            let raw = RawServer {
                address: address.to_string(),
                port: Some(port.into()),
                ..RawServer::default()
            };
            self.push(&format!("record {address}"), raw)?;
        }
        Ok(())
    }

    /// The servers of a service's record, whose target has these addresses.
    pub(super) fn add(&mut self, target: &Target, addresses: &[IpAddr]) -> Result<(), TooMany> {
        for address in addresses {
            let name = match addresses {
                [_] => target.server_name(),
                _ => format!("{}:{address}", target.server_name()),
            };
            let raw = RawServer {
                name: Some(name),
                address: address.to_string(),
                port: Some(target.port.into()),
                weight: Some(target.weight.into()),
                backup: target.backup,
                options: None,
            };
            self.push(&target.place(), raw)?;
        }
        Ok(())
    }

    /// A record whose target has no address: what is in force for it stays, which `current` says.
    pub(super) fn reject(&mut self, target: &Target, current: Option<&ServerList>, why: &str) {
        for name in target.known_names(current) {
            let (place, why) = (target.place(), why.to_owned());
            self.builder.reject_known(&place, &name, Invalid::ServerAddress, why);
        }
    }

    fn push(&mut self, place: &str, raw: RawServer) -> Result<(), TooMany> {
        self.servers += 1;
        if self.servers > MOST_SERVERS {
            return Err(TooMany);
        }
        self.builder.push(place, raw);
        Ok(())
    }
}

/// A server of a service, before its addresses are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub name: Name,
    pub port: u16,
    /// HAProxy's.
    pub weight: u16,
    pub backup: bool,
}

impl Target {
    fn server_name(&self) -> String {
        format!("{}:{}", plain(&self.name), self.port)
    }

    /// What its servers are called in a list, be it that they stay in force there already.
    fn known_names(&self, list: Option<&ServerList>) -> BTreeSet<String> {
        let own = self.server_name();
        let is_own = |name: &&str| {
            name.strip_prefix(&*own).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        let listed = list.iter().flat_map(|list| list.servers.iter().map(|server| &*server.name));
        let staying = list.iter().flat_map(|list| list.unknown.iter().map(String::as_str));
        let names: BTreeSet<_> = listed.chain(staying).filter(is_own).map(str::to_owned).collect();
        if names.is_empty() { BTreeSet::from([own]) } else { names }
    }

    fn place(&self) -> String {
        format!("target {}", self.server_name())
    }
}

/// A name as people write it: in lower case, without the final dot.
pub(super) fn plain(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// The servers of SRV records (RFC 2782), in a fixed order; none where the service is decidedly not
/// there (the one target is `.`).
pub(super) fn targets(records: &[RData]) -> Vec<Target> {
    let records = records.iter().filter_map(|record| match record {
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    });
    // Of records that differ in priority or weight alone the best counts: it is one server.
    let mut best: BTreeMap<(String, u16), &SRV> = BTreeMap::new();
    for record in records {
        let known = best.entry((plain(&record.target), record.port)).or_insert(record);
        if (record.priority, known.weight) < (known.priority, record.weight) {
            *known = record;
        }
    }
    let primary = best.values().map(|record| record.priority).min();
    let mut weights: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for record in best.values() {
        weights.entry(record.priority).or_default().push(record.weight);
    }
    let target = |record: &SRV| Target {
        name: record.target.to_lowercase(),
        port: record.port,
        weight: weight(record.weight, &weights[&record.priority]),
        backup: Some(record.priority) != primary,
    };
    best.into_values().map(target).collect()
}

/// HAProxy's weight of a record, among those of its priority. A weight of 0 in DNS means "seldom",
/// in HAProxy "never": so it is 1, and the others are scaled to be as much more as they can.
fn weight(weight: u16, of_priority: &[u16]) -> u16 {
    let largest = of_priority.iter().copied().max().unwrap_or(weight);
    if largest == 0 {
        return 1;
    }
    if largest <= MAX_WEIGHT && !of_priority.contains(&0) {
        return weight;
    }
    let scaled = u32::from(weight) * u32::from(MAX_WEIGHT) / u32::from(largest);
    u16::try_from(scaled).unwrap_or(MAX_WEIGHT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addresses: &[IpAddr], port: u16) -> Result<Listed, TooMany> {
        let mut listed = Listed::default();
        listed.add_host(addresses, port)?;
        Ok(listed)
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    }

    /// `target:port weight`, with `backup` where it is one.
    fn targets_of(records: &[RData]) -> Vec<String> {
        let describe = |target: Target| {
            let backup = if target.backup { " backup" } else { "" };
            format!("{} {}{backup}", target.server_name(), target.weight)
        };
        targets(records).into_iter().map(describe).collect()
    }

    #[test]
    fn the_lowest_priority_number_is_served_and_the_others_stand_by() {
        let records =
            [srv(20, 5, 80, "c.test."), srv(10, 60, 80, "A.test."), srv(10, 40, 81, "b.test.")];
        let expected = ["a.test:80 60", "b.test:81 40", "c.test:80 5 backup"];
        assert_eq!(targets_of(&records), expected);
        let mut reversed = records;
        reversed.reverse();
        assert_eq!(targets_of(&reversed), expected, "the order of an answer changes nothing");
    }

    #[test]
    fn weights_fit_haproxys_and_none_is_never() {
        for (weights, expected) in [
            (&[0, 0][..], &[1, 1][..]),
            (&[1, 256], &[1, 256]),
            (&[0, 1], &[1, 256]),
            (&[0, 10, 60], &[1, 42, 256]),
            (&[1000, 500], &[256, 128]),
            (&[65_535, 1], &[256, 1]),
        ] {
            let found: Vec<_> = weights.iter().map(|own| weight(*own, weights)).collect();
            assert_eq!(found, expected, "{weights:?}");
        }
    }

    #[test]
    fn one_target_and_port_is_one_server_and_no_service_is_none() {
        let twice = [srv(10, 1, 80, "a.test."), srv(5, 7, 80, "A.TEST."), srv(5, 9, 80, "a.test.")];
        assert_eq!(targets_of(&twice), ["a.test:80 9"]);
        assert_eq!(targets_of(&[srv(0, 0, 0, ".")]), [""; 0]);
    }

    #[test]
    fn a_server_is_called_by_its_target_while_that_has_one_address() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.2", "fe80::1"].map(|text| text.parse().unwrap()).to_vec();
        let target = &targets(&[srv(1, 5, 80, "web1.test.")])[0];
        let names = |addresses: &[IpAddr]| -> Vec<String> {
            let mut listed = Listed::default();
            listed.add(target, addresses).unwrap();
            let (list, rejections) = listed.settle();
            assert_eq!(rejections.total(), 0, "{:?}", list.rejected);
            list.servers.into_iter().map(|server| server.name).collect()
        };
        assert_eq!(names(&addresses[..1]), ["web1.test:80"]);
        assert_eq!(names(&addresses), ["web1.test:80:10.0.0.2", "web1.test:80:fe80::1"]);
        let (list, _) = host(&addresses, 8080).unwrap().settle();
        let names: Vec<_> = list.servers.iter().map(|server| &*server.name).collect();
        assert_eq!(names, ["10.0.0.2:8080", "fe80::1:8080"]);
    }

    #[test]
    fn all_servers_of_a_target_stay_whose_addresses_are_gone() {
        let targets = targets(&[srv(1, 5, 80, "a.test."), srv(1, 5, 8000, "a.test.")]);
        let mut listed = Listed::default();
        let addresses: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        targets.iter().for_each(|target| listed.add(target, &addresses).unwrap());
        let (mut current, _) = listed.settle();
        // Again and again: what stays is remembered.
        for _ in 0..2 {
            let mut listed = Listed::default();
            listed.reject(&targets[0], Some(&current), "gone");
            (current, _) = listed.settle();
            let names: Vec<_> = current.rejected.iter().flat_map(|row| row.name.clone()).collect();
            assert_eq!(names, ["a.test:80:10.0.0.1", "a.test:80:10.0.0.2"]);
        }
        let mut listed = Listed::default();
        listed.reject(&targets[1], None, "gone");
        assert_eq!(listed.settle().0.rejected[0].name.as_deref(), Some("a.test:8000"));
    }

    #[test]
    fn a_port_or_address_that_no_server_has_is_rejected_and_named() {
        let mut listed = Listed::default();
        let target = &targets(&[srv(1, 5, 0, "web1.test.")])[0];
        listed.add(target, &["10.0.0.1".parse().unwrap()]).unwrap();
        let (list, rejections) = listed.settle();
        assert_eq!((list.servers.len(), rejections.total()), (0, 1));
        assert_eq!(list.rejected[0].place, "target web1.test:0");
        let (list, _) = host(&["0.0.0.0".parse().unwrap()], 80).unwrap().settle();
        assert_eq!((list.servers.len(), &*list.rejected[0].place), (0, "record 0.0.0.0"));
        let many: Vec<IpAddr> =
            (0..=MOST_SERVERS).map(|at| [10, 1, (at / 256) as u8, at as u8].into()).collect();
        assert_eq!(host(&many, 80).err(), Some(TooMany));
    }
}
