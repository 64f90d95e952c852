//! The HAProxy process: its configuration is checked, it is started or found again, reloaded with
//! the outcome known, and started again when it dies.
//!
//! HAProxy is never a part of Mapsmith's own life: it has a process group of its own and outlives
//! Mapsmith. Nothing is signalled but a process that [`process`] started, known by its pid and its
//! start time.

pub mod budget;
pub mod candidate;
pub mod check;
pub mod descriptor_store;
pub mod files;
pub mod health;
pub mod identity;
pub mod keeper;
pub(crate) mod listeners;
pub mod lock;
mod log;
mod old_workers;
pub(crate) mod ports;
pub mod process;
mod quarantine;
pub mod refusal;
pub mod reload;
pub mod running;
pub(crate) mod server_states;
pub(crate) mod services;
pub mod sockets;
mod task;
pub mod trial;
pub mod unknown;

pub use task::{Supervisor, SupervisorReport};
