//! What Mapsmith decides: node maps, server lists, what an operator ordered, what the guard holds,
//! and the steps that bring a HAProxy there.
//!
//! Pure: nothing here reads a clock, a file or a socket.

pub mod access;
pub mod attention;
pub mod certificate;
pub mod commands;
pub mod compat;
pub mod config;
pub mod desired;
pub mod events;
pub mod history;
pub mod learned;
pub mod map_file;
pub mod members;
pub mod names;
pub mod node_map;
pub mod objects;
pub mod overrides;
pub mod plan;
pub mod portmap;
pub mod quoting;
pub mod registrations;
pub mod rejection;
pub mod render;
pub mod revision;
pub mod server;
pub mod services;
pub mod snapshot;
pub mod stats;
pub mod status;
pub mod tls_file;

pub use desired::{Desired, DesiredMap};
pub use learned::LearnedRoute;
pub use names::Invalid;
pub use node_map::{EntryMap, EntryMapBuilder, Search};
pub use overrides::{
    BlockedNode, DrainedMaster, EndedKind, EndedOverride, Note, OverrideChange, Overrides, Pin,
    ServerOverride,
};
pub use registrations::{
    Registration, RegistrationAuthors, RegistrationChange, RegistrationCounts, RegistrationEffect,
};
pub use rejection::{RejectedRow, RejectedRows};
pub use revision::{HeldChange, Revision};
pub use server::list::ServerList;
pub use server::{DesiredBackend, DesiredServers, ObservedServers, Server};
pub use services::{ServiceForms, ServiceTexts};
pub use snapshot::{Content, Rejections, Snapshot, SourceState};

/// The name in JSON of a value without fields, which is its metric label too.
fn label(value: impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}
