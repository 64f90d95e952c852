//! Items of the map, the sources, the store and Mapsmith itself.

use jiff::{SignedDuration, Timestamp};

use super::certificates::expiry;
use super::{Action, HoldStatus, Item, Kind, Severity, Status};
use crate::access::Role;
use crate::desired::hold::Rejected;
use crate::desired::rollout::{Rollout, State};
use crate::quoting::{path_segment, shell_word};
use crate::revision::HeldChange;
use crate::status::{KeptNodes, SourceStatus};

/// How long after the start a source may not have answered before that needs somebody.
const FIRST_ANSWERS: SignedDuration = SignedDuration::from_secs(30);
/// How old a source's last answer may be that fails since.
const STALE: SignedDuration = SignedDuration::from_mins(15);
/// How long something that was put right is shown.
pub(super) const LATELY: SignedDuration = SignedDuration::from_hours(1);
/// How long before its end a hold needs somebody.
const LAST_MINUTES: SignedDuration = SignedDuration::from_mins(10);
/// How often the command may fail before that is shown: once may be chance.
const NOTIFY_FAILURES: u32 = 2;
/// The most names in one sentence.
const NAMED: usize = 5;

impl Item {
    pub(super) fn new(severity: Severity, kind: Kind, subject: &str, text: String) -> Self {
        let subject = subject.to_owned();
        Self { severity, kind, subject, since: None, text, actions: Vec::new() }
    }

    pub(super) fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }

    pub(super) fn with(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}

/// The first few of these, and how many more there are.
pub(super) fn first_few<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(", and {more} more");
    }
    text
}

pub(super) fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

pub(super) fn of_the_map(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    items.extend(status.held.iter().map(held));
    items.extend(status.hold.as_ref().map(|it| hold(it, status, now)));
    items.extend(status.rejected_change.as_ref().map(|it| rejected(it, status)));
    items.extend(status.rollout.as_ref().filter(|rollout| rollout.is_open()).map(rollout));
    if let Some(writer) = &status.read_only {
        let text =
            format!("another Mapsmith writes the map file ({writer}), so this one changes nothing");
        let command = "mapsmith run --take-over";
        items.push(Item::new(Severity::Act, Kind::ReadOnly, "map", text).with(Action::command(
            "Stop one of the two, or have this one write the file",
            command,
        )));
    }
    of_the_map_file(status, now, items);
    let dangling = &status.dangling;
    for (masters, kind, severity, what) in [
        (&dangling.unknown, Kind::UnknownMaster, Severity::Act, "which an instance does not have"),
        (&dangling.not_ready, Kind::NotReadyMaster, Severity::Look, "which is not ready somewhere"),
    ] {
        items.extend(masters.iter().map(|(master, count)| {
            let text = format!("{} would go to {master}, {what}", nodes(*count));
            // A drain leaves pinned nodes where they are.
            if let Some(first) = status.pinned.get(master).and_then(|pinned| pinned.first()) {
                let item = Item::new(severity, kind, master, text);
                return item.with(unpin(first, status.pinned[master].len() < *count));
            }
            let help = "Add the server to HAProxy, or drain the master";
            let command = format!("mapsmith drain {}", shell_word(master));
            let call = format!("POST /v1/masters/{}/drain", path_segment(master));
            Item::new(severity, kind, master, text)
                .with(Action::command(help, &command).with_call(&call, Role::Operator))
        }));
    }
    items.extend(status.stuck.iter().map(|master| {
        let text = format!("{master} is drained and keeps its nodes: no other master is left");
        let help = "End the drain, or add a master that can take the nodes";
        let command = format!("mapsmith undrain {}", shell_word(master));
        let call = format!("DELETE /v1/masters/{}/drain", path_segment(master));
        Item::new(Severity::Act, Kind::DrainStuck, master, text)
            .with(Action::command(help, &command).with_call(&call, Role::Operator))
    }));
    items.extend(kept("flapping", "their master goes back and forth", &status.flapping));
    items.extend(kept("conflicts", "an answer names several masters", &status.conflicts));
    if let (count @ 1.., first) = &status.refused_rows {
        let first = first.as_ref().map(|first| format!(": {first}")).unwrap_or_default();
        let text = format!("HAProxy's map refuses {}{first}", nodes(*count));
        items.push(Item::new(Severity::Look, Kind::Rejected, "map", text));
    }
}

/// What is to be done of a master that points nowhere, where this node is pinned to it.
fn unpin(node: &str, are_others: bool) -> Action {
    let help = match are_others {
        true => "Add the server to HAProxy, or unpin the nodes and drain the master for the others",
        false => "Add the server to HAProxy, or unpin the nodes",
    };
    let call = format!("DELETE /v1/overrides/{}", path_segment(node));
    let command = format!("mapsmith unpin {}", shell_word(node));
    Action::command(help, &command).with_call(&call, Role::Operator)
}

fn of_the_map_file(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    let Some(file) = &status.map_file else { return };
    if let Some(error) = &file.error {
        let text = format!("the map file can't be written, so no change comes into force: {error}");
        items.push(Item::new(Severity::Act, Kind::MapFile, &file.path, text));
    }
    if let Some(at) = file.corrected_at.filter(|at| now.duration_since(*at) < LATELY) {
        let text = "the map file was missing or modified externally, and was rewritten".to_owned();
        let item = Item::new(Severity::Look, Kind::DriftHealed, &file.path, text);
        items.push(item.since(Some(at)).with(Action::advice("Find out who changes the file")));
    }
}

fn held(held: &HeldChange) -> Item {
    let what = match held.of.as_str() {
        HeldChange::MAP => "the map",
        HeldChange::SERVICES => "the services",
        of => of,
    };
    let text = format!("a change of {what} is held: {} ({})", held.reason, held.counts);
    let command = format!("mapsmith approve {}", held.id);
    let approve = Action::command("Let exactly this change through", &command);
    Item::new(Severity::Act, Kind::HeldChange, &held.of, text)
        .since(Some(held.since))
        .with(Action::command("See what would change", "mapsmith plan"))
        .with(approve.with_call("POST /v1/held/approve", Role::Operator))
}

/// One that ends soon, or that is over with a change that waits for somebody, needs them now.
fn hold(status: &HoldStatus, all: &Status, now: Timestamp) -> Item {
    let HoldStatus { hold, waiting } = status;
    let of = hold.of;
    let is_held = all.held.iter().any(|held| held.of == HeldChange::MAP);
    let left = hold.until.map(|until| until.duration_since(now));
    let (severity, text) = match (hold.ended, left) {
        (Some(_), _) if is_held => (
            Severity::Act,
            format!(
                "the hold of the rollback to revision {of} is over, and what the sources say \
                waits as a held change"
            ),
        ),
        (Some(_), _) => (
            Severity::Look,
            format!(
                "the hold of the rollback to revision {of} is over, and the sources are not \
                followed"
            ),
        ),
        (None, Some(left)) => {
            let severity = if left <= LAST_MINUTES { Severity::Act } else { Severity::Look };
            let until = hold.until.unwrap_or(now);
            let text = format!(
                "the rollback to revision {of} holds the sources back until {until:.0}; what they \
                    say then is a held change ({waiting})"
            );
            (severity, text)
        }
        (None, None) => (
            Severity::Look,
            format!(
                "the rollback to revision {of} holds the sources back until somebody resumes \
                ({waiting})"
            ),
        ),
    };
    let resume = Action::command("Follow the sources again", "mapsmith resume");
    let resume = resume.with_call("DELETE /v1/hold", Role::Operator);
    Item::new(severity, Kind::Hold, HeldChange::MAP, text)
        .since(Some(hold.since))
        .with(after_rollout(all).unwrap_or(resume))
}

/// What comes first while a rollout is on its way: until then the sources are not followed again,
/// whoever asks.
fn after_rollout(status: &Status) -> Option<Action> {
    let rollout = status.rollout.as_ref().filter(|rollout| rollout.holds_sources())?;
    let id = &rollout.id;
    Some(Action::advice(&match has_a_choice(rollout) {
        true => format!("First promote or abort the canary {id}"),
        false => format!("First wait until the canary {id} is over"),
    }))
}

/// Whether a rollout does not end by an order that was given already.
fn has_a_choice(rollout: &Rollout) -> bool {
    !matches!(rollout.state, State::Promoting | State::Aborting)
}

/// No alarm: somebody wanted it so. It is easily forgotten, though.
fn rejected(rejected: &Rejected, all: &Status) -> Item {
    let Rejected { at, note, change, .. } = rejected;
    let by = note.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let what = change.as_ref().map_or(String::new(), |it| format!(": {}", it.counts));
    let text = format!(
        "what the sources say was rejected{by}{reason}, and is not applied while they say the \
            same{what}"
    );
    let id = rejected.id();
    let back = Action::command(
        "Take the rejection back: it is a held change again",
        &format!("mapsmith unreject {id}"),
    );
    let back = back.with_call(&format!("DELETE /v1/held/{id}/reject"), Role::Operator);
    Item::new(Severity::Look, Kind::RejectedChange, HeldChange::MAP, text)
        .since(Some(*at))
        .with(Action::advice("Correct the source: with its next other answer it is over"))
        .with(after_rollout(all).unwrap_or(back))
}

fn rollout(rollout: &Rollout) -> Item {
    let severity = if rollout.needs_a_person() { Severity::Act } else { Severity::Look };
    let id = &rollout.id;
    let promote = Action::command("Have it go everywhere", "mapsmith rollout promote");
    let abort = Action::command("Bring back what was before", "mapsmith rollout abort");
    let item = Item::new(severity, Kind::Rollout, id, rollout.to_string());
    let item = item.since(Some(rollout.since));
    if !has_a_choice(rollout) {
        return item;
    }
    item.with(promote.with_call(&format!("POST /v1/rollouts/{id}/promote"), Role::Operator))
        .with(abort.with_call(&format!("POST /v1/rollouts/{id}/abort"), Role::Operator))
}

fn kept(subject: &str, why: &str, kept: &KeptNodes) -> Option<Item> {
    let named = first_few(kept.nodes.iter().map(|kept| kept.node.as_str()));
    let text = format!("{} kept where they are because {why}: {named}", nodes(kept.count));
    (kept.count > 0).then(|| Item::new(Severity::Look, Kind::NodesKept, subject, text))
}

pub(super) fn of_sources(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    let services = status.services.iter().map(|services| &services.source);
    for source in status.sources.iter().chain(services) {
        items.extend(source_item(source, status, now));
        if let Some(warning) = &source.warning {
            let text = format!("{}: {warning}", source.name);
            items.push(Item::new(Severity::Look, Kind::SourceFailed, &source.name, text));
        }
    }
    for backend in &status.backends {
        let rejected = backend.rejected_count as usize + backend.beyond_max;
        let name = &backend.name;
        let mut look = |text| items.push(Item::new(Severity::Look, Kind::Backend, name, text));
        if rejected > 0 {
            look(format!("backend {name}: {rejected} of the listed servers left out"));
        }
        if !backend.stale.is_empty() {
            let named = first_few(backend.stale.iter().map(|stale| stale.place.as_str()));
            look(format!("backend {name}: host names do not resolve right now: {named}"));
        }
    }
    items.extend(status.left_over.iter().map(left_over));
}

fn left_over((backend, servers): (&String, &Vec<String>)) -> Item {
    let named = first_few(servers.iter().map(String::as_str));
    let text = format!(
        "there is no backend {backend}, and overrides of its servers would count in the next one \
            of that name: {named}"
    );
    let one = servers.first().map_or("SERVER", String::as_str);
    let (part, place) = (path_segment, format!("{backend}/{one}"));
    let call = format!("DELETE /v1/backends/{}/servers/{}", part(backend), part(one));
    let command = format!("mapsmith server reset {}", shell_word(&place));
    Item::new(Severity::Look, Kind::Backend, backend, text)
        .with(Action::command("End them", &command).with_call(&call, Role::Operator))
}

fn source_item(source: &SourceStatus, status: &Status, now: Timestamp) -> Option<Item> {
    let name = &source.name;
    let again = Action::command("Ask the sources again", "mapsmith reload --wait 30s")
        .with_call("POST /v1/reload?wait=30s", Role::Operator);
    let error = source.error.as_deref();
    let item = match (source.answered_at, error) {
        (None, None)
            if !status.waiting_for.contains(name)
                || now.duration_since(status.started_at) < FIRST_ANSWERS =>
        {
            return None;
        }
        (None, error) => {
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            let severity = if source.required { Severity::Act } else { Severity::Look };
            let text = format!("{name} has not answered since the start{why}");
            Item::new(severity, Kind::SourceFailed, name, text).since(Some(status.started_at))
        }
        (Some(at), Some(error)) if now.duration_since(at) >= STALE => {
            let minutes = now.duration_since(at).as_mins();
            let text = format!(
                "{name} has given no good answer for {minutes} min, its last one is in \
                    force: {error}"
            );
            Item::new(Severity::Act, Kind::SourceStale, name, text).since(Some(at))
        }
        (Some(at), Some(error)) => {
            let text = format!("{name} fails, its last good answer stays in force: {error}");
            Item::new(Severity::Look, Kind::SourceFailed, name, text).since(Some(at))
        }
        (Some(_), None) => return None,
    };
    Some(item.with(again))
}

/// The store, the API's files and the command that would tell.
pub(super) fn of_mapsmith(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    for (what, error) in &status.store_errors {
        let text = format!("the store does not keep {what}, a restart would lose them: {error}");
        items.push(Item::new(Severity::Act, Kind::Store, what, text));
    }
    let api = &status.api;
    let mut file = |key: &str, error: &Option<String>| {
        let Some(error) = error else { return };
        let text = format!("{key}: what was before stays in force: {error}");
        items.push(Item::new(Severity::Look, Kind::Api, key, text));
    };
    file("api.token_file", &api.token_file_error);
    file("api.tls", &api.tls_error);
    if let Some(at) = api.tls_not_after {
        items.extend(expiry(Kind::Api, "api.tls", "the API's certificate", at, None, now));
    }
    if let Some(at) = api.crl_until.filter(|at| *at <= now) {
        let text = format!(
            "api.tls.client_crl should have been replaced by {at:.0}: a client certificate that \
                was revoked since is taken still"
        );
        items.push(Item::new(Severity::Look, Kind::Api, "api.tls.client_crl", text));
    }
    let notify = &status.notify;
    if let Some(error) = notify.error.as_ref().filter(|_| notify.failures >= NOTIFY_FAILURES) {
        let text = format!("notify.command has failed {} times: {error}", notify.failures);
        let item = Item::new(Severity::Look, Kind::Notify, "notify.command", text);
        items.push(item.since(notify.failed_since));
    }
}
