//! Lists on their way to be desired: what is waited for, held, damped, remembered; with a clock and
//! a resolver of the test's own.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::server::Manage;
use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::{DesiredBackend, Revision, Snapshot};

use super::backend::FORMER_NAMES;
use super::resolve::{Lookup, Resolver};
use super::*;
use crate::engine::map::MapDecider;
use crate::engine::memory::Memory;

mod masters;
mod members;
mod rejected;
mod restart;
mod settings;

/// A resolver that knows what a test says.
#[derive(Clone, Default)]
pub(in crate::engine) struct Names(pub Arc<Mutex<HashMap<String, IpAddr>>>);

#[async_trait]
impl Lookup for Names {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let address = self.0.lock().unwrap().get(host).copied();
        address.map(|address| vec![address]).ok_or_else(|| io::Error::other("no such name"))
    }
}

const SETTINGS: &str = r#"
[map]
path = "/etc/haproxy/maps/node-master.map"
[[source]]
name = "puppetdb"
type = "puppetdb"
url = "http://127.0.0.1:8080"
[source.masters]
"puppet00.example" = "m1"
[[source]]
name = "consul"
type = "http_json"
url = "http://127.0.0.1:8500/servers.json"
[[instance]]
name = "edge1"
runtime = "unix@/run/haproxy/admin.sock"
[damping]
debounce = "1s"
max_delay = "5s"
hold = "30s"
[[backend]]
name = "listed"
from = "consul"
manage = "all"
drain = "7s"
"#;

const WRITTEN: &str = "[[backend]]\nname = \"written\"\nservers = [ \
    { name = \"w1\", address = \"10.0.0.1:1\" }, \
                       { name = \"w2\", address = \"nowhere\" } ]\noptions = [\"check\"]\n";
const MAPPED: &str = "[[backend]]\nname = \"mapped\"\nmasters = \"{producer}:8140\"\n";

fn settings(text: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapsmith.toml");
    std::fs::write(&path, text).unwrap();
    Settings::load(&path, []).unwrap()
}

struct Scene {
    decider: ServerDecider,
    names: Names,
    list: Option<ServerList>,
    map: MapDecision,
    resolver: Resolver,
    addresses: HostAddresses,
    round: u64,
    /// When the registry of the list gave its last answer, in seconds since 1970.
    answered_at: i64,
}

impl Scene {
    fn start(more: &str) -> Self {
        Self::start_with(|text| format!("{text}{more}"))
    }

    /// With settings that differ from the usual ones.
    fn start_with(edit: impl Fn(&str) -> String) -> Self {
        let names = Names::default();
        let settings = settings(&edit(SETTINGS));
        Self {
            decider: ServerDecider::new(&settings),
            resolver: Resolver::new(Box::new(names.clone()), settings.damping.hold),
            addresses: HostAddresses::default(),
            names,
            list: None,
            map: MapDecision::default(),
            round: 0,
            answered_at: 1000,
        }
    }

    /// After a restart with a store that has these lists.
    fn resume(more: &str, lists: &[(&str, &str, std::ops::Range<u8>)]) -> Self {
        let mut before = Self::start("");
        let list = |(backend, origin, servers): &(&str, &str, std::ops::Range<u8>)| {
            before.lists(servers.clone());
            let options = servers::BackendOptions::default();
            let servers =
                servers::resolve(before.list.as_ref().unwrap(), &options, |_| Err("no names here"))
                    .servers;
            (
                (*backend).to_owned(),
                LastGoodList {
                    origin: (*origin).to_owned(),
                    since: Some(Timestamp::UNIX_EPOCH),
                    confirmed: Some(Timestamp::UNIX_EPOCH),
                    servers,
                },
            )
        };
        let lists = lists.iter().map(list).collect();
        let mut scene = Self::start(more);
        scene.decider = scene.decider.resume(&lists);
        scene
    }

    /// The registry lists so many servers from now on.
    fn lists(&mut self, servers: std::ops::Range<u8>) {
        self.says(
            &servers
                .map(|number| (format!("s{number:02}"), format!("10.0.1.{number}:8140")))
                .collect::<Vec<_>>(),
        );
    }

    fn says(&mut self, servers: &[(String, String)]) {
        let mut builder = ServerListBuilder::default();
        for (name, address) in servers {
            let raw = RawServer {
                name: Some(name.clone()),
                address: address.clone(),
                ..RawServer::default()
            };
            builder.push("row", raw);
        }
        self.list = Some(builder.finish(Repeats::LowestAddress).0);
    }

    fn map(&mut self, active: bool, entries: &[(&str, &str)]) {
        let entries = Arc::new(entries.iter().copied().collect());
        self.map.in_force =
            Some(Arc::new(Revision { number: 1, at: Timestamp::UNIX_EPOCH, entries }));
        self.map.active = active;
    }

    /// A round of polls, and the decision on it at that second.
    async fn decide(&mut self, second: u64) {
        self.round += 1;
        self.decide_again(second).await;
    }

    /// A decision without a new round.
    async fn decide_again(&mut self, second: u64) {
        let mut state =
            SourceState::before_first_poll("consul".to_owned(), "http_json".to_owned(), true);
        state.snapshot = self.list.clone().map(|list| Snapshot {
            entries: Arc::new(list),
            rejections: Arc::default(),
            answered_at: Timestamp::from_second(self.answered_at).unwrap(),
        });
        state.answered = self.round;
        self.map.evaluated_request = self.round;
        self.decider.take_in(&[state], &self.map);
        let now = Duration::from_secs(second);
        if !self.decider.decide(&self.addresses, now) {
            self.addresses = self.resolver.answer(self.decider.question(), now).await;
            assert!(self.decider.decide(&self.addresses, now), "every name was looked up");
        }
    }

    fn desired(&self, backend: &str) -> Option<DesiredBackend> {
        self.decider.desired()?.backends.get(backend).cloned()
    }

    fn servers(&self, backend: &str) -> Vec<String> {
        let desired = self.desired(backend).unwrap_or_default();
        desired
            .servers
            .values()
            .map(|server| format!("{} {}", server.name, server.address))
            .collect()
    }

    fn status(&self, backend: &str) -> BackendStatus {
        let backends = self.decider.backends(Duration::ZERO);
        backends.into_iter().find(|status| status.name == backend).unwrap()
    }
}

#[tokio::test]
async fn a_backend_whose_list_is_not_known_is_absent_and_the_others_go_on() {
    let mut scene = Scene::start(&format!("{WRITTEN}{MAPPED}"));
    scene.map(false, &[("n1", "m1")]);
    scene.decide(0).await;
    let desired = scene.decider.desired().unwrap();
    assert_eq!(
        (desired.number, desired.backends.keys().map(String::as_str).collect::<Vec<_>>()),
        (1, vec!["written"])
    );
    assert!(desired.backends["written"].servers["w1"].options.check);
    assert_eq!(scene.status("written").rejected[0].place, "servers[1] \"w2\"");
    assert_eq!(
        scene.status("listed").waiting_for.as_deref(),
        Some("a first answer of source consul")
    );
    assert_eq!(
        scene.status("mapped").waiting_for.as_deref(),
        Some("a first node map"),
        "a map found in the file is not enough"
    );

    scene.lists(1..3);
    scene
        .names
        .0
        .lock()
        .unwrap()
        .insert("puppet00.example".to_owned(), IpAddr::from([10, 0, 0, 9]));
    scene.map(true, &[("n1", "m1"), ("n2", "m1")]);
    scene.decide(2).await;
    scene.decide_again(3).await;
    assert_eq!(scene.servers("listed"), ["s01 10.0.1.1:8140", "s02 10.0.1.2:8140"]);
    assert_eq!(scene.servers("mapped"), ["m1 10.0.0.9:8140"]);
    let listed = scene.desired("listed").unwrap();
    assert_eq!((listed.manage, listed.drain), (Manage::All, Duration::from_secs(7)));
}

#[tokio::test]
async fn an_empty_list_is_held_also_as_the_first_one() {
    let mut scene = Scene::start("");
    scene.lists(0..0);
    scene.decide(0).await;
    scene.decide(100).await;
    assert_eq!(scene.decider.desired(), None);
    let held = scene.status("listed").held.unwrap();
    assert_eq!((&*held.of, held.entries_in_force, held.entries_held), ("backend listed", 0, 0));
    assert!(held.reason.contains("the new server list has 0 servers"), "{}", held.reason);
    scene.lists(1..4);
    scene.decide(200).await;
    scene.decide_again(201).await;
    assert_eq!((scene.servers("listed").len(), scene.status("listed").held), (3, None));
    scene.lists(0..0);
    scene.decide(300).await;
    scene.decide(900).await;
    assert_eq!(scene.servers("listed").len(), 3, "the last good list stays in force");
    assert_eq!(scene.status("listed").held.unwrap().counts.removed, 3);
}

#[tokio::test]
async fn an_empty_list_is_taken_where_the_settings_say_so_unless_its_rows_are_invalid() {
    let mut scene = Scene::start_with(|text| text.replace("manage", "empty = \"accept\"\nmanage"));
    scene.lists(0..30);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.says(&[("s1".to_owned(), "no address".to_owned())]);
    scene.decide(10).await;
    let held = scene.status("listed").held.unwrap();
    assert!(held.reason.contains("has 0 servers"), "{}", held.reason);
    scene.lists(0..0);
    scene.decide(20).await;
    assert_eq!(scene.status("listed").held, None);
    for step in 1..60 {
        scene.decide_again(20 + 30 * step).await;
    }
    assert_eq!(scene.servers("listed"), [""; 0]);
}

#[tokio::test]
async fn what_is_to_go_is_named_in_the_order_of_its_times() {
    let mut scene = Scene::start("");
    scene.lists(0..9);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.lists(0..8);
    scene.decide(10).await;
    scene.lists(1..8);
    scene.decide(12).await;
    let leaving = scene.status("listed").leaving;
    let names: Vec<_> = leaving.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["s08", "s00"], "{leaving:?}");
}

#[tokio::test]
async fn a_halved_list_is_held_and_goes_share_by_share_once_it_is_approved() {
    let mut scene = Scene::start("");
    scene.lists(0..40);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.lists(0..20);
    scene.decide(10).await;
    let held = scene.status("listed").held.unwrap();
    assert!(
        held.reason.contains("remove 20 of the 40 servers in force (50.0%)"),
        "{}",
        held.reason
    );
    scene.decide_again(500).await;
    assert_eq!(scene.servers("listed").len(), 40);

    assert_eq!(
        scene.decider.approve("0123456789abcdef"),
        Err(ApprovalError::Another { asked: "0123456789abcdef".to_owned(), held: held.id.clone() })
    );
    assert_eq!(scene.decider.approve(&held.id).as_ref(), Ok(&held));
    scene.decide_again(501).await;
    assert_eq!(scene.decider.outcome_of_approval(held.clone()).as_ref(), Ok(&held));
    assert_eq!(scene.status("listed").leaving.len(), 20);
    // A fifth of 40, of 32 and of 26 at once; the approval lasts until all of it is in force, and
    // no longer.
    for (second, left) in [(530, 40), (531, 32), (560, 32), (561, 26), (591, 21), (621, 20)] {
        scene.decide(second).await;
        assert_eq!(scene.servers("listed").len(), left, "at {second} s");
        assert_eq!(scene.status("listed").held, None, "at {second} s");
    }
    assert_eq!(scene.desired("listed").unwrap().former.len(), 20);
    scene.decide(622).await;
    scene.lists(0..40);
    scene.decide(623).await;
    scene.decide_again(624).await;
    let listed = scene.desired("listed").unwrap();
    assert_eq!(
        (listed.servers.len(), listed.former.len()),
        (40, 0),
        "what is back is former no more"
    );
    scene.lists(0..20);
    scene.decide(700).await;
    assert_eq!(
        scene.status("listed").held.map(|held| held.id),
        Some(held.id),
        "the approval was used up"
    );
}

#[tokio::test]
async fn a_registry_that_flaps_each_second_changes_nothing() {
    let mut scene = Scene::start("");
    scene.lists(0..4);
    scene.decide(0).await;
    scene.decide_again(1).await;
    let before = scene.decider.desired();
    for second in 2..300 {
        scene.lists(if second % 2 == 0 { 0..3 } else { 0..4 });
        scene.decide(second).await;
        assert_eq!(scene.decider.desired(), before, "at {second} s");
    }
}

#[tokio::test]
async fn a_new_address_is_a_change_of_the_server_and_no_removal() {
    let mut scene = Scene::start("");
    scene.lists(0..4);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.says(
        &[
            ("s00", "10.0.2.9:1"),
            ("s01", "10.0.1.1:8140"),
            ("s02", "10.0.1.2:8140"),
            ("s03", "10.0.1.3:8140"),
        ]
        .map(|(name, address)| (name.to_owned(), address.to_owned())),
    );
    scene.decide(2).await;
    scene.decide_again(3).await;
    assert_eq!(scene.servers("listed")[0], "s00 10.0.2.9:1");
    let desired = scene.decider.desired().unwrap();
    assert_eq!((desired.number, desired.backends["listed"].former.len()), (2, 0));
    scene.decide(4).await;
    assert_eq!(scene.decider.desired().unwrap().number, 2, "nothing new, no new number");
}

#[tokio::test]
async fn names_are_looked_up_at_each_round_and_one_that_fails_keeps_its_address() {
    let mut scene = Scene::start(MAPPED);
    let name = |address: u8| ("puppet00.example".to_owned(), IpAddr::from([10, 0, 0, address]));
    scene.map(true, &[("n1", "m1"), ("n2", "m2.example")]);
    scene.names.0.lock().unwrap().extend([name(1)]);
    scene.decide(0).await;
    scene.decide_again(1).await;
    assert_eq!(scene.servers("mapped"), ["m1 10.0.0.1:8140"]);
    let rejected = scene.status("mapped").rejected;
    assert!(
        rejected.len() == 1 && rejected[0].reason.contains("m2.example never resolved"),
        "{rejected:?}"
    );

    scene.names.0.lock().unwrap().extend([name(2)]);
    scene.decide_again(10).await;
    scene.decide_again(12).await;
    assert_eq!(scene.servers("mapped"), ["m1 10.0.0.1:8140"], "no round, no lookup");
    scene.decide(13).await;
    scene.decide_again(14).await;
    assert_eq!(scene.servers("mapped"), ["m1 10.0.0.2:8140"]);

    scene.names.0.lock().unwrap().clear();
    scene.decide(20).await;
    scene.decide(200).await;
    assert_eq!(scene.servers("mapped"), ["m1 10.0.0.2:8140"]);
    assert!(scene.status("mapped").stale[0].reason.contains("no such name"));
}

#[tokio::test]
async fn what_a_backend_remembers_of_former_servers_is_bounded() {
    let mut scene = Scene::start("");
    scene.decider.limits.small = usize::MAX;
    for round in 0..400u64 {
        // Ten servers with new names each time, and time enough for the old ones to go.
        let names = (0..10)
            .map(|number| (format!("r{round}s{number}"), format!("10.0.0.{number}:1")))
            .collect::<Vec<_>>();
        scene.says(&names);
        for second in 0..10 {
            scene.decide(round * 1000 + second * 100).await;
        }
    }
    assert_eq!(scene.desired("listed").unwrap().former.len(), FORMER_NAMES);
}

#[tokio::test]
async fn a_list_that_loses_a_little_at_a_time_is_held_like_one_that_loses_it_at_once() {
    let mut scene = Scene::start("");
    scene.lists(0..40);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.lists(0..34);
    scene.decide(100).await;
    scene.decide_again(200).await;
    assert_eq!(scene.status("listed").held, None);
    scene.lists(0..31);
    scene.decide(1000).await;
    let reason = scene.status("listed").held.expect("something is held").reason;
    assert!(
        reason.contains("remove 3 of the 34 servers in force, 9 of 40 within 1h (22.5%)"),
        "{reason}"
    );
    scene.lists(0..40);
    scene.decide(1100).await;
    assert_eq!(scene.status("listed").held, None, "they are back");
    scene.lists(0..33);
    scene.decide(1200).await;
    assert_eq!(scene.status("listed").held, None, "and none of them counts as gone");
}
