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

    /// The backend `app` has this origin, and so many servers are in force; none where they are not
    /// known.
    async fn writes(&mut self, origin: &str, servers: Option<u8>) {
        let origins = [("app".to_owned(), origin.to_owned())].into();
        let desired = servers.map(desired);
        write(&self.store, &origins, &mut self.stored, desired.as_ref()).await.unwrap();
        let kept = self.store.last_good_lists().await.unwrap();
        assert_eq!(kept, self.stored, "what is known of the store is what it has");
    }
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
    scene.writes("source old", Some(3)).await;
    let before = scene.stored["app"].clone();
    assert!(before.since.is_some());
    scene.writes("source new", None).await;
    assert_eq!(scene.stored["app"], before, "a crash before the first answer loses nothing");
    scene.writes("source new", Some(3)).await;
    let after = scene.stored["app"].clone();
    assert_eq!((after.origin.as_str(), after.since), ("source new", before.since));
    scene.writes("source new", Some(2)).await;
    assert_eq!(scene.stored["app"].servers.len(), 2);
    assert!(scene.stored["app"].since > before.since, "these are in force since now");
}

#[tokio::test]
async fn the_list_of_a_backend_that_is_declared_no_more_is_forgotten() {
    let mut scene = Scene::start().await;
    scene.writes("source old", Some(3)).await;
    write(&scene.store, &BTreeMap::new(), &mut scene.stored, None).await.unwrap();
    assert_eq!(scene.store.last_good_lists().await.unwrap(), BTreeMap::new());
}
