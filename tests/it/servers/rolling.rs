//! Servers are replaced one by one while requests come in: eight of them, twenty with
//! `MAPSMITH_TEST_LONG`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use super::{answering, assert_none_failed, empty_backend};
use crate::support::haproxy::installed;
use crate::support::load::Load;
use crate::support::master::Master;
use crate::support::pool::{Pool, settles};
use crate::support::scene::BOUND;

/// The load takes what processor time there is, so one of these tests runs at a time.
static ROLLING: Mutex<()> = Mutex::new(());

/// The servers' addresses, each with the name of its place.
fn named(running: &[Master], name: impl Fn(usize) -> String) -> Vec<(String, SocketAddr)> {
    running.iter().enumerate().map(|(at, master)| (name(at), master.address())).collect()
}

fn borrowed(list: &[(String, SocketAddr)]) -> Vec<(&str, SocketAddr)> {
    list.iter().map(|(name, address)| (name.as_str(), *address)).collect()
}

/// Servers, each replaced by one at a new address while requests come in all the time.
fn rolling_replacement(version: (u32, u32), keep_names: bool) {
    let Some(binary) = installed().iter().find(|binary| binary.version == version) else {
        println!("HAProxy {version:?} is not installed here");
        return;
    };
    let _alone = ROLLING.lock().unwrap_or_else(PoisonError::into_inner);
    let long = std::env::var_os("MAPSMITH_TEST_LONG").is_some();
    let count = if long { 20 } else { 8 };
    let mut running: Vec<Master> = (0..count).map(|_| Master::start("old")).collect();
    let gateway = empty_backend(binary);
    let pool = Pool::start(&[]);
    let write = |running: &[Master]| {
        // Where names are not kept the registry gives none, and they follow the addresses.
        pool.lists(&borrowed(&named(running, |at| match keep_names {
            true => format!("s{at}"),
            false => String::new(),
        })));
    };
    write(&running);
    let mapsmith = pool
        .config(
            &gateway,
            &gateway.runtime_address(),
            "options = [\"check\", \"inter 100ms\"]\ndrain = \"30s\"",
            "",
        )
        .start();
    let settled = |running: &[Master]| {
        let wanted = named(running, |at| match keep_names {
            true => format!("s{at}"),
            false => running[at].address().to_string(),
        });
        settles(&gateway, &mapsmith, &borrowed(&wanted));
    };
    settled(&running);
    let pid = gateway.pid();
    let load = Load::start(gateway.http_address(), &["node1".to_owned()], 1);
    let mut retired = Vec::new();
    for at in 0..count {
        let old = std::mem::replace(&mut running[at], Master::start("new"));
        write(&running);
        // The file's watch alone starts a poll a second at most.
        assert_eq!(mapsmith.post("/v1/reload").0, 202);
        settled(&running);
        if keep_names {
            // Its address is no server's any more; requests that were under way on it go on to
            // their end.
            retired.push(old);
        } else {
            // The server is gone from HAProxy, so nothing can be under way on it.
            drop(old);
        }
    }
    let before = load.answered();
    mapsmith
        .wait_for("the load goes on", BOUND, |_| (load.answered() > before + 100).then_some(()));
    let answers = load.stop();
    assert_none_failed(&answers);
    assert!(
        answers.iter().any(|answer| answer.master == "old")
            && answers.iter().any(|answer| answer.master == "new")
    );
    assert_eq!(answering(&gateway, count), ["new"]);
    assert_eq!(gateway.pid(), pid, "no reload");
    println!("{version:?}: {} answers, none failed", answers.len());
}

#[test]
fn servers_move_to_new_addresses_without_a_failed_request_on_2_6() {
    rolling_replacement((2, 6), true);
}

#[test]
fn servers_move_to_new_addresses_without_a_failed_request_on_3_0() {
    rolling_replacement((3, 0), true);
}

#[test]
fn servers_move_to_new_addresses_without_a_failed_request_on_3_2() {
    rolling_replacement((3, 2), true);
}

#[test]
fn servers_are_replaced_by_others_without_a_failed_request_on_2_6() {
    rolling_replacement((2, 6), false);
}

#[test]
fn servers_are_replaced_by_others_without_a_failed_request_on_3_0() {
    rolling_replacement((3, 0), false);
}

#[test]
fn servers_are_replaced_by_others_without_a_failed_request_on_3_2() {
    rolling_replacement((3, 2), false);
}
