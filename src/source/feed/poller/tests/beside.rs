//! Polls beside one that is late, for how much is asked, and how often.

use tokio::sync::oneshot;

use super::*;

/// A feed of which several can be polled at once, each poll answered by hand.
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
    requested: watch::Receiver<Requested>,
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
        let round = requests.round();
        let requested = round.subscribe();
        let lookups = TargetedLookups::new();
        let poller = Poller::new("registry".to_owned(), round, &lookups, states, pacing);
        let end = shutdown.clone();
        tokio::spawn(async move {
            end.run_until_cancelled(poller.run(Box::new(Steered(sender)))).await;
        });
        Self { requests, requested, polls, state, shutdown }
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
        let covered = fixture.requested.borrow().latest;
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
