//! A line to ZooKeeper that is cut, garbled or silent from any byte: an answer is whole, or none.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith::source::Extent;
use serde_json::json;

use super::{ZooKeeper, listed, names, poll, registry};
use crate::support::tcp_proxy::{Line, TcpProxy};

/// More than the bytes of all answers of a poll.
const MOST: usize = 700;

/// Longer than a poll may take.
const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn whatever_byte_the_line_breaks_at_an_answer_is_whole_or_none() {
    let zookeeper = ZooKeeper::start();
    for number in 1..4 {
        let server = json!({"address": format!("10.0.0.{number}"), "port": 80});
        zookeeper.create(&format!("/web/n{number}"), &server.to_string());
    }
    let proxy = TcpProxy::start(zookeeper.address());
    let registry = registry(json!({
        "servers": [proxy.address().to_string()],
        "session_timeout": "1s",
        "timeout": "1500ms",
    }));
    let mut list = listed(registry.as_ref(), &json!({"format": ["proxymgr"], "path": ["/web"]}));
    let whole = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    assert_eq!(names(&poll(&mut list).await), whole);
    let (mut answers, mut failures) = (0, 0);
    let cut = (0..MOST).step_by(29).map(Line::CutAfter);
    let garbled = (0..MOST).step_by(173).map(Line::GarbledFrom);
    for line in cut.chain(garbled).chain([41, 300].map(Line::SilentAfter)) {
        proxy.set(line);
        let began = Instant::now();
        match list.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await {
            Ok(polled) => {
                let found = names(&polled);
                // What a child holds has no checksum: one that is garbled is rejected.
                let garbled = polled.entries.rejected.len();
                assert_eq!(found.len() + garbled, whole.len(), "{line:?}");
                assert!(found.iter().all(|name| whole.contains(name)), "{line:?}: {found:?}");
                assert!(garbled == 0 || matches!(line, Line::GarbledFrom(_)), "{line:?}");
                answers += 1;
            }
            Err(_) => failures += 1,
        }
        assert!(began.elapsed() < BOUND, "{line:?} took {:?}", began.elapsed());
    }
    assert!(failures > 15, "{failures} failures, {answers} answers: the line was not spoilt");
    proxy.set(Line::Good);
    // One answer may be late on a busy machine.
    let began = Instant::now();
    let polled = loop {
        match list.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await {
            Ok(polled) => break polled,
            Err(error) => assert!(began.elapsed() < BOUND, "{error}"),
        }
    };
    assert_eq!(names(&polled), whole);
}
