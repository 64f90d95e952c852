//! How requests wait for a master that is busy, and for how long.

use super::{REDISPATCHING, SEPARATE, assert_unavailable, masters, plan, rendered, said};
use crate::support::haproxy::installed;
use crate::support::shipped::{BACKEND_PER_MASTER, REDISPATCH};

/// The shapes, shipped and rendered, each with a backend that has the first master.
const SHAPES: [(&str, &str); 4] = [
    (REDISPATCH, "puppet"),
    (BACKEND_PER_MASTER, "master1"),
    (rendered::REDISPATCH, "puppet"),
    (rendered::BACKEND_PER_MASTER, "master1"),
];

/// Longer than any test takes: for those that are about something else.
const LONG: &str = "120s";

#[test]
fn what_waits_is_served_by_class_and_a_long_poll_that_runs_keeps_its_slot() {
    for binary in installed() {
        for (shape, backend) in SHAPES {
            let masters = masters();
            let gateway = plan(binary, shape, &masters).slots(1).set("QUEUE_TIMEOUT", LONG).start();
            masters[0].hold();
            let mut requests = vec![gateway.start("GET", "/running?wait=60", "web1")];
            gateway.wait_for("a long poll has the only slot", || {
                (masters[0].running() == 1).then_some(())
            });
            let waiting = [
                ("GET", "/poll1?wait=60"),
                ("GET", "/poll2?wait=60"),
                ("GET", "/read1"),
                ("GET", "/read2"),
                ("POST", "/command1"),
                ("POST", "/command2?wait=60"),
            ];
            for (number, (method, path)) in waiting.into_iter().enumerate() {
                requests.push(gateway.start(method, path, "web1"));
                gateway.wait_for_queue(backend, number + 1);
            }
            assert_eq!(
                masters[0].served(),
                ["GET /running?wait=60"],
                "a command, too, waits for the long poll"
            );
            // Another master's requests wait for nothing.
            assert_eq!(said(&gateway.ask("GET", "/", "web2")), (200, "master2"));
            masters[0].release();
            for request in requests {
                assert_eq!(
                    request.join().expect("it does not panic").expect("an answer").status,
                    200
                );
            }
            let order = [
                "GET /running?wait=60",
                "POST /command1",
                "POST /command2?wait=60",
                "GET /read1",
                "GET /read2",
                "GET /poll1?wait=60",
                "GET /poll2?wait=60",
            ];
            assert_eq!(masters[0].served(), order, "{:?} {shape}", binary.version);
        }
    }
}

#[test]
fn a_full_queue_is_answered_at_once_and_no_other_master_is_asked() {
    for binary in installed() {
        for (shape, backend, text) in [
            (
                REDISPATCHING,
                "puppet",
                "The queue of the master master1, which owns the node web1, is full.",
            ),
            (
                SEPARATE,
                "master1",
                "Neither the master master1, which owns the node web1, nor a stand-in takes the \
                    request now: try again later.",
            ),
        ]
        .into_iter()
        .flat_map(|(shapes, backend, text)| shapes.map(|shape| (shape, backend, text)))
        {
            let masters = masters();
            let gateway = plan(binary, shape, &masters)
                .slots(1)
                .set("MASTER_MAXQUEUE", "2")
                .set("QUEUE_TIMEOUT", LONG)
                .start();
            masters[0].hold();
            let mut requests = vec![gateway.start("GET", "/", "web1")];
            gateway
                .wait_for("the only slot is taken", || (masters[0].running() == 1).then_some(()));
            for length in 1..=2 {
                requests.push(gateway.start("GET", "/", "web1"));
                gateway.wait_for_queue(backend, length);
            }
            // Were it queued instead, the answer would never come: the slot is ours to free.
            assert_unavailable(&gateway.ask("POST", "/", "web1"), text);
            assert!(masters.iter().all(|master| master.misdirected() == 0));
            masters[0].release();
            for request in requests {
                assert_eq!(
                    request.join().expect("it does not panic").expect("an answer").status,
                    200
                );
            }
        }
    }
}

#[test]
fn a_maxqueue_on_the_servers_would_send_the_overflow_to_masters_that_do_not_own_the_node() {
    for binary in installed() {
        let masters = masters();
        let gateway = plan(binary, REDISPATCH, &masters)
            .slots(1)
            .set("QUEUE_TIMEOUT", LONG)
            .instead_of(
                r#"maxconn "${MASTER_MAXCONN}""#,
                r#"maxconn "${MASTER_MAXCONN}" maxqueue 1"#,
            )
            .start();
        masters[0].hold();
        let mut requests = vec![gateway.start("GET", "/", "web1")];
        gateway.wait_for("the only slot is taken", || (masters[0].running() == 1).then_some(()));
        requests.push(gateway.start("GET", "/", "web1"));
        gateway.wait_for_queue("puppet", 1);
        assert_eq!(gateway.ask("GET", "/", "web1").status, 404);
        assert!(masters[1].misdirected() + masters[2].misdirected() > 0);
        masters[0].release();
        for request in requests {
            assert_eq!(request.join().expect("it does not panic").expect("an answer").status, 200);
        }
    }
}

#[test]
fn who_has_waited_too_long_is_told_to_come_back() {
    for binary in installed() {
        for (shape, text) in [
            (
                REDISPATCHING,
                "No master takes the request for the node web1 now (3 up): try again later.",
            ),
            (
                SEPARATE,
                "Neither the master master1, which owns the node web1, nor a stand-in takes the \
                    request now: try again later.",
            ),
        ]
        .into_iter()
        .flat_map(|(shapes, text)| shapes.map(|shape| (shape, text)))
        {
            let masters = masters();
            let gateway =
                plan(binary, shape, &masters).slots(1).set("QUEUE_TIMEOUT", "100ms").start();
            masters[0].hold();
            let running = gateway.start("GET", "/", "web1");
            gateway
                .wait_for("the only slot is taken", || (masters[0].running() == 1).then_some(()));
            assert_unavailable(&gateway.ask("POST", "/late", "web1"), text);
            masters[0].release();
            assert_eq!(running.join().expect("it does not panic").expect("an answer").status, 200);
            assert_eq!(masters[0].served(), ["GET /"], "what was told to come back was not run");
        }
    }
}

#[test]
fn a_greater_maxconn_set_at_runtime_lets_what_waits_go_on_at_once() {
    for binary in installed() {
        for (shape, backend) in SHAPES {
            let masters = masters();
            // One thread, so that no two requests that come together take the one slot both.
            let gateway = plan(binary, shape, &masters)
                .threads(1)
                .slots(1)
                .set("QUEUE_TIMEOUT", LONG)
                .start();
            masters[0].hold();
            let requests: Vec<_> = (0..5).map(|_| gateway.start("GET", "/", "web1")).collect();
            gateway.wait_for_queue(backend, 4);
            gateway.wait_for("one runs", || (masters[0].running() == 1).then_some(()));
            assert_eq!(
                gateway.command(&format!("set maxconn server {backend}/master1 3")).trim(),
                ""
            );
            // None has ended: it is the command that lets two more in.
            gateway.wait_for("three run", || (masters[0].running() == 3).then_some(()));
            gateway.wait_for_queue(backend, 2);
            masters[0].release();
            for request in requests {
                assert_eq!(
                    request.join().expect("it does not panic").expect("an answer").status,
                    200
                );
            }
            assert_eq!(masters[0].most_running(), 3);
        }
    }
}

#[test]
fn a_servers_maxqueue_cannot_be_set_at_runtime() {
    for binary in installed() {
        let masters = masters();
        let gateway = plan(binary, REDISPATCH, &masters).start();
        for command in
            ["set server puppet/master1 maxqueue 9", "set maxqueue server puppet/master1 9"]
        {
            let reply = gateway.command(command);
            assert!(!reply.trim().is_empty(), "{:?}: {command} is taken", binary.version);
        }
    }
}

#[test]
fn maxconn_and_queue_are_the_process_s_whatever_its_threads() {
    for binary in installed() {
        for threads in [1, 2, 4] {
            let masters = masters();
            let gateway = plan(binary, REDISPATCH, &masters)
                .threads(threads)
                .slots(3)
                .set("QUEUE_TIMEOUT", LONG)
                .start();
            masters[0].hold();
            let requests: Vec<_> = (0..16).map(|_| gateway.start("GET", "/", "web1")).collect();
            gateway.wait_for("all have come, and run or wait", || {
                (masters[0].running() + gateway.queue("puppet") == 16).then_some(())
            });
            masters[0].release();
            for request in requests {
                assert_eq!(
                    request.join().expect("it does not panic").expect("an answer").status,
                    200
                );
            }
            // Threads that look at the same moment may each let one in (4 were seen with 4
            // threads); three a thread would be more.
            let most = masters[0].most_running();
            assert!(
                (3..3 + threads as usize).contains(&most),
                "{most} at once, {:?} with {threads} threads",
                binary.version
            );
        }
    }
}
