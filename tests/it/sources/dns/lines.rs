//! A line to a name server that is cut, garbled or silent from any byte: an answer is whole, or
//! none.

use std::net::UdpSocket;
use std::thread;
use std::time::Instant;

use super::{Bind, Name, host, json, truncated};
use crate::support::scene::BOUND;
use crate::support::tcp_proxy::{Line, TcpProxy};

/// More than the bytes of an answer with three addresses.
const MOST: usize = 110;
/// Behind its header and question there is nothing that shows damage: that is for TCP to tell.
const CHECKED: usize = 14;

/// A proxy in front of a name server that says over UDP to ask over TCP.
fn over_tcp(bind: &Bind) -> TcpProxy {
    loop {
        let proxy = TcpProxy::start(bind.address().parse().unwrap());
        // Another process may have the port there.
        let Ok(udp) = UdpSocket::bind(proxy.address()) else { continue };
        thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut question) {
                let _ = udp.send_to(&truncated(&question[..length]), client);
            }
        });
        return proxy;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_byte_the_line_breaks_at_an_answer_is_whole_or_none() {
    let records = [1, 2, 3].map(|last| format!("web.example.test. A 10.0.0.{last}"));
    let bind = Bind::start(&records.each_ref().map(String::as_str));
    let proxy = over_tcp(&bind);
    let settings = json!({"query_timeout": "250ms", "attempts": 1, "nodata": "empty"});
    let mut from = host(super::WEB);
    from["family"] = "ipv4".into();
    let mut web = Name::new(&[proxy.address().to_string()], settings, from);
    let whole = [1, 2, 3].map(|last| format!("10.0.0.{last}:8080 10.0.0.{last}:8080"));
    let (mut answers, mut failures) = (0, 0);
    let cut = (0..MOST).step_by(3).map(Line::CutAfter);
    let garbled = (0..CHECKED).map(Line::GarbledFrom);
    for line in cut.chain(garbled).chain([1, 50].map(Line::SilentAfter)) {
        proxy.set(line);
        let began = Instant::now();
        match web.poll().await {
            Ok(polled) => {
                assert_eq!(super::described(&polled), whole, "{line:?}");
                answers += 1;
            }
            Err(message) => {
                assert!(message.starts_with("web.example.test (A): 127.0.0.1:"), "{message}");
                failures += 1;
            }
        }
        assert!(began.elapsed() < BOUND, "{line:?} took {:?}", began.elapsed());
    }
    assert!(failures > 20, "{failures} failures, {answers} answers: the line was not spoilt");
    proxy.set(Line::Good);
    // One answer may be late on a busy machine.
    let began = Instant::now();
    let found = loop {
        match web.poll().await {
            Ok(polled) => break super::described(&polled),
            Err(message) => assert!(began.elapsed() < BOUND, "{message}"),
        }
    };
    assert_eq!(found, whole);
}
