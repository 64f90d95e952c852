//! Whether a change of what is declared leaves whole what it touches and what was there.

use std::collections::BTreeSet;

use mapsmith_core::objects::{Edits, ObjectKey, Objects, Standing, targets};

use super::ConfigRequest;
use crate::api::Error;
use crate::declared::Fault;
use crate::settings::SettingsFile;
use crate::settings::objects::{Declared, is_of_address, setting_of};

/// How what is refused for somebody's good is had all the same, through the API and by the CLI. Old
/// clients have neither, and are told what is before it alone.
pub(crate) const FORCE: &str = " (force=true, or --force,";

/// Nobody loses what is theirs to a change that does not say so.
pub(super) fn takes_nothing_over(edits: &Edits, before: &Objects) -> Result<(), Error> {
    let taken: Vec<_> =
        edits.takeovers(before).map(|(key, owner)| format!("{key} is {owner}'s")).collect();
    if taken.is_empty() {
        return Ok(());
    }
    Err(Error::ObjectConflict(format!(
        "{}: name that owner{FORCE} takes over what is another one's)",
        taken.join(", ")
    )))
}

/// The frontends that wait for backends.
pub(super) fn pending(declared: &Declared) -> impl Iterator<Item = (&ObjectKey, &Vec<String>)> {
    declared.standings.iter().filter_map(|(key, standing)| match standing {
        Standing::Pending { waits_for } => Some((key, waits_for)),
        _ => None,
    })
}

/// What is set aside, with the reason.
pub(super) fn reasons(declared: &Declared) -> impl Iterator<Item = (ObjectKey, String)> {
    declared.standings.iter().filter_map(|(key, standing)| match standing {
        Standing::SetAside { reason } => Some((key.clone(), reason.clone())),
        _ => None,
    })
}

/// Which of the frontends that listen may come to wait for a backend, and listen no more.
#[derive(Debug, Clone, Copy)]
pub(super) enum MayWait {
    None,
    /// Those that are declared anew: old clients declare a frontend before its backend.
    Changed,
    All,
}

impl MayWait {
    pub(super) fn of(request: &ConfigRequest, force: bool) -> Self {
        match request {
            _ if force => Self::All,
            ConfigRequest::Said { .. } => Self::Changed,
            _ => Self::None,
        }
    }
}

/// Whether a change leaves whole what it touches and what was there. Frontends that listened nowhere
/// and still do, for another one has their address now, are told of: whoever declares a backend is
/// not to blame for what else waits.
pub(super) fn judge(
    before: &SettingsFile,
    after: &SettingsFile,
    objects: &Objects,
    changed: &BTreeSet<ObjectKey>,
    may_wait: MayWait,
) -> Result<Vec<Fault>, Error> {
    let was = |key: &ObjectKey| before.declared().standings.get(key);
    let is_new = |key: &ObjectKey, standing: &Standing| was(key) != Some(standing);
    let is_left = |key: &ObjectKey| {
        let told = after.declared().faults.get(key);
        !changed.contains(key)
            && was(key).is_some_and(|was| !was.counts())
            && told.is_some_and(|told| told.iter().all(|text| is_of_address(text)))
    };
    set_aside(after, |key, standing| {
        changed.contains(key) || (is_new(key, standing) && !is_left(key))
    })?;
    for (key, waits_for) in pending(after.declared()) {
        // A slip in a name must not take one off the air that listens.
        let may_wait = match may_wait {
            MayWait::None => false,
            MayWait::Changed => changed.contains(key),
            MayWait::All => true,
        };
        if was(key).is_some_and(Standing::counts) && !may_wait {
            let spec = objects.get(key).map(|object| targets(&object.spec));
            let names = waits_for.iter().filter(|name| {
                spec.as_ref().is_some_and(|targets| targets.contains(name.as_str()))
            });
            let names: Vec<_> = names.map(String::as_str).collect();
            return Err(Error::ObjectConflict(format!(
                "{key} sends requests to {}, which is no backend then, and would not listen any \
                    more; declare that first, or send them elsewhere{FORCE} has the frontend wait for it)",
                names.join(", ")
            )));
        }
    }
    Ok(faults(after, |key, standing| is_new(key, standing) && is_left(key)))
}

/// Those that would be set aside, of those that are looked at.
pub(super) fn set_aside(
    file: &SettingsFile,
    is_looked_at: impl Fn(&ObjectKey, &Standing) -> bool,
) -> Result<(), Error> {
    let faults = faults(file, is_looked_at);
    if faults.is_empty() {
        return Ok(());
    }
    let words = |fault: &Fault| {
        let resource = fault.resource.as_deref().unwrap_or_default();
        let setting =
            fault.setting.as_ref().map_or(String::new(), |setting| format!("{setting}: "));
        format!("{resource}: {setting}{}", fault.detail)
    };
    let detail = faults.iter().map(words).collect::<Vec<_>>().join("; ");
    Err(Error::InvalidConfig { detail, faults })
}

/// What is wrong with those that are set aside, of those that are looked at.
fn faults(file: &SettingsFile, is_looked_at: impl Fn(&ObjectKey, &Standing) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, standing) in file.declared().standings.iter() {
        if let Standing::SetAside { reason } = standing
            && is_looked_at(key, standing)
        {
            let told = file.declared().faults.get(key);
            let told = told.map_or(std::slice::from_ref(reason), Vec::as_slice);
            faults.extend(told.iter().map(|text| {
                let (setting, detail) = setting_of(text);
                Fault {
                    resource: Some(key.to_string()),
                    setting: setting.map(str::to_owned),
                    detail: detail.to_owned(),
                    ..Fault::default()
                }
            }));
        }
    }
    faults
}
