//! The ground the other tests stand on: that the servers of `support` do what they promise, and the
//! facts about HAProxy and PuppetDB that the code relies on, each held against the real process in
//! every version that is installed.

mod haproxy;
mod puppetdb;
mod server_lists;
mod servers;
mod tables;
