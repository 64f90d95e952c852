//! What the services of a registry are, and what is wrong with each.

use mapsmith_core::services::{RejectedService, ServicesStatus};

use super::{Finding, finding};
use crate::cli::output::pluralize;
use crate::services::Known;
use crate::settings::Settings;

/// What the store has of services; none with a finding where it can't be read.
pub(super) async fn stored(settings: &Settings) -> (Known, Option<Finding>) {
    match Known::from_store(settings).await {
        Ok(known) => (known, None),
        Err(error) => (Known::default(), Some(finding("stored services", Err(error.to_string())))),
    }
}

/// All of them together, then those that are rejected.
pub(super) fn check_services(services: &ServicesStatus) -> Vec<Finding> {
    let ServicesStatus { source, in_force, rejected, held, kept, .. } = services;
    let count = pluralize(in_force.as_ref().map_or(0, Vec::len), "service");
    let why = held.as_ref().map(|held| &held.reason).or(kept.as_ref());
    let all = match (&source.error, why) {
        (Some(error), _) if in_force.is_some() => {
            Err(format!("{}: {error}; {count} of the store", source.name))
        }
        (Some(error), _) => Err(format!("{}: {error}", source.name)),
        (None, Some(why)) => Err(format!("{} are held: {why}", source.name)),
        (None, None) => Ok(format!("{count} from {}", source.name)),
    };
    let of_one = |rejected: &RejectedService| {
        let RejectedService { name, reason, .. } = rejected;
        finding(format!("service {name}"), Err(reason.clone()))
    };
    let all = finding("services", all);
    [all].into_iter().chain(rejected.iter().map(of_one)).collect()
}
