//! Which instances get a canary.

use super::InstanceView;

/// Who is to get a canary first.
#[derive(Debug, Clone, PartialEq)]
pub enum CanaryInstances {
    Named(Vec<String>),
    /// Of all instances, in percent.
    Share(f64),
}

impl Eq for CanaryInstances {}

/// Why no instances can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    #[error("there is no instance {name}; there are {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("a canary of every instance is none: leave an instance out, or `canary`")]
    Everyone,
}

/// The instances that get a canary, in the order of the settings. Of a share those that are in sync
/// come first, then by name: one that can't be reached shows nothing.
///
/// # Errors
/// One is not known, or none would be left without it.
pub fn choose(
    wanted: &CanaryInstances,
    instances: &[InstanceView],
) -> Result<Vec<String>, ChoiceError> {
    let known = || instances.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    let chosen: Vec<String> = match wanted {
        CanaryInstances::Named(names) => {
            let unknown = names.iter().find(|name| instances.iter().all(|it| it.name != **name));
            if let Some(name) = unknown {
                return Err(ChoiceError::Unknown { name: name.clone(), known: known() });
            }
            names.clone()
        }
        CanaryInstances::Share(percent) => {
            let mut order: Vec<_> = instances.iter().collect();
            order.sort_by_key(|it| (!it.state.is_in_sync(), &it.name));
            let count = (percent / 100.0 * instances.len() as f64).ceil().max(1.0) as usize;
            order.into_iter().take(count).map(|it| it.name.clone()).collect()
        }
    };
    let chosen: Vec<_> = known().into_iter().filter(|name| chosen.contains(name)).collect();
    match chosen.len() < instances.len() {
        true => Ok(chosen),
        false => Err(ChoiceError::Everyone),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::status::InstanceState;

    fn fleet(names: &[&str]) -> Vec<InstanceView> {
        let view = |name: &&str| {
            let state = match name.starts_with('x') {
                true => InstanceState::Unreachable {
                    since: Timestamp::UNIX_EPOCH,
                    error: "refused".to_owned(),
                },
                false => InstanceState::InSync { revision: 1 },
            };
            InstanceView { name: (*name).to_owned(), state }
        };
        names.iter().map(view).collect()
    }

    #[test]
    fn a_share_is_rounded_up_and_takes_those_that_can_show_something() {
        let fleet = fleet(&["x1", "e3", "e2", "e1"]);
        for (percent, expected) in
            [(1.0, &["e1"][..]), (26.0, &["e2", "e1"]), (75.0, &["e3", "e2", "e1"])]
        {
            let chosen = choose(&CanaryInstances::Share(percent), &fleet);
            assert_eq!(chosen.as_deref(), Ok(&expected.map_owned()[..]), "{percent}");
        }
        assert_eq!(choose(&CanaryInstances::Share(80.0), &fleet), Err(ChoiceError::Everyone));
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|name| (*name).to_owned()).collect()
        }
    }

    #[test]
    fn named_instances_are_known_and_not_all_of_them() {
        let fleet = fleet(&["e1", "e2"]);
        let named = |names: &[&str]| choose(&CanaryInstances::Named(names.map_owned()), &fleet);
        assert_eq!(named(&["e2", "e2"]), Ok(vec!["e2".to_owned()]));
        assert_eq!(named(&["e1", "e2"]), Err(ChoiceError::Everyone));
        let unknown = named(&["e9"]).unwrap_err().to_string();
        assert_eq!(unknown, "there is no instance e9; there are e1, e2");
    }
}
