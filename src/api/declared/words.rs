//! What a change of what is declared comes to, in words.

use mapsmith_core::objects::{Action, Change, ObjectKey};

/// How many frontends that wait are named, and how much that is set aside.
const NAMED: usize = 3;

/// The frontends of one change that wait for backends, and how many others it changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    words: Option<String>,
    others: usize,
}

/// Which of what is changed waits: HAProxy does not have that, whatever else it has.
pub(super) fn waiting(changes: &[Change], pending: &[(ObjectKey, Vec<String>)]) -> Waiting {
    let is_changed = |key: &ObjectKey| {
        let key = key.to_string();
        changes.iter().any(|it| it.object == key)
    };
    let waiting: Vec<_> = pending.iter().filter(|(key, _)| is_changed(key)).collect();
    let words = |(key, names): &&(ObjectKey, Vec<String>)| {
        let backends = if names.len() == 1 { "backend" } else { "backends" };
        format!("{key} waits for {backends} {} and listens nowhere yet", names.join(" and "))
    };
    let mut named: Vec<_> = waiting.iter().take(NAMED).map(words).collect();
    if waiting.len() > NAMED {
        named.push(format!("so do {} more", waiting.len() - NAMED));
    }
    let words = (!named.is_empty()).then(|| named.join("; "));
    Waiting { words, others: changes.len() - waiting.len() }
}

/// Which of what was asked for is set aside, and why; none where nothing is.
pub(super) fn set_aside<'a>(idle: impl Iterator<Item = &'a (ObjectKey, String)>) -> Option<String> {
    let words = |(key, reason): &'a (ObjectKey, String)| {
        format!("{key} is set aside, and HAProxy runs without it: {reason}")
    };
    let idle: Vec<_> = idle.collect();
    let mut named: Vec<_> = idle.iter().take(NAMED).copied().map(words).collect();
    if idle.len() > NAMED {
        named.push(format!("so are {} more", idle.len() - NAMED));
    }
    (!named.is_empty()).then(|| named.join("; "))
}

/// Nobody waits for HAProxy to have it.
pub(super) fn requested(changes: &[Change], waiting: &Waiting) -> String {
    let what = in_words(changes);
    match &waiting.words {
        _ if changes.is_empty() => what,
        None => format!("{what}; it is stored, and HAProxy gets it now"),
        Some(words) if waiting.others == 0 => format!("{what}; it is stored; {words}"),
        Some(words) => format!("{what}; it is stored, and HAProxy gets the rest now; {words}"),
    }
}

/// HAProxy has all of it that it can have.
pub(super) fn in_force(changes: &[Change], waiting: &Waiting) -> String {
    let what = in_words(changes);
    let is_gone = |change: &Change| change.action == Action::Delete;
    match &waiting.words {
        _ if changes.is_empty() => what,
        None if changes.len() == 1 && changes.iter().all(is_gone) => {
            format!("{what}; HAProxy runs without it")
        }
        None if changes.iter().all(is_gone) => format!("{what}; HAProxy runs without them"),
        None => format!("{what}; HAProxy runs with it"),
        Some(words) if waiting.others == 0 => format!("{what}; it is stored; {words}"),
        Some(words) => format!("{what}; HAProxy runs with the rest; {words}"),
    }
}

/// What is changed.
pub(super) fn in_words(changes: &[Change]) -> String {
    match changes {
        [] => "nothing changes".to_owned(),
        [one] => format!("{} {}", one.object, one.action.done()),
        many => {
            let count = |action: &str| many.iter().filter(|it| it.action.done() == action).count();
            let counts = ["added", "changed", "deleted"].map(|it| (count(it), it));
            let some = counts.into_iter().filter(|(count, _)| *count > 0);
            let words: Vec<_> = some.map(|(count, what)| format!("{count} {what}")).collect();
            format!("frontends and backends: {}", words.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use mapsmith_core::objects::ObjectKind;

    use super::*;

    fn key(kind: ObjectKind, name: &str) -> ObjectKey {
        ObjectKey::new(kind, name)
    }

    fn change(kind: ObjectKind, name: &str, action: Action) -> Change {
        Change { object: key(kind, name).to_string(), action, fields: Vec::new() }
    }

    #[test]
    fn a_frontend_that_waits_is_not_said_to_be_what_haproxy_runs_with() {
        let web = change(ObjectKind::Frontend, "web", Action::Add);
        let pending = [
            (key(ObjectKind::Frontend, "web"), vec!["app".to_owned()]),
            (key(ObjectKind::Frontend, "older"), vec!["other".to_owned()]),
        ];
        let alone = [web.clone()];
        let waits = "it is stored; frontends/web waits for backend app and listens nowhere yet";
        let expected = format!("frontends/web added; {waits}");
        assert_eq!(in_force(&alone, &waiting(&alone, &pending)), expected);
        assert_eq!(requested(&alone, &waiting(&alone, &pending)), expected);

        let both = [web, change(ObjectKind::Backend, "api", Action::Add)];
        let said = in_force(&both, &waiting(&both, &pending));
        assert!(said.contains("HAProxy runs with the rest; frontends/web waits for"), "{said}");
        assert!(!said.contains("older"), "it is no part of the change: {said}");

        let other = [change(ObjectKind::Backend, "api", Action::Add)];
        let said = in_force(&other, &waiting(&other, &pending));
        assert_eq!(said, "backends/api added; HAProxy runs with it");
    }

    #[test]
    fn what_is_deleted_is_what_haproxy_runs_without_and_nothing_is_nothing() {
        let gone = [change(ObjectKind::Backend, "app", Action::Delete)];
        let said = in_force(&gone, &Waiting::default());
        assert_eq!(said, "backends/app deleted; HAProxy runs without it");
        assert_eq!(in_force(&[], &Waiting::default()), "nothing changes");
        assert_eq!(requested(&[], &Waiting::default()), "nothing changes");
    }
}
