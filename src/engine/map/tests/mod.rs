//! Decisions over a real map file: what comes into force, what is held, what a failed write leaves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::references::Action;
use mapsmith_core::plan::Deviation;
use mapsmith_core::status::PollReport;
use mapsmith_core::{DrainedMaster, Note, Pin, Snapshot};

use super::*;

mod gone;
mod history;
mod overrides;
mod owners;
mod partial;
mod references;
mod restart;
mod rollback;
mod rollout;

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
        let mut writer = MapFileWriter::new(&scene.path());
        writer.sync_folder = sync_folder;
        scene.decider = MapDecider::start(Limits::default(), writer, Arc::default()).await.unwrap();
        scene
    }

    /// Why the map file can't be written.
    fn file_error(&self) -> Option<String> {
        self.decider.decision().file.as_ref().unwrap().error.clone()
    }

    /// A restart on the same files.
    async fn restart(&mut self) {
        let writer = MapFileWriter::new(&self.path());
        self.decider = MapDecider::start(Limits::default(), writer, Arc::clone(&self.overrides))
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
        let states = self.states(sources);
        self.decide(&states).await;
    }

    /// The same with states that are kept: a source that says nothing new has its old answer.
    async fn decide(&mut self, states: &[SourceState]) {
        self.decider.decide(states, Arc::clone(&self.overrides)).await;
    }

    fn states(&self, sources: &[(&str, bool, Option<EntryMap>)]) -> Vec<SourceState> {
        sources
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
            .collect()
    }

    async fn one(&mut self, map: EntryMap) {
        self.answer(&[("puppetdb", true, Some(map))]).await;
    }

    fn held(&self) -> &HeldChange {
        self.decider.decision().held.as_ref().expect("something is held")
    }

    fn wanted(&self) -> Option<(u64, usize)> {
        self.decider.desired().map(|wanted| (wanted.revision.number, wanted.revision.entries.len()))
    }
}

/// These pins and drained masters.
fn overrides(pins: &[(&str, &str)], drained: &[(&str, Option<&str>)]) -> Overrides {
    let mut overrides = Overrides::default();
    for (node, master) in pins {
        let (node, master) = ((*node).to_owned(), (*master).to_owned());
        overrides
            .add_pin(Pin {
                node,
                master,
                since: Timestamp::UNIX_EPOCH,
                until: None,
                note: Note::default(),
            })
            .unwrap();
    }
    for (master, to) in drained {
        let (master, to) = ((*master).to_owned(), to.map(str::to_owned));
        overrides
            .add_drain(DrainedMaster {
                master,
                to,
                since: Timestamp::UNIX_EPOCH,
                note: Note::default(),
            })
            .unwrap();
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
    assert!(scene.decider.desired().unwrap().change.is_none(), "nothing changed so far");
    let held = scene.decider.desired().unwrap().revision;
    scene.one([("n000", "m1"), ("n001", "m2"), ("n003", "m2")].into_iter().collect()).await;
    for _ in 0..2 {
        let wanted = scene.decider.desired().unwrap();
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
