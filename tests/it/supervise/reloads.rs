//! A reload's outcome is known: loaded, refused with HAProxy's words, or that nobody can say.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use haproxy_runtime::master::Target;
use haproxy_runtime::{MasterClient, RuntimeAddress, RuntimeClient};
use mapsmith::supervise::reload::{Outcome, Reloader};

use super::{Folder, PATIENCE, Supervised, unseen};
use crate::support::eventually;
use crate::support::haproxy::installed;

#[tokio::test]
async fn a_good_configuration_is_in_force_in_a_new_worker() {
    for binary in installed() {
        let haproxy = Supervised::start(binary);
        let (reloader, master) = (haproxy.reloader(), haproxy.master());
        let mut before = master.processes().await.unwrap().workers[0].pid;
        for word in ["two", "three"] {
            haproxy.folder.write(&haproxy.folder.answering(word));
            let checked = haproxy.folder.check().await;
            match reloader.reload(&checked).await {
                Outcome::Loaded { worker, .. } => assert_ne!(worker, before),
                other => panic!("{other:?}\n{}", haproxy.process.log()),
            }
            haproxy.folder.comes_to_answer(word);
            before = master.processes().await.unwrap().workers[0].pid;
        }
        assert_eq!(master.processes().await.unwrap().master.reloads, 2);
    }
}

#[tokio::test]
async fn what_the_check_refuses_is_never_loaded() {
    for binary in installed() {
        let mut haproxy = Supervised::start(binary);
        // The first kills the master of 3.4; with the second nobody would serve.
        for text in ["frontend web\n    bind \"127.0.0.1\n", ""] {
            haproxy.folder.write(text);
            let checked = haproxy.folder.check().await;
            match haproxy.reloader().reload(&checked).await {
                Outcome::Refused { said } => assert_eq!(said, checked.alerts()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(haproxy.master().processes().await.unwrap().master.reloads, 0);
        assert_eq!(haproxy.folder.answer(), "one");
        assert_eq!(haproxy.process.exit_status(), None);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_the_old_worker_serves_on() {
    for binary in installed() {
        let haproxy = Supervised::start(binary);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let more = format!("frontend more\n    bind {taken}\n");
        haproxy.folder.write(&format!("{}{more}", haproxy.folder.answering("two")));
        let checked = haproxy.folder.check().await;
        assert!(checked.valid, "no check sees it");
        match haproxy.reloader().reload(&checked).await {
            Outcome::Refused { said } => assert!(said.contains(&taken.to_string()), "{said}"),
            other => panic!("{other:?}\n{}", haproxy.process.log()),
        }
        assert_eq!(haproxy.folder.answer(), "one");
        // The next good one is loaded.
        haproxy.folder.write(&haproxy.folder.answering("three"));
        let checked = haproxy.folder.check().await;
        let outcome = haproxy.reloader().reload(&checked).await;
        assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        haproxy.folder.comes_to_answer("three");
    }
}

#[tokio::test]
async fn a_text_that_the_master_dies_of_is_told_from_one_that_it_refuses() {
    for binary in installed() {
        let mut haproxy = Supervised::start(binary);
        haproxy.folder.write("frontend web\n    bind \"127.0.0.1\n");
        let outcome = haproxy.reloader().reload(&unseen()).await;
        if haproxy.process.exit_status().is_some() {
            assert!(matches!(outcome, Outcome::MasterDied { .. }), "{outcome:?}");
        } else {
            assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
            assert_eq!(haproxy.folder.answer(), "one");
        }
    }
}

#[tokio::test]
async fn reloads_that_are_asked_for_at_once_run_one_after_the_other() {
    for binary in installed() {
        let haproxy = Supervised::start(binary);
        let (reloader, checked) = (haproxy.reloader(), haproxy.folder.check().await);
        let outcomes = tokio::join!(
            reloader.reload(&checked),
            reloader.reload(&checked),
            reloader.reload(&checked)
        );
        for outcome in [outcomes.0, outcomes.1, outcomes.2] {
            assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        }
        assert_eq!(haproxy.master().processes().await.unwrap().master.reloads, 3);
    }
}

#[tokio::test]
async fn a_command_reloads_and_the_runtime_api_or_the_master_tells_what_came_of_it() {
    for binary in installed() {
        let haproxy = Supervised::start(binary);
        let checked = haproxy.folder.check().await;
        let signal = format!("echo reloading; kill -USR2 {}", haproxy.process.id());
        let words = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        let socket = RuntimeAddress::Unix(haproxy.folder.file("admin.sock"));
        let runtime = || Some(RuntimeClient::new(socket.clone(), PATIENCE));
        for (master, runtime) in [(None, runtime()), (Some(haproxy.master()), None)] {
            let reloader = Reloader::by_command(words(&signal), master, runtime, PATIENCE);
            match reloader.reload(&checked).await {
                Outcome::Loaded { said, .. } => assert_eq!(said, "reloading"),
                other => panic!("{other:?}\n{}", haproxy.process.log()),
            }
        }
        let failing = words("echo no such unit >&2; exit 5");
        let failing = Reloader::by_command(failing, None, runtime(), PATIENCE);
        let refused = Outcome::Refused { said: "no such unit".to_owned() };
        assert_eq!(failing.reload(&checked).await, refused);
        let nothing =
            Reloader::by_command(words("exit 0"), None, runtime(), Duration::from_millis(500));
        let outcome = nothing.reload(&checked).await;
        assert!(
            matches!(&outcome, Outcome::Refused { said } if said.contains("still serves")),
            "{outcome:?}"
        );
        let endless = words("sleep 1000");
        let bound = Duration::from_millis(500);
        match Reloader::by_command(endless, None, runtime(), bound).reload(&checked).await {
            Outcome::Unknown { why } => {
                assert!(why.starts_with("sh did not end within ") && why.ends_with("was stopped"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_master_that_is_not_there() {
    let folder = Folder::new(&installed()[0]);
    let master = MasterClient::new(folder.file("master.sock"), PATIENCE);
    match Reloader::by_master(master, None, PATIENCE).reload(&unseen()).await {
        Outcome::Unreachable { why } => assert!(why.contains("master.sock"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// A master of these answers: what each request begins with, and the answer to it. Nothing is
/// answered where the answer is missing, and the connection kept.
fn stand_in(folder: &Folder, answers: Vec<(&'static str, Option<String>)>) -> MasterClient {
    let socket = folder.file("stand-in.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let Some((begins, answer)) = answers.next() else { return };
            assert!(line.starts_with(begins), "{line:?} instead of {begins:?}");
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => kept.push(stream),
            }
        }
    });
    MasterClient::new(socket, PATIENCE)
}

fn listing(reloads: u32, worker: u32, uptime: u32) -> Option<String> {
    Some(format!(
        "#<PID> <type> <reloads> <uptime> <version>\n7 master {reloads} [failed: 0] 0d00h00m09s \
        2.6.12\n# workers\n{worker} worker {} 0d00h00m0{uptime}s 2.6.12\n# programs\n\n",
        u32::from(uptime > 1) * reloads
    ))
}

#[tokio::test]
async fn no_answer_in_time_is_neither_a_success_nor_a_failure() {
    let folder = Folder::new(&installed()[0]);
    let mut answers = vec![("show proc", listing(4, 11, 5)), ("reload", None)];
    answers.extend(std::iter::repeat_n(("show proc", listing(5, 11, 5)), 100));
    let master = stand_in(&folder, answers);
    let bound = Duration::from_millis(300);
    let outcome = Reloader::by_master(master, None, bound).reload(&unseen()).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_request_that_the_master_lost_is_sent_again() {
    let haproxy = Supervised::start(&installed()[0]);
    // Between the two a proxy that loses the first request, as 2.6 does under load.
    let lost = haproxy.folder.file("losing.sock");
    let listener = UnixListener::bind(&lost).unwrap();
    let real = haproxy.folder.file("master.sock");
    thread::spawn(move || {
        let mut has_lost = false;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if line == "reload\n" && !has_lost {
                has_lost = true;
                continue;
            }
            // It can't be reached for a moment while it reloads.
            let Ok(mut master) = UnixStream::connect(&real) else { continue };
            let _ = master.write_all(line.as_bytes());
            let _ = master.shutdown(Shutdown::Write);
            let _ = io::copy(&mut master, &mut stream);
        }
    });
    let master = MasterClient::new(lost, PATIENCE);
    let outcome = Reloader::by_master(master, None, PATIENCE).reload(&unseen()).await;
    assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
    assert_eq!(haproxy.master().processes().await.unwrap().master.reloads, 1);
}

#[tokio::test]
async fn old_workers_are_listed_and_asked_until_their_connections_end() {
    for binary in installed() {
        let haproxy = Supervised::start(binary);
        let mut open = TcpStream::connect(haproxy.folder.address).unwrap();
        open.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let master = haproxy.master();
        let old = master.processes().await.unwrap().workers[0].pid;
        let outcome = haproxy.reloader().reload(&unseen()).await;
        assert!(matches!(outcome, Outcome::Loaded { .. }), "{outcome:?}");
        let listed = master.processes().await.unwrap();
        assert_eq!(listed.old_workers.iter().map(|worker| worker.pid).collect::<Vec<_>>(), [old]);
        let target = Target::Pid(old);
        let info = master.worker(target).await.unwrap();
        assert!(info.stopping && info.connections >= 1 && info.pid == old, "{info:?}");
        open.write_all(b"Host: x\r\n\r\n").unwrap();
        drop(open);
        eventually("the old worker ends", PATIENCE, || {
            (!haproxy.listed()?.contains("# old workers")).then_some(())
        });
    }
}
