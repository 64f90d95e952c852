use mapsmith_core::events::EventKind;

use super::*;

fn happening(subject: &str) -> Happening {
    Happening::new(Timestamp::UNIX_EPOCH, EventKind::Instance, subject, "it is".to_owned())
        .in_state("in_sync")
}

async fn stored() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
    (folder, store)
}

async fn ids(log: &EventLog, after: u64) -> Vec<u64> {
    log.after(after, 20_000, (&BTreeSet::new(), 0))
        .await
        .unwrap()
        .iter()
        .map(|event| event.id)
        .collect()
}

#[tokio::test]
async fn whoever_follows_gets_each_event_once_whoever_kept_it() {
    let (_folder, store) = stored().await;
    let log = EventLog::open(Some(store.clone())).await.unwrap();
    let mut last = log.subscribe();
    log.append(vec![happening("a"), happening("b")]).await.unwrap();
    // As the transaction of an order does it.
    store.keep_events(vec![happening("c")]).await.unwrap();
    log.append(vec![happening("d")]).await.unwrap();
    assert_eq!(*last.borrow_and_update(), 4);
    assert_eq!(ids(&log, 0).await, [1, 2, 3, 4]);
    assert_eq!(ids(&log, 3).await, [4]);
    assert!(ids(&log, 4).await.is_empty());
    let again = EventLog::open(Some(store)).await.unwrap();
    assert_eq!((again.bounds(&BTreeSet::new()), ids(&again, 2).await), ((4, 1), vec![3, 4]));
    assert_eq!(again.last_of_each().await.unwrap().len(), 4);
}

#[tokio::test]
async fn what_is_in_memory_no_more_comes_from_the_store() {
    let (_folder, store) = stored().await;
    let log = EventLog::open(Some(store)).await.unwrap();
    for _ in 0..3 {
        log.append((0..600).map(|_| happening("a")).collect()).await.unwrap();
    }
    let all = ids(&log, 0).await;
    assert_eq!((all.len(), all[0], all[1799]), (1800, 1, 1800));
    assert_eq!(ids(&log, 1795).await, [1796, 1797, 1798, 1799, 1800]);
    assert_eq!(log.newest(2).iter().map(|event| event.id).collect::<Vec<_>>(), [1799, 1800]);
    let ahead = log.after(1801, 1, (&BTreeSet::new(), 0)).await.unwrap_err();
    assert_eq!(ahead, EventsError::Gone { after: 1801, oldest: 1 });
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named() {
    let (_folder, store) = stored().await;
    let log = EventLog::open(Some(store)).await.unwrap();
    log.append((0..10_005).map(|_| happening("a")).collect()).await.unwrap();
    let gone = log.after(4, 1, (&BTreeSet::new(), 0)).await.unwrap_err();
    assert_eq!(gone, EventsError::Gone { after: 4, oldest: 6 });
    assert_eq!(ids(&log, 5).await.len(), 10_000);
    assert_eq!(ids(&log, 0).await[0], 6, "0 is before all that are kept");
}

#[tokio::test]
async fn thousands_of_members_leave_all_other_events_and_make_no_gap_in_them() {
    let (_folder, store) = stored().await;
    for log in [EventLog::open(Some(store)).await.unwrap(), EventLog::open(None).await.unwrap()] {
        log.append(vec![happening("a"), happening("b")]).await.unwrap();
        let all = ids(&log, 0).await;
        let member = |number| Happening {
            kind: EventKind::Registration,
            ..happening(&format!("m{number}"))
        };
        for _ in 0..3 {
            log.append((0..4000).map(member).collect()).await.unwrap();
        }
        log.append(vec![happening("c")]).await.unwrap();
        let instances = BTreeSet::from([EventKind::Instance]);
        let found = log.after(all[0], 20_000, (&instances, 0)).await.unwrap();
        let of_instances = |it: &&Arc<Event>| it.happening.kind == EventKind::Instance;
        let found: Vec<_> = found.iter().filter(of_instances).map(|it| it.id).collect();
        assert_eq!(found, [all[1], all[1] + 12_001], "each that came after, once");
        assert_eq!(log.bounds(&instances).1, all[0], "all of them are kept");
        // Whoever follows members, too, has missed some, and is told from where on there are all.
        let (_, oldest) = log.bounds(&BTreeSet::new());
        assert!(oldest > all[1] + 1, "{oldest}");
        let gone = log.after(all[0], 1, (&BTreeSet::new(), 0)).await.unwrap_err();
        assert_eq!(gone, EventsError::Gone { after: all[0], oldest });
        let known = log.after(all[0], 2, (&BTreeSet::new(), oldest - 1)).await.unwrap();
        assert_eq!(known[0].id, all[1], "whoever knows that gets on with what there is");
        let rest = ids(&log, oldest - 1).await;
        assert_eq!(rest.len() as u64, all[1] + 12_001 - (oldest - 1), "none of them is missing");
        assert!(rest.windows(2).all(|pair| pair[0] < pair[1]));
        let newest = log.newest(100);
        let newest: Vec<_> = newest.iter().filter(of_instances).map(|it| it.id).collect();
        assert_eq!(newest, [all[0], all[1], all[1] + 12_001], "the latest are at hand");
    }
}

#[tokio::test]
async fn without_a_store_a_number_of_another_start_is_none_of_this_one() {
    let log = EventLog::open(None).await.unwrap();
    log.append(vec![happening("a"), happening("b")]).await.unwrap();
    let all = ids(&log, 0).await;
    assert_eq!((all.len(), ids(&log, all[0]).await), (2, vec![all[1]]));
    let other = EventLog::open(None).await.unwrap();
    other.append(vec![happening("a")]).await.unwrap();
    assert!(matches!(
        other.after(all[0], 1, (&BTreeSet::new(), 0)).await,
        Err(EventsError::Gone { .. })
    ));
    assert!(matches!(log.after(7, 1, (&BTreeSet::new(), 0)).await, Err(EventsError::Gone { .. })));
}
