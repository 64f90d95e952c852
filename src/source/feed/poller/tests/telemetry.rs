//! What a poller counts and logs.

use std::cell::RefCell;

use mapsmith_core::Rejections;
use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

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

#[test]
fn what_is_compared_and_never_applied_is_told_so_in_each_metric() {
    let labels = |use_of_it| {
        let labels = labels_of("zk".to_owned(), use_of_it);
        labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect::<Vec<_>>()
    };
    assert_eq!(labels(Use::Applied), ["source=zk"]);
    assert_eq!(labels(Use::Compared), ["source=zk", "shadow=true"]);
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
