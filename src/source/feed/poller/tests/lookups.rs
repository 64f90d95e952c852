//! Targeted lookups between polls.

use mapsmith_core::LearnedRoute;

use super::*;

fn learned(node: &str, master: &str) -> Arc<[LearnedRoute]> {
    let now = Timestamp::UNIX_EPOCH;
    Arc::new([LearnedRoute {
        node: node.to_owned(),
        master: master.to_owned(),
        since: now,
        expires: now,
    }])
}

#[tokio::test]
async fn a_lookup_brings_news_and_counts_as_no_poll() {
    let mut fixture = Fixture::start(NEVER);
    // Before the first answer there is nothing to lay a lookup's answer over.
    fixture.lookups.dispute("edge1", &learned("a", "m2"));
    fixture.answer(Ok(good(&[("a", "m1")])));
    let polled = fixture.state(polled).await;
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
    let request = fixture.requests.request();
    fixture.answer(Ok(good(&[("a", "m2")])));
    let after = fixture
        .state(|state| state.snapshot.as_ref().unwrap().entries.get("a") == Some("m2"))
        .await;
    assert_eq!(
        after.answered, 0,
        "a reload that waits for every source must not take a lookup for an answer"
    );
    assert_eq!(after.status.last_poll, polled.status.last_poll);
    assert_eq!(after.status.answered_at, polled.status.answered_at);
    fixture.answer(Ok(good(&[("a", "m2")])));
    fixture.state(|state| state.answered == request).await;
}

#[tokio::test]
async fn a_lookup_that_fails_changes_nothing_and_is_repeated() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(polled).await;
    fixture.lookups.dispute("edge1", &learned("a", "m2"));
    fixture.answer(Err(SourceErrorKind::TooLarge(7)));
    fixture.answer(Ok(good(&[("a", "m2")])));
    let state = fixture
        .state(|state| state.snapshot.as_ref().unwrap().entries.get("a") == Some("m2"))
        .await;
    assert_eq!(state.status.error, None);
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_poll_that_is_asked_for_does_not_wait_for_a_lookup_that_hangs() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(polled).await;
    fixture.lookups.dispute("edge1", &learned("a", "m2"));
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
    fixture.begun(2).await;
    let request = fixture.requests.request();
    tokio::time::timeout(Duration::from_secs(60), fixture.begun(3)).await.expect("the poll begins");
    fixture.answer(Ok(good(&[("a", "m2")])));
    let state = fixture.state(|state| state.answered >= request).await;
    assert_eq!(state.snapshot.unwrap().entries.get("a"), Some("m2"));
}
