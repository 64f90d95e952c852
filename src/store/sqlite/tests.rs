//! The store against real files: what it keeps, and what it says to a file that it can't use.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pin(node: &str, master: &str, until: Option<i64>) -> OverrideChange {
    let (node, master) = (node.to_owned(), master.to_owned());
    OverrideChange::Pin(Pin { node, master, since: at(1), until: until.map(at) })
}

fn drain(master: &str, to: Option<&str>) -> OverrideChange {
    OverrideChange::Drain(DrainedMaster { master: master.to_owned(), to: to.map(str::to_owned), since: at(1) })
}

/// `n1=m1` and `m1>m2`, for short.
fn listed(overrides: &Overrides) -> Vec<String> {
    let pins = overrides.pins().map(|pin| format!("{}={}", pin.node, pin.master));
    let drained = overrides.drained().map(|drained| format!("{}>{}", drained.master, drained.to.as_deref().unwrap_or("*")));
    pins.chain(drained).collect()
}

async fn fault(path: &Path) -> Fault {
    let error = SqliteStore::open(path).await.expect_err("the store can't be used");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error.fault
}

#[tokio::test]
async fn what_was_ordered_is_there_after_a_restart_and_the_number_only_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapsmith.db");
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.load().await.unwrap(), Overrides::default());
    for (change, expected) in [
        (pin("n1", "m1", None), vec!["n1=m1"]),
        (pin("n2", "m1", Some(20)), vec!["n1=m1", "n2=m1"]),
        (pin("n1", "m2", Some(10)), vec!["n1=m2", "n2=m1"]),
        (drain("m1", None), vec!["n1=m2", "n2=m1", "m1>*"]),
        (drain("m1", Some("m3")), vec!["n1=m2", "n2=m1", "m1>m3"]),
        (OverrideChange::Expire { now: at(10) }, vec!["n2=m1", "m1>m3"]),
    ] {
        assert_eq!(listed(&store.change(change).await.unwrap().unwrap()), expected);
    }
    for nothing in [
        OverrideChange::Unpin { node: "n1".to_owned() },
        OverrideChange::Undrain { master: "m2".to_owned() },
        OverrideChange::Expire { now: at(19) },
    ] {
        assert_eq!(store.change(nothing).await.unwrap(), None);
    }
    let before = store.load().await.unwrap();
    assert_eq!((before.number(), before.pin("n2").unwrap().until), (6, Some(at(20))));
    drop(store);
    assert_eq!(SqliteStore::peek(&path).await.unwrap(), before);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(again.load().await.unwrap(), before);
    for end in [OverrideChange::Unpin { node: "n2".to_owned() }, OverrideChange::Undrain { master: "m1".to_owned() }] {
        again.change(end).await.unwrap().unwrap();
    }
    let left = again.load().await.unwrap();
    assert_eq!((left.is_empty(), left.number()), (true, 8));
}

#[tokio::test]
async fn names_that_look_like_sql_are_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    let odd = "n'1';--";
    store.change(pin(odd, "m\"1", None)).await.unwrap();
    assert_eq!(listed(&store.load().await.unwrap()), ["n'1';--=m\"1"]);
    assert!(store.change(OverrideChange::Unpin { node: odd.to_owned() }).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    store.change(pin("n", "m", None)).await.unwrap();
    let mut seen = 0;
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
        seen += 1;
    }
    assert!(seen >= 2, "the database and its log");
}

#[tokio::test]
async fn a_look_without_a_file_finds_nothing_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    assert!(SqliteStore::peek(&path).await.unwrap().is_empty());
    assert!(!path.exists());
    // What keeps the daemon from starting is no empty store.
    let gone = SqliteStore::peek(&folder.path().join("gone/m.db")).await.unwrap_err().fault;
    assert_eq!(gone, Fault::NoFolder(folder.path().join("gone").display().to_string()));
    assert_eq!(SqliteStore::peek(folder.path()).await.unwrap_err().fault, Fault::Folder);
    fs::write(&path, "").unwrap();
    assert!(SqliteStore::peek(&path).await.unwrap().is_empty(), "as a daemon that was killed at once leaves it");
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_path_that_can_not_be_used_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/m.db");
    assert_eq!(fault(&missing).await, Fault::NoFolder(folder.path().join("missing").display().to_string()));
    assert_eq!(fault(folder.path()).await, Fault::Folder);
    // Where not even root may make a file.
    let refused = fault(Path::new("/proc/mapsmith.db")).await;
    assert!(matches!(refused, Fault::NotOpened(_)) && refused.to_string().contains("write the file and its folder"), "{refused}");
}

#[tokio::test]
async fn a_damaged_file_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let text = "this is a letter and no database".repeat(100);
    fs::write(&path, &text).unwrap();
    assert!(matches!(fault(&path).await, Fault::Damaged(_)));
    assert!(matches!(SqliteStore::peek(&path).await.unwrap_err().fault, Fault::Damaged(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let broken = folder.path().join("broken.db");
    let store = SqliteStore::open(&broken).await.unwrap();
    store.change(pin("n", "m", None)).await.unwrap();
    drop(store);
    let mut bytes = fs::read(&broken).unwrap();
    // The pages after the first, which holds the schema.
    bytes[4096..].fill(0xff);
    fs::write(&broken, &bytes).unwrap();
    assert!(matches!(fault(&broken).await, Fault::Damaged(_)));
}

#[tokio::test]
async fn a_database_of_another_program_or_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert_eq!(fault(&foreign).await, Fault::Foreign);

    let newer = folder.path().join("newer.db");
    drop(SqliteStore::open(&newer).await.unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let told = fault(&newer).await;
    assert_eq!(told, Fault::Newer { found: 7, known: 1 });
    assert!(told.to_string().contains("later Mapsmith (schema 7, this one knows 1)"), "{told}");
    assert_eq!(SqliteStore::peek(&newer).await.unwrap_err().fault, told);
}

#[tokio::test]
async fn a_locked_file_is_told_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.change(pin("n", "m", None)).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Locked(_)), "{error}");
    assert!(matches!(fault(&path).await, Fault::Locked(_)));
    assert!(store.load().await.unwrap().is_empty(), "who only reads is not kept waiting");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(listed(&store.change(pin("n", "m", None)).await.unwrap().unwrap()), ["n=m"]);
}

#[tokio::test]
async fn a_name_that_another_program_wrote_never_gets_to_haproxy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute("INSERT INTO pins (node, master, since) VALUES (?1, 'm1', 0)", ["n; clear map"]).unwrap();
    let error = store.load().await.unwrap_err();
    assert_eq!(error.fault, Fault::Illegal { name: "n; clear map".to_owned(), reason: Illegal::KeyWhiteSpace });
}
