//! Versions of members that a change of what is declared orders: such a change is made like a
//! switch, so it is in force once the members of the new version serve alone.

use std::time::Duration;

use mapsmith_core::members::{BackendVersion, SwitchPhase};
use mapsmith_core::objects::{ObjectKey, ObjectKind, Objects, Spec};
use tokio::time::{Instant, sleep_until};

use crate::api::Api;

/// How often it is looked how far a switch is: the tasks that make it begin anew with the change, so
/// there is nobody to be woken by.
const LOOK: Duration = Duration::from_millis(50);

/// The version of a backend's members that a change orders.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OrderedVersion {
    backend: String,
    version: String,
}

impl OrderedVersion {
    /// Whether this is its switch, and it is not done.
    fn is_awaited(&self, now: &BackendVersion) -> bool {
        now.version == self.version
            && now.declared == self.version
            && now.is_of_settings()
            && now.phase != SwitchPhase::Settled
    }
}

/// The versions that backends have in another `from` than before.
pub(super) fn ordered_versions(before: &Objects, after: &Objects) -> Vec<OrderedVersion> {
    let version = |spec: &Spec| Some(spec.get("from")?.get("version")?.as_str()?.to_owned());
    let ordered = |key: &ObjectKey| {
        let (old, new) = (before.get(key)?, after.get(key)?);
        let new = version(&new.spec).filter(|new| version(&old.spec).as_ref() != Some(new))?;
        Some(OrderedVersion { backend: key.name.clone(), version: new })
    };
    let backends = after.items.keys().filter(|key| key.kind == ObjectKind::Backend);
    backends.filter_map(ordered).collect()
}

impl Api {
    /// Waits until the members of these versions serve alone; why they do not by then.
    pub(super) async fn wait_for_members(
        &self,
        ordered: &[OrderedVersion],
        deadline: Instant,
    ) -> Option<String> {
        let service = self.members.as_ref()?;
        for one in ordered {
            while let Some(now) = service.version(&one.backend).filter(|now| one.is_awaited(now)) {
                if Instant::now() >= deadline {
                    let why = service.wait_of(&one.backend);
                    let why = why.unwrap_or_else(|| "it is on its way".to_owned());
                    let BackendVersion { backend, version, serving, .. } = now;
                    return Some(match serving.is_empty() {
                        true => format!("the old members of {backend} leave: {why}"),
                        false => format!(
                            "the members of {} stay in {backend} until those of version {version} \
                                are ready: {why}",
                            serving.join(", ")
                        ),
                    });
                }
                sleep_until(deadline.min(Instant::now() + LOOK)).await;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mapsmith_core::Note;
    use mapsmith_core::objects::Edits;
    use serde_json::json;

    use super::*;

    #[test]
    fn another_version_in_from_is_an_order_and_nothing_else_is() {
        let put = |before: &Objects, name: &str, spec: serde_json::Value| {
            let key = ObjectKey::new(ObjectKind::Backend, name);
            let edits = Edits::put(before, key, spec.as_object().unwrap(), None, "anna").unwrap();
            edits.after(before, Timestamp::UNIX_EPOCH, &Note::default()).unwrap()
        };
        let of = |version: &str| json!({"source": "reg", "name": "app", "version": version});
        let before = put(&Objects::default(), "dyn", json!({"from": of("1")}));
        let after = put(&before, "dyn", json!({"from": of("2")}));
        let expected = OrderedVersion { backend: "dyn".to_owned(), version: "2".to_owned() };
        assert_eq!(ordered_versions(&before, &after), [expected]);
        let after = put(&before, "dyn", json!({"from": of("1"), "retries": 2}));
        assert_eq!(ordered_versions(&before, &after), []);
        let after = put(&before, "new", json!({"from": of("2")}));
        assert_eq!(ordered_versions(&before, &after), [], "there is nobody to switch from");
    }
}
