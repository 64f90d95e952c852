use std::time::Duration;

use mapsmith_core::objects::{Edits, ObjectKey, ObjectKind, Objects, Spec};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::{AuditFilter, AuditRequest};

fn member(version: &str, port: u16, ttl: Option<u64>) -> Member {
    let key = MemberKey::new("web", version, "10.0.0.3", &port.to_string()).unwrap();
    let (since, ttl) = (Timestamp::now(), ttl.map(Duration::from_millis));
    Member { key, meta: Default::default(), ttl, since, by: Some("anna".to_owned()) }
}

fn backend(version: &str) -> Vec<MemberBackend> {
    let (backend, name) = ("app".to_owned(), "web".to_owned());
    vec![MemberBackend { backend, name, version: version.to_owned() }]
}

fn list() -> Vec<MemberList> {
    let (name, version) = ("web".to_owned(), "1".to_owned());
    let kind = "registrations".to_owned();
    let state = SourceState::before_first_poll("web 1".to_owned(), kind, true);
    vec![MemberList { name, version, state }]
}

struct Scene {
    service: MemberService,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn open(store: &SqliteStore, memory: &MemberMemory, version: &str) -> Self {
        let opened = MemberService::open(store.clone(), memory, backend(version), list()).await;
        let (service, keeper) = opened.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(keeper.run(stop.clone()));
        Self { service, stop, task }
    }

    fn servers(&self) -> Vec<u16> {
        let listings = self.service.subscribe().borrow().clone();
        listings.of["app"].list.servers.iter().map(|server| server.port).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn store(folder: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("m.db")).await.unwrap()
}

#[tokio::test]
async fn members_are_told_at_once_and_kept_over_a_crash_and_expire_when_they_are_silent() {
    let folder = tempfile::tempdir().unwrap();
    let opened = store(&folder).await;
    let scene = Scene::open(&opened, &MemberMemory::default(), "1").await;
    assert_eq!(scene.servers(), [0u16; 0]);
    let mut source = scene.service.list("web 1").unwrap();
    assert_eq!(source.borrow_and_update().status.entries, Some(0), "empty is an answer");
    let made = scene
        .service
        .change(MemberChange::Register(member("1", 80, Some(600_000))), None)
        .await
        .unwrap();
    assert_eq!((made.effect, made.number), (Effect::Registered, 2));
    assert_eq!(source.borrow_and_update().status.entries, Some(1));
    assert_eq!(scene.servers(), [80]);
    scene.service.change(MemberChange::Register(member("2", 81, None)), None).await.unwrap();
    let again = scene
        .service
        .change(MemberChange::Register(member("1", 80, Some(600_000))), None)
        .await
        .unwrap();
    assert_eq!(again.effect, Effect::CheckedIn);

    // As after a SIGKILL: nothing was said to anybody.
    scene.task.abort();
    let _ = scene.task.await;
    drop((scene.service, opened));
    let opened = store(&folder).await;
    let scene = Scene::open(&opened, &MemberMemory::default(), "1").await;
    assert_eq!(scene.servers(), [80]);
    let left = scene.service.look(|members| {
        let kept = members.get(&member("1", 80, None).key).unwrap();
        members.lifetime(kept)
    });
    assert!(matches!(left, Lifetime::Left(left) if left > Duration::from_secs(9)), "{left:?}");

    scene.service.change(MemberChange::Register(member("1", 82, Some(1000))), None).await.unwrap();
    let mut listings = scene.service.subscribe();
    let gone = listings.wait_for(|listings| {
        let mut servers = listings.of["app"].list.servers.iter();
        servers.all(|server| server.port != 82)
    });
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap().unwrap();
    let rows = opened.audit(AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
    assert_eq!(rows[0].target, "registrations/web/1/10.0.0.3/82");
    let events = opened.events(0, 100, false).await.unwrap().events;
    let states: Vec<_> = events.iter().map(|it| it.happening.state.as_deref().unwrap()).collect();
    assert_eq!(states, ["registered", "registered", "registered", "expired"]);
    scene.end().await;
}

#[tokio::test]
async fn who_was_heard_of_is_known_over_a_beginning_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, memory) = (store(&folder).await, MemberMemory::default());
    let scene = Scene::open(&opened, &memory, "1").await;
    scene
        .service
        .change(MemberChange::Register(member("1", 80, Some(60_000))), None)
        .await
        .unwrap();
    let service = scene.service.clone();
    scene.end().await;
    let late =
        service.change(MemberChange::Register(member("1", 81, None)), None).await.unwrap_err();
    assert_eq!(late.fault, StoreErrorKind::Ending);
    let heard =
        service.change(MemberChange::Register(member("1", 80, Some(60_000))), None).await.unwrap();
    assert_eq!(heard.effect, Effect::CheckedIn, "nothing but memory is needed for that");
    let scene = Scene::open(&opened, &memory, "1").await;
    assert_eq!(scene.servers(), [80]);
    scene.end().await;
}

#[tokio::test]
async fn a_switch_is_stored_step_by_step_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let opened = store(&folder).await;
    let scene = Scene::open(&opened, &MemberMemory::default(), "1").await;
    let order = |version: &str, min_ready| {
        let (backend, version) = ("app".to_owned(), version.to_owned());
        SwitchOrder { backend, version, min_ready, note: Note::default() }
    };
    for (version, port) in [("1", 80), ("2", 81)] {
        scene
            .service
            .change(MemberChange::Register(member(version, port, None)), None)
            .await
            .unwrap();
    }
    for (order, have, least) in [(order("3", None), 0, 1), (order("2", Some(2)), 1, 2)] {
        let refused = scene.service.switch(order, None).await.unwrap_err();
        assert_eq!(refused, SwitchError::NoMembers { have, min_ready: least });
    }
    let nowhere = SwitchOrder { backend: "other".to_owned(), ..order("2", None) };
    let refused = scene.service.preview_switch(&nowhere).unwrap_err();
    assert_eq!(refused, SwitchError::NoMembersTaken);
    assert!(scene.service.switch(order("1", None), None).await.unwrap().after.is_none());
    let joining = scene.service.switch(order("2", None), None).await.unwrap().after.unwrap();
    assert_eq!(scene.servers(), [80, 81]);
    scene.end().await;

    let scene = Scene::open(&opened, &MemberMemory::default(), "1").await;
    assert_eq!(scene.service.version("app").unwrap(), joining);
    assert_eq!(scene.servers(), [80, 81]);
    let mut listings = scene.service.subscribe();
    assert_eq!(listings.borrow_and_update().of["app"].order, 1, "it is ordered once more");
    scene.service.step(joining.clone()).await.unwrap();
    listings.changed().await.unwrap();
    let leaving = scene.service.version("app").unwrap();
    assert_eq!(leaving.phase, SwitchPhase::Leaving);
    assert_eq!((scene.servers(), listings.borrow_and_update().of["app"].order), (vec![81], 2));
    // A step of what it is no more does nothing.
    scene.service.step(joining).await.unwrap();
    scene.service.step(leaving).await.unwrap();
    listings.changed().await.unwrap();
    let done = scene.service.version("app").unwrap();
    assert_eq!((done.phase, done.previous.as_deref()), (SwitchPhase::Settled, Some("1")));
    scene.end().await;

    // The settings say another version than they did: that is an order, too.
    let scene = Scene::open(&opened, &MemberMemory::default(), "1").await;
    assert_eq!(scene.service.version("app").unwrap().version, "2");
    scene.end().await;
    let scene = Scene::open(&opened, &MemberMemory::default(), "3").await;
    let version = scene.service.version("app").unwrap();
    assert_eq!((&*version.version, version.phase), ("3", SwitchPhase::Joining));
    assert_eq!(scene.servers(), [81], "it stays until there is something else");
    scene.end().await;
}

#[tokio::test]
async fn nothing_is_kept_of_a_switch_of_a_backend_that_is_deleted_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let opened = store(&folder).await;
    let memory = MemberMemory::default();
    let scene = Scene::open(&opened, &memory, "1").await;
    for (version, port) in [("1", 80), ("2", 81)] {
        scene
            .service
            .change(MemberChange::Register(member(version, port, None)), None)
            .await
            .unwrap();
    }
    let order = || {
        let (backend, version) = ("app".to_owned(), "2".to_owned());
        SwitchOrder { backend, version, min_ready: None, note: Note::default() }
    };
    let change = async |before: Arc<Objects>, edits: Edits| {
        let after = edits.after(&before, Timestamp::now(), &Note::default()).unwrap();
        let (after, changes) = (Arc::new(after), edits.changes(&before));
        let request = AuditRequest::of_the_clock(Timestamp::now(), "backends/app".to_owned());
        let ticket = Arc::new(AuditTicket::new(request));
        let (stored, of_settings) = (Arc::clone(&after), Default::default());
        let write = ObjectsWrite { before, after: stored, of_settings, changes, ticket };
        opened.keep_objects(write).await.unwrap();
        after
    };
    let (key, nothing) = (ObjectKey::new(ObjectKind::Backend, "app"), Arc::new(Objects::default()));
    let put = Edits::put(&nothing, key.clone(), &Spec::new(), None, "anna").unwrap();
    let declared = change(nothing, put).await;
    scene.service.switch(order(), None).await.unwrap();
    change(Arc::clone(&declared), Edits::delete(&declared, key)).await;
    let joining = scene.service.version("app").unwrap();
    scene.service.step(joining.clone()).await.unwrap();
    let back = SwitchOrder { version: "1".to_owned(), ..order() };
    let late = scene.service.switch(back.clone(), None).await.unwrap_err();
    assert!(matches!(late, SwitchError::Store(_)), "{late:?}");
    assert_eq!(scene.service.version("app").unwrap(), joining, "what is not stored is not so");
    scene.service.forget_backends(["app"]);
    assert_eq!(scene.service.version("app"), None);
    let late = scene.service.switch(back, None).await.unwrap_err();
    assert_eq!(late, SwitchError::NoMembersTaken);
    scene.end().await;
    // Another one of its name, at once and after a restart.
    for memory in [memory, MemberMemory::default()] {
        let scene = Scene::open(&opened, &memory, "1").await;
        let version = scene.service.version("app").unwrap();
        assert_eq!((version.version.as_str(), version.phase), ("1", SwitchPhase::Settled));
        scene.end().await;
    }
}
