//! Nodes that vanish from the sources' answers and stay for `map.remove_after`.

use super::*;

const STAYS: Duration = Duration::from_secs(600);

/// 100 nodes, of which the first `lost` are not there.
fn without(lost: usize) -> EntryMap {
    nodes(100, "m1").iter().skip(lost).chain([("spare", "m2")]).collect()
}

async fn start() -> Scene {
    let mut scene = Scene::start(None).await;
    scene.decider = scene.decider.with_remove_after(Some(STAYS));
    scene.at(0, &without(0)).await;
    scene
}

impl Scene {
    /// The registry says this at that second.
    async fn at(&mut self, second: u64, map: &EntryMap) {
        let mut state =
            SourceState::before_first_poll("puppetdb".to_owned(), "file".to_owned(), true);
        state.snapshot = Some(Snapshot {
            entries: Arc::new(map.clone()),
            rejections: Arc::default(),
            answered_at: Timestamp::UNIX_EPOCH,
        });
        let overrides = Arc::clone(&self.overrides);
        self.decider.decide_at(&[state], overrides, Duration::from_secs(second)).await;
    }

    fn has(&self, node: &str) -> Option<String> {
        let revision = self.decider.decision().in_force.as_ref().expect("a map");
        revision.entries.get(node).map(str::to_owned)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The file as if it had been written so many seconds ago.
    fn age_file(&self, seconds: i64) {
        let text = self.text();
        let aged = text.lines().map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let ["#-", node, since, master] = words[..] else { return format!("{line}\n") };
            let at = since.parse::<Timestamp>().unwrap().as_second() - seconds;
            format!("#- {node} {} {master}\n", Timestamp::from_second(at).unwrap())
        });
        fs::write(self.path(), aged.collect::<String>()).unwrap();
    }
}

#[tokio::test]
async fn a_node_that_vanishes_stays_until_its_time_is_over_and_goes_by_itself() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    assert_eq!((scene.has("n000").as_deref(), scene.wanted()), (Some("m1"), Some((1, 101))));
    assert_eq!(scene.decider.decision().gone.len(), 1);
    assert_eq!(scene.decider.removal, Some(Duration::from_secs(660)));
    assert!(scene.text().lines().any(|line| line.starts_with("#- n000 ")), "{}", scene.text());
    for second in [120, 659] {
        scene.at(second, &without(1)).await;
        assert_eq!(scene.wanted(), Some((1, 101)), "at {second} s");
    }
    // Also while what the registry says by now is held.
    scene.at(660, &without(60)).await;
    assert_eq!((scene.has("n000"), scene.wanted()), (None, Some((2, 100))));
    assert_eq!(scene.causes(), ["remove_after"]);
    assert_eq!((scene.decider.removal, scene.decider.decision().gone.len()), (None, 0));
    assert!(!scene.text().contains("#-"), "{}", scene.text());
    assert_eq!(scene.held().counts.removed, 59);
}

#[tokio::test]
async fn a_node_that_comes_back_is_the_sources_again_and_vanishes_anew() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    let back: EntryMap = without(1).iter().chain([("n000", "m2")]).collect();
    scene.at(120, &back).await;
    assert_eq!((scene.has("n000").as_deref(), scene.decider.removal), (Some("m2"), None));
    scene.at(180, &without(1)).await;
    scene.at(660, &without(1)).await;
    assert_eq!(scene.has("n000").as_deref(), Some("m2"), "it is gone since the third minute");
    scene.at(780, &without(1)).await;
    assert_eq!(scene.has("n000"), None);
}

#[tokio::test]
async fn a_loss_is_held_at_once_and_goes_at_once_where_it_is_approved() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    scene.at(120, &without(30)).await;
    assert_eq!((scene.held().counts.removed, scene.wanted()), (29, Some((1, 101))));
    assert_eq!(scene.decider.decision().gone.len(), 1, "what is held is not gone");
    scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.at(180, &without(30)).await;
    assert_eq!((scene.has("n029"), scene.wanted()), (None, Some((2, 72))));
    assert_eq!(scene.has("n000").as_deref(), Some("m1"), "it went before that, by itself");
    scene.at(660, &without(30)).await;
    assert_eq!((scene.has("n000"), scene.wanted()), (None, Some((3, 71))));
}

#[tokio::test]
async fn pins_and_drains_act_on_a_node_that_is_gone_and_leave_it_as_it_was() {
    let mut scene = start().await;
    scene.at(60, &without(2)).await;
    scene.order(&[("n000", "m9")], &[("m1", Some("m2"))]);
    scene.at(120, &without(2)).await;
    assert_eq!(
        (scene.has("n000").as_deref(), scene.has("n001").as_deref()),
        (Some("m9"), Some("m2"))
    );
    scene.restart().await;
    scene.decider = scene.decider.with_remove_after(Some(STAYS));
    scene.order(&[], &[]);
    scene.at(0, &without(2)).await;
    assert_eq!(
        (scene.has("n000").as_deref(), scene.has("n001").as_deref()),
        (Some("m1"), Some("m1"))
    );
    assert_eq!(scene.decider.decision().gone.len(), 2);
}

#[tokio::test]
async fn a_node_that_is_gone_stays_over_a_restart_for_the_rest_of_its_time() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    scene.age_file(100);
    scene.restart().await;
    scene.decider = scene.decider.with_remove_after(Some(STAYS));
    assert_eq!(scene.wanted(), Some((1, 101)));
    scene.at(0, &without(1)).await;
    assert_eq!(scene.has("n000").as_deref(), Some("m1"));
    let due = scene.decider.removal.expect("it goes");
    assert!(due <= STAYS - Duration::from_secs(100), "{due:?}");
    // Its time ends while Mapsmith does not run; or nothing is to stay any more.
    for stays in [Some(STAYS), None] {
        if stays.is_some() {
            scene.age_file(600);
        }
        let text = scene.text();
        scene.restart().await;
        scene.decider = scene.decider.with_remove_after(stays);
        scene.at(0, &without(1)).await;
        assert_eq!((scene.has("n000"), scene.wanted()), (None, Some((2, 100))));
        assert_eq!(scene.causes(), ["remove_after"]);
        fs::write(scene.path(), text.replace("Revision 2", "Revision 1")).unwrap();
        scene.age_file(-600);
    }
}

#[tokio::test]
async fn a_map_file_that_was_lost_is_written_again_with_the_nodes_that_are_gone() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    let text = scene.text();
    fs::remove_file(scene.path()).unwrap();
    assert!(scene.decider.check_file().await);
    assert_eq!(scene.text(), text);
}

#[tokio::test]
async fn a_node_whose_end_can_not_be_written_goes_when_it_can() {
    let mut scene = start().await;
    scene.at(60, &without(1)).await;
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("gone");
    fs::rename(&folder, &away).unwrap();
    scene.at(700, &without(1)).await;
    assert_eq!((scene.wanted(), scene.decider.removal), (Some((1, 101)), None));
    assert!(scene.decider.must_try_again());
    fs::rename(&away, &folder).unwrap();
    scene.at(705, &without(1)).await;
    assert_eq!(scene.wanted(), Some((2, 100)));
}
