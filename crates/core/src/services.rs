//! Services that a registry declares: what it says of them, and how they stand.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::desired::guard::{self, Limits, Proposal, Recent, Subject};
use crate::revision::ChangeCounts;
use crate::snapshot::Content;
use crate::status::SourceStatus;

/// The text of each service, by its name.
pub type ServiceForms = BTreeMap<String, String>;

/// What a registry says of its services, before any of it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTexts {
    /// Each service's text, or why it has none, by its name.
    pub texts: BTreeMap<String, Result<String, String>>,
}

impl Content for ServiceTexts {
    fn count(&self) -> usize {
        self.texts.len()
    }
}

impl From<ServiceForms> for ServiceTexts {
    fn from(forms: ServiceForms) -> Self {
        Self { texts: forms.into_iter().map(|(name, text)| (name, Ok(text))).collect() }
    }
}

impl ServiceTexts {
    /// Has those that are gone stay where too many of the services in force are, or all of them and
    /// `may_be_empty` is not set. Why, if so.
    pub fn hold(
        &mut self,
        in_force: &ServiceForms,
        limits: &Limits,
        may_be_empty: bool,
    ) -> Option<String> {
        let gone = || in_force.iter().filter(|(name, _)| !self.texts.contains_key(*name));
        let removed = gone().count();
        if self.texts.is_empty() && may_be_empty {
            return None;
        }
        let proposal = Proposal {
            in_force: (!in_force.is_empty()).then_some(in_force.len()),
            entries: self.texts.len(),
            counts: ChangeCounts { removed, ..ChangeCounts::default() },
            recent: Recent::default(),
        };
        let why = guard::check(Subject::Services, limits, &proposal).err()?;
        let staying: Vec<_> = gone().map(|(name, text)| (name.clone(), Ok(text.clone()))).collect();
        self.texts.extend(staying);
        Some(why)
    }
}

/// How the services of a registry stand. The API and the CLI show it as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesStatus {
    /// Where they come from.
    pub source: SourceStatus,
    /// Those in force, by name; none before any are known.
    pub in_force: Option<Vec<ServiceStatus>>,
    /// Since when these are in force, if none came from the registry since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_since: Option<Timestamp>,
    /// What is not used as the registry has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedService>,
    /// Whether nothing listens by order: `loadbalancer` is false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Why services that the registry does not have any more stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// A service in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name, which is its backend's too; of a portmap, its port.
    pub name: String,
    /// What it is, of a portmap: `https-http`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it listens.
    pub bind: String,
    /// Where its servers come from.
    pub servers: String,
}

/// A service that is not used as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedService {
    pub name: String,
    /// What is wrong, with the key.
    pub reason: String,
    /// Whether HAProxy says so.
    pub by_haproxy: bool,
    /// Whether it is in force as it was before.
    pub keeps_last_good: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(names: impl IntoIterator<Item = usize>) -> ServiceForms {
        names.into_iter().map(|name| (format!("s{name}"), "{}".to_owned())).collect()
    }

    fn held(in_force: usize, left: usize, may_be_empty: bool) -> (Option<String>, usize) {
        let mut texts = ServiceTexts::from(forms(0..left));
        let why = texts.hold(&forms(0..in_force), &Limits::default(), may_be_empty);
        (why, texts.texts.len())
    }

    #[test]
    fn services_that_vanish_all_or_too_many_at_once_stay() {
        let (why, left) = held(3, 0, false);
        assert!(why.is_some_and(|why| why.contains("has 0 services")));
        assert_eq!(left, 3);
        let (why, left) = held(30, 20, false);
        assert!(why.is_some_and(|why| why.contains("remove 10 of the 30 services in force")));
        assert_eq!(left, 30);
    }

    #[test]
    fn a_few_may_go_and_all_where_the_settings_say_so() {
        assert_eq!(held(30, 25, false), (None, 25));
        assert_eq!(held(3, 2, false), (None, 2));
        assert_eq!(held(3, 0, true), (None, 0));
    }

    #[test]
    fn an_answer_without_any_is_no_first_answer() {
        assert!(held(0, 0, false).0.is_some());
        assert_eq!(held(0, 0, true), (None, 0));
    }

    #[test]
    fn what_is_held_keeps_no_other_service_from_changing() {
        let mut texts = ServiceTexts::default();
        texts.texts.insert("s0".to_owned(), Ok("changed".to_owned()));
        let why = texts.hold(&forms(0..30), &Limits::default(), false);
        assert!(why.is_some());
        assert_eq!(texts.texts["s0"], Ok("changed".to_owned()));
    }
}
