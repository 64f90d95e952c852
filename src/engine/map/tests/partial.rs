//! A part of an answer comes into force while the rest is held.

use mapsmith_core::desired::references::Action;
use mapsmith_core::revision::ChangeCounts;
use proptest::prelude::*;

use super::*;

/// 100 nodes in force, of which `lost` are gone; the first of the others is with m2, one is new.
fn answer(lost: usize) -> EntryMap {
    let all = nodes(100, "m1");
    let there = all.iter().skip(lost).enumerate();
    there
        .map(|(at, (node, master))| (node, if at == 0 { "m2" } else { master }))
        .chain([("new", "m1")])
        .collect()
}

fn counts(added: usize, moved: usize, removed: usize) -> ChangeCounts {
    ChangeCounts { added, moved, removed }
}

/// The same, with the nodes that are lost.
fn without_the_loss(lost: usize) -> EntryMap {
    let all = nodes(100, "m1");
    answer(lost).iter().chain(all.iter().take(lost)).collect()
}

impl Scene {
    fn in_force(&self) -> &EntryMap {
        &self.decider.decision().in_force.as_ref().expect("a map").entries
    }
}

#[tokio::test]
async fn nodes_that_a_registry_lost_keep_no_other_from_moving_and_are_one_hold_at_every_poll() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(answer(30)).await;
    let held = scene.held().clone();
    assert_eq!((held.counts, held.applied), (counts(0, 0, 30), counts(1, 1, 0)));
    assert_eq!((held.entries_in_force, held.entries_held), (101, 71));
    assert!(held.reason.contains("remove 30 of the 100 entries in force"), "{}", held.reason);
    assert_eq!((scene.wanted(), scene.causes()), (Some((2, 101)), vec!["puppetdb".to_owned()]));
    assert_eq!(scene.in_force(), &without_the_loss(30));
    assert_eq!(scene.decider.decision().log.last().unwrap().counts, counts(1, 1, 0));
    for _ in 0..3 {
        scene.one(answer(30)).await;
        let again = scene.held();
        assert_eq!((&again.id, again.since), (&held.id, held.since));
        assert_eq!((again.counts, again.applied), (held.counts, held.applied));
        assert!(again.reason.contains("guard.max_removed"), "{}", again.reason);
        assert_eq!((scene.wanted(), scene.file_number()), (Some((2, 101)), 2));
    }
    // The registry lives: more of it comes into force, and the loss is still held.
    let moves = |map: EntryMap| -> EntryMap {
        map.iter().map(|(node, at)| (node, if node == "n090" { "m3" } else { at })).collect()
    };
    scene.one(moves(answer(30))).await;
    assert_ne!(scene.held().id, held.id);
    assert_eq!((scene.held().since, scene.held().applied), (held.since, counts(1, 2, 0)));
    assert_eq!(scene.in_force(), &moves(without_the_loss(30)));
    // And all of it is back.
    scene.one(moves(without_the_loss(30))).await;
    assert_eq!((scene.decider.decision().held.as_ref(), scene.wanted()), (None, Some((3, 101))));
}

#[tokio::test]
async fn an_approval_of_the_rest_brings_in_exactly_what_the_registry_says() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    scene.one(answer(30)).await;
    let approved = scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.one(answer(30)).await;
    assert_eq!(scene.decider.outcome_of_approval(approved.clone()), Ok(approved));
    assert_eq!((scene.decider.decision().held.as_ref(), scene.in_force()), (None, &answer(30)));
    // It starts the figures anew, and can be returned from.
    scene.one(without_the_loss(30)).await;
    assert_eq!(scene.decider.decision().held, None);
    assert_eq!(scene.in_force(), &without_the_loss(30));
}

#[tokio::test]
async fn what_is_approved_of_an_answer_is_the_sources_that_said_it_and_nobody_elses() {
    let mut scene = Scene::start(None).await;
    let other = || [("other", "m1")].into_iter().collect();
    let mut states =
        scene.states(&[("other", true, Some(other())), ("puppetdb", true, Some(nodes(100, "m1")))]);
    scene.decide(&states).await;
    states[1] = scene.states(&[("puppetdb", true, Some(answer(30)))]).remove(0);
    scene.decide(&states).await;
    assert_eq!((scene.held().counts, scene.causes()), (counts(0, 0, 30), vec!["puppetdb".into()]));
    scene.decider.approve(&scene.held().id.clone()).unwrap();
    scene.decide(&states).await;
    assert_eq!(scene.decider.decision().held, None);
    let removal = scene.decider.decision().log.last().unwrap();
    assert_eq!((removal.counts, scene.causes()), (counts(0, 0, 30), vec!["puppetdb".into()]));
}

#[tokio::test]
async fn a_loss_that_is_held_does_not_pass_for_the_nodes_that_came_beside_it() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    let names: Vec<_> = (0..30).map(|node| format!("other{node}")).collect();
    let other = names.iter().map(|name| (name.as_str(), "m1"));
    // 21 of 130 would be few enough.
    let said: EntryMap = nodes(100, "m1").iter().skip(21).chain(other).collect();
    for _ in 0..3 {
        scene.one(said.clone()).await;
        assert_eq!((scene.held().counts, scene.wanted()), (counts(0, 0, 21), Some((2, 130))));
    }
    let words = "remove 21 of the 130 entries in force, of 100 before a part of the change was \
        applied (21.0%), guard.max_removed allows 20%";
    assert!(scene.held().reason.contains(words), "{}", scene.held().reason);
}

#[tokio::test]
async fn after_a_restart_the_map_with_the_part_is_the_one_in_force_and_the_loss_is_held_again() {
    let mut scene = Scene::start(None).await;
    scene.order(&[("n050", "m9")], &[]);
    scene.one(nodes(100, "m1")).await;
    scene.one(answer(30)).await;
    let (id, before) = (scene.held().id.clone(), (scene.wanted(), scene.file()));
    scene.restart().await;
    assert_eq!((scene.wanted(), scene.file()), before);
    scene.one(answer(30)).await;
    assert_eq!((&scene.held().id, scene.held().counts), (&id, counts(0, 0, 30)));
    assert_eq!((scene.wanted(), scene.file()), before);
    scene.decider.approve(&id).unwrap();
    scene.one(answer(30)).await;
    let expected: EntryMap = answer(30)
        .iter()
        .map(|(node, master)| (node, if node == "n050" { "m9" } else { master }))
        .collect();
    assert_eq!(scene.in_force(), &expected);
}

#[tokio::test]
async fn an_answer_that_is_not_credible_or_a_guard_without_parts_holds_the_whole_change() {
    let with = |limits: Limits| async move {
        let mut scene = Scene::start(None).await;
        (scene.decider.limits, scene.decider.window) = (limits, Window::new(Duration::ZERO));
        scene.one(nodes(100, "m1")).await;
        scene
    };
    let least = Limits { min_entries: 75, ..Limits::default() };
    let whole = Limits { partial: false, ..Limits::default() };
    for (limits, said) in [
        (least, answer(30)),
        (whole, answer(30)),
        (Limits::default(), [("n000", "m2"), ("a", "m1"), ("b", "m1")].into_iter().collect()),
        (Limits::default(), nodes(100, "m1").iter().map(|_| ("another", "m1")).collect()),
    ] {
        let mut scene = with(limits).await;
        scene.one(said.clone()).await;
        assert_eq!(scene.in_force(), &nodes(100, "m1"));
        assert_eq!(
            (scene.held().counts, scene.held().applied),
            (Diff::between(&nodes(100, "m1"), &said).counts(), counts(0, 0, 0))
        );
    }
}

#[tokio::test]
async fn nothing_of_a_first_answer_that_is_held_comes_over_a_file_that_nothing_confirms() {
    let text: String =
        nodes(100, "m1").iter().map(|(key, value)| format!("{key} {value}\n")).collect();
    let mut scene = Scene::start(Some(&text)).await;
    scene.one(answer(30)).await;
    assert_eq!((scene.wanted(), scene.held().counts), (None, counts(1, 1, 30)));
    assert_eq!(scene.in_force(), &nodes(100, "m1"));
}

#[tokio::test]
async fn a_part_that_points_nowhere_is_held_with_the_rest() {
    for (unknown, gone) in [(Action::Guard, 40), (Action::Hold, 1)] {
        let mut scene = Scene::start(None).await;
        scene.decider = scene.decider.with_actions(Actions { unknown, not_ready: Action::Keep });
        scene.decider.see(vec![Arc::new([("m1", true), ("m2", true)].into_iter().collect())]);
        scene.one(nodes(100, "m1")).await;
        let said: EntryMap = answer(30)
            .iter()
            .enumerate()
            .map(|(at, (node, master))| (node, if at < gone { "gone" } else { master }))
            .collect();
        for _ in 0..2 {
            scene.one(said.clone()).await;
            assert_eq!(scene.held().counts, counts(0, gone, 30));
            let expected: EntryMap = nodes(100, "m1").iter().chain([("new", "m1")]).collect();
            assert_eq!((scene.in_force(), scene.wanted()), (&expected, Some((2, 101))));
        }
        // It is there by now.
        scene.decider.see(vec![Arc::new([("m1", true), ("gone", true)].into_iter().collect())]);
        scene.one(said.clone()).await;
        assert_eq!(scene.held().counts, counts(0, 0, 30));
        assert_eq!(scene.wanted(), Some((3, 101)));
    }
}

#[tokio::test]
async fn a_part_that_can_not_be_written_comes_into_force_when_it_can_and_is_counted_once() {
    let mut scene = Scene::start(None).await;
    scene.one(nodes(100, "m1")).await;
    let folder = scene.folder.path().to_owned();
    let away = folder.with_extension("part");
    fs::rename(&folder, &away).unwrap();
    for _ in 0..2 {
        scene.one(answer(30)).await;
        assert_eq!((scene.wanted(), scene.held().applied), (Some((1, 100)), counts(0, 0, 0)));
    }
    fs::rename(&away, &folder).unwrap();
    for _ in 0..2 {
        scene.one(answer(30)).await;
        assert_eq!((scene.wanted(), scene.held().applied), (Some((2, 101)), counts(1, 1, 0)));
    }
}

/// A registry's answer: of 40 nodes and 40 more, per cent that are gone, moved and new.
fn any_answer() -> impl Strategy<Value = EntryMap> {
    let node = |at: usize| format!("n{at:03}");
    (0u8..60, 0u8..70, 0u8..120, proptest::collection::vec(0u8..100, 80)).prop_map(
        move |(gone, moved, new, draws)| {
            let mut entries = Vec::new();
            for (at, draw) in draws.into_iter().enumerate() {
                let master = if draw.wrapping_mul(37) % 100 < moved { "m2" } else { "m1" };
                if if at < 40 { draw >= gone } else { draw < new / 2 } {
                    entries.push((node(at), master));
                }
            }
            entries.iter().map(|(node, master)| (node.as_str(), *master)).collect()
        },
    )
}

fn decider(partial: bool) -> MapDecider {
    let limits = Limits { partial, small: 0, free: 0, ..Limits::default() };
    MapDecider::without_writer(limits, Path::new("n.map"), None, Arc::default())
}

/// The registry says this within the hour.
async fn says(decider: &mut MapDecider, said: &EntryMap, second: u64) {
    let mut state = SourceState::before_first_poll("puppetdb".to_owned(), "file".to_owned(), true);
    state.snapshot = Some(Snapshot {
        entries: Arc::new(said.clone()),
        rejections: Arc::default(),
        answered_at: Timestamp::UNIX_EPOCH,
    });
    decider.decide_at(&[state], Arc::default(), Duration::from_secs(second)).await;
}

fn in_force(decider: &MapDecider) -> (u64, EntryMap) {
    let revision = decider.decision().in_force.as_ref().expect("a map");
    (revision.number, (*revision.entries).clone())
}

proptest! {
    #[test]
    fn whatever_a_registry_says_no_more_goes_than_the_limits_allow_and_the_same_again_is_no_change(
        answers in proptest::collection::vec(any_answer(), 1..8),
        last in any_answer(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut decider = decider(true);
            let first = nodes(40, "m1");
            let mut maps = vec![first.clone()];
            says(&mut decider, &first, 0).await;
            for (second, said) in (1..).zip(answers.iter().chain([&last])) {
                says(&mut decider, said, second).await;
                let (number, now) = in_force(&decider);
                let before = maps.last().expect("the first");
                let change = Diff::between(before, &now).counts();
                let most = maps.iter().map(EntryMap::len).max().unwrap_or(0);
                let lost = first.iter().filter(|(node, _)| now.get(node).is_none()).count();
                // Within the hour, all together.
                prop_assert!(lost * 5 <= most, "{lost} of {most} were lost");
                if !maps.contains(&now) {
                    prop_assert!(change.removed * 5 <= most && change.moved * 2 <= most);
                    prop_assert!(change.added <= most.max(now.len()));
                }
                let held = decider.decision().held.clone();
                if let Some(held) = &held {
                    prop_assert_eq!(held.counts, Diff::between(&now, said).counts());
                    prop_assert_eq!(&held.id, &id_of(said));
                } else {
                    prop_assert_eq!(&now, said);
                }
                maps.push(now);
                says(&mut decider, said, second).await;
                prop_assert_eq!(in_force(&decider), (number, maps.last().expect("one").clone()));
                let again = decider.decision().held.clone();
                prop_assert_eq!(again.map(|held| (held.id, held.since, held.applied)),
                    held.map(|held| (held.id, held.since, held.applied)));
            }
            // Approved, it is what was said; without, what is in force said again ends the hold.
            if let Some(held) = decider.decision().held.clone() {
                let kept = maps.last().expect("one").clone();
                if answers.len() % 2 == 0 {
                    decider.approve(&held.id).unwrap();
                    says(&mut decider, &last, 20).await;
                    prop_assert_eq!(in_force(&decider).1, last);
                } else {
                    says(&mut decider, &kept, 20).await;
                    prop_assert_eq!(in_force(&decider).1, kept);
                }
                prop_assert_eq!(&decider.decision().held, &None);
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_guard_without_parts_lets_all_of_an_answer_through_or_nothing(
        answers in proptest::collection::vec(any_answer(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut decider = decider(false);
            says(&mut decider, &nodes(40, "m1"), 0).await;
            for (second, said) in (1..).zip(&answers) {
                let before = in_force(&decider).1;
                says(&mut decider, said, second).await;
                let expected =
                    if decider.decision().held.is_some() { &before } else { said };
                prop_assert_eq!(&in_force(&decider).1, expected);
            }
            Ok(())
        })?;
    }
}
