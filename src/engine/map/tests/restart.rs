//! What a start finds: the map file, the store, another Mapsmith.

use super::*;

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
async fn after_a_restart_only_the_source_that_says_something_new_is_named() {
    let mut scene = Scene::start(None).await;
    let registered = || [("k1", "m1")].into_iter().collect();
    let said = [("registered", true, Some(registered())), ("nodes", true, Some(nodes(40, "m1")))];
    scene.answer(&said).await;
    assert_eq!(scene.causes(), ["registered", "nodes"]);
    scene.restart().await;
    let mut states = scene.states(&said);
    scene.decide(&states).await;
    states[1] = scene.states(&[("nodes", true, Some(nodes(41, "m1")))]).remove(0);
    scene.decide(&states).await;
    assert_eq!((scene.wanted(), scene.causes()), (Some((2, 42)), vec!["nodes".to_owned()]));
}

#[tokio::test]
async fn a_map_file_that_is_lost_gives_no_number_again_that_the_store_has_seen() {
    let mut scene = Scene::start(None).await;
    for count in 1..=3 {
        scene.one(nodes(100 + count, "m1")).await;
    }
    fs::remove_file(scene.path()).unwrap();
    scene.restart().await;
    scene.decider = scene.decider.with_numbers_above(7);
    scene.one(nodes(200, "m2")).await;
    assert_eq!((scene.wanted(), scene.file_number()), (Some((8, 200)), 8));
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
            format!("# Written by Mapsmith: external changes are overwritten. Revision {number}");
        format!("{header}\n# Writer: pid 7 on elsewhere.example.com (site fra)\nn000 m7\nn001 m1\n")
    };
    fs::write(scene.path(), other(2)).unwrap();
    // Found at a check of the file, or at a write.
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
    let writer = MapFileWriter::new(&scene.path());
    scene.decider =
        MapDecider::start(Limits::default(), writer, Arc::default()).await.unwrap().take_over();
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
            "# Written by Mapsmith: external changes are overwritten. Revision 4\n{writer}n000 \
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
