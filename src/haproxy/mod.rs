//! HAProxy's runtime API: what is said over a stats socket, and what the answers mean.
//!
//! `client` is the edge; it decides nothing. Everything else is pure: of maps `command` and `reply`, of servers `server_command`
//! and `server_reply`, of stick tables `table`, and `codec` under them; `pace` says when to rest. HAProxy's management guide, section
//! "Unix Socket commands", names the commands; the replies' exact bytes were measured on 2.6 to 3.4 and are held by the tests.

pub mod client;
pub mod codec;
pub mod command;
pub mod pace;
pub mod reply;
pub mod server_command;
pub mod server_reply;
pub mod table;

pub use client::{MapClient, RuntimeClient, RuntimeError, ServersClient, TableClient};
pub use command::{MapKind, MapName};
pub use reply::{Glance, Level, MapCounters, ReplyError};
pub use server_command::{BackendName, IllegalName, Refusal, ServerCommand, ServerPath, ServerState};
pub use table::{TableName, TableSize};
