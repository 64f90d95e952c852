//! Items of the instances, and of HAProxy's configuration.

use jiff::{SignedDuration, Timestamp};

use super::items::{LATELY, first_few};
use super::{Action, Item, Kind, Severity, Status};
use crate::config::status::{ConfigState, HaproxyStatus};
use crate::status::{BackendStatus, InstanceState, InstanceStatus, ServersState};
use crate::tls_file::TlsFileState;

/// How long a change may take until an instance holds it before that needs somebody.
const BEHIND: SignedDuration = SignedDuration::from_secs(10);

pub(super) fn of_instances(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    // A reload comes by itself where Mapsmith may make one.
    let reloads = status.haproxy.as_ref().is_some();
    for instance in &status.instances {
        items.extend(state(instance, now));
        let name = &instance.name;
        let servers = instance.servers.as_ref();
        if let Some(ServersState::Failed { error }) = servers.map(|servers| &servers.state) {
            let text = format!("{name}: its servers can't be seen or changed: {error}");
            items.push(Item::new(Severity::Act, Kind::Servers, name, text));
        }
        items.extend(needs_reload(instance, reloads));
        for file in &instance.tls_files {
            if let TlsFileState::Failed { error } = &file.state {
                let text =
                    format!("{name}: {} could not be brought into memory: {error}", file.path);
                items.push(Item::new(Severity::Act, Kind::TlsFile, &file.path, text));
            }
        }
        if let Some(external) = servers.map(|it| &it.external).filter(|it| !it.is_empty()) {
            let named = first_few(external.iter().map(String::as_str));
            let text = format!("{name}: out of service by somebody else's order: {named}");
            items.push(Item::new(Severity::Look, Kind::ExternalServers, name, text));
        }
        if let Some(at) = instance.drift_at.filter(|at| now.duration_since(*at) < LATELY) {
            let text = format!("{name}: its map was changed outside Mapsmith, and was corrected");
            let item = Item::new(Severity::Look, Kind::DriftHealed, name, text).since(Some(at));
            items.push(item.with(Action::advice("Find out who else writes to HAProxy's socket")));
        }
        if let Some(error) = instance.learned.as_ref().and_then(|learned| learned.error.as_ref()) {
            let text = format!("{name}: learned routes: {error}");
            items.push(Item::new(Severity::Look, Kind::Learned, name, text));
        }
    }
}

fn state(instance: &InstanceStatus, now: Timestamp) -> Option<Item> {
    let name = &instance.name;
    let lasts = now.duration_since(instance.state_since) >= BEHIND;
    let (kind, since, text) = match &instance.state {
        InstanceState::Unreachable { since, error } => {
            (Kind::InstanceUnreachable, *since, format!("{name} is unreachable: {error}"))
        }
        InstanceState::Refused { reason } => {
            let text = format!("{name} does not take commands: {reason}");
            (Kind::InstanceRefused, instance.state_since, text)
        }
        InstanceState::Behind { wanted, reason } if lasts => {
            let text = format!("{name} is behind revision {wanted}: {reason}");
            (Kind::InstanceBehind, instance.state_since, text)
        }
        InstanceState::Starting if lasts => {
            let text = format!("{name} has not answered since the start");
            (Kind::InstanceUnreachable, instance.state_since, text)
        }
        _ => return None,
    };
    Some(Item::new(Severity::Act, kind, name, text).since(Some(since)))
}

fn needs_reload(instance: &InstanceStatus, reloads: bool) -> Option<Item> {
    let files = instance.tls_files.iter().filter_map(|file| match &file.state {
        TlsFileState::NeedsReload { reason } => Some(format!("{}: {reason}", file.path)),
        _ => None,
    });
    let servers = instance.servers.iter().flat_map(|servers| servers.needs_reload.clone());
    let causes: Vec<_> = servers.chain(files).collect();
    if causes.is_empty() {
        return None;
    }
    let severity = if reloads { Severity::Look } else { Severity::Act };
    let named = first_few(causes.iter().map(String::as_str));
    let text = format!("{} needs a reload of HAProxy: {named}", instance.name);
    let item = Item::new(severity, Kind::NeedsReload, &instance.name, text);
    Some(match reloads {
        true => item.with(Action::command("Reload it now", "mapsmith haproxy reload")),
        false => item.with(Action::advice("Reload HAProxy, as its service manager does it")),
    })
}

pub(super) fn of_configuration(status: &Status, items: &mut Vec<Item>) {
    if let Some(haproxy) = &status.haproxy {
        items.extend(configuration(haproxy, &status.backends));
        items.extend(haproxy.quarantined.iter().map(|quarantined| {
            let words = first_few(quarantined.remarks.iter().map(|remark| remark.text.as_str()));
            let object = &quarantined.object;
            let text =
                format!("{object}: HAProxy refuses its new form, which is left out: {words}");
            Item::new(Severity::Act, Kind::Quarantined, object, text)
                .with(Action::command("See HAProxy's words", "mapsmith render --check"))
        }));
    }
    items.extend(status.set_aside.iter().map(|(object, why)| {
        let text = format!("{object}, which the API declares, is set aside: {why}");
        Item::new(Severity::Act, Kind::Quarantined, object, text)
            .with(Action::command("See what is declared", "mapsmith config show"))
    }));
    items.extend(status.waiting_frontends.iter().map(|(frontend, backends)| {
        let backends = first_few(backends.iter().map(String::as_str));
        let text = format!("{frontend} listens nowhere: it waits for backends: {backends}");
        Item::new(Severity::Look, Kind::Config, frontend, text)
            .with(Action::command("Declare them, or see what is declared", "mapsmith config show"))
    }));
    let Some(services) = &status.services else { return };
    items.extend(services.rejected.iter().map(|rejected| {
        let text = format!("the service {} is not in force: {}", rejected.name, rejected.reason);
        Item::new(Severity::Look, Kind::Services, &rejected.name, text)
    }));
    if let Some(why) = &services.kept {
        let text = format!("the metadata is not followed: {why}");
        items.push(Item::new(Severity::Act, Kind::Services, &services.source.name, text));
    }
}

fn configuration(haproxy: &HaproxyStatus, backends: &[BackendStatus]) -> Option<Item> {
    let (severity, action) = match &haproxy.state {
        ConfigState::Starting | ConfigState::InForce => return None,
        ConfigState::Refused { .. } => {
            (Severity::Act, Action::command("See HAProxy's words", "mapsmith render --check"))
        }
        ConfigState::Edited => {
            (Severity::Act, Action::command("See what was edited", "mapsmith render --diff"))
        }
        ConfigState::Failed { .. } => {
            (Severity::Act, Action::command("Name every problem", "mapsmith check"))
        }
        ConfigState::Stopped => {
            (Severity::Act, Action::command("Start it", "mapsmith haproxy start"))
        }
        ConfigState::ReloadDue { .. } => {
            (Severity::Look, Action::command("Reload it now", "mapsmith haproxy reload"))
        }
        ConfigState::Waiting { .. } => {
            let unknown = backends.iter().filter(|backend| backend.servers.is_none());
            let held = unknown.filter_map(|backend| Some((&backend.name, backend.held.as_ref()?)));
            if let Some((backend, held)) = held.into_iter().next() {
                let text = format!(
                    "HAProxy's configuration is not in force: it waits for the servers of backend \
                        {backend}, which are held: {}",
                    held.reason
                );
                let command = format!("mapsmith approve {}", held.id);
                return Some(
                    Item::new(Severity::Act, Kind::Config, &haproxy.config, text)
                        .with(Action::command("Let exactly these servers through", &command)),
                );
            }
            (Severity::Look, Action::command("See what is waited for", "mapsmith status"))
        }
    };
    let text = format!("HAProxy's configuration is not in force: {}", haproxy.state);
    Some(Item::new(severity, Kind::Config, &haproxy.config, text).with(action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::{ChangeCounts, HeldChange};

    #[test]
    fn a_configuration_that_waits_for_a_held_list_needs_somebody_to_approve_it() {
        let state = ConfigState::Waiting { reason: "the servers".to_owned() };
        let haproxy = HaproxyStatus {
            managed: true,
            config: "haproxy.cfg".to_owned(),
            state,
            loaded: None,
            process: None,
            last_reload: None,
            reloads: 0,
            starts: 0,
            refused: None,
            quarantined: Vec::new(),
            edit_kept: None,
        };
        let mut backend = BackendStatus {
            name: "nope".to_owned(),
            from: "settings".to_owned(),
            servers: None,
            waiting_for: None,
            stored_since: None,
            confirmed_at: None,
            rejected: Vec::new(),
            rejected_count: 0,
            beyond_max: 0,
            stale: Vec::new(),
            held: None,
            change_due: None,
            leaving: Vec::new(),
            ordered: Vec::new(),
        };
        let item = configuration(&haproxy, std::slice::from_ref(&backend)).unwrap();
        assert_eq!(item.severity, Severity::Look, "it comes by itself");
        backend.held = Some(HeldChange {
            id: "ab12".to_owned(),
            of: "backend nope".to_owned(),
            reason: "it is empty".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            entries_in_force: 0,
            entries_held: 0,
            counts: ChangeCounts::default(),
            applied: ChangeCounts::default(),
        });
        let item = configuration(&haproxy, std::slice::from_ref(&backend)).unwrap();
        assert_eq!(item.severity, Severity::Act);
        let said = format!("{item:?}");
        assert!(said.contains("backend nope") && said.contains("mapsmith approve ab12"), "{said}");
        backend.servers = Some(Vec::new());
        let item = configuration(&haproxy, &[backend]).unwrap();
        assert_eq!(item.severity, Severity::Look, "others are waited for");
    }
}
