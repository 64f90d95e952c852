//! A line to Consul that is cut, garbled or silent from any byte: an answer is whole, or none.

use std::time::Instant;

use jiff::Timestamp;
use mapsmith::source::Extent;
use serde_json::json;

use super::many::{instances, names, registry};
use crate::support::consul::{Consul, Service};
use crate::support::scene::BOUND;
use crate::support::tcp_proxy::{Line, TcpProxy};

/// More than the bytes of an answer, which Consul compresses.
const MOST: usize = 1_200;

#[tokio::test]
async fn whatever_byte_the_line_breaks_at_an_answer_is_whole_or_none() {
    let consul = Consul::start();
    for number in 1..4 {
        consul.register(&Service::new(&format!("w{number}"), "web", "10.0.0.1", 80 + number));
    }
    let proxy = TcpProxy::start(consul.address());
    let (registry, _token) =
        registry(&consul, json!({"url": format!("http://{}", proxy.address()), "timeout": "2s"}));
    let mut list = instances(registry.as_ref());
    let poll = async |list: &mut Box<dyn mapsmith::source::Feed<_>>| {
        list.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await
    };
    let whole = ["node-w1:w1", "node-w2:w2", "node-w3:w3"];
    assert_eq!(names(&poll(&mut list).await.unwrap()), whole);
    let (mut answers, mut failures) = (0, 0);
    let cut = (0..MOST).step_by(23).map(Line::CutAfter);
    let garbled = (0..MOST).step_by(97).map(Line::GarbledFrom);
    for line in cut.chain(garbled).chain([41, 500].map(Line::SilentAfter)) {
        proxy.set(line);
        let began = Instant::now();
        match poll(&mut list).await {
            Ok(polled) => {
                assert_eq!(names(&polled), whole, "{line:?}");
                assert_eq!(polled.entries.rejected.len(), 0, "{line:?}");
                answers += 1;
            }
            Err(_) => failures += 1,
        }
        assert!(began.elapsed() < BOUND, "{line:?} took {:?}", began.elapsed());
    }
    assert!(failures > 20, "{failures} failures, {answers} answers: the line was not spoilt");
    // And what changes is told again.
    proxy.set(Line::Good);
    assert_eq!(names(&poll(&mut list).await.unwrap()), whole);
    consul.deregister("w1");
    let changed = tokio::time::timeout(BOUND, list.changed()).await;
    assert!(changed.is_ok(), "a change over the line that is good again was not told");
    assert_eq!(names(&poll(&mut list).await.unwrap()), whole[1..]);
}
