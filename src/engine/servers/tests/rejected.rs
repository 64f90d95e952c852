//! Rows that are rejected or contradict each other.

use mapsmith_core::server::list::RejectedServer;

use super::*;

#[tokio::test]
async fn a_server_that_two_rows_name_stays_as_it_is_and_a_new_one_waits_until_one_row_is_gone() {
    let mut scene = Scene::start("");
    let row = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    scene.says(&[row("a", "10.0.1.1:1"), row("b", "10.0.1.9:1")]);
    scene.decide(0).await;
    scene.decide_again(1).await;
    scene.says(&[
        row("a", "10.0.1.1:1"),
        row("b", "10.0.1.2:1"),
        row("b", "10.0.1.9:1"),
        row("c", "10.0.1.3:1"),
        row("c", "10.0.1.4:1"),
    ]);
    for second in [10, 11, 200] {
        scene.decide(second).await;
        assert_eq!(scene.servers("listed"), ["a 10.0.1.1:1", "b 10.0.1.9:1"], "at {second} s");
    }
    let rejected = scene.status("listed").rejected;
    let named = rejected
        .iter()
        .filter(|row| row.reason.contains("what is in force stays; remove one of them"))
        .count();
    assert_eq!(named, 2, "{rejected:?}");
    scene.says(&[
        row("a", "10.0.1.1:1"),
        row("b", "10.0.1.2:1"),
        row("c", "10.0.1.4:1"),
        row("c", "10.0.1.4:1"),
    ]);
    scene.decide(300).await;
    scene.decide_again(301).await;
    assert_eq!(
        scene.servers("listed"),
        ["a 10.0.1.1:1", "b 10.0.1.2:1", "c 10.0.1.4:1"],
        "equal rows are one"
    );
}

#[tokio::test]
async fn servers_that_nobody_lists_are_left_alone_only_while_a_row_is_rejected() {
    let mut scene = Scene::start("");
    let row = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    scene.says(&[row("a", "10.0.1.1:1"), row("b", "nowhere:1")]);
    scene.decide(0).await;
    scene.decide(2).await;
    let before = scene.decider.desired().unwrap().number;
    assert_eq!(scene.desired("listed").unwrap().manage, Manage::Own);
    scene.says(&[row("a", "10.0.1.1:1")]);
    scene.decide(3).await;
    let after = scene.desired("listed").unwrap();
    assert_eq!(
        (after.manage, after.servers.len()),
        (Manage::All, 1),
        "the list itself is the same"
    );
    assert!(scene.decider.desired().unwrap().number > before);
}

/// A row that can't be read, and does not say which server it is.
fn unread(scene: &mut Scene, servers: std::ops::Range<u8>, rows: usize) {
    scene.lists(servers);
    let list = scene.list.as_mut().unwrap();
    for row in 0..rows {
        let reason = "does not hold JSON".to_owned();
        list.rejected.push(RejectedServer { place: format!("child {row}"), name: None, reason });
        list.unnamed += 1;
    }
}

#[tokio::test]
async fn after_a_restart_nothing_goes_while_a_row_that_can_not_be_read_may_be_it() {
    let mut scene = Scene::resume("", &[("listed", "source consul", 0..3)]);
    unread(&mut scene, 0..2, 1);
    for second in [0, 1, 1000] {
        scene.decide(second).await;
        let status = scene.status("listed");
        assert_eq!((scene.servers("listed").len(), status.leaving), (3, vec![]), "at {second} s");
    }
    // What was read since the start, and is gone, is not that row.
    unread(&mut scene, 0..1, 1);
    for second in [2000, 2001, 3000] {
        scene.decide(second).await;
    }
    assert_eq!(scene.servers("listed"), ["s00 10.0.1.0:8140", "s02 10.0.1.2:8140"]);
    unread(&mut scene, 0..1, 0);
    for second in [4000, 4001, 5000] {
        scene.decide(second).await;
    }
    assert_eq!(scene.servers("listed"), ["s00 10.0.1.0:8140"], "no row is left that may be s02");
    unread(&mut scene, 0..1, 1);
    scene.decide(6000).await;
    assert_eq!(scene.servers("listed").len(), 1);
}

#[tokio::test]
async fn a_row_that_names_a_server_which_is_known_hides_no_other_one_and_a_guessed_name_does() {
    for (name, left) in [("s00", 1), ("key-of-s01", 3)] {
        let mut scene = Scene::resume("", &[("listed", "source consul", 0..3)]);
        unread(&mut scene, 0..0, 1);
        let list = scene.list.as_mut().unwrap();
        (list.unnamed, list.unknown) = (0, [name.to_owned()].into());
        scene.decide(0).await;
        scene.decide(1).await;
        assert_eq!(scene.servers("listed").len(), 3, "a server that is gone stays for a while");
        let leaving = scene.status("listed").leaving.len();
        assert_eq!(3 - leaving, left, "{name}");
    }
}

#[tokio::test]
async fn every_server_whose_row_went_wrong_stays_however_many_there_are() {
    let mut scene = Scene::start("");
    let rows = |weight: Option<i64>| {
        let mut builder = ServerListBuilder::default();
        for server in 0..1200_u32 {
            let address = format!("10.1.{}.{}:80", server / 100, server % 100);
            // Half of them have a name of their own.
            let name = (server % 2 == 0).then(|| format!("s{server:04}"));
            builder.push("row", RawServer { name, address, weight, ..RawServer::default() });
        }
        Some(builder.finish(Repeats::LowestAddress).0)
    };
    scene.list = rows(Some(100));
    scene.decide(0).await;
    scene.decide_again(2).await;
    let before = scene.servers("listed");
    scene.list = rows(Some(300));
    for second in [10, 12, 200] {
        scene.decide(second).await;
        assert!(scene.servers("listed") == before, "at {second} s");
    }
    let status = scene.status("listed");
    assert_eq!((status.rejected.len(), status.rejected_count), (1000, 1200));
    assert!(before.len() == 1200 && status.leaving.is_empty(), "{:?}", status.leaving);
}
