//! Items of the instances, and of HAProxy's configuration.

use jiff::{SignedDuration, Timestamp};

use super::items::{LATELY, first_few};
use super::{Action, Item, Kind, Severity, Status};
use crate::config::status::{ConfigState, HaproxyStatus};
use crate::status::{BackendStatus, InstanceState, InstanceStatus, ServersState};
use crate::tls_file::TlsFileState;

/// How long a change may take until an instance holds it before that needs somebody.
const BEHIND: SignedDuration = SignedDuration::from_secs(10);

/// What is to be done about a HAProxy beside the one that Mapsmith reloads.
const RELOAD_ELSEWHERE: &str = "Mapsmith does not reload this one: whoever runs it does, once its \
    own configuration has the backends that are missing";

pub(super) fn of_instances(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    for instance in &status.instances {
        items.extend(state(instance, now));
        let name = &instance.name;
        let servers = instance.servers.as_ref();
        if let Some(ServersState::Failed { error }) = servers.map(|servers| &servers.state) {
            let text = format!("{name}: its servers can't be seen or changed: {error}");
            items.push(Item::new(Severity::Act, Kind::Servers, name, text));
        }
        items.extend(needs_reload(instance, status));
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

fn needs_reload(instance: &InstanceStatus, status: &Status) -> Option<Item> {
    let files = instance.tls_files.iter().filter_map(|file| match &file.state {
        TlsFileState::NeedsReload { reason } => Some(format!("{}: {reason}", file.path)),
        _ => None,
    });
    let servers = instance.servers.iter().flat_map(|servers| servers.needs_reload.clone());
    let causes: Vec<_> = servers.chain(files).collect();
    if causes.is_empty() {
        return None;
    }
    // A reload comes by itself where Mapsmith may make one: of its own HAProxy.
    let (severity, action) = match (&status.haproxy, &status.own_instance) {
        (Some(_), Some(own)) if *own == instance.name => {
            (Severity::Look, Action::command("Reload it now", "mapsmith haproxy reload"))
        }
        (Some(_), _) => (Severity::Act, Action::advice(RELOAD_ELSEWHERE)),
        (None, _) => {
            (Severity::Act, Action::advice("Reload HAProxy, as its service manager does it"))
        }
    };
    let named = first_few(causes.iter().map(String::as_str));
    let text = format!("{} needs a reload of HAProxy: {named}", instance.name);
    Some(Item::new(severity, Kind::NeedsReload, &instance.name, text).with(action))
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
            let refused = haproxy.refused.iter().flat_map(|refused| &refused.remarks);
            // Addresses that HAProxy can't have are not among its own words, which have lines.
            let action =
                match refused.into_iter().any(|it| it.line.is_none() && it.setting.is_some()) {
                    true => Action::command("Name every problem", "mapsmith check"),
                    false => Action::command("See HAProxy's words", "mapsmith render --check"),
                };
            (Severity::Act, action)
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
    use std::collections::BTreeMap;

    use haproxy_runtime::RuntimeAddress;

    use super::*;
    use crate::config::status::RefusedCandidate;
    use crate::render::verdict::Remark;
    use crate::revision::{ChangeCounts, HeldChange};
    use crate::status::ServersStatus;

    fn of_state(state: ConfigState) -> HaproxyStatus {
        HaproxyStatus {
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
        }
    }

    #[test]
    fn who_refuses_a_configuration_for_an_address_is_asked_where_addresses_are_looked_at() {
        let mut haproxy = of_state(ConfigState::Refused { reason: "why".to_owned() });
        let advised = |haproxy: &HaproxyStatus| {
            let item = configuration(haproxy, &[]).unwrap();
            item.actions[0].command.clone().unwrap()
        };
        assert_eq!(advised(&haproxy), "mapsmith render --check");
        let remark =
            Remark::alert(Some("frontend[0].bind[0]".to_owned()), ":80 is taken".to_owned());
        let refused = |remark| RefusedCandidate {
            at: Timestamp::UNIX_EPOCH,
            file: "candidate.cfg".to_owned(),
            remarks: vec![remark],
        };
        haproxy.refused = Some(refused(Remark { line: Some(7), ..remark.clone() }));
        assert_eq!(advised(&haproxy), "mapsmith render --check", "it has HAProxy's words");
        haproxy.refused = Some(refused(remark));
        assert_eq!(advised(&haproxy), "mapsmith check", "HAProxy's check opens no port");
    }

    #[test]
    fn a_reload_by_mapsmith_is_advised_of_its_own_haproxy_alone() {
        let needing = |name: &str| InstanceStatus {
            name: name.to_owned(),
            runtime: RuntimeAddress::Unix("/run/haproxy.sock".into()),
            state: InstanceState::Starting,
            state_since: Timestamp::UNIX_EPOCH,
            process: None,
            entries_in_memory: None,
            verified_at: None,
            drift_corrected: BTreeMap::new(),
            drift_at: None,
            last_apply: None,
            servers: Some(ServersStatus {
                state: ServersState::NeedsReload,
                observed_at: Timestamp::UNIX_EPOCH,
                needs_reload: vec!["app: the backend is missing".to_owned()],
                removing: Vec::new(),
                external: Vec::new(),
                checking: Vec::new(),
                by_agent: Vec::new(),
                foreign: 0,
                last_steps: Vec::new(),
                steps: 0,
            }),
            tls_files: Vec::new(),
            learned: None,
        };
        let mut status = Status {
            instances: vec![needing("haproxy"), needing("edge2")],
            own_instance: Some("haproxy".to_owned()),
            haproxy: Some(of_state(ConfigState::InForce)),
            ..Status::default()
        };
        let told = |status: &Status| {
            let mut items = Vec::new();
            of_instances(status, Timestamp::UNIX_EPOCH, &mut items);
            items.into_iter().map(|it| (it.severity, it.actions[0].clone())).collect::<Vec<_>>()
        };
        let [(own, reload), (other, advice)] = &told(&status)[..] else {
            panic!("{:#?}", told(&status))
        };
        assert_eq!(*own, Severity::Look, "it comes by itself");
        assert_eq!(reload.command.as_deref(), Some("mapsmith haproxy reload"));
        assert_eq!((*other, &advice.command), (Severity::Act, &None), "nobody else reloads it");
        assert!(advice.text.contains("its own configuration has the backends"), "{advice:?}");
        (status.haproxy, status.own_instance) = (None, None);
        let all = told(&status);
        assert!(all.iter().all(|(severity, it)| {
            *severity == Severity::Act && it.text.contains("its service manager")
        }));
    }

    #[test]
    fn a_configuration_that_waits_for_a_held_list_needs_somebody_to_approve_it() {
        let haproxy = of_state(ConfigState::Waiting { reason: "the servers".to_owned() });
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
