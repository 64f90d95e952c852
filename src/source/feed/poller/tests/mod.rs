//! The poller against a feed whose every answer is given by hand, so that nothing depends on time.

mod beside;
mod lookups;
mod telemetry;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mapsmith_core::EntryMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::source::{PollRequests, SourceErrorKind};

const DAY: Duration = Duration::from_secs(86_400);
/// Failures are repeated at once.
const SOON: Pacing = Pacing {
    backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(4)),
    spacing: Duration::ZERO,
    late: DAY,
};
/// Failures are not repeated.
const NEVER: Pacing =
    Pacing { backoff: Backoff::new(DAY, DAY), spacing: Duration::ZERO, late: DAY };

type Answer = Result<Polled, SourceErrorKind>;

struct Scripted {
    answers: mpsc::UnboundedReceiver<Answer>,
    changes: mpsc::UnboundedReceiver<()>,
    begun: Arc<AtomicU64>,
    looked_up: mpsc::UnboundedSender<Vec<String>>,
}

#[async_trait]
impl Feed<EntryMap> for Scripted {
    async fn poll(
        &mut self,
        _: Extent,
        _: Option<&Snapshot>,
        _: Timestamp,
    ) -> Result<Polled, SourceError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        match self.answers.recv().await {
            Some(answer) => {
                answer.map_err(|fault| SourceError { place: "http://registry".to_owned(), fault })
            }
            None => std::future::pending().await,
        }
    }

    async fn look_up(
        &mut self,
        nodes: &[String],
        current: &Snapshot,
        now: Timestamp,
    ) -> Result<Polled, SourceError> {
        self.looked_up.send(nodes.to_vec()).unwrap();
        self.poll(Extent::Changes, Some(current), now).await
    }

    async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

struct Fixture {
    requests: PollRequests,
    lookups: TargetedLookups,
    looked_up: mpsc::UnboundedReceiver<Vec<String>>,
    answers: mpsc::UnboundedSender<Answer>,
    changes: mpsc::UnboundedSender<()>,
    begun: Arc<AtomicU64>,
    state: watch::Receiver<SourceState>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Fixture {
    fn start(pacing: Pacing) -> Self {
        let requests = PollRequests::new();
        Self::start_in(&requests, requests.round(), pacing)
    }

    fn start_in(requests: &PollRequests, round: Round, pacing: Pacing) -> Self {
        let requests = requests.clone();
        let (answers, answer_receiver) = mpsc::unbounded_channel();
        let (changes, change_receiver) = mpsc::unbounded_channel();
        let (begun, shutdown) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let (look_up, looked_up) = mpsc::unbounded_channel();
        let source = Scripted {
            answers: answer_receiver,
            changes: change_receiver,
            begun: Arc::clone(&begun),
            looked_up: look_up,
        };
        let lookups = TargetedLookups::new();
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            "registry".to_owned(),
            "http_json".to_owned(),
            true,
        ));
        let poller = Poller::new("registry".to_owned(), round, &lookups, sender, pacing);
        let end = shutdown.clone();
        let task = tokio::spawn(async move {
            end.run_until_cancelled(poller.run(Box::new(source))).await;
        });
        Self { requests, lookups, looked_up, answers, changes, begun, state, shutdown, task }
    }

    fn answer(&self, answer: Answer) {
        self.answers.send(answer).unwrap();
    }

    async fn begun(&self, polls: u64) {
        while self.begun.load(Ordering::SeqCst) < polls {
            tokio::task::yield_now().await;
        }
    }

    async fn state(&mut self, wanted: impl FnMut(&SourceState) -> bool) -> SourceState {
        self.state.wait_for(wanted).await.unwrap().clone()
    }
}

fn good(entries: &[(&str, &str)]) -> Polled {
    Polled {
        kind: PollKind::Full,
        entries: Arc::new(entries.iter().copied().collect::<EntryMap>()),
        rejections: Arc::default(),
        bytes: 10,
    }
}

fn polled(state: &SourceState) -> bool {
    state.status.last_poll.is_some()
}

#[tokio::test]
async fn requests_made_during_a_poll_become_one_poll_after_it() {
    let mut fixture = Fixture::start(NEVER);
    fixture.begun(1).await;
    for number in 1..=3 {
        assert_eq!(fixture.requests.request(), number);
    }
    fixture.answer(Ok(good(&[("a", "m1")])));
    let state = fixture.state(polled).await;
    assert_eq!(
        state.answered, 0,
        "the poll began before the requests: it may have seen an older state"
    );
    fixture.answer(Ok(good(&[("a", "m1")])));
    assert_eq!(fixture.state(|state| state.answered > 0).await.answered, 3);
    fixture.requests.request();
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(|state| state.answered == 4).await;
    assert_eq!(fixture.begun.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_failed_poll_keeps_the_last_good_answer_and_its_age() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    let before = fixture.state(polled).await;
    assert_eq!((before.status.entries, before.status.error.as_deref()), (Some(1), None));
    fixture.requests.request();
    fixture.answer(Err(SourceErrorKind::TooLarge(7)));
    let after = fixture.state(|state| state.answered == 1).await;
    let (old, new) = (before.snapshot.unwrap(), after.snapshot.unwrap());
    assert!(Arc::ptr_eq(&old.entries, &new.entries) && old.answered_at == new.answered_at);
    assert_eq!(after.status.answered_at, before.status.answered_at);
    assert_eq!(after.status.entries, Some(1));
    assert_eq!(after.status.last_poll.unwrap().kind, None);
    assert_eq!(
        after.status.error.unwrap(),
        "http://registry: the content is larger than max_bytes (7 bytes, after decompression)"
    );
}

#[tokio::test]
async fn a_source_that_fails_at_the_start_is_asked_again_without_a_request() {
    let mut fixture = Fixture::start(SOON);
    for _ in 0..5 {
        fixture
            .answer(Err(SourceErrorKind::Unreachable { cause: "Connection refused".to_owned() }));
    }
    fixture.answer(Ok(good(&[("a", "m1")])));
    let state = fixture.state(|state| state.snapshot.is_some()).await;
    assert_eq!((state.status.error, state.answered), (None, 0));
    assert_eq!(fixture.begun.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_change_that_the_source_saw_itself_is_polled_at_once() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(polled).await;
    fixture.answer(Ok(good(&[("a", "m1"), ("b", "m1")])));
    fixture.changes.send(()).unwrap();
    fixture.state(|state| state.status.entries == Some(2)).await;
}

#[tokio::test]
async fn a_watch_asks_its_own_round_again_and_a_reload_asks_all() {
    let requests = PollRequests::new();
    let (node_map, list) = (requests.round(), requests.round());
    let mut feeds = [&node_map, &node_map, &list]
        .map(|round| Fixture::start_in(&requests, round.clone(), NEVER));
    for feed in &mut feeds {
        feed.answer(Ok(good(&[])));
        feed.state(polled).await;
    }

    feeds[2].answer(Ok(good(&[])));
    feeds[2].changes.send(()).unwrap();
    feeds[2].state(|state| state.answered == 1).await;
    assert_eq!(node_map.subscribe().borrow().latest, 0, "no source of the node map is asked");

    feeds[0].changes.send(()).unwrap();
    for feed in &mut feeds[..2] {
        feed.answer(Ok(good(&[])));
        feed.state(|state| state.answered == 2).await;
    }
    assert_eq!(list.subscribe().borrow().latest, 1, "the list is not asked");

    let reload = requests.request_everything();
    for feed in &mut feeds {
        feed.answer(Ok(good(&[])));
        feed.state(|state| state.answered == reload).await;
        assert_eq!(feed.begun.load(Ordering::SeqCst), 3, "at the start, of its round, of all");
    }
}

#[test]
fn a_failing_source_is_asked_again_after_a_second_and_each_half_minute_at_last() {
    let standard = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    assert_eq!(Pacing::STANDARD.backoff, standard);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_poll_that_hangs() {
    let fixture = Fixture::start(NEVER);
    fixture.begun(1).await;
    fixture.shutdown.cancel();
    fixture.task.await.unwrap();
}

#[tokio::test]
async fn a_poller_that_nobody_can_ask_any_more_rests() {
    let Fixture { requests, answers, mut state, begun, shutdown, task, .. } = Fixture::start(NEVER);
    drop(requests);
    answers.send(Ok(good(&[]))).unwrap();
    state.wait_for(polled).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    shutdown.cancel();
    task.await.unwrap();
}
