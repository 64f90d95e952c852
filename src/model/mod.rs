//! The words of the domain: names, entry maps, snapshots, revisions, status.
//!
//! Pure: nothing here reads a clock, a file or a socket.

pub mod address;
pub mod entry_map;
pub mod map_file;
pub mod name;
pub mod revision;
pub mod server;
pub mod snapshot;
pub mod status;

pub use address::RuntimeAddress;
pub use entry_map::{EntryMap, EntryMapBuilder};
pub use name::Illegal;
pub use revision::{HeldChange, Revision};
pub use server::{DesiredBackend, DesiredServers, ObservedServers, Server};
pub use snapshot::{Rejections, Snapshot, SourceState};
