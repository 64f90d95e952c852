//! A line to etcd that is cut, garbled or silent from any byte: an answer is whole, or none.

use std::time::Instant;

use jiff::Timestamp;
use mapsmith::source::Extent;
use serde_json::json;

use super::{BOUND, Etcd, changes, names, poll, registry, web};
use crate::support::tcp_proxy::{Line, TcpProxy};

/// More than the bytes of all answers of a poll.
const MOST: usize = 600;

#[tokio::test]
async fn whatever_byte_the_line_breaks_at_an_answer_is_whole_or_none() {
    let etcd = Etcd::start();
    for number in 1..4 {
        etcd.put(&format!("/web/n{number}"), &format!("10.0.0.{number}:80"));
    }
    let proxy = TcpProxy::start(etcd.address());
    let endpoint = format!("http://{}", proxy.address());
    let registry = registry(json!({"endpoints": [endpoint], "timeout": "2s"}));
    let mut list = web(registry.as_ref());
    let whole = ["n1", "n2", "n3"];
    assert_eq!(names(&poll(&mut list).await), whole);
    let (mut answers, mut failures) = (0, 0);
    let cut = (0..MOST).step_by(23).map(Line::CutAfter);
    let garbled = (0..MOST).step_by(97).map(Line::GarbledFrom);
    for line in cut.chain(garbled).chain([41, 200].map(Line::SilentAfter)) {
        proxy.set(line);
        let began = Instant::now();
        match list.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await {
            Ok(polled) => {
                assert_eq!(names(&polled), whole, "{line:?}");
                assert_eq!(polled.entries.rejected.len(), 0, "{line:?}");
                answers += 1;
            }
            Err(_) => failures += 1,
        }
        assert!(began.elapsed() < BOUND, "{line:?} took {:?}", began.elapsed());
    }
    assert!(failures > 8, "{failures} failures, {answers} answers: the line was not spoilt");
    // And the watch is one again.
    proxy.set(Line::Good);
    assert_eq!(names(&poll(&mut list).await), whole);
    etcd.delete("/web/n1");
    changes(&mut list, "a change over the line that is good again").await;
    assert_eq!(names(&poll(&mut list).await), whole[1..]);
}
