//! Decisions over a real map file: what comes into force, what is held, what a failed write leaves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::references::Action;
use mapsmith_core::plan::Deviation;
use mapsmith_core::status::PollReport;
use mapsmith_core::{DrainedMaster, Pin, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;

struct Scene {
    folder: tempfile::TempDir,
    decider: MapDecider,
    requests: u64,
    /// What an operator has ordered by now.
    overrides: Arc<Overrides>,
}

impl Scene {
    /// A first start; `file` is the map file found there, if any.
    async fn start(file: Option<&str>) -> Self {
        Self::start_with(file, Overrides::default()).await
    }

    /// A start with what the store holds.
    async fn start_with(file: Option<&str>, overrides: Overrides) -> Self {
        let overrides = Arc::new(overrides);
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            fs::write(folder.path().join("n.map"), text).unwrap();
        }
        let decider = MapDecider::start(
            Limits::default(),
            MapFileWriter::new(&folder.path().join("n.map")),
            overrides.clone(),
        );
        Self { folder, decider: decider.await.unwrap(), requests: 0, overrides }
    }

    /// A first start on a folder where this makes a rename last.
    async fn start_syncing(sync_folder: fn(&Path) -> io::Result<()>) -> Self {
        let mut scene = Self::start(None).await;
        let mut keeper = MapFileWriter::new(&scene.path());
        keeper.sync_folder = sync_folder;
        scene.decider = MapDecider::start(Limits::default(), keeper, Arc::default()).await.unwrap();
        scene
    }

    /// Why the map file can't be written.
    fn file_error(&self) -> Option<String> {
        self.decider.decision().file.as_ref().unwrap().error.clone()
    }

    /// A restart on the same files.
    async fn restart(&mut self) {
        let keeper = MapFileWriter::new(&self.path());
        self.decider = MapDecider::start(Limits::default(), keeper, Arc::clone(&self.overrides))
            .await
            .unwrap();
    }

    fn order(&mut self, pins: &[(&str, &str)], drained: &[(&str, Option<&str>)]) {
        self.overrides = Arc::new(overrides(pins, drained));
    }

    /// The causes of the latest revision.
    fn causes(&self) -> Vec<String> {
        self.decider.decision().log.last().expect("a revision").sources.clone()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("n.map")
    }

    /// The map file's entries.
    fn file(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// The number in the map file's first line.
    fn file_number(&self) -> u64 {
        let text = fs::read_to_string(self.path()).unwrap();
        text.lines().next().unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// What the sources say now; `None` has not answered yet.
    async fn answer(&mut self, sources: &[(&str, bool, Option<EntryMap>)]) {
        self.requests += 1;
        let states: Vec<_> = sources
            .iter()
            .map(|(name, required, map)| {
                let mut state = SourceState::before_first_poll(
                    (*name).to_owned(),
                    "file".to_owned(),
                    *required,
                );
                state.answered = self.requests;
                state.status.last_poll = Some(PollReport {
                    kind: None,
                    at: Timestamp::UNIX_EPOCH,
                    milliseconds: 0.0,
                    bytes: 0,
                });
                state.snapshot = map.clone().map(|map| Snapshot {
                    entries: Arc::new(map),
                    rejections: Arc::default(),
                    answered_at: Timestamp::UNIX_EPOCH,
                });
                state
            })
            .collect();
        self.decider.decide(&states, Arc::clone(&self.overrides)).await;
    }

    async fn one(&mut self, map: EntryMap) {
        self.answer(&[("puppetdb", true, Some(map))]).await;
    }

    fn held(&self) -> &HeldChange {
        self.decider.decision().held.as_ref().expect("something is held")
    }

    fn wanted(&self) -> Option<(u64, usize)> {
        self.decider.wanted().map(|wanted| (wanted.revision.number, wanted.revision.entries.len()))
    }
}

/// These pins and drained masters.
fn overrides(pins: &[(&str, &str)], drained: &[(&str, Option<&str>)]) -> Overrides {
    let mut overrides = Overrides::default();
    for (node, master) in pins {
        let (node, master) = ((*node).to_owned(), (*master).to_owned());
        overrides.add_pin(Pin { node, master, since: Timestamp::UNIX_EPOCH, until: None }).unwrap();
    }
    for (master, to) in drained {
        let (master, to) = ((*master).to_owned(), to.map(str::to_owned));
        overrides.add_drain(DrainedMaster { master, to, since: Timestamp::UNIX_EPOCH }).unwrap();
    }
    overrides
}

/// `count` nodes, all on `master`.
fn nodes(count: usize, master: &str) -> EntryMap {
    let names: Vec<_> = (0..count).map(|node| format!("n{node:03}")).collect();
    names.iter().map(|name| (name.as_str(), master)).collect()
}

#[tokio::test]
async fn the_first_answer_is_revision_1_and_in_the_file_before_any_instance_wants_it() {
    let mut scene = Scene::start(None).await;
    assert_eq!(scene.wanted(), None);
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((1, 2)));
    assert_eq!(scene.file(), ["n000 m1", "n001 m1"]);
    let log = &scene.decider.decision().log;
    assert_eq!(log.last().unwrap().sources, ["puppetdb"]);
    assert_eq!(log.last_change("n001").unwrap().1.to.as_deref(), Some("m1"));
}

#[tokio::test]
async fn what_a_revision_changed_is_found_once_for_all_instances() {
    let mut scene = Scene::start(Some("n000 m1\nn001 m1\nn002 m1\n")).await;
    scene.one(nodes(3, "m1")).await;
    assert!(scene.decider.wanted().unwrap().change.is_none(), "nothing changed so far");
    let held = scene.decider.wanted().unwrap().revision;
    scene.one([("n000", "m1"), ("n001", "m2"), ("n003", "m2")].into_iter().collect()).await;
    for _ in 0..2 {
        let wanted = scene.decider.wanted().unwrap();
        let change = wanted.change.expect("a revision that changed something");
        assert_eq!(change.from, held.number);
        assert_eq!(*change.deviation, Deviation::between(&held.entries, &wanted.revision.entries));
        // An unchanged answer leaves it as it is.
        scene.one([("n000", "m1"), ("n001", "m2"), ("n003", "m2")].into_iter().collect()).await;
    }
}

#[tokio::test]
async fn an_unchanged_answer_makes_no_revision_and_leaves_the_file_alone() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    let before = fs::metadata(scene.path()).unwrap().modified().unwrap();
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((1, 2)));
    assert_eq!(fs::metadata(scene.path()).unwrap().modified().unwrap(), before);
    assert_eq!(scene.decider.decision().evaluated_request, 2);
}

#[tokio::test]
async fn nothing_is_wanted_until_every_required_source_has_spoken() {
    let mut scene = Scene::start(Some("n000 m1\n")).await;
    scene.answer(&[("one", true, Some(nodes(3, "m1"))), ("two", true, None)]).await;
    assert_eq!(scene.wanted(), None);
    assert_eq!(scene.decider.decision().waiting_for, ["two"]);
    assert_eq!(scene.file(), ["n000 m1"]);
    scene.answer(&[("one", true, Some(nodes(3, "m1"))), ("two", true, Some(nodes(4, "m2")))]).await;
    assert_eq!(scene.wanted(), Some((1, 4)));
    assert!(scene.decider.decision().waiting_for.is_empty());
}

#[tokio::test]
async fn a_file_found_at_the_first_start_is_the_map_in_force() {
    let text: String =
        nodes(30, "m1").iter().map(|(key, value)| format!("{key} {value}\n")).collect();
    let mut scene = Scene::start(Some(&text)).await;
    scene.one(nodes(3, "m1")).await;
    assert_eq!((scene.held().entries_in_force, scene.held().counts.removed), (30, 27));
    assert_eq!(scene.wanted(), None, "nothing was accepted yet, so every HAProxy is left alone");
    assert_eq!(scene.file().len(), 30);
    scene.one(nodes(30, "m1")).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.wanted(), Some((0, 30)), "the file's own map is revision 0");
}

#[tokio::test]
async fn an_empty_answer_is_held_and_the_last_good_map_stays() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.one(EntryMap::default()).await;
    assert!(scene.held().reason.contains("min_entries"), "{}", scene.held().reason);
    assert_eq!(scene.wanted(), Some((1, 2)));
    assert_eq!(scene.file().len(), 2);
}

#[tokio::test]
async fn an_approval_lets_exactly_that_change_through() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    let id = scene.held().id.clone();
    assert!(matches!(scene.decider.approve("0123"), Err(ApprovalError::Another { .. })));
    scene.decider.approve(&id).unwrap();
    // Between the approval and the decision the registry lost even more: that is another change.
    scene.one(nodes(9, "m1")).await;
    assert_ne!(scene.held().id, id);
    assert_eq!(scene.wanted(), Some((1, 100)));
    let id = scene.held().id.clone();
    scene.decider.approve(&id).unwrap();
    scene.one(nodes(9, "m1")).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.wanted(), Some((2, 9)));
    assert_eq!(scene.decider.approve(&id), Err(ApprovalError::NothingHeld));
}

#[tokio::test]
async fn an_empty_file_and_an_empty_answer_agree_and_are_held_all_the_same() {
    let mut scene = Scene::start(Some("# nothing yet\n")).await;
    scene.one(EntryMap::default()).await;
    assert_eq!(scene.wanted(), None, "they would empty every memory");
    let id = scene.held().id.clone();
    scene.decider.approve(&id).unwrap();
    scene.one(EntryMap::default()).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.wanted(), Some((0, 0)));
    scene.one(EntryMap::default()).await;
    assert!(scene.decider.decision().held.is_none(), "what is in force once is not held again");
}

#[tokio::test]
async fn an_approval_that_came_too_late_is_told_and_never_used_later() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(nodes(9, "m1")).await;
    assert!(matches!(
        scene.decider.outcome_of_approval(approved.clone()),
        Err(ApprovalError::Another { .. })
    ));
    scene.one(nodes(10, "m1")).await;
    assert_eq!((&scene.held().id, scene.wanted()), (&approved.id, Some((1, 100))));

    let again = scene.decider.approve(&approved.id).unwrap();
    scene.one(nodes(100, "m1")).await;
    assert_eq!(scene.decider.outcome_of_approval(again), Err(ApprovalError::NothingHeld));
}

#[tokio::test]
async fn a_held_change_keeps_its_time_and_goes_when_the_registry_recovers() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    let since = scene.held().since;
    scene.one(nodes(10, "m1")).await;
    assert_eq!(scene.held().since, since);
    scene.one(nodes(100, "m1")).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.wanted(), Some((1, 100)));
}

#[tokio::test]
async fn a_map_that_can_not_be_written_to_the_file_is_not_wanted_by_any_instance() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).unwrap();
    scene.one(nodes(3, "m1")).await;
    let error = scene.decider.decision().file.as_ref().unwrap().error.clone().unwrap();
    assert!(error.contains("n.map") && error.contains("folder must exist"), "{error}");
    assert_eq!(scene.wanted(), Some((1, 2)));
    fs::rename(&away, &folder).unwrap();
    scene.one(nodes(3, "m1")).await;
    assert_eq!(scene.wanted(), Some((2, 3)));
    assert_eq!(scene.decider.decision().file.as_ref().unwrap().error, None);
}

#[tokio::test]
async fn a_number_that_the_file_had_is_never_given_to_another_map() {
    static BREAKS: AtomicBool = AtomicBool::new(false);
    let mut scene = Scene::start_syncing(|_| match BREAKS.load(Ordering::SeqCst) {
        true => Err(io::Error::other("the disk breaks")),
        false => Ok(()),
    })
    .await;
    scene.one(nodes(2, "m1")).await;
    BREAKS.store(true, Ordering::SeqCst);
    // In place, but a crash of the machine may undo it: nobody may want it.
    for _ in 0..2 {
        scene.one(nodes(3, "m1")).await;
        assert_eq!((scene.wanted(), scene.file_number(), scene.file().len()), (Some((1, 2)), 2, 3));
    }
    let error = scene.decider.decision().file.as_ref().unwrap().error.clone().unwrap();
    assert!(error.contains("n.map: its folder can't be synced"), "{error}");
    scene.one(nodes(4, "m1")).await;
    assert_eq!((scene.wanted(), scene.file_number(), scene.file().len()), (Some((1, 2)), 3, 4));
    // The source takes it back.
    scene.one(nodes(2, "m1")).await;
    assert_eq!((scene.wanted(), scene.file_number(), scene.file().len()), (Some((1, 2)), 4, 2));
    BREAKS.store(false, Ordering::SeqCst);
    scene.one(nodes(2, "m1")).await;
    assert_eq!((scene.wanted(), scene.file_number(), scene.file().len()), (Some((4, 2)), 4, 2));
    assert_eq!(scene.decider.decision().file.as_ref().unwrap().error, None);
    scene.one(nodes(3, "m1")).await;
    assert_eq!((scene.wanted(), scene.file_number(), scene.file().len()), (Some((5, 3)), 5, 3));
}

#[tokio::test]
async fn a_lost_map_file_is_written_again_and_counted() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    assert!(!scene.decider.check_file().await);
    fs::remove_file(scene.path()).unwrap();
    assert!(scene.decider.check_file().await);
    assert_eq!(scene.file().len(), 2);
    assert_eq!(scene.decider.decision().file.as_ref().unwrap().corrected, 1);
}

#[tokio::test]
async fn revision_numbers_go_on_after_a_restart() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.one(nodes(2, "m2")).await;
    scene.restart().await;
    scene.one(nodes(3, "m2")).await;
    assert_eq!(scene.wanted(), Some((3, 3)));
}

#[tokio::test]
async fn an_optional_source_that_is_still_being_asked_at_a_restart_takes_no_route_away() {
    let mut scene = Scene::start(Some("n000 pinned\nn001 m1\n")).await;
    let mut pins = SourceState::before_first_poll("pins".to_owned(), "http_json".to_owned(), false);
    let mut main =
        SourceState::before_first_poll("puppetdb".to_owned(), "puppetdb".to_owned(), true);
    main.snapshot = Some(Snapshot {
        entries: Arc::new(nodes(2, "m1")),
        rejections: Arc::default(),
        answered_at: Timestamp::UNIX_EPOCH,
    });
    main.status.last_poll =
        Some(PollReport { kind: None, at: Timestamp::UNIX_EPOCH, milliseconds: 0.0, bytes: 0 });
    scene.decider.decide(&[pins.clone(), main.clone()], Arc::default()).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (None, vec!["n000 pinned".to_owned(), "n001 m1".to_owned()])
    );
    assert_eq!(scene.decider.decision().waiting_for, ["pins"]);
    // It failed: then it is optional.
    pins.status.last_poll = main.status.last_poll.clone();
    scene.decider.decide(&[pins, main], Arc::default()).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((1, 2)), vec!["n000 m1".to_owned(), "n001 m1".to_owned()])
    );
}

#[tokio::test]
async fn a_hold_that_is_over_is_not_shown_while_the_file_can_not_be_written() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    scene.held();
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("gone");
    fs::rename(&folder, &away).unwrap();
    scene.one(nodes(99, "m1")).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.wanted(), Some((1, 100)));
    fs::rename(&away, &folder).unwrap();
}

#[test]
fn the_id_of_a_change_is_the_same_in_every_run_so_that_a_later_sync_can_approve_it() {
    assert_eq!(id_of(&nodes(3, "m1")), id_of(&nodes(3, "m1")));
    assert_eq!(id_of(&nodes(1, "m1")), "2c40301964c862f6");
}

#[tokio::test]
async fn a_pin_is_a_revision_of_its_own_and_goes_without_a_trace() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.order(&[("n001", "m9"), ("new", "m2")], &[]);
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((2, 3)));
    assert_eq!(
        (scene.file(), scene.causes()),
        (vec!["n000 m1".into(), "n001 m9".into(), "new m2".into()], vec!["override".into()])
    );
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((2, 3)), "the same again is no change");
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.causes()),
        (Some((3, 4)), vec!["puppetdb".to_owned()]),
        "the sources go on beside it"
    );
    scene.order(&[], &[]);
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((4, 3)), vec!["n000 m1".into(), "n001 m1".into(), "n002 m1".into()])
    );
}

#[tokio::test]
async fn the_guard_does_not_hold_what_an_operator_ordered() {
    let mut scene = Scene::start(None).await;
    let two_masters: EntryMap = nodes(100, "m1").iter().chain([("spare", "m2")]).collect();
    scene.one(two_masters.clone()).await;
    scene.order(&[], &[("m1", None)]);
    scene.one(two_masters.clone()).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(
        (scene.wanted(), scene.decider.decision().log.last().unwrap().counts.moved),
        (Some((2, 101)), 100)
    );
    scene.order(&[], &[]);
    scene.one(two_masters.clone()).await;
    assert_eq!(
        scene.decider.decision().in_force.as_ref().unwrap().entries.as_ref(),
        &two_masters,
        "exactly the former map"
    );
}

#[tokio::test]
async fn an_override_comes_into_force_while_an_answer_is_held_and_approving_it_keeps_the_override()
{
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(nodes(10, "m1")).await;
    let id = scene.held().id.clone();
    scene.order(&[("n050", "m2")], &[]);
    scene.one(nodes(10, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.held().id.as_str(), scene.held().counts.removed),
        (Some((2, 100)), id.as_str(), 90)
    );
    assert_eq!(
        (scene.causes(), scene.file()[50].as_str()),
        (vec!["override".to_owned()], "n050 m2")
    );
    let approved = scene.decider.approve(&id).unwrap();
    scene.one(nodes(10, "m1")).await;
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(
        (scene.wanted(), scene.file()[10].as_str()),
        (Some((3, 11)), "n050 m2"),
        "the pin outlives its node"
    );
    assert_eq!(scene.causes(), ["puppetdb"]);
}

#[tokio::test]
async fn an_override_hides_no_loss_from_the_guard() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    scene.order(&[("n000", "m9"), ("n001", "m9")], &[]);
    scene.one(nodes(2, "m1")).await;
    // Every node of the map is pinned, so nothing would change now. At the pins' end everything
    // would.
    scene.one(EntryMap::default()).await;
    assert!(scene.held().reason.contains("min_entries"), "{}", scene.held().reason);
    scene.order(&[], &[]);
    scene.one(EntryMap::default()).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((3, 2)), vec!["n000 m1".to_owned(), "n001 m1".to_owned()])
    );
}

#[tokio::test]
async fn at_a_restart_the_overrides_of_the_store_count_as_in_force() {
    let two_masters =
        |count| -> EntryMap { nodes(count, "m1").iter().chain([("spare", "m2")]).collect() };
    let mut scene = Scene::start(None).await;
    scene.one(two_masters(100)).await;
    scene.order(&[("n000", "m9")], &[("m1", Some("m2"))]);
    scene.one(two_masters(100)).await;
    let before = (scene.wanted(), scene.file());
    scene.restart().await;
    assert_eq!((scene.wanted(), scene.file()), before, "the file says it all");
    scene.one(two_masters(100)).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!((scene.wanted(), scene.file()), before);
    // And one that ended while Mapsmith did not run is no change of the sources' either.
    scene.restart().await;
    scene.order(&[], &[]);
    scene.one(two_masters(100)).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(
        (scene.wanted().map(|wanted| wanted.0), scene.causes()),
        (Some(3), vec!["override".to_owned()])
    );
}

#[tokio::test]
async fn a_restart_during_an_outage_goes_on_with_the_last_good_map() {
    let silent: &[(&str, bool, Option<EntryMap>)] = &[("puppetdb", true, None)];
    let empty: &[(&str, bool, Option<EntryMap>)] = &[("puppetdb", true, Some(EntryMap::default()))];
    for outage in [silent, empty] {
        let mut scene = Scene::start(None).await;
        scene.one(nodes(200, "m1")).await;
        scene.restart().await;
        assert_eq!(scene.wanted(), Some((1, 200)), "from the first moment on");
        scene.answer(outage).await;
        assert_eq!(scene.wanted(), Some((1, 200)));
        let decision = scene.decider.decision();
        assert!(
            !decision.waiting_for.is_empty() || decision.held.is_some(),
            "what is missing is said"
        );
        // A lost file is written again, and what an operator orders comes into force.
        fs::remove_file(scene.path()).unwrap();
        assert!(scene.decider.check_file().await);
        assert_eq!(scene.file().len(), 200);
        scene.order(&[("n001", "m2")], &[]);
        scene.answer(outage).await;
        assert_eq!((scene.wanted(), scene.file()[1].as_str()), (Some((2, 200)), "n001 m2"));
        assert_eq!(scene.causes(), ["override"]);
        // The end of the outage is no change beyond the override's.
        scene.one(nodes(200, "m1")).await;
        assert_eq!(
            (scene.wanted(), scene.decider.decision().held.as_ref()),
            (Some((2, 200)), None)
        );
        assert!(scene.decider.decision().waiting_for.is_empty());
    }
}

#[tokio::test]
async fn overrides_that_end_after_a_restart_during_an_outage_bring_back_what_the_sources_had_said()
{
    let said: EntryMap = [("a", "m1"), ("b", "m1"), ("c", "m2")].into_iter().collect();
    let mut scene = Scene::start(None).await;
    scene.order(&[("a", "m3"), ("new", "m3")], &[("m2", Some("m1"))]);
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a m3", "b m1", "c m1", "new m3"]);
    // The registry goes on under the overrides.
    let moved: EntryMap = [("a", "m4"), ("b", "m1"), ("c", "m2")].into_iter().collect();
    scene.one(moved.clone()).await;
    scene.restart().await;
    scene.order(&[], &[("m2", Some("m1"))]);
    scene.answer(&[("puppetdb", true, None)]).await;
    assert_eq!(scene.file(), ["a m4", "b m1", "c m1"]);
    // Ended while Mapsmith did not run.
    scene.order(&[], &[]);
    scene.restart().await;
    scene.answer(&[("puppetdb", true, None)]).await;
    assert_eq!(scene.file(), ["a m4", "b m1", "c m2"]);
    let before = scene.wanted();
    scene.one(moved).await;
    assert_eq!(scene.wanted(), before, "the sources had said just that");
}

#[tokio::test]
async fn a_file_that_mapsmith_did_not_write_changes_no_memory_before_an_answer_confirms_it() {
    let mut scene = Scene::start(Some("n000 m1\nn001 m1\n")).await;
    scene.order(&[("n000", "m2")], &[]);
    scene.answer(&[("puppetdb", true, None)]).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (None, vec!["n000 m1".to_owned(), "n001 m1".to_owned()])
    );
    scene.order(&[], &[]);
    scene.one(nodes(2, "m1")).await;
    assert_eq!(scene.wanted(), Some((0, 2)));
    scene.restart().await;
    assert_eq!(scene.wanted(), Some((0, 2)), "now it is the last good map");
}

#[tokio::test]
async fn a_map_file_that_became_a_fifo_is_an_error_and_ends_with_it() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    fs::remove_file(scene.path()).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.path(), mode).unwrap();
    assert!(scene.decider.check_file().await);
    assert!(scene.file_error().unwrap().contains("not a regular file"), "{:?}", scene.file_error());
    scene.one(nodes(3, "m1")).await;
    assert_eq!(scene.wanted(), Some((1, 2)), "what is not in the file comes into no memory");
    assert!(scene.file_error().unwrap().contains("not a regular file"), "{:?}", scene.file_error());
    fs::remove_file(scene.path()).unwrap();
    scene.one(nodes(3, "m1")).await;
    assert_eq!((scene.wanted(), scene.file().len(), scene.file_error()), (Some((2, 3)), 3, None));
}

#[tokio::test]
async fn a_file_system_that_hangs_is_an_error_within_seconds_and_no_write_overtakes_another() {
    static HANGS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    let mut scene = Scene::start_syncing(|_| {
        let hangs = HANGS.0.lock().unwrap();
        drop(HANGS.1.wait_while(hangs, |hangs| *hangs).unwrap());
        Ok(())
    })
    .await;
    scene.one(nodes(2, "m1")).await;
    *HANGS.0.lock().unwrap() = true;
    let bound = std::mem::replace(&mut scene.decider.access.bound, Duration::from_millis(10));
    scene.one(nodes(3, "m1")).await;
    assert!(
        scene.file_error().unwrap().contains("no answer within 10ms"),
        "{:?}",
        scene.file_error()
    );
    scene.one(nodes(4, "m1")).await;
    assert!(
        scene.file_error().unwrap().contains("still gives no answer"),
        "{:?}",
        scene.file_error()
    );
    assert_eq!(scene.wanted(), Some((1, 2)));
    *HANGS.0.lock().unwrap() = false;
    HANGS.1.notify_all();
    scene.decider.access.bound = bound;
    while scene.file_error().is_some() {
        scene.one(nodes(4, "m1")).await;
    }
    assert_eq!(
        (scene.wanted(), scene.file_number(), scene.file().len()),
        (Some((3, 4)), 3, 4),
        "2 was another map's number"
    );
}

#[tokio::test]
async fn a_daemon_whose_map_file_another_one_writes_changes_nothing_until_it_is_told_to() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    let other = |number: u64| {
        let header =
            format!("# Written by Mapsmith: changes by hand are overwritten. Revision {number}");
        format!("{header}\n# Writer: pid 7 on elsewhere.example.com (site fra)\nn000 m7\nn001 m1\n")
    };
    fs::write(scene.path(), other(2)).unwrap();
    // Found at a look at the file, or at a write.
    scene.decider.check_file().await;
    let read_only = |scene: &Scene| scene.decider.decision().read_only.clone();
    assert_eq!(read_only(&scene).unwrap(), "pid 7 on elsewhere.example.com (site fra)");
    assert_eq!(scene.wanted(), None);
    scene.one(nodes(3, "m1")).await;
    scene.order(&[("n000", "m9")], &[]);
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (None, vec!["n000 m7".to_owned(), "n001 m1".to_owned()])
    );
    // A start finds a file that stands still: its writer has ended.
    scene.restart().await;
    assert_eq!((read_only(&scene), scene.wanted()), (None, Some((2, 2))));
    fs::write(scene.path(), other(3)).unwrap();
    scene.one(nodes(3, "m1")).await;
    assert_eq!(scene.wanted(), None, "it has not: the file moves");
    assert!(read_only(&scene).is_some());
    // While its file is gone, or an old one stands there, nobody's work is undone; what comes next
    // counts.
    fs::remove_file(scene.path()).unwrap();
    assert!(!scene.decider.check_file().await, "whoever keeps it writes it again within moments");
    fs::write(scene.path(), other(4).replace("pid 7", "pid 8")).unwrap();
    assert!(scene.decider.check_file().await);
    assert!(read_only(&scene).unwrap().starts_with("pid 8 on"));
    // Told to take over, it goes on from there.
    let keeper = MapFileWriter::new(&scene.path());
    scene.decider =
        MapDecider::start(Limits::default(), keeper, Arc::default()).await.unwrap().take_over();
    scene.answer(&[("puppetdb", true, None)]).await;
    assert!(
        fs::read_to_string(scene.path())
            .unwrap()
            .contains(&format!("pid {} on", std::process::id()))
    );
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (read_only(&scene), scene.wanted(), scene.file()[0].as_str()),
        (None, Some((6, 3)), "n000 m9")
    );
}

#[tokio::test]
async fn the_map_file_names_its_writer_from_the_first_decision_after_a_start() {
    let here = crate::store::map_file::this_process(None);
    let gone = Writer { pid: u32::MAX, ..here.clone() };
    for writer in [format!("# Writer: {gone} [{}]\n", gone.key), String::new()] {
        let text = format!(
            "# Written by Mapsmith: changes by hand are overwritten. Revision 4\n{writer}n000 \
                m1\nn001 m1\n"
        );
        let mut scene = Scene::start(Some(&text)).await;
        // The sources say nothing yet, and what the file says is in force.
        scene.answer(&[("puppetdb", true, None)]).await;
        assert_eq!(scene.wanted(), Some((4, 2)));
        let written = fs::read_to_string(scene.path()).unwrap();
        assert!(
            written.contains(&format!("# Writer: {here} [")),
            "a second Mapsmith would take it for its own: {written}"
        );
        assert_eq!(
            (scene.file_number(), scene.file()),
            (4, vec!["n000 m1".to_owned(), "n001 m1".to_owned()])
        );
    }
}

#[tokio::test]
async fn an_override_that_can_not_be_written_to_the_file_comes_into_force_when_it_can() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(2, "m1")).await;
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("moved");
    fs::rename(&folder, &away).unwrap();
    scene.order(&[("n000", "m2")], &[]);
    scene.one(nodes(2, "m1")).await;
    assert!(scene.decider.decision().file.as_ref().unwrap().error.is_some());
    assert_eq!(scene.wanted(), Some((1, 2)));
    fs::rename(&away, &folder).unwrap();
    scene.one(nodes(2, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.file()),
        (Some((2, 2)), vec!["n000 m2".to_owned(), "n001 m1".to_owned()])
    );
    assert_eq!(scene.causes(), ["override"]);
}

#[tokio::test]
async fn drained_masters_that_keep_their_nodes_are_told_for_as_long_as_they_do() {
    let mut scene = Scene::start(None).await;
    scene.order(&[], &[("m1", None)]);
    scene.one(nodes(3, "m1")).await;
    assert_eq!(
        (scene.wanted(), scene.decider.decision().stuck.as_slice()),
        (Some((1, 3)), &["m1".to_owned()][..])
    );
    scene.one(nodes(3, "m1")).await;
    assert_eq!(scene.decider.decision().stuck, ["m1"]);
    scene.one(nodes(3, "m1").iter().chain([("x", "m2")]).collect()).await;
    assert!(scene.decider.decision().stuck.is_empty());
    assert_eq!(scene.file(), ["n000 m2", "n001 m2", "n002 m2", "x m2"]);
}

#[tokio::test]
async fn an_override_that_was_stored_but_never_came_into_the_file_is_not_held_at_the_next_start() {
    let two_masters: EntryMap = nodes(100, "m1").iter().chain([("spare", "m2")]).collect();
    let mut scene = Scene::start(None).await;
    scene.one(two_masters.clone()).await;
    // Ordered, and killed before the file was written.
    scene.order(&[], &[("m1", None)]);
    scene.restart().await;
    scene.one(two_masters.clone()).await;
    assert!(scene.decider.decision().held.is_none());
    assert_eq!(scene.decider.decision().in_force.as_ref().unwrap().entries.load(), [("m2", 101)]);
    // What the sources lost is held all the same.
    scene.restart().await;
    scene.one(nodes(10, "m2")).await;
    assert_eq!((scene.held().counts.removed, scene.wanted()), (91, Some((2, 101))));
}

#[tokio::test]
async fn an_override_does_not_wait_for_a_round_of_polls_and_takes_no_half_of_one_in() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = MapFileWriter::new(&folder.path().join("n.map"));
    let decider = MapDecider::start(Limits::default(), keeper, Arc::default()).await.unwrap();
    let state = |name: &str, answered, map: EntryMap| {
        let mut state = SourceState::before_first_poll(name.to_owned(), "file".to_owned(), true);
        (state.answered, state.status.last_poll) = (
            answered,
            Some(PollReport { kind: None, at: Timestamp::UNIX_EPOCH, milliseconds: 0.0, bytes: 0 }),
        );
        state.snapshot = Some(Snapshot {
            entries: Arc::new(map),
            rejections: Arc::default(),
            answered_at: Timestamp::UNIX_EPOCH,
        });
        state
    };
    let (quick, first) = watch::channel(state("quick", 0, nodes(3, "m1")));
    let (_slow, second) = watch::channel(state("slow", 0, EntryMap::default()));
    let (orders, ordered) = watch::channel(Arc::<Overrides>::default());
    let (_approvals, approvals) = mpsc::channel(1);
    let (decisions, mut decision) = watch::channel(Decision::default());
    let (stop, hour) = (CancellationToken::new(), Duration::from_secs(3600));
    let outputs = (decisions, watch::channel(None).0);
    let task = tokio::spawn(decider.run(
        Inputs { sources: vec![first, second], overrides: ordered, targets: Vec::new(), approvals },
        hour,
        outputs,
        stop.clone(),
    ));
    let revision = |decision: &Decision| {
        decision.in_force.as_ref().map(|revision| {
            revision
                .entries
                .iter()
                .map(|(node, master)| format!("{node} {master}"))
                .collect::<Vec<_>>()
        })
    };
    decision.wait_for(|decision| decision.active).await.unwrap();

    // One source has answered the next round, the other takes its time.
    quick.send_replace(state("quick", 1, nodes(3, "m2")));
    orders.send_replace(Arc::new(overrides(&[("n000", "m9")], &[])));
    let at_once =
        decision.wait_for(|decision| !decision.overrides.is_empty()).await.unwrap().clone();
    assert_eq!(
        (at_once.evaluated_request, revision(&at_once).unwrap()),
        (0, vec!["n000 m9".into(), "n001 m1".into(), "n002 m1".into()])
    );
    // Nor do they put the round off, however many come: it ends when it would have.
    let more = async {
        for order in 0.. {
            let next = Arc::new(overrides(&[("n000", &format!("x{order}"))], &[]));
            orders.send_replace(Arc::clone(&next));
            let decided =
                decision.wait_for(|decision| decision.overrides == next).await.unwrap().clone();
            if revision(&decided).unwrap().contains(&"n001 m2".to_owned()) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), more)
        .await
        .expect("the quick source's answer is in force at last");
    stop.cancel();
    task.await.unwrap();
}

/// What the instances are to hold after a restart, a master for each map in the order of its
/// coming; the map file says m1, and each answer is given when the map before it has come. The one
/// instance can't be reached.
async fn wanted_after_a_restart(answers: &[Option<&str>]) -> Vec<String> {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(3, "m1")).await;
    scene.restart().await;
    let state = |master: Option<&str>| {
        let mut state =
            SourceState::before_first_poll("puppetdb".to_owned(), "file".to_owned(), true);
        if let Some(master) = master {
            state.status.last_poll = Some(PollReport {
                kind: None,
                at: Timestamp::UNIX_EPOCH,
                milliseconds: 0.0,
                bytes: 0,
            });
            let entries = Arc::new(nodes(3, master));
            state.snapshot = Some(Snapshot {
                entries,
                rejections: Arc::default(),
                answered_at: Timestamp::UNIX_EPOCH,
            });
        }
        state
    };
    let (source, said) = watch::channel(state(None));
    let (_orders, ordered) = watch::channel(Arc::<Overrides>::default());
    let (_approvals, approvals) = mpsc::channel(1);
    let (wanted, mut want) = watch::channel(None);
    let (stop, hour) = (CancellationToken::new(), Duration::from_secs(3600));
    let (screen, unreached) = crate::engine::rows::channel("edge1");
    unreached.failed(true);
    let decider = scene
        .decider
        .with_actions(Actions { unknown: Action::Guard, not_ready: Action::Keep })
        .with_screens(vec![screen]);
    let (_looks, targets) = watch::channel(None);
    let inputs =
        Inputs { sources: vec![said], overrides: ordered, targets: vec![targets], approvals };
    let task = tokio::spawn(decider.run(
        inputs,
        hour,
        (watch::channel(Decision::default()).0, wanted),
        stop.clone(),
    ));
    let mut seen: Vec<String> = Vec::new();
    for answer in answers {
        if answer.is_some() {
            source.send_replace(state(*answer));
        }
        let is_new = |wanted: &Option<Wanted>| match wanted
            .as_ref()
            .and_then(|wanted| wanted.revision.entries.get("n000"))
        {
            Some(master) => seen.last().is_none_or(|last| last != master),
            None => false,
        };
        let master = want
            .wait_for(is_new)
            .await
            .unwrap()
            .as_ref()
            .unwrap()
            .revision
            .entries
            .get("n000")
            .unwrap()
            .to_owned();
        seen.push(master);
    }
    stop.cancel();
    task.await.unwrap();
    seen
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_all_that_an_instance_gets_after_a_restart() {
    // The file may be a backup's, and HAProxy may hold what is newer.
    assert_eq!(wanted_after_a_restart(&[Some("m2")]).await, ["m2"]);
}

#[tokio::test]
async fn after_a_restart_the_map_file_is_kept_in_force_while_no_source_answers() {
    assert_eq!(wanted_after_a_restart(&[None, Some("m2")]).await, ["m1", "m2"]);
}

/// A scene whose instance has these masters, where entries that point nowhere are held.
async fn holding(masters: &[(&str, bool)], map: EntryMap) -> Scene {
    let mut scene = Scene::start(None).await;
    scene.decider =
        scene.decider.with_actions(Actions { unknown: Action::Hold, not_ready: Action::Keep });
    scene.decider.see(vec![Arc::new(masters.iter().copied().collect())]);
    scene.one(map).await;
    scene
}

#[tokio::test]
async fn an_override_comes_into_force_while_an_answer_is_held_for_where_it_points_to() {
    let mut scene =
        holding(&[("m1", true), ("m2", true)], [("a", "m1"), ("b", "m1")].into_iter().collect())
            .await;
    let said: EntryMap = [("a", "gone"), ("b", "m1"), ("c", "m1")].into_iter().collect();
    scene.one(said.clone()).await;
    assert!(scene.held().reason.contains("gone"));
    scene.order(&[("b", "m2")], &[]);
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a m1", "b m2"], "nothing of the answer, all of the override");
    assert_eq!(scene.causes(), ["override"]);
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(said).await;
    assert_eq!(scene.file(), ["a gone", "b m2", "c m1"]);
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(scene.decider.decision().held, None);
}

#[tokio::test]
async fn an_override_to_a_master_that_is_nowhere_waits_alone_and_can_be_approved() {
    let said: EntryMap = [("a", "m1"), ("b", "m1")].into_iter().collect();
    let mut scene = holding(&[("m1", true), ("m2", true)], said.clone()).await;
    scene.order(&[("a", "gone"), ("b", "m2"), ("c", "gone")], &[]);
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a m1", "b m2"]);
    assert_eq!(scene.decider.decision().kept_from, ["gone"]);
    // The registry goes on meanwhile.
    let id = scene.held().id.clone();
    let more: EntryMap = [("a", "m1"), ("b", "m1"), ("d", "m2")].into_iter().collect();
    scene.one(more.clone()).await;
    assert_ne!(scene.held().id, id, "an approval is for what was seen");
    scene.one(said.clone()).await;
    let approved = scene.decider.approve(&id).unwrap();
    scene.one(said.clone()).await;
    assert_eq!(scene.file(), ["a gone", "b m2", "c gone"]);
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    scene.one(said).await;
    assert_eq!(scene.decider.decision().held, None, "it is no news any more");
    assert!(scene.decider.decision().kept_from.is_empty());
}

#[tokio::test]
async fn who_approves_what_the_guard_holds_is_told_of_entries_that_point_nowhere_too() {
    let mut scene = holding(&[("m1", true)], nodes(100, "m1")).await;
    scene.one(nodes(100, "gone")).await;
    assert!(
        scene.held().reason.contains("moved") && scene.held().reason.contains("gone"),
        "{}",
        scene.held().reason
    );
    scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(nodes(100, "gone")).await;
    assert_eq!((scene.wanted(), scene.decider.decision().held.as_ref()), (Some((2, 100)), None));
}

#[tokio::test]
async fn an_approval_of_what_the_guard_holds_is_one_of_where_it_points_to_also_with_a_pin() {
    let mut scene = holding(&[("m1", true), ("m2", true)], nodes(100, "m1")).await;
    scene.order(&[("n000", "m2")], &[]);
    scene.one(nodes(100, "gone")).await;
    assert!(scene.held().reason.contains("gone"), "{}", scene.held().reason);
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(nodes(100, "gone")).await;
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!(scene.decider.decision().held, None);
    assert_eq!(scene.file().iter().filter(|entry| entry.ends_with("gone")).count(), 99);
}

#[tokio::test]
async fn what_was_left_out_is_not_let_in_while_it_is_there_and_not_ready() {
    let mut scene = Scene::start(None).await;
    scene.decider =
        scene.decider.with_actions(Actions { unknown: Action::LeaveOut, not_ready: Action::Hold });
    let said: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
    for (masters, file) in [
        (vec![("m1", true)], vec!["a m1"]),
        (vec![("m1", true), ("m2", false)], vec!["a m1"]),
        (vec![("m1", true), ("m2", true)], vec!["a m1", "b m2"]),
        (vec![("m1", true), ("m2", false)], vec!["a m1", "b m2"]),
    ] {
        scene.decider.see(vec![Arc::new(masters.iter().copied().collect())]);
        scene.one(said.clone()).await;
        assert_eq!(scene.file(), file, "{masters:?}");
    }
}

#[tokio::test]
async fn servers_that_flap_make_no_instance_look_again_unless_the_map_changes() {
    let mut scene = Scene::start(None).await;
    let map: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
    scene.one(map).await;
    let mut state = SourceState::before_first_poll("puppetdb".to_owned(), "file".to_owned(), true);
    state.answered = scene.requests;
    state.snapshot = Some(Snapshot {
        entries: Arc::clone(scene.decider.gate.accepted().unwrap()),
        rejections: Arc::default(),
        answered_at: Timestamp::UNIX_EPOCH,
    });
    let look = scene.decider.decision().generation;
    for ready in [false, true, false] {
        scene.decider.see(vec![Arc::new([("m1", true), ("m2", ready)].into_iter().collect())]);
        scene.decider.decide(std::slice::from_ref(&state), Arc::default()).await;
        assert_eq!(scene.decider.decision().dangling.entries(), (0, usize::from(!ready)));
    }
    assert_eq!(scene.decider.decision().generation, look);
    scene.decider =
        scene.decider.with_actions(Actions { unknown: Action::Keep, not_ready: Action::LeaveOut });
    scene.decider.see(vec![Arc::new([("m1", true), ("m2", false)].into_iter().collect())]);
    scene.decider.decide(&[state], Arc::default()).await;
    assert_eq!(
        (scene.file(), scene.decider.decision().generation),
        (vec!["a m1".to_owned()], look + 1)
    );
}
