//! When decisions are made and what is published, over a real map file: answers and orders come by
//! the channels that the daemon has.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::guard::Limits;
use mapsmith_core::desired::references::{Action, Actions, Targets};
use mapsmith_core::status::PollReport;
use mapsmith_core::{Desired, EntryMap, Note, Overrides, Pin, Snapshot, SourceState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::map::MapDecider;
use super::rows::{self, InstanceRows, RowScreen};
use super::servers::ServerDecider;
use super::servers::resolve::{HostNames, Lookup, Resolver};
use super::servers::tests::Names;
use super::{Approval, Decision, Engine, HoldOrderError, Inputs, InstanceViews, Order, Outputs};
use crate::settings::Settings;
use crate::store::map_file::MapFileWriter;

/// What waits for something that must come.
const BOUND: Duration = Duration::from_secs(60);
/// No check of the map file.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What an engine begins with.
struct Start {
    folder: tempfile::TempDir,
    sources: Vec<SourceState>,
    actions: Actions,
    screens: Vec<RowScreen>,
    lookup: Box<dyn Lookup>,
    backends: &'static str,
}

impl Start {
    fn with(sources: impl IntoIterator<Item = SourceState>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            sources: sources.into_iter().collect(),
            actions: Actions::default(),
            screens: Vec::new(),
            lookup: Box::new(Names::default()),
            backends: "",
        }
    }

    async fn run(self) -> Running {
        let Self { folder, sources, actions, screens, lookup, backends } = self;
        let writer = MapFileWriter::new(&folder.path().join("n.map"));
        let map = MapDecider::start(Limits::default(), writer, Arc::default()).await.unwrap();
        let servers = ServerDecider::new(&settings(folder.path(), backends));
        let mut resolver = Resolver::new(lookup, Duration::from_secs(90));
        resolver.retry = Duration::from_millis(1);
        let (hosts, lookups) = HostNames::new(resolver);
        tokio::spawn(lookups);
        let (senders, sources) = sources.into_iter().map(watch::channel).unzip();
        let (orders, overrides) = watch::channel(Arc::<Overrides>::default());
        let (observed, targets) = watch::channel(None);
        let (approver, engine_orders) = mpsc::channel(1);
        let (decisions, decision) = watch::channel(Decision::default());
        let (sender, desired) = watch::channel(Desired::default());
        let engine = Engine::new(
            map.with_actions(actions).with_screens(screens),
            servers,
            hosts,
            Inputs {
                members: watch::channel(Arc::default()).1,
                sources,
                lists: Vec::new(),
                overrides,
                targets: vec![targets],
                orders: engine_orders,
                instances: InstanceViews::new(Vec::new),
            },
            Outputs { decision: decisions, desired: sender },
        );
        let stop = CancellationToken::new();
        let task = tokio::spawn(engine.run(NEVER, stop.clone()));
        Running {
            folder,
            sources: senders,
            orders,
            observed,
            approver,
            decision,
            desired,
            stop,
            task,
        }
    }
}

/// An engine at work.
struct Running {
    folder: tempfile::TempDir,
    sources: Vec<watch::Sender<SourceState>>,
    orders: watch::Sender<Arc<Overrides>>,
    observed: watch::Sender<Option<Arc<Targets>>>,
    approver: mpsc::Sender<Order>,
    decision: watch::Receiver<Decision>,
    desired: watch::Receiver<Desired>,
    stop: CancellationToken,
    task: JoinHandle<super::Memory>,
}

impl Running {
    async fn decided(&mut self, what: &str, reached: impl FnMut(&Decision) -> bool) -> Decision {
        wait(&mut self.decision, what, reached).await
    }

    async fn desires(&mut self, what: &str, reached: impl FnMut(&Desired) -> bool) -> Desired {
        wait(&mut self.desired, what, reached).await
    }

    fn order(&self, pins: &[(&str, &str)]) -> Arc<Overrides> {
        let mut overrides = Overrides::default();
        for (node, master) in pins {
            let (node, master) = ((*node).to_owned(), (*master).to_owned());
            let since = Timestamp::UNIX_EPOCH;
            overrides
                .add_pin(Pin { node, master, since, until: None, note: Note::default() })
                .unwrap();
        }
        let overrides = Arc::new(overrides);
        self.orders.send_replace(Arc::clone(&overrides));
        overrides
    }

    fn file(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("n.map")).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("it ends well");
    }
}

async fn wait<T: Clone>(
    watched: &mut watch::Receiver<T>,
    what: &str,
    reached: impl FnMut(&T) -> bool,
) -> T {
    let found = tokio::time::timeout(BOUND, watched.wait_for(reached)).await;
    found.unwrap_or_else(|_| panic!("never came: {what}")).expect("the engine lives").clone()
}

fn settings(folder: &std::path::Path, backends: &str) -> Settings {
    let path = folder.join("mapsmith.toml");
    let text = format!(
        "[map]\npath = \"/etc/haproxy/maps/n.map\"\n\
         [[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = \"http://127.0.0.1:8080\"\n\
         [[instance]]\nname = \"edge1\"\nruntime = \"unix@/run/haproxy/admin.sock\"\n\
         [damping]\ndebounce = \"0s\"\n{backends}"
    );
    std::fs::write(&path, text).unwrap();
    Settings::load(&path, []).unwrap()
}

/// What a source says: the number of the round that it has answered, and the map, if it has one.
fn state(name: &str, answered: u64, map: Option<EntryMap>) -> SourceState {
    let mut state = SourceState::before_first_poll(name.to_owned(), "file".to_owned(), true);
    if let Some(map) = map {
        let report =
            PollReport { kind: None, at: Timestamp::UNIX_EPOCH, milliseconds: 0.0, bytes: 0 };
        (state.answered, state.status.last_poll) = (answered, Some(report));
        state.snapshot = Some(Snapshot {
            entries: Arc::new(map),
            rejections: Arc::default(),
            answered_at: Timestamp::UNIX_EPOCH,
        });
    }
    state
}

/// `count` nodes, all on `master`.
fn nodes(count: usize, master: &str) -> EntryMap {
    let names: Vec<_> = (0..count).map(|node| format!("n{node:03}")).collect();
    names.iter().map(|name| (name.as_str(), master)).collect()
}

fn rows_of(decision: &Decision) -> Vec<String> {
    let revision = decision.map.in_force.as_ref().expect("a map in force");
    revision.entries.iter().map(|(node, master)| format!("{node} {master}")).collect()
}

/// The masters of the first node that instances are to hold, one after another, after a restart
/// with a map file that names `m1`: at first no source has answered, then it says these.
async fn desired_after_a_restart(answers: &[Option<&str>]) -> Vec<String> {
    let before = Start::with([state("puppetdb", 0, Some(nodes(3, "m1")))]).run().await;
    let mut before = before;
    before.decided("the first map", |decision| decision.map.active).await;
    let folder = std::mem::replace(&mut before.folder, tempfile::tempdir().unwrap());
    before.stop().await;

    let (screen, unreached): (RowScreen, InstanceRows) = rows::channel("edge1");
    unreached.failed(true);
    let actions = Actions { unknown: Action::Guard, not_ready: Action::Keep };
    let start = Start { folder, actions, ..Start::with([state("puppetdb", 0, None)]) };
    let mut running = Start { screens: vec![screen], ..start }.run().await;
    let mut seen: Vec<String> = Vec::new();
    let master = |desired: &Desired| {
        let map = desired.map.as_ref()?;
        map.revision.entries.get("n000").map(str::to_owned)
    };
    for answer in answers {
        if let Some(master) = answer {
            running.sources[0].send_replace(state("puppetdb", 0, Some(nodes(3, master))));
        }
        let is_new =
            |desired: &Desired| master(desired).is_some_and(|master| seen.last() != Some(&master));
        let desired = running.desires("another master", is_new).await;
        seen.extend(master(&desired));
    }
    running.stop().await;
    seen
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_all_that_an_instance_gets_after_a_restart() {
    // The file may be a backup's, and HAProxy may hold what is newer.
    assert_eq!(desired_after_a_restart(&[Some("m2")]).await, ["m2"]);
}

#[tokio::test]
async fn after_a_restart_the_map_file_is_kept_in_force_while_no_source_answers() {
    assert_eq!(desired_after_a_restart(&[None, Some("m2")]).await, ["m1", "m2"]);
}

#[tokio::test]
async fn an_override_does_not_wait_for_a_round_of_polls_and_takes_no_half_of_one_in() {
    let quick = state("quick", 0, Some(nodes(3, "m1")));
    let slow = state("slow", 0, Some(EntryMap::default()));
    let mut running = Start::with([quick, slow]).run().await;
    running.decided("the first map", |decision| decision.map.active).await;

    // One source has answered the next round, the other takes its time.
    running.sources[0].send_replace(state("quick", 1, Some(nodes(3, "m2"))));
    running.order(&[("n000", "m9")]);
    let at_once = running.decided("the pin", |decision| !decision.map.overrides.is_empty()).await;
    assert_eq!(
        (at_once.map.evaluated_request, rows_of(&at_once)),
        (0, vec!["n000 m9".into(), "n001 m1".into(), "n002 m1".into()])
    );
    // Nor do they put the round off, however many come: it ends when it would have.
    let more = async {
        for order in 0.. {
            let next = running.order(&[("n000", &format!("x{order}"))]);
            let decided =
                running.decided("the next pin", |decision| decision.map.overrides == next).await;
            if rows_of(&decided).contains(&"n001 m2".to_owned()) {
                break;
            }
        }
    };
    tokio::time::timeout(BOUND, more).await.expect("the quick source's answer is in force at last");
    running.stop().await;
}

/// What is registered with Mapsmith itself, after so many changes.
fn registered(number: u64, nodes: &[(&str, &str)]) -> SourceState {
    let map = nodes.iter().copied().collect();
    SourceState { registered: Some(number), ..state("registered", u64::MAX, Some(map)) }
}

#[tokio::test]
async fn a_registration_does_not_wait_for_a_round_of_polls_and_takes_no_half_of_one_in() {
    let quick = state("quick", 0, Some(nodes(2, "m1")));
    let slow = state("slow", 0, Some(EntryMap::default()));
    let mut running = Start::with([registered(0, &[("a", "m1")]), quick, slow]).run().await;
    let first = running.decided("the first map", |decision| decision.map.active).await;
    assert_eq!(rows_of(&first), ["a m1", "n000 m1", "n001 m1"], "it is there from the first on");

    running.sources[1].send_replace(state("quick", 1, Some(nodes(2, "m2"))));
    running.sources[0].send_replace(registered(1, &[("a", "m1"), ("n000", "m9")]));
    let at_once = running.decided("the node", |decision| decision.map.registered == 1).await;
    assert_eq!(rows_of(&at_once), ["a m1", "n000 m9", "n001 m1"]);
    assert_eq!(at_once.map.evaluated_request, 0);
    let asked = at_once.map.answered_at.expect("all have answered");
    assert_eq!(asked, Timestamp::UNIX_EPOCH, "the oldest answer is a registry's");

    // The round is whole without it.
    running.sources[2].send_replace(state("slow", 1, Some(EntryMap::default())));
    let round = running.decided("the round", |decision| decision.map.evaluated_request == 1).await;
    assert_eq!(rows_of(&round), ["a m1", "n000 m9", "n001 m2"]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_registered_answers_every_request_and_is_as_new_as_the_moment() {
    let mut running = Start::with([registered(0, &[("a", "m1")])]).run().await;
    let first = running.decided("the first map", |decision| decision.map.active).await;
    assert_eq!(first.map.evaluated_request, u64::MAX);
    assert!(first.map.answered_at > Some(Timestamp::UNIX_EPOCH), "{:?}", first.map.answered_at);
    running.sources[0].send_replace(registered(2, &[("a", "m2")]));
    let next = running.decided("the node", |decision| decision.map.registered == 2).await;
    assert_eq!(rows_of(&next), ["a m2"]);
    running.stop().await;
}

#[tokio::test]
async fn servers_that_flap_bring_no_instance_to_a_pass_unless_the_map_changes() {
    for (not_ready, rows, generations) in
        [(Action::Keep, vec!["a m1", "b m2"], 0), (Action::LeaveOut, vec!["a m1"], 1)]
    {
        let map: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
        let actions = Actions { unknown: Action::Keep, not_ready };
        let start = Start { actions, ..Start::with([state("puppetdb", 0, Some(map))]) };
        let mut running = start.run().await;
        let masters = |ready| Some(Arc::new([("m1", true), ("m2", ready)].into_iter().collect()));
        running.observed.send_replace(masters(true));
        running.decided("the first map", |decision| decision.map.active).await;
        let before = running.desired.borrow().generation;
        running.observed.send_replace(masters(false));
        let dangling = |decision: &Decision| decision.map.dangling.entries() == (0, 1);
        running.decided("an entry that points to what is not ready", dangling).await;
        assert_eq!(running.file(), rows, "{not_ready}");
        assert_eq!(running.desired.borrow().generation, before + generations, "{not_ready}");
        running.stop().await;
    }
}

const LATE: &str = "[[backend]]\nname = \"late\"\nservers = [ \
    { name = \"w1\", address = \"late.example:1\" }, \
    { name = \"w2\", address = \"10.0.0.1:1\" } ]\n";

fn servers(desired: &Desired) -> usize {
    desired.servers.as_ref().map_or(0, |desired| desired.backends["late"].servers.len())
}

#[tokio::test]
async fn a_name_without_an_address_is_looked_up_again_before_the_next_round() {
    let names = Names::default();
    let lookup = Box::new(names.clone());
    let start = Start { lookup, backends: LATE, ..Start::with([state("puppetdb", 0, None)]) };
    let mut running = start.run().await;
    running.desires("the server with an address", |desired| servers(desired) == 1).await;
    names.0.lock().unwrap().insert("late.example".to_owned(), IpAddr::from([10, 0, 0, 2]));
    running.desires("the server whose name resolves", |desired| servers(desired) == 2).await;
    running.stop().await;
}

/// A resolver that never answers.
struct Silent;

#[async_trait]
impl Lookup for Silent {
    async fn look_up(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_resolver_that_never_answers_holds_up_its_servers_for_a_while_and_the_map_not_at_all() {
    let source = state("puppetdb", 0, Some(nodes(2, "m1")));
    let start = Start { lookup: Box::new(Silent), backends: LATE, ..Start::with([source]) };
    let mut running = start.run().await;
    let desired = running.desires("the map", |desired| desired.map.is_some()).await;
    assert_eq!(servers(&desired), 0, "the names were looked up for no time at all");
    running.order(&[("n000", "m9")]);
    let pinned = running.decided("the pin", |decision| !decision.map.overrides.is_empty()).await;
    assert_eq!(rows_of(&pinned), ["n000 m9", "n001 m1"]);
    let both = running.desires("the server with an address", |desired| servers(desired) == 1).await;
    assert!(both.generation > desired.generation, "{} {}", both.generation, desired.generation);
    running.stop().await;
}

#[tokio::test]
async fn an_approval_is_answered_when_the_change_is_in_force_and_one_of_nothing_at_once() {
    let mut running = Start::with([state("puppetdb", 0, Some(nodes(40, "m1")))]).run().await;
    running.decided("the first map", |decision| decision.map.active).await;
    let approve = async |running: &Running, id: &str| {
        let (answer, result) = oneshot::channel();
        let (id, note) = (id.to_owned(), Note::default());
        let approval = Approval { id, note, canary: None, answer };
        running.approver.send(Order::Approve(approval)).await.unwrap();
        tokio::time::timeout(BOUND, result).await.expect("an answer in time").unwrap()
    };
    assert_eq!(
        approve(&running, "0123").await,
        Err(HoldOrderError::NotHeld(ApprovalError::NothingHeld))
    );

    running.sources[0].send_replace(state("puppetdb", 1, Some(nodes(10, "m1"))));
    let held = running.decided("a hold", |decision| decision.map.held.is_some()).await.map.held;
    let held = held.expect("it was seen");
    let other = ApprovalError::Another { asked: "0123".to_owned(), held: held.id.clone() };
    assert_eq!(approve(&running, "0123").await, Err(HoldOrderError::NotHeld(other)));
    assert_eq!(running.file().len(), 40);
    assert_eq!(approve(&running, &held.id).await, Ok(held));
    assert_eq!(running.file().len(), 10, "it is in the file when the answer comes");
    let desired = running.desired.borrow().clone();
    assert_eq!(desired.map.expect("a map").revision.entries.len(), 10);
    running.stop().await;
}
