//! A step of the plan as Runtime API commands. Pure.

use haproxy_runtime::server::command::{
    BackendName, InvalidName, ServerCommand, ServerPath, ServerState,
};
use mapsmith_core::plan::servers::ServerStep;
use mapsmith_core::server::ServerAddress;

/// The address alone of a slot that is taken.
pub(super) fn slot_address(step: &ServerStep) -> Option<ServerCommand> {
    let ServerStep::TakeSlot { backend, slot, server, .. } = step else { return None };
    Some(ServerCommand::SetAddress {
        at: ServerPath::new(backend, slot).ok()?,
        address: server.address,
    })
}

fn ready(once_checked: bool) -> ServerState {
    if once_checked { ServerState::ReadyOnceChecked } else { ServerState::Ready }
}

/// A step as commands.
///
/// # Errors
/// When a name can't stand in a command.
pub fn commands_of(step: &ServerStep) -> Result<Vec<ServerCommand>, InvalidName> {
    let backend = step.backend();
    let Some(server) = step.server() else {
        let ServerStep::AddBackend { backend, defaults } = step else { return Ok(Vec::new()) };
        return Ok(vec![ServerCommand::AddBackend {
            backend: BackendName::new(backend)?,
            defaults: BackendName::new(defaults)?,
        }]);
    };
    let at = ServerPath::new(backend, server)?;
    let state = |state| ServerCommand::SetState { at: at.clone(), state };
    Ok(match step {
        ServerStep::AddBackend { .. } => Vec::new(),
        ServerStep::Add { server, .. } => {
            vec![ServerCommand::Add { at, server: Box::new(server.clone()) }]
        }
        ServerStep::AddOut { server, .. } => {
            vec![ServerCommand::AddOut { at, server: Box::new(server.clone()) }]
        }
        ServerStep::Finish { .. } => {
            vec![
                ServerCommand::EnableHealth { at: at.clone() },
                state(ServerState::ReadyOnceChecked),
            ]
        }
        ServerStep::SetAddress { address, .. } => {
            vec![ServerCommand::SetAddress { at, address: *address }]
        }
        ServerStep::SetWeight { weight, .. } => {
            vec![ServerCommand::SetWeight { at, weight: *weight }]
        }
        ServerStep::SetMaxconn { maxconn, .. } => {
            vec![ServerCommand::SetMaxconn { at, maxconn: Some(*maxconn) }]
        }
        ServerStep::Ready { once_checked, .. } => vec![state(ready(*once_checked))],
        ServerStep::TakeSlot { server, once_checked, .. } => {
            let mut commands =
                vec![ServerCommand::SetAddress { at: at.clone(), address: server.address }];
            commands.extend(
                server.weight.map(|weight| ServerCommand::SetWeight { at: at.clone(), weight }),
            );
            let maxconn = server.options.maxconn;
            commands.extend(maxconn.map(|_| ServerCommand::SetMaxconn { at: at.clone(), maxconn }));
            commands.push(state(ready(*once_checked)));
            commands
        }
        ServerStep::Drain { .. } => vec![state(ServerState::Drain)],
        ServerStep::ShutdownSessions { .. } => vec![ServerCommand::ShutdownSessions { at }],
        ServerStep::Maintain { .. } => vec![state(ServerState::Maintenance)],
        ServerStep::Delete { .. } => vec![ServerCommand::Delete { at }],
        ServerStep::ClearSlot { .. } => {
            let nowhere = ServerAddress { ip: core::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
            vec![ServerCommand::SetAddress { at, address: nowhere }]
        }
    })
}
