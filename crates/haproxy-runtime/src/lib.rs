#![doc = include_str!("../README.md")]
//!
//! # How it is built
//!
//! The clients ([`MapClient`], [`ServersClient`], [`TableClient`], [`CertClient`] over
//! [`RuntimeClient`], and [`MasterClient`]) are the edge and decide nothing; without the feature `client` they are not
//! there. Everything else is pure: commands as values or text, each beside the one parser that
//! judges its replies. HAProxy's management guide, section "Unix Socket commands", names the
//! commands; the replies' exact bytes were measured on 2.6 to 3.4 and are held by the tests.
#![warn(missing_docs)]

pub mod address;
pub mod cert;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod map;
pub mod master;
pub mod process;
pub mod server;
pub mod stats;
pub mod table;
pub mod version;
pub mod wire;

pub use address::RuntimeAddress;
#[cfg(feature = "client")]
pub use cert::client::CertClient;
#[cfg(feature = "client")]
pub use client::RuntimeClient;
pub use error::{ReplyError, RuntimeError};
#[cfg(feature = "client")]
pub use map::client::MapClient;
pub use map::{MapCounters, MapKind, MapName};
#[cfg(feature = "client")]
pub use master::client::MasterClient;
pub use process::{Level, Probe, ProcessInfo, Traffic};
#[cfg(feature = "client")]
pub use server::client::ServersClient;
pub use server::command::{
    BackendName, InvalidName, Refusal, ServerCommand, ServerPath, ServerState,
};
#[cfg(feature = "client")]
pub use stats::client::StatsClient;
#[cfg(feature = "client")]
pub use table::client::TableClient;
pub use table::{TableName, TableSize};
pub use version::HaproxyVersion;
