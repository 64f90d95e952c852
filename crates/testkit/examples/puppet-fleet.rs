//! The tests' Puppet fleet for `scripts/demo-puppet`: PuppetDB, two Puppet Servers with guards, and
//! a gateway. It prints `name=value` lines about them, then obeys orders on standard input, and ends
//! with that.
//!
//! The orders are `kill MASTER` and `start MASTER`; each is answered by the line `done`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it prints what the script reads, and ends where something is not as it must be"
)]

use std::io;

use testkit::haproxy;
use testkit::puppet::Fleet;

fn main() {
    let fleet = Fleet::shared();
    let site = fleet.site(haproxy::own());
    let (gateway, puppetdb) = (site.gateway(), fleet.puppetdb());
    println!("gateway={}", site.address());
    println!("runtime={}", gateway.runtime());
    println!("map={}", gateway.map());
    println!("puppetdb={}", puppetdb.tls_url());
    println!("ca={}", puppetdb.ca().display());
    println!("cert={}", puppetdb.certificate("gateway").display());
    println!("key={}", puppetdb.key("gateway").display());
    for (master, guard) in fleet.masters().iter().zip(site.guards()) {
        println!("{}={}", master.name(), guard.address());
    }
    println!("ready=yes");
    for order in io::stdin().lines() {
        let order = order.expect("orders are text");
        let Some((verb, name)) = order.split_once(' ') else { panic!("no order: {order:?}") };
        let master = fleet.masters().iter().find(|master| master.name() == name);
        let master = master.unwrap_or_else(|| panic!("no such master: {name:?}"));
        match verb {
            "kill" => master.kill(),
            "start" => master.restart(),
            _ => panic!("no order: {order:?}"),
        }
        println!("done");
    }
}
