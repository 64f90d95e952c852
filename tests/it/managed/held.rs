//! Sockets that Mapsmith holds for HAProxy.

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::{BINARY, Mapsmith};
use crate::support::scene::oldest_and_newest;
use crate::support::{eventually, free_port, run};

#[test]
fn nobody_is_refused_while_a_killed_haproxy_is_started_again_before_and_after_a_restart() {
    for binary in installed() {
        let ground = Ground::new(binary);
        let config = Mapsmith::config(&ground.settings("one", ""))
            .variable("MAPSMITH__HAPROXY__HOLD_SOCKETS", "true");
        let mut managed = Managed { mapsmith: config.start(), ground };
        managed.wait_for_state("in_force");
        managed.ground.wait_for_word("one");
        for _ in 0..2 {
            let before = managed.ground.master();
            run("kill", &["-9", &before.to_string()]);
            // The kernel takes connections for whoever comes.
            let mut connected = 0;
            eventually("HAProxy is started again", PATIENCE, || {
                TcpStream::connect(managed.ground.web).expect("not refused");
                connected += 1;
                let status = managed.status();
                let master = status["process"]["master_pid"].as_u64()?;
                (master != u64::from(before)).then_some(())
            });
            assert!(connected > 1);
            managed.ground.wait_for_word("one");
            managed.wait_for_state("in_force");
            managed.mapsmith.restart();
            managed.wait_for_state("in_force");
        }
        // It is reloaded with the same sockets.
        managed.change("two", "");
        managed.ground.wait_for_word("two");
    }
}

#[test]
fn a_changed_bind_is_held_from_the_next_start_on() {
    for binary in oldest_and_newest() {
        let ground = Ground::new(binary);
        let config = Mapsmith::config(&ground.settings("one", ""))
            .variable("MAPSMITH__HAPROXY__HOLD_SOCKETS", "true");
        let mut managed = Managed { mapsmith: config.start(), ground };
        managed.wait_for_state("in_force");
        let before = managed.ground.web;
        managed.ground.web.set_port(free_port());
        managed.change("two", "");
        managed.wait_for_word("two");
        managed.wait_for_state("in_force");
        let file = managed.ground.file("haproxy.cfg");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&managed.ground.web.to_string()), "it listens by itself: {text}");
        let restarted =
            managed.mapsmith.configuration().cli(&["haproxy", "restart", "--grace", "0s"]);
        assert!(restarted.status.success(), "{restarted:?}");
        managed.wait_for_word("two");
        managed.wait_for_state("in_force");
        managed.mapsmith.wait_for("it listens on a held socket", PATIENCE, |_| {
            let text = fs::read_to_string(&file).unwrap();
            let held = text.contains("bind 'fd@") || text.contains("bind fd@");
            (held && !text.contains(&managed.ground.web.to_string())).then_some(())
        });
        assert!(TcpStream::connect(before).is_err(), "the one before is closed");
    }
}

/// Takes what a service has systemd keep: its name, and the socket.
fn stored(store: &UnixDatagram) -> (String, OwnedFd) {
    let mut text = [0; 200];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = RecvAncillaryBuffer::new(&mut space);
    store.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut slices = [IoSliceMut::new(&mut text)];
    let got = recvmsg(store, &mut slices, &mut passed, RecvFlags::CMSG_CLOEXEC)
        .expect("a socket is stored");
    let socket = passed.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let text = String::from_utf8_lossy(&text[..got.bytes]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    assert!(text.contains("FDSTORE=1"), "{text}");
    (name.expect("it has a name").to_owned(), socket.expect("a descriptor is passed"))
}

/// Ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_is_refused_where_mapsmith_and_haproxy_have_ended_and_systemd_has_the_sockets() {
    let ground = Ground::new(&installed()[0]);
    let store = UnixDatagram::bind(ground.file("notify")).unwrap();
    let notify = ground.file("notify").display().to_string();
    let settings =
        ground.settings("one", "").replace("[haproxy]\n", "[haproxy]\nhold_sockets = true\n");
    let config = Mapsmith::config(&settings).variable("NOTIFY_SOCKET", &notify);
    let mut managed = Managed { mapsmith: config.start(), ground };
    managed.wait_for_state("in_force");
    let (name, socket) = stored(&store);
    let master = managed.ground.master();
    managed.mapsmith.kill();
    run("kill", &["-9", &master.to_string()]);
    eventually("HAProxy is gone", PATIENCE, || {
        (!fs::exists(format!("/proc/{master}")).unwrap_or(true)).then_some(())
    });
    let mut waiting = TcpStream::connect(managed.ground.web).expect("not refused");
    waiting
        .write_all(b"GET /word HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("the kernel takes it");
    // As systemd starts it: the socket is the first descriptor after the standard ones.
    let start = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let log = fs::File::create(managed.ground.file("second.log")).unwrap();
    let child = Command::new("sh")
        .args(["-c", start, "sh", BINARY, "run", "-c"])
        .arg(managed.mapsmith.configuration().path())
        .env("LISTEN_FDNAMES", name)
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::from(socket.try_clone().unwrap()))
        .stderr(log)
        .spawn()
        .expect("sh starts");
    let _started = Started(child);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    let read = waiting.read_to_string(&mut answer);
    let log = fs::read_to_string(managed.ground.file("second.log")).unwrap();
    assert!(answer.ends_with("one"), "{read:?} {answer:?}: {log}");
}
