//! Rows that are rejected or contradict each other.

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
