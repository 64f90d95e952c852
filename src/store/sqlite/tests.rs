//! The store against real files: what it keeps, and what it says to a file that it can't use.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mapsmith_core::desired::ownership::{Outage, OwnerRecord};
use mapsmith_core::server::{ServerAddress, ServerOptions};
use mapsmith_core::{DrainedMaster, EndedKind, Invalid, Note, Pin, Server};

use super::schema::run_migrations;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn note() -> Note {
    Note { reason: Some("kernel".to_owned()), by: Some("anna".to_owned()) }
}

fn pin(node: &str, master: &str, until: Option<i64>) -> OverrideChange {
    let (node, master) = (node.to_owned(), master.to_owned());
    OverrideChange::Pin(Pin { node, master, since: at(1), until: until.map(at), note: note() })
}

fn drain(master: &str, to: Option<&str>) -> OverrideChange {
    OverrideChange::Drain(DrainedMaster {
        master: master.to_owned(),
        to: to.map(str::to_owned),
        since: at(1),
        note: note(),
    })
}

fn unpin(node: &str) -> OverrideChange {
    OverrideChange::Unpin { node: node.to_owned(), now: at(30), note: note() }
}

fn undrain(master: &str) -> OverrideChange {
    OverrideChange::Undrain { master: master.to_owned(), stay: true, now: at(30), note: note() }
}

/// `n1=m1` and `m1>m2`, for short.
fn listed(overrides: &Overrides) -> Vec<String> {
    let pins = overrides.pins().map(|pin| format!("{}={}", pin.node, pin.master));
    let drained = overrides
        .drained()
        .map(|drained| format!("{}>{}", drained.master, drained.to.as_deref().unwrap_or("*")));
    pins.chain(drained).collect()
}

async fn fault(path: &Path) -> StoreErrorKind {
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
        assert_eq!(listed(&store.change(change, None).await.unwrap().unwrap()), expected);
    }
    for nothing in [unpin("n1"), undrain("m2"), OverrideChange::Expire { now: at(19) }] {
        assert_eq!(store.change(nothing, None).await.unwrap(), None);
    }
    let before = store.load().await.unwrap();
    assert_eq!((before.number(), before.pin("n2").unwrap().until), (6, Some(at(20))));
    drop(store);
    assert_eq!(SqliteStore::peek(&path).await.unwrap().overrides, before);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(again.load().await.unwrap(), before);
    for end in [unpin("n2"), undrain("m1")] {
        again.change(end, None).await.unwrap().unwrap();
    }
    let left = again.load().await.unwrap();
    assert_eq!((left.is_empty(), left.number()), (true, 8));
}

#[tokio::test]
async fn names_that_look_like_sql_are_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    let odd = "n'1';--";
    store.change(pin(odd, "m\"1", None), None).await.unwrap();
    assert_eq!(listed(&store.load().await.unwrap()), ["n'1';--=m\"1"]);
    assert!(store.change(unpin(odd), None).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    store.change(pin("n", "m", None), None).await.unwrap();
    let mut seen = 0;
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            file.file_name()
        );
        seen += 1;
    }
    assert!(seen >= 2, "the database and its log");
}

#[tokio::test]
async fn a_look_without_a_file_finds_nothing_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    assert!(SqliteStore::peek(&path).await.unwrap().overrides.is_empty());
    assert!(!path.exists());
    // What keeps the daemon from starting is no empty store.
    let gone = SqliteStore::peek(&folder.path().join("gone/m.db")).await.unwrap_err().fault;
    assert_eq!(gone, StoreErrorKind::NoFolder(folder.path().join("gone").display().to_string()));
    assert_eq!(SqliteStore::peek(folder.path()).await.unwrap_err().fault, StoreErrorKind::Folder);
    fs::write(&path, "").unwrap();
    assert!(
        SqliteStore::peek(&path).await.unwrap().overrides.is_empty(),
        "as a daemon that was killed at once leaves it"
    );
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_path_that_can_not_be_used_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/m.db");
    assert_eq!(
        fault(&missing).await,
        StoreErrorKind::NoFolder(folder.path().join("missing").display().to_string())
    );
    assert_eq!(fault(folder.path()).await, StoreErrorKind::Folder);
    // Where not even root may make a file.
    let refused = fault(Path::new("/proc/mapsmith.db")).await;
    assert!(
        matches!(refused, StoreErrorKind::NotOpened(_))
            && refused.to_string().contains("write the file and its folder"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let text = "this is a letter and no database".repeat(100);
    fs::write(&path, &text).unwrap();
    assert!(matches!(fault(&path).await, StoreErrorKind::Damaged(_)));
    assert!(matches!(
        SqliteStore::peek(&path).await.unwrap_err().fault,
        StoreErrorKind::Damaged(_)
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let broken = folder.path().join("broken.db");
    let store = SqliteStore::open(&broken).await.unwrap();
    store.change(pin("n", "m", None), None).await.unwrap();
    drop(store);
    let mut bytes = fs::read(&broken).unwrap();
    // The pages after the first, which holds the schema.
    bytes[4096..].fill(0xff);
    fs::write(&broken, &bytes).unwrap();
    assert!(matches!(fault(&broken).await, StoreErrorKind::Damaged(_)));
}

#[tokio::test]
async fn a_database_of_another_program_or_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert_eq!(fault(&foreign).await, StoreErrorKind::Foreign);

    let newer = folder.path().join("newer.db");
    drop(SqliteStore::open(&newer).await.unwrap());
    let known = MIGRATIONS.len() as i64;
    let found = known + 1;
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", found).unwrap();
    let told = fault(&newer).await;
    assert_eq!(told, StoreErrorKind::Newer { found, known });
    let words = format!("later Mapsmith (schema {found}, this one knows {known})");
    assert!(told.to_string().contains(&words), "{told}");
    assert_eq!(SqliteStore::peek(&newer).await.unwrap_err().fault, told);
}

#[tokio::test]
async fn a_locked_file_is_told_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.change(pin("n", "m", None), None).await.unwrap_err();
    assert!(matches!(error.fault, StoreErrorKind::Locked(_)), "{error}");
    assert!(store.load().await.unwrap().is_empty(), "who only reads is not kept waiting");
    drop(store);
    assert!(matches!(fault(&path).await, StoreErrorKind::Locked(_)));
    other.execute_batch("ROLLBACK").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(listed(&store.change(pin("n", "m", None), None).await.unwrap().unwrap()), ["n=m"]);
}

#[tokio::test]
async fn a_name_that_another_program_wrote_never_gets_to_haproxy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute("INSERT INTO pins (node, master, since) VALUES (?1, 'm1', 0)", ["n; clear map"])
        .unwrap();
    let error = store.load().await.unwrap_err();
    assert_eq!(
        error.fault,
        StoreErrorKind::Invalid { name: "n; clear map".to_owned(), reason: Invalid::KeyWhitespace }
    );
}

#[tokio::test]
async fn a_store_that_is_open_is_told_with_its_process_and_may_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.change(pin("n", "m", None), None).await.unwrap();
    let told = fault(&path).await;
    assert_eq!(told, StoreErrorKind::InUse(format!("process {}", std::process::id())));
    assert!(told.to_string().starts_with("is in use by another Mapsmith (process "), "{told}");
    assert_eq!(listed(&SqliteStore::peek(&path).await.unwrap().overrides), ["n=m"]);
    let clone = store.clone();
    drop(store);
    assert!(
        matches!(fault(&path).await, StoreErrorKind::InUse(_)),
        "a part of the daemon has it still"
    );
    drop(clone);
    assert_eq!(listed(&SqliteStore::open(&path).await.unwrap().load().await.unwrap()), ["n=m"]);
}

#[tokio::test]
async fn a_lock_file_that_an_ended_process_left_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    for left in ["", "1", "4194305", "this is no number"] {
        fs::write(folder.path().join("m.db.lock"), left).unwrap();
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(
            fault(&path).await,
            StoreErrorKind::InUse(format!("process {}", std::process::id())),
            "{left:?}"
        );
        drop(store);
    }
}

fn list(origin: &str, rows: &[(&str, &str, &[&str])]) -> LastGoodList {
    let server = |(name, address, options): &(&str, &str, &[&str])| {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        Server {
            name: (*name).to_owned(),
            address: ServerAddress { ip: address.ip(), port: address.port() },
            weight: Some(7),
            backup: options.is_empty(),
            options: ServerOptions::parse(&options).unwrap(),
        }
    };
    let servers = rows.iter().map(|row| (row.0.to_owned(), server(row))).collect();
    let (since, confirmed) = (Some(at(7)), Some(at(8)));
    LastGoodList { origin: origin.to_owned(), since, confirmed, servers }
}

#[tokio::test]
async fn a_server_list_is_there_after_a_restart_just_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "s1",
            "10.0.0.1:8140",
            &["check", "maxconn 5", "maxqueue 6", "inter 2s", "source 10.0.0.1 usesrc clientip"],
        ),
        ("s2:x", "[fe80::1]:65535", &[]),
    ];
    let (puppet, app) = (list("source consul", rows), list("node map", &rows[..1]));
    assert_eq!(store.last_good_lists().await.unwrap(), BTreeMap::new());
    store.keep_list("puppet", Some(list("source older", &[]))).await.unwrap();
    store.keep_list("puppet", Some(puppet.clone())).await.unwrap();
    store.keep_list("app", Some(app.clone())).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    let kept = BTreeMap::from([("puppet".to_owned(), puppet), ("app".to_owned(), app)]);
    assert_eq!(store.last_good_lists().await.unwrap(), kept);
    store.keep_list("puppet", None).await.unwrap();
    assert_eq!(store.last_good_lists().await.unwrap().len(), 1);
    let confirmed = LastGoodList { confirmed: Some(at(9)), ..list("source new", rows) };
    let lists = ["app", "gone"].map(|backend| (backend.to_owned(), confirmed.clone()));
    store.confirm_lists(lists.into()).await.unwrap();
    let left = store.last_good_lists().await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["app"]);
    assert_eq!((left["app"].origin.as_str(), left["app"].confirmed), ("source new", Some(at(9))));
    assert_eq!(left["app"].servers.len(), 1, "the servers are those that were kept");
}

/// What another program may do to the table.
const INSERT: &str = "INSERT OR REPLACE INTO server_lists (backend, origin, servers) VALUES ('bad', \
    'node map', ?1)";

#[tokio::test]
async fn a_server_list_that_another_program_wrote_never_gets_to_haproxy_and_the_others_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.keep_list("good", Some(list("node map", &[("s1", "10.0.0.1:1", &[])]))).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let row = |name: &str, address: &str, weight: &str, option: &str| {
        format!(
            "[{{\"name\":{name:?},\"address\":{address:?},\"weight\":{weight},\
                \"backup\":false,\"options\":[{option:?}]}}]"
        )
    };
    for text in [
        row("s1; shutdown", "10.0.0.1:1", "1", "check"),
        row("s1", "10.0.0.1:1\ndel server a/b", "1", "check"),
        row("s1", "evil.example:1", "1", "check"),
        row("s1", "0.0.0.0:1", "1", "check"),
        row("s1", "10.0.0.1:0", "1", "check"),
        row("s1", "10.0.0.1:1", "257", "check"),
        row("s1", "10.0.0.1:1", "1", "check; shutdown sessions"),
        row("s1", "10.0.0.1:1", "1", "init-addr none"),
        "[".to_owned(),
        "{}".to_owned(),
        "[7]".to_owned(),
        String::new(),
    ] {
        other.execute(INSERT, [&text]).unwrap();
        let lists = store.last_good_lists().await.unwrap();
        assert_eq!(lists.keys().collect::<Vec<_>>(), ["good"], "{text}");
    }
    let fine = row("s1", "10.0.0.1:1", "1", "check");
    other.execute(INSERT, [fine]).unwrap();
    let lists = store.last_good_lists().await.unwrap();
    assert_eq!((lists.len(), lists["bad"].since), (2, None), "nobody noted since when");
}

#[tokio::test]
async fn a_store_of_the_first_schema_keeps_its_overrides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let old = Connection::open(&path).unwrap();
    run_migrations(&old, 0, 1).unwrap();
    old.execute("INSERT INTO pins (node, master, since) VALUES ('n', 'm', 0)", []).unwrap();
    drop(old);
    assert_eq!(listed(&SqliteStore::peek(&path).await.unwrap().overrides), ["n=m"]);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(listed(&store.load().await.unwrap()), ["n=m"]);
    store.keep_list("puppet", Some(list("node map", &[]))).await.unwrap();
    assert_eq!(store.last_good_lists().await.unwrap().len(), 1);
}

const OWNER: &str =
    "INSERT INTO owners (node, owner, since, seen, ordered) VALUES ('n', 'm', 1000, 2000, 1)";
const REVISION: &str = "INSERT INTO revisions (number, at, kind, sources, entries, added, moved, \
    removed, fingerprint, bytes) VALUES (9, 0, '', '', 0, 0, 0, 0, 0, 0)";

#[tokio::test]
async fn a_store_of_any_schema_before_is_looked_at_as_the_daemon_will_have_it_and_stays_as_it_is() {
    for version in 1..MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.db");
        let old = Connection::open(&path).unwrap();
        run_migrations(&old, 0, version as i64).unwrap();
        old.execute("INSERT INTO pins (node, master, since) VALUES ('n', 'm', 0)", []).unwrap();
        old.execute("UPDATE state SET number = 7", []).unwrap();
        for (since, row) in [(10, REVISION), (3, OWNER)] {
            if version >= since {
                old.execute(row, []).unwrap();
            }
        }
        if version >= 2 {
            old.execute(&INSERT.replace("'bad'", "'app'"), ["[]"]).unwrap();
        }
        drop(old);
        let found = SqliteStore::peek(&path).await.unwrap();
        assert_eq!(listed(&found.overrides), ["n=m"], "schema {version}");
        assert_eq!(found.overrides.number(), 7, "schema {version}");
        assert_eq!(found.owners.records.len(), usize::from(version >= 3), "schema {version}");
        assert_eq!(found.lists.len(), usize::from(version >= 2), "schema {version}");
        let file = Connection::open(&path).unwrap();
        let left: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(left, version as i64, "who only looks changes nothing");
        drop(file);
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.load().await.unwrap(), found.overrides, "schema {version}");
        assert_eq!(store.owners().await.unwrap(), found.owners, "schema {version}");
        assert_eq!(store.last_good_lists().await.unwrap(), found.lists, "schema {version}");
        let highest = u64::from((10..22).contains(&version)) * 9;
        assert_eq!(store.highest_number().await, Ok(highest), "schema {version}");
    }
}

#[tokio::test]
async fn what_has_ended_is_remembered_with_its_times_for_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    for change in [
        pin("n1", "m1", None),
        pin("n2", "m1", Some(10)),
        drain("m1", Some("m2")),
        OverrideChange::Expire { now: at(20) },
        unpin("n1"),
        undrain("m1"),
    ] {
        store.change(change, None).await.unwrap().unwrap();
    }
    let told = |overrides: &Overrides| -> Vec<(bool, i64, i64, bool)> {
        let ended = overrides.ended();
        let told = ended.map(|ended| {
            let is_pin = matches!(ended.of, EndedKind::Pin { .. });
            (is_pin, ended.since.as_second(), ended.until.as_second(), ended.stay)
        });
        told.collect()
    };
    let stored = store.load().await.unwrap();
    assert_eq!(told(&stored), [(true, 1, 10, false), (true, 1, 30, false), (false, 1, 30, true)]);
    assert!(stored.ended().any(|ended| ended.concerned("n1", "m2")));
    assert!(stored.ended().any(|ended| ended.concerned("n9", "m1")));
    assert!(!stored.ended().any(|ended| ended.concerned("n1", "m9") && ended.stay));
    let week = 7 * 24 * 3600;
    store.change(drain("m3", None), None).await.unwrap().unwrap();
    let undrained = OverrideChange::Undrain {
        master: "m3".to_owned(),
        stay: false,
        now: at(week + 25),
        note: note(),
    };
    let left = store.change(undrained, None).await.unwrap().unwrap();
    assert_eq!(told(&left).len(), 3, "the one that ended first is forgotten");
}

#[tokio::test]
async fn owners_and_outages_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let record = |owner: &str| OwnerRecord {
        owner: owner.to_owned(),
        since: at(1),
        seen: at(2),
        ordered: owner == "m2",
        routed_since: (owner == "m2").then(|| at(3)),
        unnamed_since: (owner == "m1").then(|| at(4)),
    };
    let outage =
        |from, until: Option<i64>| Outage { master: "m1".to_owned(), from, until: until.map(at) };
    let records = ["n1", "n2", "n3"].map(|node| (node.to_owned(), Some(record("m1"))));
    let outages = vec![outage(at(3), Some(4)), outage(Timestamp::MIN, None)];
    let first = OwnersChange { records: records.into(), outages: Some(outages.clone()) };
    store.keep_owners(first).await.unwrap();
    let records = [("n1".to_owned(), None), ("n2".to_owned(), Some(record("m2")))];
    store.keep_owners(OwnersChange { records: records.into(), outages: None }).await.unwrap();
    drop(store);
    let expected = StoredOwners {
        records: [("n2".to_owned(), record("m2")), ("n3".to_owned(), record("m1"))].into(),
        outages,
    };
    assert_eq!(SqliteStore::peek(&path).await.unwrap().owners, expected);
    assert_eq!(SqliteStore::open(&path).await.unwrap().owners().await.unwrap(), expected);
}

#[tokio::test]
async fn the_services_that_were_kept_last_are_found_again_with_where_they_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let forms = ServiceForms::from([("web".to_owned(), "{\"port\": 1}".to_owned())]);
    let peek = async || SqliteStore::peek_services(&path).await.unwrap();
    assert_eq!(peek().await, None, "there is no file");
    {
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(peek().await, None);
        let other = ServiceForms::from([("old".to_owned(), "{}".to_owned())]);
        store.keep_services("zk path=/b", &other).await.unwrap();
        store.keep_services("zk path=/a", &forms).await.unwrap();
    }
    let stored = peek().await.unwrap();
    assert_eq!((stored.forms, stored.origin.as_str()), (forms, "zk path=/a"));
    assert!(stored.since.is_some());
}
