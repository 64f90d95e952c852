//! The words of the domain: names, entry maps, snapshots, revisions, status.
//!
//! Pure: nothing here reads a clock, a file or a socket.

pub mod address;
pub mod entry_map;
pub mod learned;
pub mod map_file;
pub mod name;
pub mod overrides;
pub mod rejected_row;
pub mod revision;
pub mod server;
pub mod server_list;
pub mod server_options;
pub mod snapshot;
pub mod status;

pub use address::RuntimeAddress;
pub use entry_map::{EntryMap, EntryMapBuilder};
pub use learned::LearnedRoute;
pub use name::Illegal;
pub use overrides::{DrainedMaster, OverrideChange, Overrides, Pin};
pub use rejected_row::{RejectedRow, RejectedRows};
pub use revision::{HeldChange, Revision};
pub use server::{DesiredBackend, DesiredServers, ObservedServers, Server};
pub use server_list::ServerList;
pub use server_options::OptionError;
pub use snapshot::{Content, Rejections, Snapshot, SourceState};
