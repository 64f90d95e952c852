//! What of the lists in force is in the store, and what a change of the settings leaves of it.

use mapsmith_core::server::{Server, ServerAddress, ServerOptions};
use mapsmith_core::{DesiredBackend, DesiredServers};

use super::*;

/// A store, and what of it is known.
struct Scene {
    _folder: tempfile::TempDir,
    store: SqliteStore,
    stored: BTreeMap<String, LastGoodList>,
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        Self { _folder: folder, store, stored: BTreeMap::new() }
    }

    /// The backend `app` has this origin, so many servers are in force, and the origin last said so
    /// at this second; none where that is not known.
    async fn writes(&mut self, origin: &str, servers: Option<u8>, said: Option<i64>) {
        let origins = [("app".to_owned(), origin.to_owned())].into();
        let desired = servers.map(desired);
        let confirmed = said.map(|said| ("app".to_owned(), at(said)));
        let news = News { desired: desired.as_ref(), confirmed: confirmed.into_iter().collect() };
        write(&self.store, &origins, &mut self.stored, &news).await.unwrap();
        let kept = self.store.last_good_lists().await.unwrap();
        assert_eq!(brief(&kept), brief(&self.stored), "what is known of the store is what it has");
    }

    fn confirmed(&self) -> Option<i64> {
        self.stored["app"].confirmed.map(Timestamp::as_second)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// As the store has it, whose times are in milliseconds.
fn brief(lists: &BTreeMap<String, LastGoodList>) -> Vec<String> {
    let milliseconds = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
    let lists = lists.values();
    let brief = lists.map(|list| {
        let (since, confirmed) = (milliseconds(list.since), milliseconds(list.confirmed));
        format!("{} {since:?} {confirmed:?} {:?}", list.origin, list.servers)
    });
    brief.collect()
}

fn desired(servers: u8) -> DesiredServers {
    let server = |number: u8| {
        let name = format!("s{number}");
        let server = Server {
            name: name.clone(),
            address: ServerAddress { ip: [10, 0, 0, number].into(), port: 1 },
            weight: None,
            backup: false,
            options: ServerOptions::default(),
        };
        (name, server)
    };
    let servers = (0..servers).map(server).collect();
    let backend = DesiredBackend { servers, ..DesiredBackend::default() };
    DesiredServers { number: 1, backends: [("app".to_owned(), backend)].into() }
}

#[tokio::test]
async fn a_list_stays_in_the_store_while_its_origin_changes_and_keeps_its_time() {
    let mut scene = Scene::start().await;
    scene.writes("source old", Some(3), Some(1)).await;
    let before = scene.stored["app"].clone();
    assert!(before.since.is_some());
    scene.writes("source new", None, None).await;
    scene.writes("source new", Some(3), None).await;
    assert_eq!(scene.stored["app"], before, "a crash before the first answer loses nothing");
    scene.writes("source new", Some(3), Some(2)).await;
    let after = scene.stored["app"].clone();
    assert_eq!((after.origin.as_str(), after.since), ("source new", before.since));
    assert_eq!(scene.confirmed(), Some(2));
    scene.writes("source new", Some(2), Some(3)).await;
    assert_eq!((scene.stored["app"].servers.len(), scene.confirmed()), (2, Some(3)));
    assert!(scene.stored["app"].since > before.since, "these are in force since now");
}

#[tokio::test]
async fn it_is_stored_once_a_minute_that_a_list_was_confirmed() {
    let mut scene = Scene::start().await;
    for (said, stored) in [(1, 1), (30, 1), (60, 1), (61, 61), (100, 61), (500, 500)] {
        scene.writes("source old", Some(3), Some(said)).await;
        assert_eq!(scene.confirmed(), Some(stored), "confirmed at {said} s");
    }
    scene.writes("source old", Some(3), None).await;
    assert_eq!(scene.confirmed(), Some(500), "a silence takes nothing back");
}

#[tokio::test]
async fn a_list_without_a_time_has_one_with_the_first_answer_that_confirms_it() {
    let mut scene = Scene::start().await;
    scene.writes("source old", Some(3), None).await;
    let list = scene.stored.get_mut("app").unwrap();
    (list.since, list.confirmed) = (None, None);
    scene.store.keep_list("app", Some(list.clone())).await.unwrap();
    scene.writes("source old", Some(3), None).await;
    assert_eq!(scene.stored["app"].since, None, "nobody has said anything yet");
    scene.writes("source old", Some(3), Some(5)).await;
    assert_eq!((scene.stored["app"].since, scene.confirmed()), (Some(at(5)), Some(5)));
}

#[tokio::test]
async fn the_list_of_a_backend_that_is_declared_no_more_is_forgotten() {
    let mut scene = Scene::start().await;
    scene.writes("source old", Some(3), None).await;
    let news = News { desired: None, confirmed: BTreeMap::new() };
    write(&scene.store, &BTreeMap::new(), &mut scene.stored, &news).await.unwrap();
    assert_eq!(scene.store.last_good_lists().await.unwrap(), BTreeMap::new());
}
