//! What `plan` and `check` foresee of server lists.

use jiff::Timestamp;
use mapsmith_core::Snapshot;
use mapsmith_core::server::list::{RawServer, Repeats, ServerListBuilder};
use mapsmith_core::server::{ServerAddress, ServerOptions};

use super::*;

const SETTINGS: &str = r#"
[[source]]
name = "new"
type = "http_json"
url = "http://127.0.0.1:9/"
[[instance]]
name = "edge1"
runtime = "unix@/run/haproxy/admin.sock"
[map]
path = "/nonexistent/nodes.map"
[[source]]
name = "nodes"
type = "http_json"
url = "http://127.0.0.1:9/"
[[backend]]
name = "app"
from = "new"
"#;

fn name(number: u8) -> String {
    format!("s{number:02}")
}

/// What would become of these servers in force, which another origin listed, where these are listed
/// now; none where nothing is said.
async fn previewed(
    before: Option<std::ops::Range<u8>>,
    now: Option<std::ops::Range<u8>>,
) -> ServersPreview {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapsmith.toml");
    std::fs::write(&path, SETTINGS).unwrap();
    let settings = Settings::load(&path, []).unwrap();
    let server = |number: u8| Server {
        name: name(number),
        address: ServerAddress { ip: [10, 0, 0, number].into(), port: 80 },
        weight: None,
        backup: false,
        options: ServerOptions::default(),
    };
    let stored = before.map(|before| {
        let servers = before.map(|number| (name(number), server(number))).collect();
        let origin = "source old".to_owned();
        ("app".to_owned(), LastGoodList { origin, since: None, confirmed: None, servers })
    });
    let mut state = SourceState::before_first_poll("new".to_owned(), "http_json".to_owned(), true);
    state.snapshot = now.map(|now| {
        let mut builder = ServerListBuilder::default();
        for number in now {
            let address = format!("10.0.0.{number}:80");
            builder.push(
                "row",
                RawServer { name: Some(name(number)), address, ..RawServer::default() },
            );
        }
        let entries = Arc::new(builder.finish(Repeats::LowestAddress).0);
        Snapshot { entries, rejections: Arc::default(), answered_at: Timestamp::UNIX_EPOCH }
    });
    let (actions, nothing) = (Actions::default(), Stored::default());
    let map = map(&settings, actions, None, Vec::new(), &[], nothing).await;
    servers(&settings, &[state], &map, &stored.into_iter().collect(), Arc::default()).await
}

#[tokio::test]
async fn the_list_of_another_origin_is_foreseen_as_the_change_that_it_will_be() {
    let preview = previewed(Some(0..100), Some(99..100)).await;
    let held = preview.statuses[0].held.as_ref().expect("a hold");
    assert!(held.reason.contains("remove 99 of the 100 servers in force"), "{}", held.reason);
    assert_eq!(preview.desired.backends["app"].servers.len(), 100, "it is held");
    let change = &preview.changes[0];
    assert_eq!(change.held.as_ref(), Some(&held.reason));
    assert_eq!((change.servers_before, change.servers_after), (Some(100), 1));
    assert_eq!(change.removed.len(), 99, "what an approval leads to: {change:?}");
}

#[tokio::test]
async fn a_change_that_passes_is_foreseen_with_all_that_will_be_gone_in_the_end() {
    let preview = previewed(Some(0..40), Some(2..41)).await;
    let change = &preview.changes[0];
    assert_eq!(change.to_string(), "1 added, 0 changed, 2 removed");
    assert_eq!(
        (change.removed.join(" "), change.added.join(" ")),
        ("s00 s01".into(), "s40".into())
    );
    assert_eq!((&change.held, preview.desired.backends["app"].servers.len()), (&None, 39));
}

#[tokio::test]
async fn a_list_that_stays_or_is_not_stored_is_no_change_and_one_without_an_answer_stays() {
    assert_eq!(previewed(Some(0..40), Some(0..40)).await.changes, []);
    assert_eq!(previewed(None, Some(0..40)).await.changes, []);
    let silent = previewed(Some(0..40), None).await;
    assert_eq!((silent.changes.len(), silent.desired.backends["app"].servers.len()), (0, 40));
    assert!(silent.statuses[0].waiting_for.is_some());
    let empty = previewed(None, Some(0..0)).await;
    assert!(empty.changes[0].held.is_some(), "an empty list is held also as the first one");
}
