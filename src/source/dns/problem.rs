//! A name that can't be resolved: which setting says what becomes of it, and what a person is told.
//! Pure.

use std::fmt::Write as _;

use hickory_resolver::proto::rr::RecordType;

use super::answer::{Absence, Failure};
use super::keys::{DnsKeys, Unresolved};
use crate::source::error::{SourceError, SourceErrorKind};

/// A name that can't be resolved.
#[derive(Debug)]
pub(super) struct Problem {
    pub setting: Setting,
    /// The name and the types of its records.
    pub place: String,
    pub text: String,
    /// For so many seconds.
    pub ttl: Option<u32>,
}

/// Which of the settings says what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    NxDomain,
    NoData,
    ServFail,
    NoAnswer,
    /// None: a failure always.
    Failure,
}

impl Setting {
    pub(super) fn of(self, keys: &DnsKeys) -> Unresolved {
        match self {
            Self::NxDomain => keys.nxdomain,
            Self::NoData => keys.nodata,
            Self::ServFail => keys.servfail,
            Self::NoAnswer => keys.no_answer,
            Self::Failure => Unresolved::Keep,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::NxDomain => Some("nxdomain"),
            Self::NoData => Some("nodata"),
            Self::ServFail => Some("servfail"),
            Self::NoAnswer => Some("no_answer"),
            Self::Failure => None,
        }
    }
}

impl Problem {
    pub(super) fn absent(
        place: String,
        absence: Absence,
        ttl: Option<u32>,
        server: impl ToString,
    ) -> Self {
        let server = server.to_string();
        let (setting, text) = match absence {
            Absence::NxDomain => (
                Setting::NxDomain,
                format!("{server} says that the name does not exist (NXDOMAIN)"),
            ),
            Absence::NoData => (
                Setting::NoData,
                format!("{server} says that the name has no such record (an empty answer)"),
            ),
        };
        Self { setting, place, text, ttl }
    }

    /// A service that is decidedly not there (RFC 2782, "Target").
    pub(super) fn no_service(place: String, ttl: u32) -> Self {
        let text = "the record's target is \".\": there is no such service".to_owned();
        Self { setting: Setting::NoData, place, text, ttl: Some(ttl) }
    }

    /// Where no name server said what is. Where they failed in different ways, only what would be
    /// empty for each of them is.
    pub(super) fn failed<S: ToString>(
        place: String,
        failures: &[(S, Failure)],
        keys: &DnsKeys,
    ) -> Self {
        let setting = |failure: &Failure| match failure {
            Failure::ServFail => Setting::ServFail,
            Failure::NoAnswer(_) | Failure::Unreachable(_) => Setting::NoAnswer,
            Failure::Refused(_) | Failure::Malformed(_) => Setting::Failure,
        };
        let settings = || failures.iter().map(|(_, failure)| setting(failure));
        let kept = settings().find(|setting| setting.of(keys) == Unresolved::Keep);
        let setting = kept.or_else(|| settings().next()).unwrap_or(Setting::Failure);
        let mut text = String::new();
        for (server, failure) in failures {
            let comma = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{comma}{} {failure}", server.to_string());
        }
        Self { setting, place, text, ttl: None }
    }

    /// Where the name has addresses of the other family: a list of these alone is one order away.
    pub(super) fn beside(mut self, answered: Option<RecordType>) -> Self {
        let family = match answered {
            Some(RecordType::A) => "ipv4",
            Some(RecordType::AAAA) => "ipv6",
            _ => return self,
        };
        let _ = write!(
            self.text,
            "; the other family is answered: to ask for it alone set family = \"{family}\" in from"
        );
        self
    }

    /// What to do about it, as a source's error.
    pub(super) fn into_error(self) -> SourceError {
        let advice = match (self.setting, self.setting.name()) {
            (Setting::NxDomain | Setting::NoData, Some(key)) => format!(
                "; correct the name in from or in DNS, or set {key} to \"empty\" where that means \
                    no servers"
            ),
            _ => String::new(),
        };
        let fault = SourceErrorKind::Registry(format!("{}{advice}", self.text));
        SourceError { place: self.place, fault }
    }

    pub(super) fn into_warning(self) -> String {
        let Self { setting, place, text, .. } = self;
        let key = setting.name().unwrap_or_default();
        format!("{place}: {text}; taken for no servers ({key} = \"empty\")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_fails_beside_one_that_is_answered_names_the_setting_that_leaves_it_out() {
        let keys = DnsKeys::default();
        for (answered, part) in [
            (Some(RecordType::A), Some("set family = \"ipv4\" in from")),
            (Some(RecordType::AAAA), Some("set family = \"ipv6\" in from")),
            (None, None),
        ] {
            let failures = [("10.0.0.53:53", Failure::ServFail)];
            let problem = Problem::failed("web.test (AAAA)".to_owned(), &failures, &keys);
            let told = problem.beside(answered).into_error().to_string();
            assert!(told.contains("web.test (AAAA)") && told.contains("SERVFAIL"), "{told}");
            assert_eq!(told.contains("family"), part.is_some(), "{told}");
            assert!(part.is_none_or(|part| told.contains(part)), "{told}");
        }
    }
}
