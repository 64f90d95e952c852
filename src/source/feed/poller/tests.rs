//! The poller against a source whose every answer is given by hand, so that nothing depends on
//! time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mapsmith_core::{EntryMap, LearnedRoute, Rejections};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::source::{PollRequests, SourceErrorKind};

const DAY: Duration = Duration::from_secs(86_400);
/// Failures are repeated at once.
const SOON: Pacing = Pacing {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(4),
    spacing: Duration::ZERO,
    late: DAY,
};
/// Failures are not repeated.
const NEVER: Pacing = Pacing { first: DAY, longest: DAY, spacing: Duration::ZERO, late: DAY };

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
    looks: TargetedLookups,
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
        let (answers, answer_receiver) = mpsc::unbounded_channel();
        let (changes, change_receiver) = mpsc::unbounded_channel();
        let (requests, begun, shutdown) =
            (PollRequests::new(), Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let (look, looked_up) = mpsc::unbounded_channel();
        let source = Scripted {
            answers: answer_receiver,
            changes: change_receiver,
            begun: Arc::clone(&begun),
            looked_up: look,
        };
        let looks = TargetedLookups::new();
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            "registry".to_owned(),
            "http_json".to_owned(),
            true,
        ));
        let poller = Poller::new("registry".to_owned(), requests.clone(), &looks, sender, pacing);
        let end = shutdown.clone();
        let task = tokio::spawn(async move {
            end.run_until_cancelled(poller.run(Box::new(source))).await;
        });
        Self { requests, looks, looked_up, answers, changes, begun, state, shutdown, task }
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
async fn an_early_look_brings_news_and_counts_as_no_poll() {
    let mut fixture = Fixture::start(NEVER);
    // Before the first answer there is nothing to lay a look's answer over.
    fixture.looks.dispute("edge1", &learned("a", "m2"));
    fixture.answer(Ok(good(&[("a", "m1")])));
    let polled = fixture.state(polled).await;
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
    let request = fixture.requests.request();
    fixture.answer(Ok(good(&[("a", "m2")])));
    let looked = fixture
        .state(|state| state.snapshot.as_ref().unwrap().entries.get("a") == Some("m2"))
        .await;
    assert_eq!(
        looked.answered, 0,
        "a reload that waits for every source must not take a look for an answer"
    );
    assert_eq!(looked.status.last_poll, polled.status.last_poll);
    assert_eq!(looked.status.answered_at, polled.status.answered_at);
    fixture.answer(Ok(good(&[("a", "m2")])));
    fixture.state(|state| state.answered == request).await;
}

#[tokio::test]
async fn an_early_look_that_fails_changes_nothing_and_is_repeated() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(polled).await;
    fixture.looks.dispute("edge1", &learned("a", "m2"));
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
async fn a_poll_that_is_asked_for_does_not_wait_for_a_look_that_hangs() {
    let mut fixture = Fixture::start(NEVER);
    fixture.answer(Ok(good(&[("a", "m1")])));
    fixture.state(polled).await;
    fixture.looks.dispute("edge1", &learned("a", "m2"));
    assert_eq!(fixture.looked_up.recv().await.unwrap(), ["a"]);
    fixture.begun(2).await;
    let request = fixture.requests.request();
    tokio::time::timeout(Duration::from_secs(60), fixture.begun(3)).await.expect("the poll begins");
    fixture.answer(Ok(good(&[("a", "m2")])));
    let state = fixture.state(|state| state.answered >= request).await;
    assert_eq!(state.snapshot.unwrap().entries.get("a"), Some("m2"));
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

#[test]
fn the_pause_between_polls_of_a_failing_source_doubles_to_its_bound() {
    for (failures, whole) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)] {
        let pause = Pacing::STANDARD.pause(failures);
        let whole = Duration::from_secs(whole);
        assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
    }
}

/// Everything on this thread, where the recorder and the log of the test are.
fn on_this_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_reason_that_no_longer_rejects_anything_goes_to_zero_in_the_metrics() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        on_this_thread(async {
            let mut fixture = Fixture::start(NEVER);
            let mut rejections = Rejections::default();
            rejections.push("b", Invalid::NoMaster);
            fixture.answer(Ok(Polled { rejections: Arc::new(rejections), ..good(&[("a", "m1")]) }));
            assert_eq!(fixture.state(polled).await.status.rejections.total(), 1);
            let text = handle.render();
            assert!(
                text.contains(
                    r#"mapsmith_source_rejected_entries{source="registry",reason="no_master"} 1"#
                ),
                "{text}"
            );
            assert!(text.contains(r#"mapsmith_source_entries{source="registry"} 1"#), "{text}");
            assert!(
                text.contains(r#"mapsmith_source_answer_bytes{source="registry"} 10"#),
                "{text}"
            );

            fixture.requests.request();
            fixture.answer(Ok(good(&[("a", "m1")])));
            assert_eq!(
                fixture.state(|state| state.answered == 1).await.status.rejections.total(),
                0
            );
            let text = handle.render();
            assert!(
                text.contains(
                    r#"mapsmith_source_rejected_entries{source="registry",reason="no_master"} 0"#
                ),
                "{text}"
            );

            fixture.requests.request();
            fixture.answer(Err(SourceErrorKind::TooLarge(7)));
            fixture.state(|state| state.answered == 2).await;
            let text = handle.render();
            assert!(
                text.contains(r#"mapsmith_source_poll_failures_total{source="registry"} 1"#),
                "{text}"
            );
            assert!(text.contains(r#"kind="failed""#) && text.contains(r#"kind="full""#), "{text}");
        });
    });
}

thread_local! {
    /// What this thread has logged.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(text))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_lasting_failure_is_logged_once_and_its_end_once() {
    // One subscriber for all threads: a subscriber of this thread alone would miss every line whose
    // first use is in another test, because tracing asks the thread of the first use who listens,
    // and keeps the answer for all.
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
    on_this_thread(async {
        let mut fixture = Fixture::start(SOON);
        tracing::callsite::rebuild_interest_cache();
        let refused =
            || Err(SourceErrorKind::Unreachable { cause: "Connection refused".to_owned() });
        for answer in [
            refused(),
            refused(),
            refused(),
            Err(SourceErrorKind::TooLarge(7)),
            Ok(good(&[])),
            Ok(good(&[])),
        ] {
            fixture.answer(answer);
        }
        fixture.state(|state| state.snapshot.is_some()).await;
        fixture.requests.request();
        fixture.state(|state| state.answered == 1).await;
    });
    let text = String::from_utf8(LOG.take()).unwrap();
    for (part, times) in [
        ("Connection refused", 1),
        ("max_bytes", 1),
        ("WARN", 2),
        ("answers again", 1),
        ("INFO", 1),
    ] {
        assert_eq!(text.matches(part).count(), times, "{part}:\n{text}");
    }
}

/// A source of which several can be polled at once, each poll answered by hand.
#[derive(Clone)]
struct Steered(mpsc::UnboundedSender<(Extent, oneshot::Sender<Answer>)>);

#[async_trait]
impl Feed<EntryMap> for Steered {
    async fn poll(
        &mut self,
        extent: Extent,
        _: Option<&Snapshot>,
        _: Timestamp,
    ) -> Result<Polled, SourceError> {
        let (sender, answer) = oneshot::channel();
        self.0.send((extent, sender)).unwrap();
        match answer.await {
            Ok(answer) => {
                answer.map_err(|fault| SourceError { place: "http://registry".to_owned(), fault })
            }
            Err(_) => std::future::pending().await,
        }
    }

    fn beside(&self) -> Option<Box<dyn Feed<EntryMap>>> {
        Some(Box::new(self.clone()))
    }
}

struct SteeredFixture {
    requests: PollRequests,
    polls: mpsc::UnboundedReceiver<(Extent, oneshot::Sender<Answer>)>,
    state: watch::Receiver<SourceState>,
    shutdown: CancellationToken,
}

impl SteeredFixture {
    fn start(pacing: Pacing) -> Self {
        let (sender, polls) = mpsc::unbounded_channel();
        let (requests, shutdown) = (PollRequests::new(), CancellationToken::new());
        let (states, state) = watch::channel(SourceState::before_first_poll(
            "registry".to_owned(),
            "puppetdb".to_owned(),
            true,
        ));
        let poller = Poller::new(
            "registry".to_owned(),
            requests.clone(),
            &TargetedLookups::new(),
            states,
            pacing,
        );
        let end = shutdown.clone();
        tokio::spawn(async move {
            end.run_until_cancelled(poller.run(Box::new(Steered(sender)))).await;
        });
        Self { requests, polls, state, shutdown }
    }

    /// The next poll that begins.
    async fn begun(&mut self) -> (Extent, oneshot::Sender<Answer>) {
        tokio::time::timeout(Duration::from_secs(60), self.polls.recv())
            .await
            .expect("a poll begins")
            .unwrap()
    }

    /// The next poll, answered; for how much it asked.
    async fn answered(&mut self, answer: Answer) -> Extent {
        let (extent, sender) = self.begun().await;
        sender.send(answer).unwrap();
        extent
    }

    async fn state(&mut self, wanted: impl FnMut(&SourceState) -> bool) -> SourceState {
        let wait = self.state.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("the state comes")
            .unwrap()
            .clone()
    }
}

impl Drop for SteeredFixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn unreachable() -> Answer {
    Err(SourceErrorKind::Unreachable { cause: "Connection refused".to_owned() })
}

#[tokio::test]
async fn a_requested_reload_asks_for_everything_until_it_is_there_and_a_tick_for_changes() {
    let mut fixture = SteeredFixture::start(SOON);
    assert_eq!(fixture.answered(Ok(good(&[("a", "m1")]))).await, Extent::Changes);
    fixture.state(polled).await;
    fixture.requests.request();
    assert_eq!(fixture.answered(Ok(good(&[("a", "m1")]))).await, Extent::Changes);
    fixture.state(|state| state.answered == 1).await;
    fixture.requests.request_everything();
    fixture.requests.request();
    assert_eq!(fixture.answered(unreachable()).await, Extent::Everything);
    assert_eq!(
        fixture.answered(Ok(good(&[]))).await,
        Extent::Everything,
        "what was asked for is still owed"
    );
    fixture.state(|state| state.answered == 3 && state.status.entries == Some(0)).await;
    fixture.requests.request();
    assert_eq!(fixture.answered(Ok(good(&[]))).await, Extent::Changes);
}

#[tokio::test]
async fn a_reload_does_not_wait_for_a_poll_that_hangs() {
    let mut fixture = SteeredFixture::start(Pacing { late: Duration::from_millis(1), ..NEVER });
    let (_, hanging) = fixture.begun().await;
    fixture.requests.request();
    let request = fixture.requests.request_everything();
    assert_eq!(fixture.answered(Ok(good(&[("a", "m2")]))).await, Extent::Everything);
    let state = fixture.state(|state| state.answered == request).await;
    assert_eq!(state.snapshot.unwrap().entries.get("a"), Some("m2"));
    assert!(hanging.is_closed(), "its answer would be an older one");
    fixture.requests.request();
    assert_eq!(
        fixture.answered(Ok(good(&[("a", "m2")]))).await,
        Extent::Changes,
        "one poll again, from where the last one ended"
    );
}

#[tokio::test]
async fn reloads_in_a_row_get_polls_of_their_own_and_a_slow_registry_is_heard_all_the_same() {
    let mut fixture = SteeredFixture::start(Pacing { late: Duration::from_millis(1), ..NEVER });
    let (_, first) = fixture.begun().await;
    fixture.requests.request_everything();
    let (_, second) = fixture.begun().await;
    let latest = fixture.requests.request_everything();
    let (_, third) = fixture.begun().await;
    assert!(
        second.is_closed() && !first.is_closed(),
        "the latest poll is replaced, the first one goes on"
    );
    first.send(Ok(good(&[("a", "m1")]))).unwrap();
    let state = fixture.state(polled).await;
    assert_eq!(state.answered, 0, "the first poll began before the requests");
    third.send(Ok(good(&[("a", "m2")]))).unwrap();
    let state = fixture.state(|state| state.answered == latest).await;
    assert_eq!(state.snapshot.unwrap().entries.get("a"), Some("m2"));
}

#[tokio::test]
async fn a_poll_beside_one_that_hangs_tells_its_failure_at_once() {
    let mut fixture = SteeredFixture::start(Pacing { late: Duration::from_millis(1), ..NEVER });
    let (_, _hanging) = fixture.begun().await;
    let request = fixture.requests.request_everything();
    fixture.answered(unreachable()).await;
    let state = fixture.state(|state| state.answered == request).await;
    assert!(state.status.error.unwrap().contains("Connection refused"));
}

#[tokio::test]
async fn reloads_in_a_loop_are_a_few_polls_and_each_is_answered() {
    let spacing = Duration::from_millis(50);
    let mut fixture = SteeredFixture::start(Pacing { spacing, ..NEVER });
    let began = Instant::now();
    fixture.answered(Ok(good(&[]))).await;
    fixture.state(polled).await;
    let mut polls = 1;
    while fixture.state.borrow().answered < 1000 {
        for _ in 0..200.min(1000 - fixture.state.borrow().answered) {
            fixture.requests.request_everything();
        }
        fixture.answered(Ok(good(&[]))).await;
        polls += 1;
        let covered = fixture.requests.subscribe().borrow().latest;
        fixture.state(|state| state.answered == covered).await;
    }
    let most = began.elapsed().as_millis() / spacing.as_millis() + 1;
    assert!(
        polls <= most && polls <= 7,
        "{polls} polls for 1000 requests, where the time allows {most}"
    );
}

#[tokio::test]
async fn a_registry_that_asks_for_rest_is_left_alone_but_for_a_reload() {
    let mut fixture = SteeredFixture::start(SOON);
    let busy = |rest| {
        Err(SourceErrorKind::Status {
            status: 503,
            meaning: "busy".to_owned(),
            retry_after: Some(rest),
        })
    };
    fixture.answered(busy(DAY)).await;
    fixture.state(polled).await;
    for asks in [PollRequests::request, PollRequests::request_everything_at_leisure] {
        let tick = asks(&fixture.requests);
        let state = fixture.state(|state| state.answered == tick).await;
        assert!(
            state.status.error.is_some(),
            "the other sources need not wait for it: its failure stands"
        );
        assert!(fixture.polls.try_recv().is_err(), "nothing was asked");
    }

    let request = fixture.requests.request_everything();
    let (rest, began) = (Duration::from_millis(200), Instant::now());
    fixture.answered(busy(rest)).await;
    fixture.state(|state| state.answered == request).await;
    fixture.answered(Ok(good(&[]))).await;
    assert!(began.elapsed() >= rest, "by itself it is asked after its rest, {:?}", began.elapsed());
    fixture.state(|state| state.status.error.is_none()).await;
}
