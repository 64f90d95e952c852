//! Items of backends on their way to another version of their members.

use jiff::{SignedDuration, Timestamp};

use super::{Action, Item, Kind, Severity, Status};
use crate::access::Role;
use crate::members::SwitchPhase;
use crate::quoting::{path_segment, shell_word};

/// How long a switch may take before it needs somebody: members start, and pass their checks.
const USUAL: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn of_switches(status: &Status, now: Timestamp) -> impl Iterator<Item = Item> {
    let is_slow = move |(version, _): &&(crate::members::BackendVersion, Option<String>)| {
        version.phase != SwitchPhase::Settled && now.duration_since(version.since) >= USUAL
    };
    status.switches.iter().filter(is_slow).map(|(version, why)| {
        let why = why.as_deref().unwrap_or("it is on its way");
        let backend = &version.backend;
        let text = format!("{backend} does not get to version {}: {why}", version.version);
        let item = Item::new(Severity::Act, Kind::Switch, backend, text);
        let item = item.since(Some(version.since));
        match &version.previous {
            Some(previous) => {
                let command =
                    format!("mapsmith switch {} {}", shell_word(backend), shell_word(previous));
                let back = Action::command("Switch back", &command);
                let call = format!("POST /v1/backends/{}/switch", path_segment(backend));
                item.with(back.with_call(&call, Role::Operator))
            }
            None => item,
        }
    })
}
