//! HAProxy's runtime API: what is said over a stats socket, and what the answers mean.
//!
//! `codec`, `command` and `reply` are pure. `client` is the edge; it decides nothing. HAProxy's management guide, section
//! "Unix Socket commands", names the commands; the replies' exact bytes were measured on 2.6 to 3.4 and are held by the tests.

pub mod client;
pub mod codec;
pub mod command;
pub mod reply;

pub use client::{MapClient, RuntimeClient, RuntimeError};
pub use command::MapName;
pub use reply::{Glance, Level, MapCounters, ReplyError};
