//! One step on a server list, and why HAProxy may refuse it.

use std::fmt;

use crate::server::{Server, ServerAddress};

/// One step: everything that applying it needs. `server` and `slot` are names as HAProxy has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// `add backend` and `publish backend` (3.4 and later).
    AddBackend { backend: String, defaults: String },
    /// `add server`, `enable health` where it has a check, `enable server`: one line, so that it is
    /// ready or not there. With a check it is down until that has passed.
    Add { backend: String, server: Server },
    /// `add server`, and `enable health` where it has a check: it is there, in maintenance.
    AddOut { backend: String, server: Server },
    /// `enable health; enable server` for an `add server` that was never finished; down until its
    /// check has passed.
    Finish { backend: String, server: String },
    /// `set server addr`: sessions that are open go on, new ones go to the new address.
    SetAddress { backend: String, server: String, address: ServerAddress },
    /// `set server weight`, 0 to 256.
    SetWeight { backend: String, server: String, weight: u16 },
    /// `set maxconn server`; 0 is not a limit.
    SetMaxconn { backend: String, server: String, maxconn: u32 },
    /// `set server state ready`: back from our own drain or maintenance. `once_checked` is down
    /// until its check has passed: it has one, and comes out of maintenance.
    Ready { backend: String, server: String, once_checked: bool },
    /// A slot of a `server-template` serves `server` from now on: address, weight, maxconn, and
    /// only then ready. A refused weight is no refusal of the step: the slot serves, and the next
    /// plan corrects its weight. `once_checked` as of [`ServerStep::Ready`].
    TakeSlot { backend: String, slot: String, server: Server, once_checked: bool },
    /// `set server state drain`.
    Drain { backend: String, server: String },
    /// `shutdown sessions server`: the bound is reached.
    ShutdownSessions { backend: String, server: String },
    /// `set server state maint`.
    Maintain { backend: String, server: String },
    /// `del server`.
    Delete { backend: String, server: String },
    /// `set server addr 0.0.0.0`: distinguishes a slot that is no longer used, in maintenance,
    /// from one that a person put there.
    ClearSlot { backend: String, slot: String },
}

impl ServerStep {
    pub fn backend(&self) -> &str {
        match self {
            Self::AddBackend { backend, .. }
            | Self::Add { backend, .. }
            | Self::AddOut { backend, .. }
            | Self::Finish { backend, .. }
            | Self::SetAddress { backend, .. }
            | Self::SetWeight { backend, .. }
            | Self::SetMaxconn { backend, .. }
            | Self::Ready { backend, .. }
            | Self::TakeSlot { backend, .. }
            | Self::Drain { backend, .. }
            | Self::ShutdownSessions { backend, .. }
            | Self::Maintain { backend, .. }
            | Self::Delete { backend, .. }
            | Self::ClearSlot { backend, .. } => backend,
        }
    }

    /// The server that it touches, by the name that HAProxy has it under; none for a whole backend.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::AddBackend { .. } => None,
            Self::Add { server, .. } | Self::AddOut { server, .. } => Some(&server.name),
            Self::TakeSlot { slot, .. } | Self::ClearSlot { slot, .. } => Some(slot),
            Self::Finish { server, .. }
            | Self::SetAddress { server, .. }
            | Self::SetWeight { server, .. }
            | Self::SetMaxconn { server, .. }
            | Self::Ready { server, .. }
            | Self::Drain { server, .. }
            | Self::ShutdownSessions { server, .. }
            | Self::Maintain { server, .. }
            | Self::Delete { server, .. } => Some(server),
        }
    }

    /// Whether the server is down after it until its check has passed.
    pub fn waits_for_check(&self) -> bool {
        match self {
            Self::Add { server, .. } => server.options.check,
            Self::Finish { .. } => true,
            Self::Ready { once_checked, .. } | Self::TakeSlot { once_checked, .. } => *once_checked,
            _ => false,
        }
    }
}

impl fmt::Display for ServerStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBackend { backend, defaults } => {
                write!(out, "add backend {backend} from {defaults}")
            }
            Self::Add { backend, server } => {
                write!(out, "add {backend}/{} at {}", server.name, server.address)
            }
            Self::AddOut { backend, server } => {
                let Server { name, address, .. } = server;
                write!(out, "add {backend}/{name} at {address}, in maintenance")
            }
            Self::Finish { backend, server } => {
                write!(out, "enable {backend}/{server}, which was added and never enabled")
            }
            Self::SetAddress { backend, server, address } => {
                write!(out, "move {backend}/{server} to {address}")
            }
            Self::SetWeight { backend, server, weight } => {
                write!(out, "weight {weight} for {backend}/{server}")
            }
            Self::SetMaxconn { backend, server, maxconn } => {
                write!(out, "maxconn {maxconn} for {backend}/{server}")
            }
            Self::Ready { backend, server, .. } => write!(out, "{backend}/{server} is ready again"),
            Self::TakeSlot { backend, slot, server, .. } => {
                write!(out, "slot {backend}/{slot} serves {} at {}", server.name, server.address)
            }
            Self::Drain { backend, server } => write!(out, "drain {backend}/{server}"),
            Self::ShutdownSessions { backend, server } => {
                write!(out, "shut down the sessions of {backend}/{server}")
            }
            Self::Maintain { backend, server } => {
                write!(out, "{backend}/{server} into maintenance")
            }
            Self::Delete { backend, server } => write!(out, "delete {backend}/{server}"),
            Self::ClearSlot { backend, slot } => write!(out, "slot {backend}/{slot} is free"),
        }
    }
}
